"""`python -m unlearnkit`: the plan, the study, its notebooks, and one line for each mistake."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from helpers_report import few, invented
from helpers_study import CF, VIT, keys_of, recipe, start, tiny_values, wait_for, write_profile
from PIL import Image

from unlearnkit import files, notebooks, results
from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS
from unlearnkit.report.publish import FIGURES, TABLES

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch) -> SimpleNamespace:
    """A working folder, the project's folder and store in it, and a profile."""
    for name in ("OUTPUT", "DATA", "OWN_RESULTS"):
        monkeypatch.delenv(f"UNLEARNKIT_{name}", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("UNLEARNKIT_STORE", str(project / "artifacts"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for module in (files, notebooks):
        monkeypatch.setattr(module, "project_folder", lambda: project)
    monkeypatch.chdir(tmp_path)
    profile = str(write_profile(tmp_path, tiny_values(**VIT)))
    store = project / "artifacts"
    return SimpleNamespace(folder=tmp_path, project=project, store=store, profile=profile)


@pytest.fixture
def computed(place, whole) -> SimpleNamespace:
    """The same with the whole tiny study computed, of which `whole` is the profile."""
    shutil.copytree(whole.store.folder, place.store)
    place.whole = str(whole.profile.path)
    return place


def images(folder: Path, *classes: str) -> str:
    """Write a folder of images, 12 of each class, and return its name as a data set."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((8, 8, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return f"folder:{folder}"


def one_line(capsys) -> str:
    """Return the one line that was printed as an error."""
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("unlearnkit: ") and "Traceback" not in shown
    return shown


MISTAKES = [
    ("compute --profile quik", "unknown profile 'quik'; known: "),
    ("compute --dataset cifar", "unknown dataset 'cifar'; known: digits"),
    ("compute --dataset folder:nowhere", "no folder "),
    ("compute --dataset folder:", "folder: needs a path"),
    ("compute --dataset folder:~nosuchuser/x", "no folder '~nosuchuser/x'"),
    ("compute --dataset folder:" + 5000 * "x", "name too long"),
    ("compute --workers 0", "--workers must be more than 0"),
    ("compute --minutes 0", "--minutes must be more than 0"),
    ("compute --minutes nan", "--minutes must be more than 0"),
    *(
        (f"compute --device {name}", f"unknown device '{name}'; known: cpu, cuda, cuda:0, ...")
        for name in ("gpu", "meta", "xpu:0", "cpu:3", "cuda:", "cuda:-1", "cuda:00")
    ),
    ("compute --device cuda:99", "GPU; use cpu"),
    ("run 99", "unknown notebook '99'; known: "),
    ("sweep", "has no [sweep] table"),
    ("intervene", "has no [intervention] table"),
    ("lira", "has no [lira] table"),
    ("report --dataset digits", "--dataset needs --profile"),
    ("report --profile nosuch", "unknown profile 'nosuch'; known: "),
    ("report --profile {profile} --dataset nosuch", "unknown dataset 'nosuch'; known: digits"),
    ("report --profile {profile} --dataset folder:nowhere", "no folder "),
    ("readme", "no results of paper, cifar10, quick are committed"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=lambda text: text[:45])
def test_a_mistake_is_one_line(place, capsys, command, message):
    words = command.format(profile=place.profile).split()
    if words[0] in ("compute", "run", "sweep", "intervene", "lira") and "--profile" not in words:
        words += ["--profile", place.profile]
    assert main(words) == 2
    assert message in one_line(capsys).replace("File name", "name")
    assert not place.store.exists(), "nothing is written for a mistake"


FILES = [f"results/tiny/{name}" for name in ("study.json", "source.txt", "SHA256SUMS")]


@pytest.mark.parametrize("name", ["locks", "results", "results/tiny/cells", *FILES])
def test_a_file_in_a_folders_place_or_a_folder_in_a_files(computed, capsys, name):
    path = computed.store / name
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if name in FILES else path.write_text("a file")
    assert main(["compute", "--profile", computed.whole, "--workers", "1"]) == 2
    shown = one_line(capsys)
    assert str(path) in shown and ("cannot write" in shown or "damaged" in shown)


def test_ctrl_c_names_the_command_that_goes_on(place):
    """As a user gives it: to the whole group of processes, while workers compute."""
    values = tiny_values(**VIT | recipe("training", epochs=10_000))
    words = ["compute", "--profile", str(write_profile(place.folder, values, "my long"))]
    words += ["--workers", "2"]
    code = "import sys; from unlearnkit.__main__ import main; sys.exit(main())"
    process = start(code, *words, UNLEARNKIT_STORE=str(place.store))
    wait_for(lambda: list(place.store.glob("locks/original-*")))
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=100)
    command = f"python -m unlearnkit compute --profile '{words[2]}' --workers 2"
    wanted = f"unlearnkit: interrupted; what was done is stored, and `{command}` resumes"
    assert process.returncode == 130 and error.splitlines()[-1] == wanted
    assert "Traceback" not in error


def test_plan_compute_accept_and_reproduce(place, capsys):
    command = ["compute", "--profile", place.profile, "--workers", "1"]
    before = sorted(place.folder.rglob("*"))
    assert main([*command, "--plan"]) == 0
    shown = capsys.readouterr()
    assert "Study tiny: digits, 2 models, on " in shown.out and shown.err == ""
    assert "stored: 0 of 10 results" in shown.out
    assert "to compute: 10 results of 2 models" in shown.out
    assert "expected: not known yet: nothing like it was computed" in shown.out
    assert sorted(place.folder.rglob("*")) == before, "a plan writes nothing"
    # A time limit ends well.
    assert main([*command, "--accept", "--minutes", "1e-9"]) == 2
    shown = capsys.readouterr()
    assert "Stopped at the time limit; the same command resumes." in shown.out
    assert "not accepted: 0 of 2 models so far" in shown.err

    assert main(command) == 0
    own, committed = place.store / "results/tiny", place.project / "results/tiny"
    shown = capsys.readouterr().out
    assert "small_vit random:0.2 seed 0 cf" in shown
    assert f"Reproduction: no committed results in {committed}" in shown
    assert f"Results: {own}" in shown and not committed.exists()

    assert main([*command, "--accept"]) == 0
    shown = capsys.readouterr().out
    assert "stored: 10 of 10 results" in shown and "expected: nothing to do" in shown
    assert f"Accepted: these results (2 models) are now in {committed}" in shown
    assert results.read(committed).records == results.read(own).records

    # A fresh clone: nothing stored, results committed. The durations are known now, too.
    place.store.rename(place.folder / "away")
    assert main([*command, "--plan"]) == 0
    assert "expected: about 1 min" in capsys.readouterr().out
    (place.folder / "away").rename(place.store)
    ours = results.read(committed)
    for record in ours.records:
        for stage in record.stages:
            if record.cell == CF and stage["stage"] == "quality":
                stage["value"]["TA"] += 30
    results.write(ours, committed)
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Reproduction: 2 cells: 1 identical, 1 different" in shown
    assert f"different: {CF.name}  quality TA: 10.0 x the tolerance" in shown


def test_a_failing_cell_and_a_damaged_file_are_a_line_each(computed, whole, capsys, monkeypatch):
    def fail(run):
        raise UserError("as told")

    failing = replace(METHODS["cf"], name="fails", title="Fails", function=fail)
    monkeypatch.setitem(METHODS, "fails", failing)
    values = tiny_values(**VIT | {"methods": ["fails", "cf"]})
    path = write_profile(computed.folder, values, "failing")
    key = keys_of(whole, CF)[f"{CF.name}: quality"]
    damaged = computed.store / "quality" / f"{key}.json"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert main(["compute", "--profile", str(path), "--workers", "1", "--accept"]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0].startswith(f"unlearnkit: warning: {damaged.name} is damaged; kept as ")
    assert lines[1:] == [
        "unlearnkit: small_vit random:0.2 seed 0 fails failed: as told",
        "unlearnkit: not accepted: some models failed",
    ]
    assert "Ended in" in shown.out and not (computed.project / "results").exists()
    # What could be computed is kept.
    assert len(list((computed.store / "results/failing/cells").iterdir())) == 2


def test_a_folder_with_an_awkward_name(place, capsys):
    dataset = images(place.folder / "my [best] photos: 100 %", "a cat", "dög")
    sets = [{"set": "class:a cat", "seeds": [0], "scopes": ["all"]}]
    values = tiny_values(**VIT | {"forget": sets, "train_images": 0, "test_images": 0})
    path = write_profile(place.folder, values | {"image_size": 16})
    command = ["compute", "--profile", str(path), "--workers", "1", "--dataset"]
    assert main(["report", "--profile", str(path), "--dataset", dataset]) == 2
    assert f"compute --profile {path} --dataset {dataset}" in one_line(capsys)
    assert main([*command, dataset]) == 0, capsys.readouterr().err
    own = place.store / "results/tiny@my-best-photos-100-"
    assert {path.name for path in (own / "cells").iterdir()} == {
        f"small_vit_class-a%20cat_{method}_all_seed0.json" for method in ("original", "cf")
    }
    images(place.folder / "other" / "my [best] photos: 100 %", "a cat", "dög")
    capsys.readouterr()
    assert main([*command, "folder:other/my [best] photos: 100 %"]) == 2
    assert "rename one of the two" in one_line(capsys)


def test_a_report_draws_both_studies_and_prune_shows_before_it_deletes(
    computed, capsys, monkeypatch
):
    command = ["compute", "--profile", computed.whole, "--workers", "1"]
    drawn = [computed.store / "figures/tiny", computed.project / "figures/tiny"]
    names = TABLES.keys() - {"table_interventions"}  # which are a command of their own
    files = {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}
    for name in FIGURES.keys() - {"fig7_tradeoff"}:  # one is enough
        monkeypatch.delitem(FIGURES, name)
    for name in ("fig7_tradeoff", "fig7_tradeoff_column"):
        files |= {f"{name}.png", f"{name}.pdf", "fig7_tradeoff.csv", "provenance.json"}
    assert main(command) == main(["report", "--profile", computed.whole]) == 0
    assert main([*command, "--accept"]) == main(["report", "--profile", computed.whole]) == 0
    shown = capsys.readouterr().out
    for folder in drawn:
        assert {path.name for path in folder.iterdir()} == files
        assert f"Tables and figures: {folder}" in shown
        assert all(path.read_text().count("\n") > 1 for path in folder.glob("*.csv"))
    provenance = json.loads((drawn[1] / "provenance.json").read_text())
    assert provenance["profile"] == "tiny" and len(provenance["cells"]) == 12
    stray = computed.store / "quality" / f"{'0' * 20}.json"
    stray.write_text(1500 * "x")
    for option in [], ["--yes"]:
        assert main(["prune", *option]) == 0 and stray.exists() == (not option)
        assert f"1 in {stray.parent}: of no known study\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["figures", "figures/invented/table1_models.csv"])
def test_a_report_that_cannot_be_written(place, capsys, name):
    invented(few(), folder=place.project / "results/invented")
    path = place.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if path.suffix else path.write_text("a file in the way")
    assert main(["report"]) == 2
    assert f"cannot write {path}" in one_line(capsys)


def notebook(path: Path, *cells: str) -> Path:
    """Write a notebook whose first cell is the one with parameters."""
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    made[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
    return path


PARAMETERS = 'profile = "quick"\ndataset = ""'
DAMAGED = {"cut": '{"cells": [', "empty": "", "list": "[]", "bytes": "\udcff"}


def test_run_executes_notebooks_and_redraws_what_is_committed(computed, capsys, monkeypatch):
    """Good notebooks and bad ones: what failed is named, everything else done and kept."""
    monkeypatch.setenv("UNLEARNKIT_STORE", "project/artifacts")  # notebooks run in another folder
    folder = computed.project / "notebooks"
    use = "from unlearnkit.report import load_study, publish\nstudy = load_study(profile, dataset)"
    show = "print(len(study.results.records), study.name)\n_ = publish(study, 'table1_models')"
    notebook(folder / "00_good.ipynb", PARAMETERS, use, show)
    notebook(folder / "01_bad.ipynb", PARAMETERS, "print('before')", "x = {}\nx['gone']", "1")
    notebook(folder / "02_dies.ipynb", "import os", "os._exit(1)")
    for number, (name, text) in enumerate(DAMAGED.items(), 3):
        (folder / f"0{number}_{name}.ipynb").write_text(text, errors="surrogateescape")
    invented(few(), folder=computed.project / "results/invented")
    sources = {path: path.read_bytes() for path in folder.iterdir()}
    environment = dict(os.environ)
    assert main(["run", "--profile", os.path.relpath(computed.whole), "--workers", "2"]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "unlearnkit: 01_bad failed: In [4] ('x = {}'): KeyError: 'gone'"
    assert lines[1].startswith("unlearnkit: 02_dies failed: its kernel died, perhaps for want of m")
    for line, name in zip(lines[2:], sorted(path.stem for path in sources)[3:], strict=True):
        assert line.startswith(f"unlearnkit: {name} failed: it cannot be run (")
        assert line.endswith("; if it is damaged, restore it from version control")
    executed = computed.project / "executed/tiny"
    assert f"Notebooks, into {executed}:" in shown.out
    assert "12 tiny" in (executed / "00_good.ipynb").read_text()
    assert "before" in (executed / "01_bad.ipynb").read_text()
    assert {path: path.read_bytes() for path in folder.iterdir()} == sources
    assert dict(os.environ) == environment
    # The notebook's beside this machine's results; those of what is committed, in figures/.
    assert (computed.store / "figures/tiny/table1_models.csv").exists()
    drawn = computed.project / "figures"
    assert {path.name for path in drawn.iterdir()} == {".drawn", "invented"}
    assert (drawn / "invented/fig2_robustness.png").exists()


def test_executed_notebooks_that_cannot_be_written(tmp_path):
    path = notebook(tmp_path / "00_a.ipynb", "profile = 'quick'")
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write into .*out"):
        notebooks.execute([path], tmp_path / "out", {}, {}, workers=1)
    (tmp_path / "other/00_a.ipynb").mkdir(parents=True)
    failed = notebooks.execute([path], tmp_path / "other", {}, {}, workers=1)
    assert failed[0].startswith("00_a failed: cannot write ")


def test_notebooks_are_chosen_by_name_number_or_path(place, capsys, monkeypatch):
    known = [notebook(place.project / f"notebooks/{n}.ipynb", "") for n in ("00_start", "03_gap")]
    assert notebooks.choose([]) == known
    assert notebooks.choose(["03"]) == notebooks.choose(["03_gap"]) == known[1:]
    assert notebooks.choose(["notebooks/03_gap.ipynb", "00"]) == known[::-1]
    monkeypatch.setattr(notebooks, "papermill", None)
    assert main(["run", "--profile", place.profile]) == 2
    assert "needs papermill" in one_line(capsys)
