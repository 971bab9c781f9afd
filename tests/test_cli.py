"""`python -m unlearnkit`: the plan, the study, the notebooks, and one line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_study import CF, VIT, tiny_values, whole_lab, write_profile
from PIL import Image

from unlearnkit import results
from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS
from unlearnkit.report import publish
from unlearnkit.report.publish import FIGURES, TABLES
from unlearnkit.study import notebooks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project of its own in tmp_path, with a profile; results, figures and store go there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("STORE", "OUTPUT", "DATA", "OWN_RESULTS"):
        monkeypatch.delenv(f"UNLEARNKIT_{name}", raising=False)
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("UNLEARNKIT_OUTPUT", str(tmp_path / "project"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for module in (results, notebooks):
        monkeypatch.setattr(module, "project_folder", lambda: tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    yield SimpleNamespace(
        folder=tmp_path,
        store=tmp_path / "store",
        project=tmp_path / "project",
        profile=str(write_profile(tmp_path, tiny_values(**VIT))),
    )
    torch.set_num_threads(threads)


@pytest.fixture
def computed(place, tmp_path_factory):
    """The same with everything computed, for the whole tiny study."""
    lab = whole_lab(tmp_path_factory)
    shutil.copytree(lab.store.folder, place.store, dirs_exist_ok=True)
    place.whole = str(lab.profile.path)
    return place


def images(folder, *classes, count=6, halves=("train", "test")):
    """Write a folder of images and return its name as a data set."""
    for half in halves:
        for name in classes:
            (folder / half / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((8, 8, 3), 20 * number, np.uint8)
                Image.fromarray(pixels).save(folder / half / name / f"{number}.png")
    return f"folder:{folder}"


def python(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "unlearnkit", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


# ---- Mistakes --------------------------------------------------------------------------------


def make_corrupt(place):
    images(place.folder / "data", "cat", "dog")
    (place.folder / "data/train/dog/3.png").write_bytes(b"not an image")


def make_file_in_the_way(place):
    place.store.write_text("a file, where the store's folder should be")


MISTAKES = {
    "profile": (["--profile", "quik"], r"unknown profile 'quik'; known: ", None),
    "dataset": (["--dataset", "cifar"], "unknown dataset 'cifar'; known: digits", None),
    "missing folder": (["--dataset", "folder:nowhere"], "no folder ", None),
    "no folder named": (["--dataset", "folder:"], "folder: needs a path", None),
    "empty folder": (
        ["--dataset", "folder:data"],
        "data",
        lambda place: (place.folder / "data").mkdir(),
    ),
    "one class": (
        ["--dataset", "folder:data"],
        "one class only (cat)",
        lambda place: images(place.folder / "data", "cat"),
    ),
    "class missing from test": (
        ["--dataset", "folder:data"],
        "'dog' in test",
        lambda place: (
            images(place.folder / "data", "cat", "dog"),
            shutil.rmtree(place.folder / "data/test/dog"),
        ),
    ),
    "corrupt image": (["--dataset", "folder:data"], "dog/3.png", make_corrupt),
    "no workers": (["--workers", "0"], "--workers must be at least 1", None),
    "negative workers": (["--workers", "-2"], "--workers must be at least 1", None),
    "no minutes": (["--minutes", "0"], "--minutes must be more than 0", None),
    "not a number of minutes": (["--minutes", "nan"], "--minutes must be more than 0", None),
    "unknown device": (["--device", "gpu"], "unknown device 'gpu'; known: cpu, cuda", None),
    "no permission": ([], "cannot write ", make_file_in_the_way),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("command", ["compute", "run"])
def test_a_mistake_is_one_line(place, capsys, monkeypatch, command, name):
    arguments, message, prepare = MISTAKES[name]
    if prepare is not None:
        prepare(place)
    monkeypatch.setattr(notebooks, "choose", lambda names: [])
    if "--profile" not in arguments:
        arguments = ["--profile", place.profile, *arguments]
    assert main([command, *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.err.startswith("unlearnkit: ")
    assert message in shown.err and "Traceback" not in shown.err
    assert not list(place.folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ("random:0", "out of range; give 0 < fraction < 1"),
        ("random:1", "out of range; give 0 < fraction < 1"),
        ("random:-0.1", "out of range"),
        ("random:0.99", "leaves no image of class"),
        ("class:10", "unknown class '10'; known: 0 (0)"),
        ("class:cat", "unknown class 'cat'"),
        ("some", "malformed forget set 'some'"),
    ],
)
def test_a_forget_set_that_cannot_be(place, capsys, forget, message):
    sets = [{"set": forget, "seeds": [0], "scopes": ["all"]}]
    path = write_profile(place.folder, tiny_values(**VIT | {"forget": sets}))
    assert main(["compute", "--profile", str(path)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_no_gpu(place, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:9"):
        assert main(["compute", "--profile", place.profile, "--device", device]) == 2
        shown = capsys.readouterr().err
        assert "no GPU; use cpu" in shown and shown.count("\n") == 1


def test_an_unknown_notebook_is_found_out_first(place, capsys, monkeypatch):
    known = {"00_quickstart": Path("00_quickstart.ipynb"), "03_gap": Path("03_gap.ipynb")}
    monkeypatch.setattr(notebooks, "available", lambda: known)
    assert main(["run", "04", "--profile", place.profile]) == 2
    shown = capsys.readouterr()
    assert shown.err == "unlearnkit: unknown notebook '04'; known: 00_quickstart, 03_gap\n"
    assert shown.out == "" and not place.store.exists()
    assert notebooks.choose(["03"]) == notebooks.choose(["03_gap"]) == [known["03_gap"]]
    assert (
        notebooks.choose(["notebooks/03_gap.ipynb", "00"]) == [known["03_gap"], *known.values()][:2]
    )
    assert notebooks.choose(["notebooks/03_gap.ipynb", "00"]) == list(known.values())[::-1]
    assert notebooks.choose([]) == list(known.values())


@pytest.mark.parametrize("text", ["{", ""])
def test_damaged_committed_results_are_named(place, capsys, text):
    assert main(["compute", "--profile", place.profile, "--workers", "1", "--accept"]) == 0
    path = place.project / f"results/tiny/cells/{CF.name}.json"
    path.write_text(text)
    shutil.rmtree(place.store / "results")
    capsys.readouterr()
    assert main(["report", "--profile", place.profile]) == 2
    shown = capsys.readouterr().err
    assert str(path) in shown and "damaged" in shown and shown.count("\n") == 1


def test_a_report_without_results(place, capsys):
    assert main(["report", "--profile", place.profile, "--dataset", "folder:x"]) == 2
    shown = capsys.readouterr().err
    assert "no results" in shown and shown.count("\n") == 1
    assert f"python -m unlearnkit compute --profile {place.profile} --dataset folder:x" in shown


def test_an_interruption_is_said(place, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearnkit.study.compute.compute", interrupt)
    assert main(["compute", "--profile", place.profile]) == 130
    assert capsys.readouterr().err == "unlearnkit: interrupted; what was done is stored\n"


def test_the_command_itself(place):
    """In a process of its own: status 2 and one line, or the plan and nothing done."""
    wrong = python("compute", "--profile", place.profile, "--dataset", "folder:nowhere")
    plan = python("compute", "--profile", place.profile, "--plan")
    out, err = wrong.communicate(timeout=100)
    assert (wrong.returncode, out) == (2, "")
    assert err.startswith("unlearnkit: no folder ") and err.count("\n") == 1
    out, err = plan.communicate(timeout=100)
    assert (plan.returncode, err) == (0, "")
    assert "Study tiny: digits, 2 models, on " in out
    assert "stored: 0 of 10 stages" in out and "to compute: 10 stages of 2 models" in out
    assert {path.name for path in place.store.iterdir()} == {"splits"}


# ---- Computing -------------------------------------------------------------------------------


def test_compute_accept_and_reproduce(place, capsys):
    command = ["compute", "--profile", place.profile, "--workers", "1"]
    assert main([*command, "--plan"]) == 0
    assert "expected: unknown: nothing like it was recorded yet" in capsys.readouterr().out
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "small_vit random:0.2 seed 0 cf" in shown
    assert "Reproduction: no committed results in" in shown
    assert f"Results: {place.store / 'results/tiny'}" in shown
    assert not (place.project / "results").exists()

    assert main([*command, "--accept"]) == 0
    shown = capsys.readouterr().out
    assert "stored: 10 of 10 stages" in shown and "expected: nothing to do" in shown
    assert "Accepted: these results (2 models) are now in" in shown
    committed = place.project / "results/tiny"
    own = place.store / "results/tiny"
    names = sorted(path.relative_to(own) for path in own.rglob("*.json"))
    assert len(names) == 2 + 2
    for name in names:
        assert (committed / name).read_bytes() == (own / name).read_bytes()

    # A fresh clone: nothing stored, results committed. The durations are known now, too.
    shutil.rmtree(place.store)
    assert main([*command, "--plan"]) == 0
    assert "expected: about 1 min" in capsys.readouterr().out
    assert main(command) == 0
    assert "Reproduction: 2 cells: 2 identical" in capsys.readouterr().out
    study = json.loads((committed / "study.json").read_text())
    assert study["profile"] == "tiny"

    cell = committed / "cells" / f"{CF.name}.json"
    whole = json.loads(cell.read_text())
    quality = next(s for s in whole["stages"] if s["stage"] == "quality")
    quality["value"]["TA"] += 30
    cell.write_text(json.dumps(whole))
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Reproduction: 2 cells: 1 identical, 1 different" in shown
    assert f"different: {CF.name}  quality TA: 10.0 x the tolerance" in shown


def test_a_failing_cell_ends_with_status_1(computed, capsys, monkeypatch):
    def fail(run):
        raise UserError("as told")

    monkeypatch.setitem(
        METHODS, "fails", replace(METHODS["cf"], name="fails", title="Fails", function=fail)
    )
    values = tiny_values(**VIT | {"methods": ["fails", "cf"]})
    path = write_profile(computed.folder, values, "failing")
    command = ["compute", "--profile", str(path), "--workers", "1", "--accept"]
    assert main(command) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "unlearnkit: small_vit random:0.2 seed 0 fails failed: as told"
    assert lines[1:] == ["unlearnkit: not accepted: some cells failed"]
    assert "Traceback" not in shown.out + shown.err and "Ended in" in shown.out
    assert not (computed.project / "results").exists()
    # What could be computed is kept, and nothing of it is computed again.
    assert len(list((computed.store / "results/failing/cells").iterdir())) == 2


def test_a_time_limit_ends_well_and_goes_on(place, capsys):
    command = ["compute", "--profile", place.profile, "--workers", "1"]
    assert main([*command, "--minutes", "1e-9", "--accept"]) == 2
    shown = capsys.readouterr()
    assert "Stopped for the time limit" in shown.out
    assert "not accepted: 0 of 2 models so far" in shown.err
    assert not (place.project / "results").exists()
    assert main([*command, "--minutes", "10"]) == 0
    shown = capsys.readouterr()
    assert "Stopped" not in shown.out and "Done in" in shown.out and shown.err == ""


def test_a_damaged_file_is_said_in_a_line(computed, capsys):
    path = next((computed.store / "quality").glob("*.json"))
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["compute", "--profile", computed.whole, "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith(f"unlearnkit: warning: {path.name} is damaged; kept as ")
    assert shown.err.count("\n") == 1 and "to compute: 1 stages of 1 models" in shown.out


def test_a_folder_with_an_awkward_name(place, capsys, tmp_path):
    dataset = images(tmp_path / "my [best] photos: 100 %", "a cat", "dög", count=12)
    sets = [{"set": "class:a cat", "seeds": [0], "scopes": ["all"]}]
    values = tiny_values(**VIT | {"forget": sets, "train_images": 0, "test_images": 0})
    values["image_size"] = 16
    path = write_profile(place.folder, values)
    command = ["compute", "--profile", str(path), "--dataset", dataset, "--workers", "1"]
    assert main(command) == 0, capsys.readouterr().err
    own = place.store / "results/tiny@my-best-photos-100-"
    assert {path.name for path in (own / "cells").iterdir()} == {
        f"small_vit_class-a%20cat_{method}_all_seed0.json" for method in ("original", "cf")
    }
    assert (own / "source.txt").read_text().strip() == dataset.removeprefix("folder:")
    other = images(tmp_path / "other" / "my [best] photos: 100 %", "a cat", "dög", count=12)
    capsys.readouterr()
    assert main([*command[:4], other, "--workers", "1"]) == 2
    shown = capsys.readouterr().err
    assert "rename one of these two folders" in shown and shown.count("\n") == 1


# ---- Report ----------------------------------------------------------------------------------


def test_report_redraws_everything(computed, capsys):
    assert main(["compute", "--profile", computed.whole, "--workers", "1"]) == 0
    assert main(["report", "--profile", computed.whole]) == 0
    shown = capsys.readouterr().out
    folder = computed.project / "figures/tiny"
    assert f"Tables and figures: {folder}" in shown
    endings = dict.fromkeys(TABLES, ("csv", "md", "tex"))
    endings |= dict.fromkeys(FIGURES, ("png", "pdf", "csv"))
    wanted = {f"{name}.{ending}" for name, several in endings.items() for ending in several}
    assert {path.name for path in folder.iterdir()} == {*wanted, "provenance.json"}
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["profile"] == "tiny" and len(provenance["cells"]) == 12
    for name in endings:
        assert f"  {name}\n" in shown
        assert (folder / f"{name}.csv").read_text().count("\n") > 1
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert content["table1_models.csv"].startswith(b"Architecture")
    assert all(content[f"{name}.png"].startswith(b"\x89PNG") for name in FIGURES)


def test_a_report_that_cannot_be_written(computed, capsys):
    assert main(["compute", "--profile", computed.whole, "--workers", "1"]) == 0
    computed.project.mkdir()
    (computed.project / "figures").write_text("a file in the way")
    capsys.readouterr()
    assert main(["report", "--profile", computed.whole]) == 2
    shown = capsys.readouterr().err
    assert "cannot write" in shown and shown.count("\n") == 1


def test_an_unknown_table():
    with pytest.raises(UserError, match=r"unknown table or figure 'table9'; known: table1_models"):
        publish(None, "table9")


# ---- Notebooks -------------------------------------------------------------------------------


def notebook(path, *cells):
    """Write a notebook whose first cell is the one with parameters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"cell-{number}",
            "metadata": {"tags": ["parameters"] if number == 0 else []},
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


