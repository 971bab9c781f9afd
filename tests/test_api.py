"""`import unlearnkit as uk`: a plain torch network, one of timm's and a folder, without a study."""

import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from conftest import differing
from torch import nn

import unlearnkit as uk
from unlearnkit import api, files, models, plugins
from unlearnkit.api import DISTANCE
from unlearnkit.attacks import ATTACKS, score_images
from unlearnkit.distance import minimal_distances
from unlearnkit.errors import UserError
from unlearnkit.measures import MEASURES, quality
from unlearnkit.methods import METHODS
from unlearnkit.training import Recipe, train

QUICK = {"attacked": 9, "steps": 5}
HOW = {"lr": 0.01, "epochs": 1, "batch_size": 8}


class Plain(nn.Module):
    """A network whose attributes are called as some of the kit's are, and mean something else."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.mean, self.std = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        self.architecture = "resnet50"
        self.features = nn.Linear(8, classes)

    def forward(self, images):
        maps = self.net(self.std(self.mean(images)).relu()).relu()
        return self.features(maps.mean((2, 3)))


@pytest.fixture(scope="module")
def data(toy):
    """The toy data, from arrays in another layout."""
    train_images, test_images = (
        x.permute(0, 2, 3, 1).numpy() for x in (toy.train_images, toy.test_images)
    )
    arrays = (train_images, toy.train_labels, test_images, toy.test_labels, toy.classes)
    return uk.load_data(arrays, flip=False)


@pytest.fixture(scope="module")
def trained(data):
    """A function that trains a network on the data and returns it."""

    def go(net, **how):
        recipe = Recipe(**{"lr": 5e-3, "epochs": 10, "batch_size": 8, "optimizer": "adam"} | how)
        return train(net, data, torch.arange(len(data.train_labels)), recipe, seed=0).model

    return go


@pytest.fixture(scope="module")
def plain(trained):
    """A trained plain network."""
    torch.manual_seed(0)
    return trained(Plain())


def test_tensors_are_data_as_they_are(data, toy):
    assert data.fingerprint == toy.fingerprint and not data.flip and data.image_size == 8
    rest = (toy.train_labels, toy.test_images, toy.test_labels)
    floats = uk.load_data((data.train_images / 255, *rest))
    assert torch.equal(floats.train_images, data.train_images) and floats.classes == ("0", "1", "2")
    with pytest.raises(UserError, match=r"float32 in \[-2, 2\]; give uint8, or floats in \[0, 1\]"):
        uk.load_data((data.train_images / 63.75 - 2, *rest))
    assert uk.load_data("digits", test_images=20).name == "digits"


def test_a_split_of_given_positions(data):
    found = uk.split(data, [5, 3, 40], validation=0.25, seed=1)
    assert found.forget.tolist() == [3, 5, 40] and len(found.validation) == 12
    whole = torch.cat([found.retain, found.forget, found.validation])
    assert whole.sort().values.equal(torch.arange(48))
    assert len(uk.split(data, "random:0.25").forget) == 12
    for wrong in ([], [1, 1], [48], [-1], [0.5], range(48), [[1]]):
        with pytest.raises(UserError, match="different whole numbers from 0 to 47, fewer than all"):
            uk.split(data, wrong)


@pytest.mark.parametrize("scope", ["all", "last"])
def test_a_plain_network_unlearns_whatever_its_attributes_are_called(plain, data, scope):
    split, before = uk.split(data, "class:a"), {k: v.clone() for k, v in plain.state_dict().items()}
    forgot = uk.unlearn(plain, data, split, method="salun", scope=scope, **HOW)
    assert not differing(plain, before) and type(forgot) is Plain and not forgot.training
    moved = {name.partition(".")[0] for name in differing(forgot, plain)}
    assert moved == ({"net", "features"} if scope == "last" else {"mean", "std", "net", "features"})


def test_what_is_measured_is_what_the_parts_measure(plain, data):
    split = uk.split(data, "random:0.25")
    found = uk.measure(plain, data, split, epsilons=[8, 2], **QUICK)
    value = quality(plain, data, split, seed=0, mia_images=0, batch_size=8)
    for name in ("UA", "RA", "TA", "MIA"):
        assert found.numbers[f"{name} (%)"] == pytest.approx(value[name])
    assert list(found.layers.index) == ["std", "net.1"]
    assert (found.layers["relative gap"] > found.layers["fairness-gap"] * 0).all()
    index = torch.tensor(found.images.index.tolist())
    assert np.bincount(data.test_labels[index]).tolist() == [3, 3, 3]
    images, labels = data.test_images[index], data.test_labels[index]
    sizes = 255 * minimal_distances(plain, images, labels, steps=5)
    assert found.images[DISTANCE].tolist() == sizes.tolist()
    assert found.numbers[DISTANCE] == sizes.sort().values[4]
    right = score_images(plain, data.test_images, data.test_labels).double()
    table = found.classes
    for label, name in enumerate(data.classes):
        assert table.loc[name, "accuracy (%)"] == 100 * right[data.test_labels == label].mean()
    under = "accuracy under PGD, ε = {}/255 (%)"
    assert table[under.format(2)].mean() == pytest.approx(found.numbers[under.format(2)])
    assert found.numbers[under.format(8)] <= found.numbers[under.format(2)]
    assert uk.measure(plain, data, **QUICK).numbers.index[0] == "TA (%)"


def test_a_forgotten_class_is_left_out(plain, data):
    found = uk.measure(plain, data, uk.split(data, "class:b"), **QUICK)
    assert found.classes["attacked"].isna().tolist() == [False, True, False]
    assert not np.intersect1d(found.images.index, (data.test_labels == 1).nonzero()[:, 0]).size


def test_excess_is_paired_by_image(plain, data):
    split = uk.split(data, "random:0.25")
    a, b = (uk.measure(m, data, split, **QUICK) for m in (plain, Plain().eval()))
    table = uk.compare(a, b)
    assert table.loc["TA (%)", "excess"] == a.numbers["TA (%)"] - b.numbers["TA (%)"]
    paired = (a.images[DISTANCE] - b.images[DISTANCE]).median()
    assert table.loc[DISTANCE, "excess"] == paired
    assert (uk.compare(a, a)["excess"].dropna() == 0).all()


def test_a_network_of_timm_on_normalised_images_and_its_folder(toy, tmp_path):
    dim = replace(toy, train_images=toy.train_images // 4, test_images=toy.test_images // 4)
    net, how = timm.create_model("test_resnet", num_classes=3), {"batch_size": 8, "epochs": 20}
    model = uk.normalised(net, dim.mean, dim.std)
    train(model, dim, torch.arange(48), Recipe(lr=2e-3, optimizer="adam", **how), seed=0)
    split = uk.split(dim, "random:0.25")
    with pytest.raises(UserError, match=r"gets \d+ % of the images right, and \d+ % of them once"):
        uk.measure(net, dim, **QUICK)
    models.save_folder(model, tmp_path, image_size=8, classes=dim.classes)
    ours, theirs = (uk.unlearn(m, dim, split, method="cf", **HOW) for m in (model, tmp_path))
    assert not differing(ours, theirs) and differing(ours, model)
    a, b = (uk.measure(m, dim, **QUICK) for m in (model, str(tmp_path)))
    assert a.numbers.equals(b.numbers) and a.images.equals(b.images)
    models.save_folder(model, tmp_path, image_size=8, classes=["b", "a", "c"])
    with pytest.raises(UserError, match=r"model's classes are b, a, c, in this order; .* a, b, c$"):
        uk.measure(tmp_path, dim)


def test_retrain_needs_the_same_network_afresh(plain, data):
    split = uk.split(data, "random:0.25")
    again = uk.unlearn(plain, data, split, method="retrain", fresh=Plain, **HOW)
    assert len(differing(again, plain)) > 8
    with pytest.raises(UserError, match="`fresh` builds another network"):
        uk.unlearn(plain, data, split, method="retrain", fresh=lambda: nn.Linear(3, 3), **HOW)


def test_a_network_without_norms_has_no_gap(data):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.warns(UserWarning, match="no fairness-gap: expected a model with a normalisation"):
        found = uk.measure(net, data, **QUICK)
    assert found.layers.empty and "σ / mean σ" not in found.classes


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Plain(10), r"logits are of shape \[30, 10\]; expected float images \[N, 3, 8, 8\]"),
        (nn.Identity(), r"logits are of shape \[30, 3, 8, 8\]"),
        (nn.Linear(5, 3), r"the model fails \(mat1 and mat2 .*\); expected float .* a, b, c"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Threshold(9e9, torch.nan)), "not fin"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(data, net, says):
    for use in (uk.measure, lambda m, d: uk.unlearn(m, d, uk.split(d), method="cf")):
        with pytest.raises(UserError, match=says) as error:
            use(net, data)
        assert "\n" not in str(error.value)


PLUGIN = """
from unlearnkit.attacks import attack
from unlearnkit.measures import measure
from unlearnkit.methods import method

