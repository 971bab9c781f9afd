"""Results as files: gathered, written, read under checksums; what is damaged is named."""

import json
import os
import shutil
import threading
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers_study import (
    CF,
    ORIGINAL,
    PGD,
    VIT,
    made_data,
    run_all,
    tiny_lab,
    tiny_profile,
    tiny_values,
    write_profile,
)

from unlearnkit import results
from unlearnkit.errors import UserError
from unlearnkit.metrics import predictions
from unlearnkit.report.study import Study, read_study
from unlearnkit.results import SUMS, Cell, Record, Results
from unlearnkit.study import load_profile, run, run_study
from unlearnkit.study.plan import make_plan
from unlearnkit.study.prune import known_labs, prune, unneeded
from unlearnkit.study.store import STAGE_VERSIONS


@pytest.fixture(scope="module")
def collected(whole):
    return run.collect(whole)


@pytest.fixture(scope="module")
def laid(collected, tmp_path_factory):
    """A folder with results, a sweep and their source."""
    folder = tmp_path_factory.mktemp("laid")
    results.write(collected, folder)
    line = ["vit", "cf", 0.1, 0, 1.0, 2.0, 3.0, 4.0, 5.0, True]
    results.write_sweep(pd.DataFrame([line], columns=results.SWEEP_COLUMNS), folder)
    results.lay_down(folder, {"source.txt": "profile: tiny 1\n"})
    return folder


def raw(lab, cell, label):
    stages = {stage.label: stage for stage in lab.stages(cell)}
    return lab.done(stages[label]).value


def test_results_hold_every_cell(whole, collected):
    assert [record.cell for record in collected.records] == whole.cells
    for record in collected.records:
        stages = whole.stages(record.cell)
        assert [s["stage"] for s in record.stages] == [s.label for s in stages]
        assert [s["key"] for s in record.stages] == [s.key for s in stages]
        assert [s["value"] for s in record.stages] == [whole.done(s).value for s in stages]
        walls = collected.machine["cells"][record.cell.name]["walls"]
        assert set(walls) == {s["stage"] for s in record.stages}
    split, told = whole.split("random:0.2", 0), collected.study
    assert told["splits"]["random:0.2 seed 0"]["hash"] == split.hash[:20]
    assert told["splits"]["random:0.2 seed 0"]["forget"] == len(split.forget)
    assert told["fingerprint"] == whole.data.fingerprint
    assert told["settings"] == whole.profile.values
    wanted = whole.profile.hyperparameters("cf", "small_vit")
    assert told["hyperparameters"]["small_vit"]["cf"] == wanted


def test_titles_and_colours_are_told_in_display_order(tmp_path):
    profile = tiny_profile(tmp_path, methods=["cf", "retrain", "scrub"])
    told = run.collect(tiny_lab(profile, tmp_path)).study
    shown = [tuple(entry.values()) for entry in told["methods"]]
    assert shown[:2] == [("original", "Original", "#000000"), ("retrain", "Retrain", "#0072B2")]
    assert shown[2:] == [("cf", "CF", "#56B4E9"), ("scrub", "SCRUB", "#D55E00")]
    assert told["attacks"] == [{"name": "pgd", "title": "PGD"}] and told["measures"] == []
    assert told["architectures"][0] == {"name": "resnet50", "title": "ResNet-50"}


def test_the_facts_are_those_of_the_computation(vit, whole, collected):
    """And not those of whoever gathers the results: versions, device, workers, hours."""
    lab = vit()
    before = run.collect(lab).machine
    assert before["workers"] == 1 and before["device"].startswith("cpu: ")
    assert {"torch", "timm", "python"} <= set(before["versions"])
    assert run_all(lab, workers=5)[0].done == 0
    assert run.collect(lab).machine == before
    # One stage of another machine, with four at a time.
    stage = lab.stages(CF)[1]
    entry = lab.done(stage)
    other = entry.machine | {"workers": 4, "wall": 100.0, "device": "cuda: H", "date": "3000"}
    other |= {"versions": {"torch": "9"}}
    lab.store.put(stage.name, stage.spec, entry.value, other)
    after = run.collect(lab).machine
    assert after["date"] == "3000" and after["device"].endswith(", cuda: H")
    assert after["versions"]["torch"] == f"{before['versions']['torch']}, 9"
    records = run.collect(lab).records
    made = [replace(collected, machine=m, records=records) for m in (before, after)]
    was, now = (Study(each, whole.store.folder).hours for each in made)
    own = before["cells"][CF.name]["walls"]["quality"]
    assert now == pytest.approx(was + (100 / 4 - own) / 3600, rel=0.01)
    # A cell that lacks a stage is left out.
    lab.store.path("quality", stage.key).unlink()
    assert [record.cell for record in run.collect(lab).records] == [ORIGINAL]


