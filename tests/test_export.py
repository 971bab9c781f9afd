"""Models as folders: written from the store, loaded by timm and by us, refused if they are bad."""

import json
import re
import shutil

import pytest
import timm
import torch
from conftest import differing
from helpers_study import CF, ONE_SET, ORIGINAL, run_all
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from unlearnkit import models
from unlearnkit.__main__ import main
from unlearnkit.data.images import resized
from unlearnkit.errors import UserError
from unlearnkit.metrics import to_float
from unlearnkit.study.export import export, model_card

FIXED = {"num_classes": 3, "image_size": 32, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}
NETWORKS = [
    ("resnet50", {"width": 1 / 32, "stem_stride": 2}),
    ("small_vit", {"dim": 16, "heads": 2, "patch": 8}),
    ("small_vit", {"dim": 16, "heads": 2, "convolutions": 2}),
    ("test_resnet", {}),
    ("test_vit", {}),
]


def save(folder, name="small_vit", **options):
    """Write a small network, in evaluation mode, to `folder`; return it."""
    model = models.build(name, seed=1, **FIXED, **options).eval()
    models.save_folder(model, folder, image_size=32, classes=["a", "b", "c"])
    return model


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_timm_and_we_load_what_was_saved(tmp_path, name, options):
    model = save(tmp_path, name, **options)
    pixels = torch.randint(256, (2, 3, 40, 24), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    images = to_float(resized(pixels, torch.arange(2), 32))
    net = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    prepare = create_transform(**resolve_model_data_config(net))
    prepared = [prepare(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pixels]
    before = torch.random.get_rng_state()
    ours = models.load_folder(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(ours(images), model(images)) and not differing(ours, model)
    assert torch.allclose(net(torch.stack(prepared)), model(images), atol=1e-5)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")  # which is never opened
    assert not differing(models.load_folder(tmp_path), model)
    known = name if name in models.OWN else f"{name}.unlearnkit"
    assert ours.architecture == known and not ours.training
    assert len(models.norm_layers(ours)) == len(models.norm_layers(model))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label_names"] == ["a", "b", "c"]
    written = {path.name for path in tmp_path.iterdir()} - {"pytorch_model.bin"}
    assert written == {"config.json", "model.safetensors"}


def test_the_command_exports_every_finished_model(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(whole.store.folder))
    folder = tmp_path / "models"
    assert main(["export", "--profile", str(whole.profile.path), "--to", str(folder)]) == 0
    assert f"10 models to {folder}" in capsys.readouterr().out
    cells = {cell.name: cell for cell in whole.cells if cell.progress == 1}
    assert {path.name for path in folder.iterdir()} == cells.keys()
    images = to_float(whole.data.test_images[:8])
    for name, cell in cells.items():
        assert torch.equal(models.load_folder(folder / name)(images), whole.model(cell)(images))
    card, stages = (folder / CF.name / "README.md").read_text(), whole.stages(CF)
    assert f"`{stages[0].key}`" in card and "then made to forget by CF" in card
    values = {stage.name: whole.done(stage).value for stage in stages}
    for metric in ("UA", "RA", "TA", "MIA"):
        assert f"| {metric} (%) | {values['quality'][metric]:.4g} |" in card
    gaps = [max(row) - min(row) for row in values["fairness"]["std"]]
    assert f"| mean fairness-gap | {sum(gaps) / len(gaps):.4g} |" in card
    right = [5 * sum(row) for row in values["robustness"]["sets"]["test"]["right"]]
    shown = re.findall(r"accuracy under PGD, ε = (\w+) \(%\) \| (\S+) \|", card)
    assert shown == [("0", f"{right[0]:.4g}"), ("4", f"{right[1]:.4g}"), ("16", f"{right[2]:.4g}")]


def test_an_original_is_exported_once_and_what_is_lacking_is_named(
    vit, tmp_path, monkeypatch, capsys
):
    lab = vit(forget=[*ONE_SET, {**ONE_SET[0], "set": "class:3"}])
    other = lab.cells[1]
    lab.store.path("unlearn", lab.model_stage(CF).key, "safetensors").unlink()
    written, lacking = export(lab, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [ORIGINAL.name]
    assert written == 1 and [cell.forget for cell in lacking] == ["random:0.2", "class:3"]
    card = model_card(lab, [ORIGINAL, other])
    assert "forget set `random:0.2` | forget set `class:3` |" in card
    assert re.search(r"\| TA \(%\) \| [\d.]+ \| – \|", card)
    monkeypatch.setenv("UNLEARNKIT_STORE", str(lab.store.folder))
    command = f"--profile {lab.profile.path} --dataset digits"
    assert main(["export", *command.split(), "--to", str(tmp_path / "models")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"lacks {CF}, small_vit class:3 seed 0 cf; `python -m unlearnkit compute" in line
    assert f"{command}` computes them" in line
    assert not lab.store.path("unlearn", lab.model_stage(CF).key, "safetensors").exists()


def test_a_card_says_the_median_of_the_distances(vit):
    lab = vit(distance={"test": 11, "steps": 3})
    run_all(lab)
    (stage,) = (stage for stage in lab.stages(CF) if stage.name == "distance")
    sizes = [1e9 if size is None else size for size in lab.done(stage).value["distances"]]
    shown = re.search(r"\| median minimal distance \(1/255\) \| (\S+) \|", model_card(lab, [CF]))
    assert float(shown[1].replace("inf", "1e9")) == pytest.approx(sorted(sizes)[5], rel=1e-3)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write a model to .*file"):
        save(tmp_path / "file", dim=16, heads=2)


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(folder):
    """Leave out a class in the weights."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({n: w[:2] if n.startswith("head.") else w for n, w in weights.items()}, path)


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "no config.json and no model.safetensors in .*: expected config.json and"),
        (lambda f: (f / "config.json").unlink(), "no config.json in .*, as timm writes them"),
        (pickled, "no model.safetensors in .*; pickles are not read"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "names no architecture"),
        (lambda f: (f / "config.json").write_text('{"model_type": "vit"}'), "names no architect"),
        (lambda f: config(f, architecture="nosuch"), "Unknown model .nosuch"),
        (lambda f: config(f, architecture="test_resnet"), "cannot be used: .*; expected a classif"),
        (lambda f: config(f, num_classes=5), "size mismatch for head.weight"),
        (lambda f: config(f, num_classes=0), "cannot be used"),
        (cut, "size mismatch for head.weight"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"not tensors"),
            "cannot be used: .*eader",
        ),
    ],
)
def test_a_bad_folder_is_refused(tmp_path, spoil, says):
    folder = tmp_path / "model"
    save(folder, dim=16, heads=2)
    spoil(folder)
    with pytest.raises(UserError, match=says) as error:
        models.load_folder(folder)
    assert "\n" not in str(error.value)
