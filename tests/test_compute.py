"""Computing a study: the plan, workers, failures, the time limit, results and frames."""

import importlib
import json
import math
import os
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

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
)

from unlearnkit import results
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS
from unlearnkit.metrics import predictions
from unlearnkit.report import study
from unlearnkit.report.study import ID, Study
from unlearnkit.report.tidy import COLUMNS
from unlearnkit.results import Cell, Record, Results
from unlearnkit.study import compute as computing
from unlearnkit.study import run
from unlearnkit.study.plan import Job, Plan, cells_of, make_plan, original_of, stage_label

# ---- One small study, computed once ----------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the lab of a computed study with both networks, two scopes and a checkpoint."""
    return whole_lab(tmp_path_factory)


@pytest.fixture
def vit(whole, tmp_path):
    """Return a function of changed tables: a lab that starts from a copy of the small study."""
    shutil.copytree(whole.store.folder, tmp_path / "store")
    return lambda **changes: tiny_lab(tiny_profile(tmp_path, **VIT | changes), tmp_path / "store")


@pytest.fixture
def raises():
    """Register a method that fails, from a module that is not the package's."""
    sys.modules.pop("helpers_method", None)
    importlib.import_module("helpers_method")
    yield "raises"
    METHODS.pop("raises")


def values_of(lab):
    return {
        cell.name: {stage_label(s.name, s.spec): lab.done(s).value for s in lab.stages(cell)}
        for cell in cells_of(lab.profile)
    }


def lacking(lab):
    """Return 'method scope stage' of all that a plan would compute."""
    plan = make_plan(lab, cells_of(lab.profile))
    return {
        f"{cell.method} {cell.scope} {stage_label(stage.name, stage.spec)}"
        for cell, stages in plan.missing.items()
        for stage in stages
    }


def files_of(lab):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in lab.store.folder.rglob("*")
        if path.is_file()
    }


# ---- The plan --------------------------------------------------------------------------------


def test_an_empty_store_lacks_everything(tmp_path):
    lab = tiny_lab(tiny_profile(tmp_path, **VIT), tmp_path / "store")
    plan = make_plan(lab, cells_of(lab.profile))
    assert plan.lacking == plan.stages == 2 * 5
    assert plan.jobs() == [original_of(CF), Job(ORIGINAL), Job(CF)]
    assert plan.seconds({}) is None


def test_originals_come_first_and_only_where_they_are_needed(tmp_path):
    sets = [{"set": "random:0.2", "seeds": [0, 1], "scopes": ["all", "first"]}]
    lab = tiny_lab(tiny_profile(tmp_path, forget=sets), tmp_path / "store")
    jobs = make_plan(lab, cells_of(lab.profile)).jobs()
    assert [job.weights_only for job in jobs[:3]] == [True] * 2 + [False]
    seeds = [job.cell.seed for job in jobs]
    assert seeds == sorted(seeds), "seed by seed, so that what is cut off is whole for some"
    assert len(set(jobs)) == len(jobs)
    for number, job in enumerate(jobs):
        assert job.needs() is None or job.needs() in jobs[:number]
    retrain = replace(CF, method="retrain")
    assert Job(retrain).needs() == original_of(CF), "its transfer needs it"
    assert Job(replace(retrain, scope="first")).needs() == original_of(CF)


def test_a_second_computation_computes_nothing(whole):
    before = files_of(whole)
    plan = make_plan(whole, cells_of(whole.profile))
    assert (plan.lacking, plan.missing, plan.jobs(), plan.seconds({})) == (0, {}, [], 0.0)
    outcome, lines = run_all(whole)
    assert (outcome.done, outcome.failed, lines) == (0, [], [])
    assert files_of(whole) == before


def test_an_attack_more_retrains_nothing(vit):
    fgsm = {**PGD, "name": "fgsm", "options": {}, "transfer": False, "everywhere": False}
    lab = vit(attack=[PGD, fgsm])
    assert lacking(lab) == {"original all robustness/fgsm", "cf all robustness/fgsm"}
    before = files_of(lab)
    outcome, _ = run_all(lab)
    assert (outcome.done, outcome.failed) == (2, [])
    after = files_of(lab)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys()} == {"robustness"}