PARAMETERS = 'profile = "quick"\ndataset = ""'


def test_run_executes_notebooks_on_this_machines_results(computed, capsys, monkeypatch):
    """A good one and one that fails: named with cell and error, everything else kept."""
    pytest.importorskip("papermill")
    monkeypatch.setenv("UNLEARNKIT_STORE", "store")  # relative: notebooks run in another folder
    good = notebook(
        computed.project / "notebooks/00_good.ipynb",
        PARAMETERS,
        "from unlearnkit.report.study import load_study\nstudy = load_study(profile, dataset)",
        "print('cells:', len(study.results.records), 'of', study.name)",
    )
    bad = notebook(
        computed.project / "notebooks/01_bad.ipynb",
        PARAMETERS,
        "print('before')",
        "x = {}\nx['missing']",
        "print('after')",
    )
    sources = [good.read_bytes(), bad.read_bytes()]
    profile = os.path.relpath(computed.whole)
    assert main(["run", "--profile", profile, "--workers", "2"]) == 1
    shown = capsys.readouterr()
    assert shown.err == (
        "unlearnkit: notebook 01_bad failed in code cell 3 ('x = {}'): KeyError: 'missing'\n"
    )
    executed = computed.project / "executed/tiny"
    assert f"Executed notebooks: {executed}" in shown.out
    assert "00_good" in shown.out and "FAILED code cell 3" in shown.out
    assert "cells: 12 of tiny" in (executed / "00_good.ipynb").read_text()
    assert "before" in (executed / "01_bad.ipynb").read_text()
    assert [good.read_bytes(), bad.read_bytes()] == sources