@method("shipped")
def shipped(run): ...

@attack("darkest")
def darkest(model, images, labels, epsilon, *, num_classes, seed): return images - epsilon

@measure("seven")
def seven(model, data, split, *, seed, batch_size): return 7
"""


def test_installed_packages_register(tmp_path, monkeypatch, plain, data):
    (tmp_path / "shipped.py").write_text(PLUGIN)
    (tmp_path / "shipped-1.dist-info").mkdir()
    points = "[unlearnkit]\nmine = shipped\nbroken = nosuchmodule\n"
    (tmp_path / "shipped-1.dist-info" / "entry_points.txt").write_text(points)
    (tmp_path / "shipped-1.dist-info" / "METADATA").write_text("Name: shipped\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="broken = nosuchmodule is left out: ModuleNotFoundError"):
        plugins.load_plugins()
    split = uk.split(data, "random:0.25")
    assert not differing(uk.unlearn(plain, data, split, method="shipped", **HOW), plain)
    found = uk.measure(plain, data, split, attack="darkest", extra=["seven"], **QUICK)
    assert found.numbers["seven"] == 7 and "accuracy under darkest, ε = 1/255 (%)" in found.numbers
    for registry, name in ((METHODS, "shipped"), (ATTACKS, "darkest"), (MEASURES, "seven")):
        del registry[name]


def test_the_lines_of_the_readme(monkeypatch, capsys):
    text = (files.project_folder() / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    few = uk.load_data("digits", train_images=200, test_images=100)
    monkeypatch.setattr(api, "load_data", lambda name: {"digits": few}[name])
    exec(code, {"model": Plain(10), "retrained": Plain(10)})
    assert "excess" in capsys.readouterr().out
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = uk.nosuch