def test_another_rate_computes_what_depends_on_it(vit):
    values = tiny_values()
    values["method"]["cf"]["small_vit"]["lr"] = 0.01
    lab = vit(method=values["method"], methods=["retrain", "cf"])
    assert lacking(lab) == {
        f"cf all {stage}"
        for stage in ("unlearn", "quality", "fairness", "robustness/pgd", "transfer/pgd")
    }
    old = lab.done(vit().stages(CF)[1]).value
    before = files_of(lab)
    assert run_all(lab)[0].done == 1
    assert lab.done(lab.stages(CF)[1]).value != old
    after = files_of(lab)
    assert {path: after[path] for path in before} == before


def test_lost_weights_are_missed(vit):
    lab = vit()
    kept = lab.store.path("original", lab.model_stage(ORIGINAL).key, "safetensors")
    moved = kept.rename(kept.with_suffix(".away"))
    assert lacking(lab) == {"original all original"}
    assert make_plan(lab, cells_of(lab.profile)).jobs() == [original_of(CF), Job(ORIGINAL)]
    moved.rename(kept)
    stage = lab.model_stage(CF)
    lab.store.path("unlearn", stage.key, "safetensors").unlink()
    assert lacking(lab) == {"cf all unlearn"}
    lab.store.path("quality", lab.stages(ORIGINAL)[1].key).unlink()
    assert lacking(lab) == {"cf all unlearn", "original all quality"}


def test_expected_seconds_are_the_recorded_ones():
    other = replace(CF, seed=1)
    stages = [SimpleNamespace(name="unlearn", spec={}), SimpleNamespace(name="robustness", spec={})]
    stages[1].spec["name"] = "pgd"
    recorded = {
        CF.name: {"unlearn": 3.0, "robustness/pgd": 10.0},
        replace(CF, seed=2).name: {"unlearn": 5.0, "robustness/pgd": 20.0},
    }
    assert Plan([CF], {CF: stages}, 2).seconds(recorded) == 13.0
    # Never done with this seed: the mean of those that are like it.
    assert Plan([other], {other: stages}, 2).seconds(recorded) == 4.0 + 15.0
    strange = replace(CF, method="ga")
    assert Plan([strange], {strange: stages}, 2).seconds(recorded) is None


# ---- Workers ---------------------------------------------------------------------------------


def near(a, b, relative):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(near(a[k], b[k], relative) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(near(*pair, relative) for pair in zip(a, b, strict=True))
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=relative, abs_tol=relative)
    return a == b


def test_two_workers_give_the_same_values(tmp_path, whole, raises):
    """In processes of their own, and a method that fails in one of them stops nothing."""
    changes = VIT | {"methods": ["cf", raises, "retrain"]}
    lab = tiny_lab(tiny_profile(tmp_path, **changes), tmp_path / "store")
    outcome, lines = run_all(lab, workers=2)
    assert [cell.method for cell, _ in outcome.failed] == [raises]
    assert outcome.failed[0][1] == "of my own making"
    assert outcome.done == 4 and not outcome.stopped
    told = "\n".join(lines)
    assert "small_vit random:0.2 seed 0 raises" in told and "FAILED: of my own making" in told
    assert "ZeroDivisionError" in told and "helpers_method.py" in told
    computed = tiny_lab(tiny_profile(tmp_path, **VIT), tmp_path / "store")
    reference = tiny_lab(computed.profile, whole.store.folder)
    there, here = values_of(computed), values_of(reference)
    # Worker processes share the cores: each computes in one thread here, as this process did.
    assert near(there, here, 1e-3)
    if (os.cpu_count() or 1) // 2 <= 1:
        assert there == here


def test_threads_change_no_more_than_rounding(tmp_path, whole):
    lab = tiny_lab(tiny_profile(tmp_path, **VIT), tmp_path / "store")
    plan = make_plan(lab, cells_of(lab.profile))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        computing.compute(lab, plan, workers=1, report=lambda line: None)
    finally:
        torch.set_num_threads(threads)
    assert near(values_of(lab), values_of(tiny_lab(lab.profile, whole.store.folder)), 1e-3)


def test_a_notebooks_method_is_computed_in_this_process(tmp_path, raises, monkeypatch):
    lab = tiny_lab(tiny_profile(tmp_path, **VIT | {"methods": ["cf", raises]}), tmp_path)
    assert computing._importable(lab)
    assert computing._modules(lab) >= {"helpers_method", "unlearnkit.methods.cf"}
    monkeypatch.setattr(METHODS[raises].function, "__module__", "__main__")
    assert not computing._importable(lab)


