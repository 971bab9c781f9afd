"""Computing a study: the plan, workers that fail, die or are left alone, the time limit."""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from helpers_study import (
    CF,
    ORIGINAL,
    PGD,
    recipe,
    run_all,
    start,
    tiny_lab,
    tiny_profile,
    tiny_values,
    vit_lab,
    wait_for,
)

from unlearnkit.errors import UserError
from unlearnkit.measures import MEASURES, measure
from unlearnkit.methods import METHODS, method
from unlearnkit.study import compute as computing
from unlearnkit.study import lab as staging
from unlearnkit.study.compute import compute
from unlearnkit.study.plan import Plan, make_plan, training_of
from unlearnkit.training import OutOfTime, TrainingDiverged

EVERY = ("unlearn", "quality", "fairness", "robustness/pgd", "transfer/pgd")


@pytest.fixture
def own_methods():
    """Register methods that fail, wait or kill, from a module that is not the package's."""
    sys.modules.pop("helpers_method", None)
    before = dict(METHODS)
    importlib.import_module("helpers_method")
    yield
    METHODS.clear()
    METHODS.update(before)
    MEASURES.clear()


def values_of(lab):
    return {cell.name: {s.label: lab.done(s).value for s in lab.stages(cell)} for cell in lab.cells}


def lacking(lab):
    """Return 'method scope stage' of all that a plan would compute."""
    return {
        f"{cell.method} {cell.scope} {stage.label}"
        for cell, stages in plan_of(lab).missing.items()
        for stage in stages
    }


def files_of(lab):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in lab.store.folder.rglob("*")
        if path.is_file() and path.parent.name not in ("locks", "data")
    }


def plan_of(lab):
    return make_plan(lab)


def test_a_plan_sees_what_is_stored_and_damage_and_leaves_it_where_it_is(vit):
    # Another forget set trains no original; another seed does.
    sets = [{"set": spec, "seeds": [0, 1], "scopes": ["all"]} for spec in ("random:0.2", "class:3")]
    jobs = plan_of(vit(forget=sets)).jobs
    assert [job.seed for job in jobs if not job.forget] == [1]
    assert {job.forget for job in jobs if job.seed == 0} == {"class:3"}
    lab = vit()
    quality = lab.store.path("quality", lab.stages(CF)[1].key)
    quality.write_text("{")
    before = files_of(lab)
    assert lacking(lab) == {"cf all quality"} and files_of(lab) == before
    lab.store.path("original", lab.model_stage(ORIGINAL).key, "safetensors").unlink()
    lab.store.path("unlearn", lab.model_stage(CF).key, "safetensors").unlink()
    assert lacking(lab) == {"original all original", "cf all unlearn", "cf all quality"}
    assert plan_of(lab).jobs == [training_of(CF), ORIGINAL, CF]


def test_an_empty_store_lacks_all_and_originals_come_first(tmp_path):
    sets = [{"set": "random:0.2", "seeds": [0, 1], "scopes": ["all", "first"]}]
    lab = tiny_lab(tiny_profile(tmp_path, forget=sets), tmp_path / "store")
    plan = plan_of(lab)
    # 2 x 2 originals, their checkpoints, which are not transferred to, and what is unlearned.
    assert plan.lacking == plan.stages == 2 * 2 * (5 + 4 + 4 * 5)
    assert plan.seconds({}) is None and not lab.store.folder.exists()
    assert [job.forget for job in plan.jobs[:3]] == ["", "", "random:0.2"]
    seeds = [job.seed for job in plan.jobs]
    assert seeds == sorted(seeds), "seed by seed, so that what is cut off is whole for some"
    assert len(set(plan.jobs)) == len(plan.jobs)
    for number, job in enumerate(plan.jobs):
        assert training_of(job) in (None, *plan.jobs[:number])
    assert training_of(replace(CF, method="retrain")) == training_of(CF), "its transfer needs it"


def test_a_second_computation_computes_nothing(whole):
    before = files_of(whole)
    plan = plan_of(whole)
    assert (plan.lacking, plan.missing, plan.jobs, plan.seconds({})) == (0, {}, [], 0.0)
    outcome, lines = run_all(whole)
    assert (outcome.done, outcome.failed, lines) == (0, [], [])
    assert files_of(whole) == before


FGSM = {**PGD, "name": "fgsm", "options": {}, "transfer": False, "everywhere": False}
RATE = {**tiny_values()["method"], "cf": {"small_vit": {"lr": 0.01}}}


