"""Results as files: gathered, written, read under checksums; what is damaged is named."""

import hashlib
import json
import os
import shutil
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
    whole_lab,
    write_profile,
)

from unlearnkit import results
from unlearnkit.errors import UserError
from unlearnkit.measures import MEASURES, measure
from unlearnkit.metrics import predictions
from unlearnkit.names import ID
from unlearnkit.report.study import Study
from unlearnkit.results import SUMS, Cell, Record, Results
from unlearnkit.study import load_profile, run, run_study
from unlearnkit.study.plan import cells_of, make_plan
from unlearnkit.study.prune import free, known_labs, unneeded

WRITTEN = ["study.json", "machine.json", f"cells/{CF.name}.json", "samples.png"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_lab(tmp_path_factory)


@pytest.fixture(scope="module")
def collected(whole):
    return run.collect(whole, cells_of(whole.profile))


@pytest.fixture
def vit(whole, tmp_path):
    """Return a function of changed tables: a lab that starts from a copy of the small study."""
    shutil.copytree(whole.store.folder, tmp_path / "store")
    return lambda **changes: tiny_lab(tiny_profile(tmp_path, **VIT | changes), tmp_path / "store")


def raw(lab, cell, label):
    stages = {stage.label: stage for stage in lab.stages(cell)}
    return lab.done(stages[label]).value


def rows(frame, cell, **where):
    """Return the rows of `frame` that belong to `cell` and fit `where`."""
    for name, value in {**{name: getattr(cell, name) for name in ID}, **where}.items():
        frame = frame[frame[name] == value]
    return frame


# ---- Gathered --------------------------------------------------------------------------------


def test_results_hold_every_cell(whole, collected):
    assert [record.cell for record in collected.records] == cells_of(whole.profile)
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
    assert told["hyperparameters"]["small_vit"]["cf"] == whole.profile.hyperparameters(
        "cf", "small_vit"
    )


def test_titles_and_colours_are_told_in_display_order(tmp_path):
    profile = tiny_profile(tmp_path, methods=["cf", "retrain", "scrub"])
    told = run.collect(tiny_lab(profile, tmp_path), []).study
    assert told["methods"] == [
        {"name": "original", "title": "Original", "color": "#000000"},
        {"name": "retrain", "title": "Retrain", "color": "#0072B2"},
        {"name": "cf", "title": "CF", "color": "#56B4E9"},
        {"name": "scrub", "title": "SCRUB", "color": "#D55E00"},
    ]
    assert told["attacks"] == [{"name": "pgd", "title": "PGD"}] and told["measures"] == []
    assert told["architectures"][0] == {"name": "resnet50", "title": "ResNet50"}


def test_a_measure_of_ones_own_is_stored_and_told(vit):
    @measure("own", title="Own (%)", digits=2)
    def own(model, data, split, *, seed, batch_size):
        return 100 * len(split.forget) / len(data.train_labels)

    lab = vit()
    lab.profile["measure"]["extra"] = ["own"]
    try:
        outcome, _ = run_all(lab)
        told = run.collect(lab, cells_of(lab.profile))
    finally:
        MEASURES.pop("own")
    assert (outcome.done, outcome.failed) == (2, [])
    stored = {s["stage"]: s["value"] for s in told.records[-1].stages}
    assert stored["measure/own"] == {"name": "own", "value": 100 * 22 / 120}
    assert told.study["measures"] == [{"name": "own", "title": "Own (%)", "digits": 2}]


def test_the_facts_are_those_of_the_computation(vit, whole, collected):
    """And not those of whoever gathers the results: versions, device, workers, hours."""
    lab = vit()
    cells = cells_of(lab.profile)
    before = run.collect(lab, cells).machine
    assert before["workers"] == 1 and before["device"].startswith("cpu: ")
    assert {"torch", "timm", "python"} <= set(before["versions"])
    assert run_all(lab, workers=5)[0].done == 0
    assert run.collect(lab, cells).machine == before
    # One stage of another machine, with four at a time.
    stage = lab.stages(CF)[1]
    entry = lab.done(stage)
    other = entry.machine | {"workers": 4, "wall": 100.0, "device": "cuda: H", "date": "3000"}
    other |= {"versions": {"torch": "9"}}
    lab.store.put(stage.name, stage.spec, entry.value, other)
    after = run.collect(lab, cells).machine
    assert after["date"] == "3000" and after["device"].endswith(", cuda: H")
    assert after["versions"]["torch"] == f"{before['versions']['torch']}, 9"
    was, now = (Study(replace(collected, machine=m), whole.store.folder) for m in (before, after))
    own = before["cells"][CF.name]["walls"]["quality"]
    records = run.collect(lab, cells).records
    was, now = (Study(replace(s.results, records=records), s.folder) for s in (was, now))
    assert now.hours == pytest.approx(was.hours + (100 / 4 - own) / 3600, rel=0.01)


def test_incomplete_cells_are_left_out(vit):
    lab = vit()
    lab.store.path("quality", lab.stages(CF)[1].key).unlink()
    records = run.collect(lab, cells_of(lab.profile)).records
    assert [record.cell for record in records] == [ORIGINAL]


# ---- Written and read ------------------------------------------------------------------------


def test_results_round_trip(whole, collected, tmp_path):
    results.write(collected, tmp_path)
    read = results.read(tmp_path)
    assert (read.study, read.machine) == (collected.study, collected.machine)
    assert {r.cell: r for r in read.records} == {r.cell: r for r in collected.records}
    data = whole.data
    for label in range(10):
        shown = torch.from_numpy(read.samples.images[read.samples.labels == label])
        assert torch.equal(
            shown.permute(0, 3, 1, 2), data.train_images[data.train_labels == label][:8]
        )
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


def sign(folder):
    """Make the checksums those of the files as they are."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != SUMS]
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}" for p in paths
    ]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


def digit(data):
    at = next(i for i in range(len(data) // 2, len(data)) if data[i : i + 1].isdigit())
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE = {
    "a digit": digit,
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "deep": lambda _: b"[" * 200_000,
    "well-formed": lambda _: b'{"settings": {"forget": [{"set": 1}]}, "cell": {}, "cells": []}',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [*WRITTEN, "sweeps/vit.csv", "source.txt", SUMS])
def test_what_was_changed_is_named(collected, tmp_path, name, damage):
    results.write(collected, tmp_path)
    line = ["vit", "cf", 0.1, 1.0, 2.0, 3.0, 4.0, 5.0, True]
    results.write_sweep(pd.DataFrame([line], columns=results.SWEEP_COLUMNS), tmp_path)
    results.lay_down(tmp_path, {"source.txt": "profile: tiny 1\n"})
    path = tmp_path / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))

    def look():
        results.read(tmp_path)
        results.read_sweep(tmp_path)
        results.verified(tmp_path, "source.txt")

    with pytest.raises(UserError) as caught:
        look()
    told = str(caught.value)
    assert (str(tmp_path if name == SUMS else path)) in told and "damaged" in told
    assert "\n" not in told
    if damage != "a digit" and not name.startswith(("s", "m")):
        sign(tmp_path)  # even under a checksum
        if name != SUMS:
            with pytest.raises(UserError, match="damaged"):
                look()
    results.write(collected, tmp_path)


@pytest.mark.parametrize("name", ["study.json", "machine.json", f"cells/{CF.name}.json"])
@pytest.mark.parametrize("text", [b"{", b"", b"[]", b"\xff", b'"text"', b"[" * 200_000])
def test_what_is_no_result_is_named_whatever_its_checksum(collected, tmp_path, name, text):
    results.write(collected, tmp_path)
    (tmp_path / name).write_bytes(text)
    sign(tmp_path)
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
    assert str(tmp_path / name) in str(caught.value) and "damaged" in str(caught.value)


def copied(folder):
    shutil.copy(folder / f"cells/{ORIGINAL.name}.json", folder / f"cells/{CF.name}.json")
    return folder / f"cells/{CF.name}.json"


def more(folder):
    return shutil.copy(folder / f"cells/{CF.name}.json", folder / "cells/copy.json")


def gone(folder):
    (folder / f"cells/{CF.name}.json").unlink()
    return folder / f"cells/{CF.name}.json"


def twice(folder):
    path = folder / f"cells/{CF.name}.json"
    content = json.loads(path.read_text())
    content["stages"] *= 2
    path.write_text(json.dumps(content))
    return path


def pipe(folder):
    (folder / "machine.json").unlink()
    os.mkfifo(folder / "machine.json")
    return folder / "machine.json"


def huge(folder):
    os.truncate(folder / "machine.json", 2**32)
    return folder / "machine.json"


@pytest.mark.parametrize("what", [copied, more, gone, twice, pipe, huge])
def test_files_in_the_wrong_place_are_named(collected, tmp_path, what):
    results.write(collected, tmp_path)
    path = what(tmp_path)
    with pytest.raises(UserError, match="damaged") as caught:
        results.read(tmp_path)
    assert str(path) in str(caught.value)
    if what in (copied, more, twice):
        sign(tmp_path)
        with pytest.raises(UserError, match="it is another cell's, or has a stage twice"):
            results.read(tmp_path)


def test_no_results(tmp_path):
    with pytest.raises(UserError, match=f"no results in {tmp_path}"):
        results.read(tmp_path)
    assert len(results.read_sweep(tmp_path)) == 0


@pytest.mark.parametrize("place", [f"cells/{CF.name}.json", "cells/other.json", "study.json", SUMS])
def test_what_cannot_be_written_is_named(collected, tmp_path, place):
    (tmp_path / place / "folder").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write") as caught:
        results.write(collected, tmp_path)
    assert str(tmp_path / place) in str(caught.value)


def test_a_place_that_cannot_be_written_to_is_named(collected, tmp_path):
    (tmp_path / "results").symlink_to("/proc/self")
    with pytest.raises(UserError, match="cannot write"):
        results.write(collected, tmp_path / "results")


@pytest.mark.parametrize("text", ["", "[]", '{"cells": []}', '{"cells": {"a": {}}}', "[" * 99999])
def test_recorded_durations_are_the_first_that_can_be_read(collected, tmp_path, text):
    results.write(collected, tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/machine.json").write_text(text)
    (tmp_path / "a").mkdir()
    mine = {"cells": {CF.name: {"walls": {"quality": 9.0}}, "more": {"walls": {}}}}
    (tmp_path / "a/machine.json").write_text(json.dumps(mine))
    walls = results.recorded_walls(*(tmp_path / name for name in ("none", "bad", "a", "good")))
    expected = {n: c["walls"] for n, c in collected.machine["cells"].items()}
    assert walls == expected | {CF.name: {"quality": 9.0}, "more": {}}


# ---- Names and sources of studies ------------------------------------------------------------


def test_study_names(tmp_path, monkeypatch):
    profile = tiny_profile(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()

    def name(dataset):
        return run.name_of(profile, dataset)

    assert name(None) == name("") == name("digits") == "tiny"
    stand_in = profile.with_values(stand_in={"same": "Digits, other files"})
    assert run.name_of(stand_in, "folder:some/same/") == "tiny"
    assert run.name_of(stand_in, "folder:some/other") == "tiny@other"
    assert name("cifar10") == "tiny@cifar10"
    assert name("folder:some/where/cats") == name("folder:/some/where/cats/") == "tiny@cats"
    assert name("folder:my photos") == name("folder:my photos/.") == "tiny@my-photos"
    monkeypatch.setenv("HOME", str(tmp_path / "my photos"))
    assert name("folder:~") == "tiny@my-photos"
    for dataset in ("folder:/", "folder:/a:b", "folder:/a\\b", "a/b", "../up", "folder:/σ?*"):
        assert not set(name(dataset)) & set('/\\: ?*"<>|') and name(dataset).startswith("tiny@")


def test_two_sources_of_one_name_do_not_share_results(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    one, two = tmp_path / "one/pets", tmp_path / "two/pets"
    for folder in (one, two):
        folder.mkdir(parents=True)
    profile, data = tiny_profile(tmp_path, **VIT), made_data("folder:pets")
    kept = run.keep_study(run.open_lab(profile, f"folder:{one}", data=data), f"folder:{one}")
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


def test_running_a_study_gives_the_folder_of_its_results(vit, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(vit().store.folder))
    folder = run_study(load_profile(tmp_path / "tiny.toml"), workers=1)
    assert folder == results.own_results("tiny")
    assert len(results.read(folder).records) == 2
    assert run.source_of("tiny")["profile"] == str(tmp_path / "tiny.toml")


# ---- What is needed no more ------------------------------------------------------------------


def test_only_what_no_known_study_asks_for_is_freed(vit, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(vit().store.folder))
    lab = vit(methods=["cf", "retrain"])
    run_study(load_profile(tmp_path / "tiny.toml"), workers=1)
    (store := lab.store.folder)
    trash = [
        store / "quality/.x.json.abc",
        store / "quality/y.json.damaged",
        store / "unlearn/z.json",
    ]
    for path in trash[:2]:
        path.write_text("12345")
    os.utime(trash[0], (0, 0))
    (store / "quality/.being.written").write_text("")
    state = store / f"unfinished/unlearn-{'0' * 20}.safetensors"
    needed = store / f"unfinished/unlearn-{lab.stages(CF)[0].key}.safetensors"
    for path in (state, needed):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"123")
    found = unneeded(lab.store, known_labs())
    by_path = {entry.path: entry for entry in found}
    assert by_path[trash[0]].why == "left by a write that was cut off"
    assert (by_path[trash[1]].why, by_path[trash[1]].bytes) == ("set aside as damaged", 5)
    assert by_path[state].why == "of no known study" and needed not in by_path
    # The first network is no longer part of the study; all of the second's is needed.
    plan = make_plan(lab, cells_of(lab.profile))
    assert plan.lacking == 0 and any("original" in path.parts for path in by_path)
    free(found)
    assert unneeded(lab.store, known_labs()) == []
    assert make_plan(lab, cells_of(lab.profile)).lacking == 0 and needed.exists()
    (tmp_path / "tiny.toml").unlink()
    with pytest.raises(UserError, match=r"what study tiny needs cannot be told \(unknown profile"):
        known_labs()


# ---- Frames ----------------------------------------------------------------------------------


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