def test_a_worker_that_dies_fails_its_cells(monkeypatch):
    class Dead:
        def submit(self, *_):
            raise BrokenProcessPool("killed")

    jobs = [original_of(CF), Job(CF), Job(replace(CF, method="retrain"))]
    ended = list(computing._run_in(Dead(), jobs, 2))
    assert {job for job, _, _ in ended} == set(jobs)
    messages = {job: str(error) for job, _, error in ended}
    assert "a worker process died" in messages[jobs[0]] and "--workers" in messages[jobs[0]]
    assert messages[jobs[1]] == "its original model could not be trained"
    assert all(isinstance(error, UserError) for _, _, error in ended)


def test_jobs_wait_for_the_original(monkeypatch):
    began, done = [], set()

    def work(job):
        began.append(job)
        assert job.needs() is None or job.needs() in done
        assert len(began) - len(done) <= workers
        time.sleep(0.01)
        done.add(job)
        return 0.0, None

    monkeypatch.setattr(computing, "_work", work)
    jobs = [original_of(CF), Job(ORIGINAL), Job(CF), Job(replace(CF, method="retrain"))]
    workers = 2
    with ThreadPoolExecutor(4) as pool:
        ended = [job for job, _, _ in computing._run_in(pool, jobs, workers)]
    assert set(ended) == set(began) == set(jobs) and began[0] == jobs[0]


# ---- Failures and the time limit -------------------------------------------------------------


def test_a_cell_that_fails_does_not_stop_the_others(vit, raises):
    values = tiny_values()
    values["method"]["ga"]["small_vit"] |= {"lr": 1e30, "epochs": 2}
    values["unlearning"]["small_vit"]["clip"] = 0.0
    lab = vit(
        method=values["method"], unlearning=values["unlearning"], methods=["ga", raises, "cf"]
    )
    lab.store.path("quality", lab.stages(CF)[1].key).unlink()
    outcome, lines = run_all(lab)
    failed = {cell.method: message for cell, message in outcome.failed}
    assert set(failed) == {"ga", raises} and outcome.done == 1
    assert failed["ga"].startswith("ga: the loss is not finite in epoch 2 at a rate of 1e+30")
    told = "\n".join(lines)
    # What the user can mend in a line; what is a bug with its traceback.
    assert "\n".join(lines[:1]).count("\n") == 0 and "FAILED: ga: the loss" in lines[0]
    assert told.count("Traceback") == 1 and "ZeroDivisionError: of my own making" in told
    assert lacking(lab) == {
        f"{method} all {stage}"
        for method in ("ga", raises)
        for stage in ("unlearn", "quality", "fairness", "robustness/pgd", "transfer/pgd")
    }


def test_without_an_original_its_cells_fail(tmp_path):
    values = tiny_values()
    values["training"]["small_vit"] |= {"lr": 1e30, "clip": 0.0, "optimizer": "sgd", "epochs": 2}
    changes = {"training": values["training"], "methods": ["cf", "retrain"]}
    lab = tiny_lab(tiny_profile(tmp_path, **VIT | changes), tmp_path / "store")
    outcome, _ = run_all(lab)
    assert outcome.done == 0
    messages = [message for _, message in outcome.failed]
    assert messages[0].startswith("small_vit original: the loss is not finite")
    assert messages[1:] == ["its original model could not be trained"] * 3


def test_the_time_limit_stops_before_the_next_cell(tmp_path):
    lab = tiny_lab(tiny_profile(tmp_path, **VIT), tmp_path / "store")
    outcome, lines = run_all(lab, deadline=time.time() - 1)
    assert (outcome.done, outcome.failed, outcome.stopped, lines) == (0, [], True, [])
    again, _ = run_all(lab)
    assert (again.done, again.stopped) == (3, False)


def test_the_time_limit_stops_within_a_training_and_goes_on(tmp_path, monkeypatch):
    values = tiny_values()
    values["training"]["small_vit"]["epochs"] = 3
    profile = tiny_profile(tmp_path, **VIT | {"training": values["training"]})
    straight = tiny_lab(profile, tmp_path / "straight")
    run_all(straight)
    lab = tiny_lab(profile, tmp_path / "store")
    # For the scheduler it is early, for the training late.
    clock = SimpleNamespace(time=lambda: 0.0, monotonic=time.monotonic)
    monkeypatch.setattr(computing, "time", clock)
    outcome, _ = run_all(lab, deadline=1.0)
    monkeypatch.undo()
    assert (outcome.done, outcome.failed, outcome.stopped) == (0, [], True)
    unfinished = lab.store.folder / "unfinished"
    assert [path.suffix for path in unfinished.iterdir()] == [".safetensors"]
    outcome, _ = run_all(lab)
    assert (outcome.done, outcome.failed, outcome.stopped) == (3, [], False)
    assert not list(unfinished.iterdir())
    assert values_of(lab) == values_of(straight)


