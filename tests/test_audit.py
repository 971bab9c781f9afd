"""The audit of a model made elsewhere: its card, where models and data come from, bad input."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import RECIPE
from helpers_study import made_data
from PIL import Image
from test_api import Plain
from torch import nn

import unlearnkit as uk
from unlearnkit import models
from unlearnkit.__main__ import main
from unlearnkit.api import audit as card
from unlearnkit.data import load, write_folder
from unlearnkit.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch, toy, original):
    """A working folder: images, two folders of models, a file of positions, a module."""
    monkeypatch.chdir(tmp_path)
    write_folder(toy, tmp_path / "images")
    data = load(f"folder:{tmp_path / 'images'}", size=8)
    split = uk.split(data, "random:0.25")
    (tmp_path / "forget.txt").write_text("".join(f"{i}\n" for i in split.forget.tolist()))
    model = original("small_vit")
    other = uk.unlearn(model, data, split, method="cf", **RECIPE)
    for name, net in (("ours", model), ("theirs", other)):
        models.save_folder(net, tmp_path / name, image_size=8, classes=toy.classes)
    module = ModuleType("mymodels")
    module.plain, module.number, module.fails = Plain, lambda: 7, lambda: 1 / 0
    torch.manual_seed(0)
    module.flat = lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    monkeypatch.setitem(sys.modules, "mymodels", module)
    return SimpleNamespace(folder=tmp_path, data=data, split=split, model=model, other=other)


def test_a_card_says_what_was_measured_in_three_forms(place, capsys):
    command = "audit ours --dataset folder:images --against theirs --forget forget.txt"
    assert main([*command.split(), "--attacked", "6", "--to", "card"]) == 0
    said = (place.folder / "card/audit.md").read_text("utf-8")
    assert said in capsys.readouterr().out
    values = json.loads((place.folder / "card/audit.json").read_text())
    pair = (place.model, place.other)
    a, b = (uk.measure(model, place.data, place.split, attacked=6) for model in pair)
    table = uk.compare(a, b)
    assert [row["measure"] for row in values["numbers"]] == list(table.index)
    for row, (_, expected) in zip(values["numbers"], table.iterrows(), strict=True):
        found = [row[name] for name in ("model", "against", "excess")]
        assert [np.inf if x is None else x for x in found] == pytest.approx(list(expected))
    gap = "fairness-gap"
    found = {row["layer"]: row[f"{gap}, excess"] for row in values["layers"]}
    assert len(found) == 9 and found == pytest.approx((a.layers[gap] - b.layers[gap]).to_dict())
    assert len(values["images"]) == 6 and [row["class"] for row in values["classes"]] == list("abc")
    page = BeautifulSoup((place.folder / "card/audit.html").read_text("utf-8"), "html.parser")
    assert page.title.text == "Audit of ours" and "forget: forget.txt, 12 training" in page.text
    rows = [table.find_all("tr") for table in page.find_all("table")]
    assert [len(each) - 1 for each in rows] == [len(table), 9, 3]
    assert rows[0][1].text.split() == ["UA", "(%)", *(f"{x:.4g}" for x in table.iloc[0])]
    assert f"| UA (%) | {' | '.join(f'{x:.4g}' for x in table.iloc[0])} |" in said


def test_a_function_of_ones_own_and_a_network_without_norms(place, capsys):
    command = ["--dataset", "folder:images", "--size", "8", "--attacked", "3"]
    assert main(["audit", "mymodels:plain", *command]) == 0
    assert "| net.1 |" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="expected a model with a normalisation layer"):
        card.audit("mymodels:flat", "folder:images", place.folder, size=8, attacked=3)
    assert json.loads((place.folder / "audit.json").read_text())["layers"] == []


def test_a_model_of_the_hub_is_fetched_without_pickles(place, monkeypatch):
    asked = {}

    def snapshot(name, allow_patterns):
        asked[name] = allow_patterns
        return str(place.folder / "ours")

    monkeypatch.setattr(card, "snapshot_download", snapshot)
    assert card.find_model("hf:you/ours").image_size == 8
    assert asked == {"you/ours": ["config.json", "model.safetensors"]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("nowhere", "no config.json and no model.safetensors in nowhere"),
        ("hf:no/such/name", "cannot get hf:no/such/name .*; expected hf:owner/name"),
        ("mymodels:nosuch", r"cannot make model mymodels:nosuch \(AttributeError: .*expected mod"),
        ("mymodels:fails", r"\(ZeroDivisionError: division by zero\); expected module:function"),
        ("mymodels:number", "mymodels:number returned a int; expected a torch.nn.Module"),
        ("ours --forget nofile", "cannot read nofile .*; expected a text file with the pos"),
        ("ours --forget ours/config.json", "cannot read ours/config.json .*; expected a text file"),
        ("ours --forget far.txt", "no positions of training images to forget; expected different"),
        ("ours --dataset digits", r"logits are of shape \[359, 3\]; .* to become logits \[N, 10\]"),
    ],
)
def test_bad_input_is_one_line(place, capsys, arguments, says):
    (place.folder / "far.txt").write_text("48\n")
    given = arguments.split()
    given += [] if "--dataset" in given else ["--dataset", "folder:images"]
    assert main(["audit", *given, "--attacked", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    with pytest.raises(UserError, match=says):
        raise UserError(line)
    assert not (place.folder / "audit").exists()


class Half(list):
    """A half of a data set as the package datasets has it: by column, pictures when asked for."""

    def __getitem__(self, name):
        return [row[name] for row in iter(self)]


def test_a_data_set_of_the_hub(monkeypatch):
    data, stand_in = made_data(), ModuleType("datasets")

    class ClassLabel:
        names = ("dark", "light")

    stand_in.ClassLabel, stand_in.Image = ClassLabel, type("Image", (), {})
    halves = {}
    for half, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("validation", data.test_images, data.test_labels),
    ):
        pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images]
        rows = zip(pictures, labels.tolist(), strict=True)
        halves[half] = Half({"id": 0, "img": x, "kind": label} for x, label in rows)
        halves[half].features = {"id": 0, "img": stand_in.Image(), "kind": ClassLabel()}
    known = {"you/made": halves, "you/half": {"train": halves["train"]}}
    stand_in.load_dataset = known.__getitem__
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    found = load("hf:you/made", size=8)
    assert found.name == "hf:you/made" and found.fingerprint == data.fingerprint
    assert load("hf:you/made", train_images=10).train_images.shape == (10, 3, 32, 32)
    with pytest.raises(UserError, match="halves train with columns id, img, kind; expected train"):
        load("hf:you/half")
    with pytest.raises(UserError, match=r"cannot get dataset hf:you/nosuch \('you/nosuch'\)"):
        load("hf:you/nosuch")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="hf: needs the package datasets; pip install 'unlearnkit"):
        load("hf:you/made")