@pytest.mark.parametrize(
    ("changes", "expected", "done"),
    [
        ({"attack": [PGD, FGSM]}, {"original all robustness/fgsm", "cf all robustness/fgsm"}, 2),
        ({"method": RATE, "methods": ["retrain", "cf"]}, {f"cf all {name}" for name in EVERY}, 1),
    ],
)
def test_what_is_changed_computes_what_depends_on_it(vit, changes, expected, done):
    lab = vit(**changes)
    assert lacking(lab) == expected
    before = files_of(lab)
    outcome, _ = run_all(lab)
    assert (outcome.done, outcome.failed) == (done, [])
    after = files_of(lab)
    assert {path: after[path] for path in before} == before
    new = {path.parent.name for path in after.keys() - before.keys()}
    assert new == {stage.split()[2].split("/")[0] for stage in expected}
    changed = lab.done(lab.stages(CF)[1]).value != vit().done(vit().stages(CF)[1]).value
    assert changed == ("method" in changes)


def test_expected_seconds_are_the_recorded_ones():
    other = replace(CF, seed=1)
    stages = [staging.Stage(CF, name, {}) for name in ("unlearn", "robustness")]
    plan = Plan({CF: stages}, [], 2)
    recorded = {CF.name: {"unlearn": 5.0, "robustness": 2.0}}
    assert plan.seconds(recorded) == 7.0
    recorded[other.name] = {"unlearn": 3.0, "robustness": 4.0}
    assert Plan({CF: stages[:1], other: stages}, [], 3).seconds(recorded) == 5 + 3 + 4
    # Of a cell that was never computed: what its like took with other seeds.
    assert Plan({replace(CF, seed=2): stages}, [], 2).seconds(recorded) == 4 + 3
    assert Plan({replace(CF, method="ga"): stages}, [], 2).seconds(recorded) is None


def test_checkpoints_added_later_train_the_original_once(vit, monkeypatch):
    """And it is not stored again: others were made from the one that is there."""
    training, trained = recipe("training", epochs=3), []
    assert run_all(vit(**training))[0].failed == []
    lab = vit(**training, checkpoints=[0.3, 0.0, 0.7])
    before = files_of(lab)
    parts = [replace(ORIGINAL, progress=at) for at in (0.3, 0.0, 0.7)]
    assert plan_of(lab).jobs == [training_of(CF), *parts]
    train = staging.train
    monkeypatch.setattr(staging, "train", lambda *a, **k: trained.append(1) or train(*a, **k))
    # A training that had got further than a checkpoint leaves it to one more.
    late = tiny_lab(lab.profile, lab.store.folder)
    late.deadline = 0.0
    with pytest.raises(OutOfTime):
        late.compute(late.model_stage(parts[2]))
    lab.store.path("original", lab.model_stage(parts[0]).key).unlink()
    assert run_all(lab)[0].failed == [] and len(trained) == 1 + 2
    after = files_of(lab)
    assert {path: after[path] for path in before} == before
    assert lacking(lab) == set() and not list((lab.store.folder / "unfinished").iterdir())
    first, last = (lab.model(part).state_dict() for part in parts[1:])
    assert not any(torch.equal(first[name], last[name]) for name in first if "qkv" in name)


def test_workers_give_the_same_values_whatever_else_they_meet(
    vit, whole, own_methods, tmp_path, monkeypatch
):
    """A notebook's own is computed in parallel; what fails is named, a killer tried again."""
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    scope = {"__name__": "__main__", "get_num_threads": torch.get_num_threads, "getpid": os.getpid}
    exec("def mine(run):\n    run.log.update(threads=get_num_threads(), process=getpid())", scope)
    exec("def where(model, data, split, *, seed, batch_size):\n    return getpid()", scope)
    method("mine")(scope["mine"])
    measure("where")(scope["where"])
    names = ["raises", "dies_once", "mine", "cf", "retrain"]
    lab = vit(methods=names, measure=tiny_values()["measure"] | {"extra": ["where"]})
    shutil.rmtree(lab.store.folder)
    outcome, lines = run_all(lab, workers=2)
    failed = {cell.method: error for cell, error in outcome.failed}
    assert set(failed) == {"raises"} and not outcome.stopped
    assert outcome.done == 6 and len(lines) == 7
    told = "\n".join(lines)
    assert "small_vit random:0.2 seed 0 raises" in told and "FAILED: of my own making" in told
    assert "ZeroDivisionError" in told and "helpers_method.py" in told
    mine = {stage.name: lab.done(stage) for stage in lab.stages(replace(CF, method="mine"))}
    assert mine["unlearn"].value["log"]["threads"] == 1
    assert mine["unlearn"].value["log"]["process"] == mine["measure"].value["value"] != os.getpid()
    assert mine["measure"].machine["workers"] == 2
    fine = vit_lab(tmp_path, methods=["cf", "retrain"])
    assert values_of(fine) == values_of(tiny_lab(fine.profile, whole.store.folder))