# ---- Results: written, read, compared --------------------------------------------------------


@pytest.fixture(scope="module")
def collected(whole):
    return run.collect(whole, cells_of(whole.profile), workers=1)


def test_results_hold_every_cell(whole, collected):
    assert [record.cell for record in collected.records] == cells_of(whole.profile)
    for record in collected.records:
        stages = whole.stages(record.cell)
        assert [s["stage"] for s in record.stages] == [stage_label(s.name, s.spec) for s in stages]
        assert [s["key"] for s in record.stages] == [s.key for s in stages]
        assert [s["value"] for s in record.stages] == [whole.done(s).value for s in stages]
        walls = collected.machine["cells"][record.cell.name]["walls"]
        assert set(walls) == {s["stage"] for s in record.stages}
    split = whole.split("random:0.2", 0)
    told = collected.study["splits"]["random:0.2 seed 0"]
    assert told["hash"] == split.hash[:20] and told["forget"] == len(split.forget)
    assert collected.study["fingerprint"] == whole.data.fingerprint
    assert collected.study["settings"] == whole.profile.values


def test_what_differs_between_machines_is_in_a_file_apart(collected, tmp_path):
    results.write(collected, tmp_path)
    here = {path.name: path.read_bytes() for path in tmp_path.rglob("*.json")}
    elsewhere = replace(collected, machine={"date": "another", "cells": {}})
    results.write(elsewhere, tmp_path)
    moved = {p.name for p in tmp_path.rglob("*.json") if p.read_bytes() != here[p.name]}
    assert moved == {"machine.json"}