def test_a_parameter_that_no_notebook_has(tmp_path):
    pytest.importorskip("papermill")
    paths = [
        notebook(tmp_path / "00_a.ipynb", "profile = 'quick'\nepsilon = 8"),
        notebook(tmp_path / "01_b.ipynb", "profile = 'quick'"),
    ]
    assert notebooks.parameter_names(paths[0]) == ["profile", "epsilon"]
    assert notebooks.parameter_names(paths[1]) == ["profile"]
    with pytest.raises(UserError, match=r"unknown notebook parameter 'epsilom'; known: epsilon, p"):
        notebooks.execute(paths, tmp_path / "out", {"epsilom": 4}, workers=1)
    assert not (tmp_path / "out").exists()


def test_each_notebook_gets_the_parameters_it_has(tmp_path, monkeypatch):
    pytest.importorskip("papermill")
    calls = []

    def pretend(command, **options):
        calls.append((command, options["env"]))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(notebooks.subprocess, "run", pretend)
    paths = [
        notebook(tmp_path / "00_a.ipynb", "profile = 'quick'\nepsilon = 8"),
        notebook(tmp_path / "01_b.ipynb", "profile = 'quick'"),
    ]
    done = notebooks.execute(
        paths,
        tmp_path / "out",
        {"epsilon": 4, "profile": "1"},
        workers=1,
        environment={"EXTRA": "yes"},
        report=lambda line: None,
    )
    assert [result.name for result in done] == ["00_a", "01_b"]
    given = {
        Path(command[3]).stem: [command[n + 1] for n, word in enumerate(command) if word == "-y"]
        for command, _ in calls
    }
    assert given == {"00_a": ['{"epsilon": 4}', '{"profile": "1"}'], "01_b": ['{"profile": "1"}']}
    assert all(environment["EXTRA"] == "yes" for _, environment in calls)


def test_a_notebook_that_dies_without_a_word(tmp_path, monkeypatch):
    pytest.importorskip("papermill")
    killed = SimpleNamespace(returncode=-9, stderr="")
    monkeypatch.setattr(notebooks.subprocess, "run", lambda *_, **__: killed)
    path = notebook(tmp_path / "00_a.ipynb", "profile = 'quick'")
    lines = []
    done = notebooks.execute([path], tmp_path / "out", {}, workers=1, report=lines.append)
    assert done[0].error == "exit status -9" and "FAILED exit status -9" in lines[0]


def test_executed_notebooks_that_cannot_be_written(tmp_path):
    pytest.importorskip("papermill")
    path = notebook(tmp_path / "00_a.ipynb", "profile = 'quick'")
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write into .*out"):
        notebooks.execute([path], tmp_path / "out", {}, workers=1)


def test_without_papermill(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(UserError, match=r"needs papermill; install it .*compute`, which needs no"):
        notebooks.execute([tmp_path / "00_a.ipynb"], tmp_path / "out", {}, workers=1)