def test_any_executor_will_do(vit, own_methods, tmp_path, monkeypatch):
    """What fails there is tried once more, perhaps on another machine."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    lab = vit(methods=["cf", "raises"])
    shutil.rmtree(lab.store.folder / "unlearn")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        outcome, _ = run_all(lab, executor=executor, device="cpu")
        dead, _ = run_all(vit(methods=["dies"]), executor=executor, device="cpu")
    assert [str(error) for _, error in outcome.failed] == ["of my own making"]
    assert outcome.done == 1 and len((tmp_path / "notes").read_text().split()) == 2
    assert [str(error) for _, error in dead.failed] == [computing.DIED]
    assert "--workers" in computing.DIED


def test_a_worker_that_does_not_see_the_store_says_so(vit, tmp_path):
    payload = computing._payload(vit(), "cpu", 1, 2, None)
    for path in (tmp_path / "store/data").iterdir():
        path.unlink()
    _, error, _ = computing.work(payload, CF)
    assert "all workers have to see the store's folder" in str(error)
    assert "UNLEARNKIT_WORKER" not in os.environ, "in the caller's process nothing is silenced"


POOL = """
import sys, time
from pathlib import Path
from unlearnkit.workers import Processes
def job(note, seconds):
    Path(note).touch()
    time.sleep(seconds)