def test_results_round_trip(collected, tmp_path):
    results.write(collected, tmp_path)
    read = results.read(tmp_path)
    assert (read.study, read.machine) == (collected.study, collected.machine)
    order = {record.cell: record for record in read.records}
    assert len(order) == len(collected.records)
    assert all(order[record.cell] == record for record in collected.records)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    results.write(read, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == times


def test_a_few_images_go_with_the_results(whole, collected, tmp_path):
    results.write(collected, tmp_path)
    samples, data = results.read(tmp_path).samples, whole.data
    assert samples.classes == data.classes and list(samples.labels) == sorted([*range(10)] * 8)
    for label in range(10):
        first = data.train_images[data.train_labels == label][:8]
        shown = torch.from_numpy(samples.images[samples.labels == label]).permute(0, 3, 1, 2)
        assert torch.equal(shown, first)
    (tmp_path / "samples.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"samples\.png is damaged"):
        results.read(tmp_path)
    (tmp_path / "samples.png").unlink()
    assert results.read(tmp_path).samples is None


def test_a_study_says_how_much_of_it_is_there(whole, collected, tmp_path):
    assert Study(collected, tmp_path).extent == f"{len(collected.records)} models"
    part = replace(collected, records=collected.records[:3])
    said = Study(part, tmp_path).extent
    assert said == f"3 of {len(collected.records)} models so far"


def test_speed_is_images_times_epochs_over_seconds(whole, frames):
    speed = frames.speed.set_index(["architecture", "method"])
    assert len(speed) == 4
    split = whole.split("random:0.2", 0)
    for (architecture, method), row in speed.iterrows():
        images = len(split.train if method == "original" else split.retain)
        images *= whole.profile.recipe(architecture)["epochs"]
        assert row["images_per_second"] * row["seconds"] == pytest.approx(images)
        facts = frames.results.machine["cells"][
            Cell(architecture, "random:0.2", method, "all", 0).name
        ]
        if method == "retrain":
            assert math.isnan(row["matmul_share"])
            continue
        share = facts["flop_per_image"] * row["images_per_second"] / facts["matmul_rate"]
        assert row["matmul_share"] == pytest.approx(share)
        assert 0 < share < 1


def test_hours_count_every_stage_once_and_what_was_resumed_whole(frames):
    records, machine = frames.results.records, frames.results.machine
    walls = {}
    for record in records:
        for stage in record.stages:
            walls[stage["key"]] = machine["cells"][record.cell.name]["walls"][stage["stage"]]
    assert frames.hours == pytest.approx(sum(walls.values()) / machine["workers"] / 3600, rel=0.05)
    cells = deepcopy(machine["cells"])
    first = records[0].cell.name
    more = 1e5 - max(cells[first]["walls"]["original"], cells[first]["seconds"])
    cells[first]["seconds"] = 1e5
    longer = replace(frames, results=replace(frames.results, machine={**machine, "cells": cells}))
    expected = frames.hours + more / machine["workers"] / 3600
    assert longer.hours == pytest.approx(expected)


def test_results_of_cells_no_longer_wanted_go(collected, tmp_path):
    results.write(collected, tmp_path)
    results.write(replace(collected, records=collected.records[:3]), tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 3
    assert len(results.read(tmp_path).records) == 3


def test_cells_of_any_name_round_trip(tmp_path):
    specs = ["class:a/b", "class:a-b", "class:a b", "class:../../up", "class:σ"]
    cells = [replace(CF, forget=spec) for spec in specs]
    stages = [{"stage": "quality", "key": "0", "value": {"UA": 1.0}}]
    settings = {"forget": [{"set": spec} for spec in specs[::-1]]}
    told = {"settings": settings}, {"cells": {}}
    some = Results(*told, [Record(cell, stages) for cell in cells])
    results.write(some, tmp_path / "out")
    # Read in the order of the profile.
    assert [record.cell for record in results.read(tmp_path / "out").records] == cells[::-1]
    assert len(list(tmp_path.rglob("*.json"))) == 2 + len(cells)
    assert all(path.parent == tmp_path / "out/cells" for path in tmp_path.rglob("small*.json"))


def test_incomplete_cells_are_left_out(vit):
    lab = vit()
    lab.store.path("quality", lab.stages(CF)[1].key).unlink()
    collected = run.collect(lab, cells_of(lab.profile), workers=1)
    assert [record.cell for record in collected.records] == [ORIGINAL]


BROKEN = [b"{", b"", b"[]", b"\xff", b'"text"']


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("study.json", "machine.json") for text in BROKEN),
        ("study.json", b"{}"),
        ("study.json", b'{"settings": {"forget": [1]}}'),
        *((f"cells/{CF.name}.json", text) for text in (*BROKEN, b'{"cell": {"seed": 1}}')),
    ],
)
def test_damaged_results_are_named(collected, tmp_path, name, text):
    results.write(collected, tmp_path)
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
    assert str(tmp_path / name) in str(caught.value) and "damaged" in str(caught.value)
    assert "\n" not in str(caught.value)
    results.write(collected, tmp_path)
    assert len(results.read(tmp_path).records) == len(collected.records)


def test_no_results(tmp_path):
    with pytest.raises(UserError, match=f"no results in {tmp_path}"):
        results.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"cells": []}', '{"cells": {"a": {}}}', "{"])
