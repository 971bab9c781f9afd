"""The notebooks: as they are read (committed results) and as they train (smoke profile)."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = {"profile", "dataset", "recompute"}
# These train live; the others only read results. What they may not compare, they must tag.
LIVE = {"00_quickstart", "07_new_dataset"}
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", **environment}
    env.pop("MPLBACKEND", None)  # if set, kernels leave the inline backend alone
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_the_numbers_run_from_00_to_07():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{n:02d}_" for n in range(8)]


@EACH
def test_a_notebook_is_committed_as_executed_and_keeps_to_the_house_rules(path):
    cells = code_cells(path)
    assert path.stat().st_size < 1_000_000
    for cell in cells:
        assert cell["execution_count"] is not None, source(cell)
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", source(cell)
        assert len(source(cell).splitlines()) <= 15
    first = cells[0]
    assert first["metadata"]["tags"] == ["parameters"]
    names = set()
    for statement in ast.parse(source(first)).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)  # papermill injects after this cell: literals only
        names.add(statement.targets[0].id)
    assert path.stem in LIVE or names == PARAMETERS
    ignored = [c for c in cells if "nbval-ignore-output" in c["metadata"].get("tags", [])]
    assert path.stem in LIVE or len(ignored) <= 1, "what a notebook reads has to repeat"
    assert any("assert " in source(cell) for cell in cells)
    for target in re.findall(r"\]\(([\w.]+\.ipynb)\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.read_lane
@EACH
def test_read_lane(path, tmp_path):
    """Text, code and committed results agree: nbval finds the same outputs again."""
    done = run(
        *("pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", str(path)),
        UNLEARNKIT_OUTPUT=str(tmp_path / "output"),
        UNLEARNKIT_STORE=str(tmp_path / "store"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The smoke profile from an empty store, through every notebook, and then its plan."""
    folder = tmp_path_factory.mktemp("train")
    places = {"UNLEARNKIT_OUTPUT": str(folder), "UNLEARNKIT_STORE": str(folder / "artifacts")}
    command = ("unlearnkit", "run", "--profile", "smoke")
    first = run(*command, **places)
    assert first.returncode == 0, first.stdout + first.stderr
    return folder, first.stdout, run(*command, "--plan", **places).stdout


@pytest.mark.train_lane
@pytest.mark.xdist_group("trained")
def test_train_lane_runs_every_notebook_and_redraws_what_is_committed(trained):
    folder, shown, again = trained
    assert "to compute: 0 stages" in again, shown + again
    executed = {path.name for path in (folder / "executed/smoke").glob("*.ipynb")}
    assert executed == {path.name for path in NOTEBOOKS}
    studies = [path.parent.name for path in (ROOT / "results").glob("*/study.json")]
    for name in (*(path.stem for path in NOTEBOOKS), *(f"results/{n}, redrawn" for n in studies)):
        assert re.search(rf"^{name} .* ok$", shown, re.MULTILINE), shown
    for name in studies:
        drawn, committed = folder / "figures" / name, ROOT / "figures" / name
        table = "table2_unlearning.csv"
        assert (drawn / table).read_bytes() == (committed / table).read_bytes()


@pytest.mark.train_lane
@pytest.mark.xdist_group("trained")
def test_train_lane_leaves_every_table_and_figure(trained):
    from unlearnkit.report.publish import FIGURES, TABLES

    folder = trained[0] / "figures/smoke"
    endings = dict.fromkeys(TABLES, ("csv", "md", "tex"))
    endings |= dict.fromkeys(FIGURES, ("csv", "png", "pdf"))
    wanted = {f"{name}.{ending}" for name, several in endings.items() for ending in several}
    assert wanted <= {path.name for path in folder.iterdir()}
    origin = json.loads((folder / "provenance.json").read_text())
    assert (origin["profile"], origin["seeds"]) == ("smoke", [0]) and origin["cells"]


@pytest.mark.train_lane
@pytest.mark.xdist_group("trained")
def test_train_lane_results_are_sensible(trained):
    from unlearnkit.report import read_study

    study = read_study(trained[0] / "artifacts/results/smoke")
    quality = study.quality.query("progress == 1 and scope == 'all'")
    accuracy = quality.query("method == 'original' and metric == 'TA'")["value"]
    assert (accuracy > 25).all(), "far better than the 10 % of chance"
    one_class = quality.query("forget == 'class:3' and metric == 'UA'").set_index(
        ["architecture", "method"]
    )["value"]
    for architecture in study.profile["architectures"]:
        assert one_class[architecture, "retrain"] == 100, "it never saw the class"
        assert one_class[architecture, "original"] < 100
    steps = study.log.query("method == 'scrub' and name == 'max_steps'")["value"]
    assert (steps >= 1).all()
    assert set(study.robust["attack"]) == {"noise", "fgsm", "pgd", "autoattack"}