try:
    with Processes(2) as pool:
        futures = [pool.submit(job, note, seconds) for note, seconds in zip(sys.argv[1:], (0, 99))]
        [future.result() for future in futures]
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("at_work", [False, True])
def test_no_worker_outlives_its_parent(tmp_path, what, at_work):
    """Killed, or interrupted with its whole group, as by Ctrl-C; without a traceback of workers."""
    notes = [tmp_path / "idle", tmp_path / "busy"]
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(0.5)")  # starts last
    root = Path(__file__).parents[1]
    parent = start(POOL, *notes, PYTHONPATH=os.pathsep.join([str(tmp_path), str(root)]))
    process = psutil.Process(parent.pid)
    wait_for(lambda: len(process.children()) > 3)  # two, and two that keep their books
    if at_work:
        wait_for(lambda: all(path.exists() for path in notes))
    time.sleep(0.3)
    workers = process.children(recursive=True)
    (os.kill if what == signal.SIGKILL else os.killpg)(parent.pid, what)
    _, alive = psutil.wait_procs(workers, timeout=30)
    alive = [w for w in alive if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
    for worker in alive:
        worker.kill()
    told, errors = parent.communicate(timeout=60)
    assert alive == [] and "Traceback" not in errors
    if what == signal.SIGINT:
        assert told == "interrupted\n" and "leaked" not in errors


def test_two_processes_share_a_store_and_a_dead_ones_lock(vit, own_methods, tmp_path, monkeypatch):
    """What one computes the other waits for and reads; if the one is killed, the other does it."""
    notes, lab = tmp_path / "notes", vit(methods=["noted"])
    monkeypatch.setenv("NOTES", str(notes))
    stage = lab.stages(replace(CF, method="noted"))[0]

    def other(seconds):
        """Start a process that computes the same, and return it when it is at work."""
        monkeypatch.setenv("SECONDS", seconds)
        process = multiprocessing.get_context("fork").Process(target=run_all, args=(lab,))
        process.start()
        monkeypatch.setenv("SECONDS", "0")
        wait_for(notes.exists)
        return process

    first = other("300")
    lock = lab.store.path("locks", f"unlearn-{stage.key}", "lock")
    assert lock.read_text().split()[1] == str(first.pid)
    late, _ = run_all(lab, deadline=time.time() + 0.2)
    assert (late.done, late.failed, late.stopped) == (0, [], True)
    first.kill()
    first.join()
    assert run_all(lab)[0].failed == []
    assert notes.read_text().split() == [str(first.pid), str(os.getpid())]
    # Two that do not die.
    shutil.rmtree(lab.store.folder / "unlearn")
    notes.unlink()
    first = other("0.5")
    outcome, _ = run_all(lab)
    first.join()
    assert outcome.failed == [] and outcome.done == 1 and first.exitcode == 0
    assert notes.read_text().split() == [str(first.pid)]


def test_a_cluster_gives_the_same_values_and_survives_a_worker(vit, whole, tmp_path):
    cluster = pytest.importorskip("unlearnkit.study.cluster")
    distributed = pytest.importorskip("distributed")
    shutil.rmtree(vit().store.folder)
    lab = vit_lab(tmp_path, methods=["cf", "retrain"])
    code = "import sys; from distributed.cli.dask_worker import main; main(sys.argv[1:])"
    started, killed = [], []

    def report(line):
        # The first to be at work on something else is killed in the middle of it.
        for place, keys in client.processing().items() if not killed else ():
            if keys:
                killed.append(workers[place])
                os.kill(workers[place], signal.SIGKILL)
                break

    here = {"n_workers": 0, "processes": False, "protocol": "tcp", "dashboard_address": None}
    with distributed.LocalCluster(**here) as scheduler:
        url = scheduler.scheduler_address
        words = (url, "--no-dashboard", "--nthreads", "1", "--no-nanny")
        try:
            started += [start(code, *words), start(code, *words)]
            with cluster.cluster_executor(url) as executor:
                client = executor.client
                client.wait_for_workers(2, timeout=60)
                workers = client.run(os.getpid)
                how = {"executor": executor, "device": "cpu", "report": report}
                outcome = compute(lab, plan_of(lab), **how)
        finally:
            for process in started:
                process.kill()
                process.communicate()
    assert len(killed) == 1 and (outcome.done, outcome.failed) == (4, [])
    assert values_of(lab) == values_of(tiny_lab(lab.profile, whole.store.folder))
    nobody = cluster.cluster_executor("tcp://127.0.0.1:1", timeout=0.5)
    with pytest.raises(UserError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"), nobody:
        pass


def test_each_worker_of_a_machine_claims_a_gpu_of_its_own(monkeypatch, tmp_path):
    cluster = pytest.importorskip("unlearnkit.study.cluster")
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cluster, "_GPU", [])
    claimed = []
    for _ in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")
        cluster.claim_gpu(range(2))
        claimed.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert claimed == ["0", "1", "none"]
    for lock in cluster._GPU:
        lock.release()


def test_a_cell_that_fails_does_not_stop_the_others(vit, own_methods, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    rates = {**tiny_values()["method"], "ga": {"lr": 1e30, "epochs": 2}}
    lab = vit(**recipe("unlearning", clip=0.0), method=rates, methods=["ga", "raises", "cf"])
    lab.store.path("quality", lab.stages(CF)[1].key).unlink()
    outcome, lines = run_all(lab)
    failed = {cell.method: error for cell, error in outcome.failed}
    assert set(failed) == {"ga", "raises"} and outcome.done == 1
    assert isinstance(failed["ga"], TrainingDiverged)
    assert str(failed["ga"]).startswith("ga: the loss is not finite in epoch 2 at a rate of 1e+30")
    # What the user can mend in a line; what is a bug with its traceback.
    assert "\n" not in lines[0] and "FAILED: ga: the loss" in lines[0]
    told = "\n".join(lines)
    assert told.count("Traceback") == 1 and "ZeroDivisionError: of my own making" in told
    assert len((tmp_path / "notes").read_text().split()) == 1, "another try is of no use here"
    assert lacking(lab) == {f"{name} all {stage}" for name in failed for stage in EVERY}


def test_without_an_original_its_cells_fail(tmp_path):
    diverging = recipe("training", lr=1e30, clip=0.0, optimizer="sgd", epochs=2)
    lab = vit_lab(tmp_path, **diverging, methods=["cf", "retrain"])
    outcome, _ = run_all(lab)
    messages = [str(error) for _, error in outcome.failed]
    assert outcome.done == 0 and messages[0].startswith("small_vit original: the loss is not fin")
    assert messages[1:] == ["its original model could not be trained"] * 3


def test_the_time_limit_stops_before_a_cell_and_within_a_training_and_goes_on(tmp_path):
    lab = vit_lab(tmp_path, **recipe("training", epochs=3))
    straight = tiny_lab(lab.profile, tmp_path / "straight")
    run_all(straight)
    outcome, lines = run_all(lab, deadline=time.time() - 1)
    assert (outcome.done, outcome.failed, outcome.stopped, lines) == (0, [], True, [])
    lab.deadline = time.time()
    with pytest.raises(OutOfTime):
        lab.compute(lab.model_stage(ORIGINAL))
    unfinished = lab.store.folder / "unfinished"
    assert [path.suffix for path in unfinished.iterdir()] == [".safetensors"]
    lab.deadline = None
    lab.run(training_of(CF))
    lab.deadline = time.time() - 1
    with pytest.raises(OutOfTime):
        lab.run(ORIGINAL)
    assert not list(lab.store.folder.glob("quality/*.json"))
    outcome, _ = run_all(lab)
    assert (outcome.done, outcome.failed, outcome.stopped) == (2, [], False)
    assert not list(unfinished.iterdir())
    assert values_of(lab) == values_of(straight)


def test_a_measurement_changes_no_model(vit):
    lab = vit()
    before = {name: value.clone() for name, value in lab.model(CF).state_dict().items()}
    for stage in lab.stages(CF)[1:]:
        lab.compute(stage)
    assert all(torch.equal(v, before[n]) for n, v in lab.model(CF).state_dict().items())