def test_recorded_durations_that_cannot_be_read_are_none(collected, tmp_path, text):
    results.write(collected, tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/machine.json").write_text(text)
    walls = results.recorded_walls(tmp_path / "none", tmp_path / "bad", tmp_path / "good")
    assert walls == {n: c["walls"] for n, c in collected.machine["cells"].items()}


def test_the_first_folders_durations_count(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        cells = {"one": {"walls": {"quality": seconds}}, name: {"walls": {}}}
        (tmp_path / name / "machine.json").write_text(json.dumps({"cells": cells}))
    walls = results.recorded_walls(tmp_path / "a", tmp_path / "b")
    assert walls == {"one": {"quality": 1.0}, "a": {}, "b": {}}


# ---- Names of studies ------------------------------------------------------------------------


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
    assert name("folder:my photos/..") == f"tiny@{tmp_path.name}"
    monkeypatch.setenv("HOME", str(tmp_path / "my photos"))
    assert name("folder:~") == "tiny@my-photos"
    for dataset in ("folder:/", "folder:/a:b", "folder:/a\\b", "a/b", "../up", "folder:/σ?*"):
        assert not set(name(dataset)) & set('/\\: ?*"<>|') and name(dataset).startswith("tiny@")


def test_two_folders_of_one_name_do_not_share_results(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    one, two = tmp_path / "one/pets", tmp_path / "two/pets"
    for folder in (one, two):
        folder.mkdir(parents=True)
    lab = tiny_lab(tiny_profile(tmp_path, **VIT), tmp_path / "store", made_data("folder:pets"))
    kept = run.keep_study(lab, f"folder:{one}", 1)
    assert kept.name == "tiny@pets"
    run.check_source("tiny@pets", f"folder:{one}/../pets")
    with pytest.raises(UserError, match=r"those of .*one/pets, not of .*two/pets; rename"):
        run.check_source("tiny@pets", f"folder:{two}")
    monkeypatch.setenv("UNLEARNKIT_OWN_RESULTS", "1")
    path = str(tmp_path / "tiny.toml")
    assert study.load_study(path, f"folder:{one}").results.records == []
    with pytest.raises(UserError, match="not of"):
        run.run_study(lab.profile, f"folder:{two}")
    one.rmdir()  # moved, or renamed: nobody is confused
    run.check_source("tiny@pets", f"folder:{two}")


def test_data_of_ones_own_has_results_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(run, "compute", lambda *_, **__: computing.Outcome())
    profile = tiny_profile(tmp_path, **VIT)
    assert run.run_study(profile, data=made_data("mine"), workers=1).name == "tiny@mine"


# ---- Frames ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(whole, collected, tmp_path_factory):
    return Study(collected, tmp_path_factory.mktemp("study") / "tiny")


def raw(whole, cell, label):
    return next(
        whole.done(s).value for s in whole.stages(cell) if stage_label(s.name, s.spec) == label
    )


def rows(frame, cell, **where):
    """Return the rows of `frame` that belong to `cell` and fit `where`."""
    wanted = {name: getattr(cell, name) for name in ID} | where
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    return frame


@pytest.mark.parametrize("name", COLUMNS)
def test_frames_have_their_columns(frames, name):
    frame = getattr(frames, name)
    assert list(frame) == COLUMNS[name]
    if name != "log":  # CF and Retrain report nothing
        assert len(frame)
        assert not frame[ID].isna().any().any()
        key = [c for c in frame if c not in ("value", "sigma", "gap", "accuracy", "n")]
        assert not frame.duplicated(key).any()


def test_quality_is_what_was_measured(whole, frames):
    for cell in cells_of(whole.profile):
        value = raw(whole, cell, "quality")
        assert dict(rows(frames.quality, cell)[["metric", "value"]].values) == value
        assert set(value) == {"RA", "FA", "UA", "TA", "MIA"}
        assert value["UA"] == 100 - value["FA"]


def test_cost_is_of_finished_models(whole, frames):
    assert set(frames.cost.progress) == {1.0} and len(frames.cost) == 2 * 5
    memory = raw(whole, CF, "unlearn")["memory"]
    one = rows(frames.cost, CF).iloc[0]
    assert one.training_memory == memory["total"] == sum(memory.values()) - memory["total"]
    assert one.parameters == sum(p.numel() for p in whole.model(CF).parameters())
    assert one.seconds > 0
    first = rows(frames.cost, replace(CF, scope="first")).iloc[0]
    assert 0 < first.parameters < one.parameters


def test_the_gap_is_the_range_of_sigma_over_classes(whole, frames):
    sigma = frames.sigma.groupby([*ID, "reading", "layer_index"]).sigma
    expected = sigma.max() - sigma.min()
    gap = frames.gap.set_index([*ID, "reading", "layer_index"]).gap
    assert len(gap) == len(expected)
    assert (gap - expected[gap.index]).abs().max() < 1e-9
    value = raw(whole, CF, "fairness")
    some = rows(frames.sigma, CF, reading="variance", layer_index=2)
    assert list(some.sigma) == value["variance"][1]
    assert list(some.class_index) == list(range(10))
    assert set(some.layer_name) == {value["layers"][1]}
    layers = frames.gap.groupby("architecture").layer_index.max()
    assert dict(layers) == {"resnet50": 57, "small_vit": 9}


def test_robust_accuracy_is_hits_over_images(whole, frames):
    for label, access in (("robustness/pgd", "white-box"), ("transfer/pgd", "transfer")):
        value = raw(whole, CF, label)
        assert value["epsilons"] == [0.0, 4.0, 16.0]
        assert set(value["sets"]) == {"test", "retain", "forget"}
        for images, counts in value["sets"].items():
            assert sum(counts["n"]) == PGD[images]
            for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
                some = rows(frames.robust, CF, images=images, access=access)
                some = some[(some.epsilon - epsilon / 255).abs() < 1e-9].set_index("class_index")
                assert some.n[-1] == sum(counts["n"])
                assert some.accuracy[-1] == 100 * sum(right) / sum(counts["n"])
                for index, (n, hits) in enumerate(zip(counts["n"], right, strict=True)):
                    assert (index in some.index) == (n > 0)
                    if n:
                        assert (some.n[index], some.accuracy[index]) == (n, 100 * hits / n)
    assert set(frames.robust.attack) == {"pgd"}


def test_transfer_is_not_asked_of_checkpoints(frames):
    early = frames.robust[frames.robust.progress < 1]
    assert len(early) and set(early.access) == {"white-box"}


def test_transfer_and_white_box_start_from_the_same_images(whole):
    moved, own = (raw(whole, CF, f"{kind}/pgd")["sets"] for kind in ("transfer", "robustness"))
    for images, counts in moved.items():
        assert counts["n"] == own[images]["n"]
        assert counts["right"][0] == own[images]["right"][0]


def test_provenance_names_every_key(whole, frames):
    told = frames.provenance
    assert told["seeds"] == [0] and told["profile"] == "tiny" and told["dataset"] == "digits"
    for cell in cells_of(whole.profile):
        keys = {stage_label(s.name, s.spec): s.key for s in whole.stages(cell)}
        assert told["cells"][cell.name] == keys
    assert frames.stamp.startswith("computed on 2")
    assert "versions" not in told and "computed" not in told, "the same on every machine"
    json.dumps(told)


def test_forgetting_a_class(vit):
    sets = [{"set": "class:3", "seeds": [0], "scopes": ["all"]}]
    lab = vit(forget=sets)
    outcome, _ = run_all(lab)
    assert outcome.failed == []
    cell = Cell("small_vit", "class:3", "cf", "all", 0)
    value = raw(lab, cell, "quality")
    data = lab.data
    right = predictions(lab.model(cell), data.test_images, batch_size=64, device="cpu").argmax(1)
    right = (right == data.test_labels).double()
    inside = data.test_labels == 3
    assert 0 < inside.sum() < len(inside)
    assert value["TA"] == pytest.approx(100 * right[~inside].mean().item())
    assert value["TA_forgotten"] == pytest.approx(100 * right[inside].mean().item())
    split = lab.split("class:3", 0)
    assert set(data.train_labels[split.forget].tolist()) == {3}
    seen = predictions(lab.model(cell), data.train_images, batch_size=64, device="cpu").argmax(1)
    hit = (seen == data.train_labels).double()
    assert value["FA"] == pytest.approx(100 * hit[split.forget].mean().item())
    assert value["RA"] == pytest.approx(100 * hit[split.retain].mean().item())
    attacked = raw(lab, cell, "robustness/pgd")["sets"]
    assert attacked["test"]["n"][3] == attacked["retain"]["n"][3] == 0
    assert attacked["forget"]["n"][3] == sum(attacked["forget"]["n"]) == 10
    # The original is the one there was: it does not depend on what is to be forgotten.
    assert lab.model_stage(replace(cell, method="original")).key == lab.model_stage(ORIGINAL).key
    collected = run.collect(lab, cells_of(lab.profile), workers=1)
    quality = Study(collected, lab.store.folder).quality
    assert dict(rows(quality, cell)[["metric", "value"]].values) == value


def test_another_forget_set_trains_no_original(vit):
    sets = [{"set": spec, "seeds": [0], "scopes": ["all"]} for spec in ("random:0.2", "class:3")]
    jobs = make_plan(lab := vit(forget=sets), cells_of(lab.profile)).jobs()
    assert {job.cell.forget for job in jobs} == {"class:3"}
    seeds = [{**sets[1], "seeds": [0, 1]}, {**sets[0], "seeds": [0, 1]}]
    jobs = make_plan(lab := vit(forget=seeds), cells_of(lab.profile)).jobs()
    assert [job.cell.seed for job in jobs if job.weights_only] == [1]


def test_a_measurement_changes_no_model(vit):
    lab = vit()
    before = deepcopy(lab.model(CF).state_dict())
    for stage in lab.stages(CF)[1:]:
        stage.compute()
    assert all(torch.equal(v, before[n]) for n, v in lab.model(CF).state_dict().items())


def test_nothing_warns(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.collect(whole, cells_of(whole.profile), workers=1)