def test_results_round_trip(whole, collected, tmp_path):
    results.write(collected, tmp_path)
    read = results.read(tmp_path)
    assert (read.study, read.machine) == (collected.study, collected.machine)
    assert {r.cell: r for r in read.records} == {r.cell: r for r in collected.records}
    labels, shown = whole.data.train_labels, read.samples.images
    first = torch.cat([(labels == label).nonzero()[:8, 0] for label in range(10)])
    assert (shown.transpose(0, 3, 1, 2) == whole.data.train_images[first].numpy()).all()
    assert read.samples.labels.tolist() == labels[first].tolist()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    results.write(read, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    # What differs between machines is in a file apart.
    here = {path.name: path.read_bytes() for path in tmp_path.rglob("*.json")}
    results.write(replace(collected, machine={"cells": {}}), tmp_path)
    moved = {p.name for p in tmp_path.rglob("*.json") if p.read_bytes() != here[p.name]}
    assert moved == {"machine.json"}
    # Results of cells no longer wanted go.
    results.write(replace(collected, records=collected.records[:3]), tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == len(results.read(tmp_path).records) == 3


def test_cells_of_any_name_round_trip(tmp_path):
    specs = ["class:a/b", "class:a-b", "class:a b", "class:../../up", "class:σ"]
    cells = [replace(CF, forget=spec) for spec in specs]
    stages = [{"stage": "quality", "key": "0", "value": {"UA": 1.0}}]
    told = {"settings": {"forget": [{"set": spec} for spec in specs[::-1]]}}, {"cells": {}}
    results.write(Results(*told, [Record(cell, stages) for cell in cells]), tmp_path / "out")
    # Read in the order of the profile.
    assert [record.cell for record in results.read(tmp_path / "out").records] == cells[::-1]
    assert all(path.parent == tmp_path / "out/cells" for path in tmp_path.rglob("small*.json"))


def rewrite(path, content):
    path.unlink()
    path.write_bytes(content)


def digit(path):
    data = path.read_bytes()
    at = next(i for i in range(len(data) // 2, len(data)) if data[i : i + 1].isdigit())
    rewrite(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def twice(path):
    content = json.loads(path.read_text())
    rewrite(path, json.dumps({**content, "stages": 2 * content["stages"]}).encode())


CELL = f"cells/{CF.name}.json"
EACH = ["study.json", "machine.json", CELL, "samples.png", "sweeps/vit.csv", "source.txt", SUMS]
CHANGES = {
    "a digit": digit,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "gone": lambda path: path.unlink(),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    # These are found whatever their checksums say.
    "empty": lambda path: rewrite(path, b""),
    "a list": lambda path: rewrite(path, b"[]"),
    "no text": lambda path: rewrite(path, b"\xff"),
    "deep": lambda path: rewrite(path, b"[" * 200_000),
    "another": lambda path: rewrite(path, (path.parent / f"{ORIGINAL.name}.json").read_bytes()),
    "twice": twice,
}
CASES = [(name, change, False) for name in EACH for change in list(CHANGES)[:4]]
CASES += [(name, change, True) for name in EACH[:5] for change in list(CHANGES)[4:8]]
CASES += [(CELL, change, True) for change in ("another", "twice")]
CASES.remove((SUMS, "gone", False))


@pytest.mark.parametrize(("name", "change", "signed"), CASES)
def test_what_was_changed_is_named(collected, laid, tmp_path, name, change, signed):
    shutil.copytree(laid, tmp_path, dirs_exist_ok=True)
    CHANGES[change](tmp_path / name)
    if signed:
        results.lay_down(tmp_path, {name: (tmp_path / name).read_bytes()})
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
        results.read_sweep(tmp_path)
        results.verified(tmp_path, "source.txt")
    told = str(caught.value)
    # Without its list of checksums no file is known to be sound: the first one is named.
    assert str(tmp_path if name == SUMS else tmp_path / name) in told
    assert "damaged" in told and "\n" not in told
    if change != "a pipe":
        results.write(collected, tmp_path)
        assert len(results.read(tmp_path).records) == len(collected.records)


@pytest.mark.parametrize("name", ["architectures", "attacks", "settings", "methods"])
@pytest.mark.parametrize("value", [None, 3, "x"])
def test_a_study_json_of_another_shape_is_named(laid, tmp_path, name, value):
    shutil.copytree(laid, tmp_path, dirs_exist_ok=True)
    study = json.loads((tmp_path / "study.json").read_text())
    changed = {**study, name: value} if value else {n: v for n, v in study.items() if n != name}
    results.lay_down(tmp_path, {"study.json": json.dumps(changed)})
    with pytest.raises(UserError, match=r"study\.json (lacks|is damaged)"):
        read_study(tmp_path)


def test_missing_and_unknown_files_are_named(laid, tmp_path):
    shutil.copytree(laid, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / CELL, tmp_path / "cells/copy.json")
    with pytest.raises(UserError, match=r"copy\.json is damaged \(SHA256SUMS has .* none\)"):
        results.read(tmp_path)
    with pytest.raises(UserError, match=f"no results in {tmp_path}/none"):
        results.read(tmp_path / "none")
    assert len(results.read_sweep(tmp_path / "none")) == 0
    with pytest.raises(UserError, match=r"cannot read .*: File name too long"):
        results.read(tmp_path / (300 * "x"))


@pytest.mark.parametrize("place", [CELL, "cells/other.json", "study.json", SUMS, "link"])
def test_what_cannot_be_written_is_named(collected, tmp_path, place):
    """A folder is in a file's place; or the folder is none that takes files."""
    (tmp_path / "link").symlink_to("/proc/self")
    if place != "link":
        (tmp_path / place / "folder").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write") as caught:
        results.write(collected, tmp_path / "link" if place == "link" else tmp_path)
    assert str(tmp_path / place) in str(caught.value)


def test_recorded_durations_are_the_first_that_can_be_read(collected, laid, tmp_path):
    own = json.dumps({"cells": {CF.name: {"walls": {"quality": 9.0}}, "more": {"walls": {}}}})
    bad = ["", "[]", '{"cells": []}', '{"cells": {"a": {}}}', "[" * 99999]
    for number, text in enumerate([*bad, own]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "machine.json").write_text(text)
    walls = results.recorded_walls(*(tmp_path / name for name in ("none", *"012345")), laid)
    expected = {n: c["walls"] for n, c in collected.machine["cells"].items()}
    assert walls == expected | {CF.name: {"quality": 9.0}, "more": {}}


def test_study_names(tmp_path, monkeypatch):
    profile = tiny_profile(tmp_path).with_values(stand_in={"same": "Digits, other files"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "my photos"))
    for name, datasets in {
        "tiny": [None, "", "digits", "folder:some/same/"],
        "tiny@cifar10": ["cifar10"],
        "tiny@cats": ["folder:some/where/cats", "folder:/some/where/cats/"],
        "tiny@my-photos": ["folder:my photos", "folder:my photos/.", "folder:~"],
    }.items():
        assert [run.name_of(profile, dataset) for dataset in datasets] == [name] * len(datasets)
    for dataset in ("folder:/", "folder:/a:b", "folder:/a\\b", "a/b", "../up", "folder:/σ?*"):
        name = run.name_of(profile, dataset)
        assert not set(name) & set('/\\: ?*"<>|') and name.startswith("tiny@")


def test_two_sources_of_one_name_do_not_share_results(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    one, two = tmp_path / "one/pets", tmp_path / "two/pets"
    for folder in (one, two):
        folder.mkdir(parents=True)
    profile, data = tiny_profile(tmp_path, **VIT), made_data("folder:pets")
    lab = run.open_lab(profile, f"folder:{one}", data=data)
    kept = run.keep_study(lab, f"folder:{one}")
    assert kept.name == "tiny@pets"
    run.open_lab(profile, f"folder:{one}/../pets", data=data)
    with pytest.raises(UserError, match=r"those of .*one/pets, not of .*two/pets; rename"):
        run.open_lab(profile, f"folder:{two}", data=data)
    # Another profile of that name; the same settings elsewhere are the same study.
    same = load_profile(write_profile(two, tiny_values(**VIT)))
    run.open_lab(same, f"folder:{one}", data=data)
    other = load_profile(write_profile(two, tiny_values(**VIT | {"validation": 0.2})))
    with pytest.raises(UserError, match=r"those of .*/tiny\.toml, not of .*pets/tiny\.toml"):
        run_study(other, f"folder:{one}", data=data)
    (tmp_path / "tiny.toml").unlink()
    one.rmdir()  # moved, or renamed: nobody is confused
    run.open_lab(other, f"folder:{two}", data=data)
    (kept / "source.txt").write_text("profile: tiny\n")
    with pytest.raises(UserError, match=r"source\.txt is damaged"):
        run.open_lab(other, f"folder:{two}", data=data)


def test_one_process_at_a_time_writes_results(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    folder = results.own_results("tiny")
    other = threading.Thread(target=run.note_source, args=(tiny_profile(tmp_path), None))
    with run.writing(folder):
        other.start()
        other.join(0.3)
        assert other.is_alive() and not folder.exists()
    other.join(10)
    assert list(results.verified(folder, "source.txt")) == ["source.txt"]


def test_only_what_no_known_study_asks_for_is_freed(vit, tmp_path, monkeypatch):
    lab = vit(methods=["cf", "retrain"])
    store = lab.store.folder
    monkeypatch.setenv("UNLEARNKIT_STORE", str(store))
    folder = run_study(load_profile(tmp_path / "tiny.toml"), workers=1)
    assert folder == results.own_results("tiny") and len(results.read(folder).records) == 3
    assert run.source_of("tiny")["profile"] == str(tmp_path / "tiny.toml")
    state, needed = (lab.store.state_file("unlearn", k) for k in ("0" * 20, lab.stages(CF)[0].key))
    left, aside = store / "quality/.x.json.abc", store / "quality/y.json.damaged"
    state.parent.mkdir(exist_ok=True)
    for path in (left, aside, state, needed, store / "quality/.being.written"):
        path.write_text("12345")
    os.utime(left, (0, 0))
    found = unneeded(lab.store, known_labs())
    assert found[left] == "left by a write that was cut off"
    assert found[aside] == "set aside as damaged"
    assert found[state] == "of no known study" and needed not in found
    # The first network is no longer part of the study, its scopes neither; the rest is needed.
    kinds = {path.parent.name for path in found}
    assert kinds == {*STAGE_VERSIONS, "unfinished", "locks"} - {"measure", "distance", "margins"}
    assert store / "quality/.being.written" not in found
    lines: list[str] = []
    assert prune(report=lines.append) == 0 and all(path.exists() for path in found)
    assert any(f"    1 in {store}/quality: set aside as damaged" in line for line in lines)
    assert lines[-1].endswith("MB  could be freed")
    prune(delete=True, report=lines.append)
    assert lines[-1].endswith("MB  freed") and unneeded(lab.store, known_labs()) == {}
    assert make_plan(lab).lacking == 0 and needed.exists()
    assert len(list((store / "adversarial").iterdir())) == 1
    (tmp_path / "tiny.toml").unlink()
    with pytest.raises(UserError, match=r"what study tiny needs cannot be told \(unknown profile"):
        known_labs()


def test_forgetting_a_class(vit):
    lab = vit(forget=[{"set": "class:3", "seeds": [0], "scopes": ["all"]}])
    assert run_all(lab)[0].failed == []
    cell = Cell("small_vit", "class:3", "cf", "all", 0)
    value, data, split = raw(lab, cell, "quality"), lab.data, lab.split("class:3", 0)

    def hits(images, labels):
        logits = predictions(lab.model(cell), images, batch_size=64)
        return (logits.argmax(1) == labels).double()

    right, inside = hits(data.test_images, data.test_labels), data.test_labels == 3
    assert value["TA"] == pytest.approx(100 * right[~inside].mean().item())
    assert value["TA_forgotten"] == pytest.approx(100 * right[inside].mean().item())
    right = hits(data.train_images, data.train_labels)
    assert set(data.train_labels[split.forget].tolist()) == {3}
    assert value["FA"] == pytest.approx(100 * right[split.forget].mean().item())
    assert value["RA"] == pytest.approx(100 * right[split.retain].mean().item())
    attacked = raw(lab, cell, "robustness/pgd")["sets"]
    assert attacked["test"]["n"][3] == attacked["retain"]["n"][3] == 0
    assert attacked["forget"]["n"][3] == sum(attacked["forget"]["n"]) == PGD["forget"]
    # The original is the one there was: it does not depend on what is to be forgotten.
    assert lab.model_stage(replace(cell, method="original")).key == lab.model_stage(ORIGINAL).key
