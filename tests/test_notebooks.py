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
LIVE = {"00_quickstart", "07_new_dataset", "08_audit"}
# Its one study is of many models, and has no other profile or data set.
APART = {"09_lira"}
# What notebook 07 is tested with: `starter` trains for minutes.
SHORT = """extends = "starter"
architectures = ["small_vit"]
models.small_vit = { dim = 32, heads = 2 }
training.small_vit = { epochs = 10, batch_size = 16, crop = 1 }
unlearning.small_vit = { epochs = 2, crop = 1 }
attack = [{ name = "pgd", epsilons = [4], test = 20, options = { steps = 2, step_ratio = 0.5 } }]
"""
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


def test_the_numbers_run_from_00_to_09():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{n:02d}_" for n in range(10)]


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
    first = cells[path.stem == "00_quickstart"]  # there, a cell before installs the package
    assert first["metadata"]["tags"] == ["parameters"]
    names = set()
    for statement in ast.parse(source(first)).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)  # papermill injects after this cell: literals only
        names.add(statement.targets[0].id)
    assert path.stem in LIVE | APART or names == PARAMETERS
    ignored = [c for c in cells if "nbval-ignore-output" in c["metadata"].get("tags", [])]
    assert path.stem in LIVE or len(ignored) <= 1, "what a notebook reads has to repeat"
    assert any("assert " in source(cell) for cell in cells)
    for target in re.findall(r"\]\(([\w.]+\.ipynb)\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.read_lane
@EACH
def test_read_lane(path, tmp_path):
    """Text, code and committed results agree: nbval finds the same outputs again."""
    if path.stem == "07_new_dataset":
        short = tmp_path / "short.toml"
        short.write_text(SHORT)
        code = path.read_text().replace(r"settings = \"starter\"", rf"settings = \"{short}\"")
        path = tmp_path / path.name
        path.write_text(code)
        assert str(short) in code
    done = run(
        *("pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", str(path)),
        UNLEARNKIT_OUTPUT=str(tmp_path / "output"),
        UNLEARNKIT_STORE=str(tmp_path / "store"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.train_lane
def test_train_lane(tmp_path):
    """The smoke profile from an empty store, through the notebooks, and then its plan.

    One test: whichever process runs it trains once. The notebooks that train in the read lane, too,
    are not run again.
    """
    places = {"UNLEARNKIT_OUTPUT": str(tmp_path), "UNLEARNKIT_STORE": str(tmp_path / "artifacts")}
    chosen = [path.stem for path in NOTEBOOKS if path.stem not in LIVE]
    first = run("unlearnkit", "run", *chosen, "--profile", "smoke", **places)
    assert first.returncode == 0, first.stdout + first.stderr
    again = run("unlearnkit", "run", "--profile", "smoke", "--plan", **places)
    assert "to compute: 0 results" in again.stdout, first.stdout + again.stdout
    executed = {path.stem for path in (tmp_path / "executed/smoke").glob("*.ipynb")}
    assert executed == set(chosen)
    studies = [path.parent.name for path in (ROOT / "results").glob("*/study.json")]
    for name in (*chosen, *(f"results/{study}, redrawn" for study in studies)):
        assert re.search(rf"^{name} .* ok$", first.stdout, re.MULTILINE), first.stdout
    for name in studies:
        table = f"figures/{name}/table2_unlearning.csv"
        assert (tmp_path / table).read_bytes() == (ROOT / table).read_bytes()
    every_table_and_figure(tmp_path / "figures/smoke")
    sensible(tmp_path / "artifacts/results/smoke")


def every_table_and_figure(folder):
    from unlearnkit.report.publish import FIGURES, TABLES

    endings = dict.fromkeys(TABLES.keys() - {"table_interventions"}, ("csv", "md", "tex"))
    endings |= dict.fromkeys(FIGURES, ("csv", "png", "pdf"))
    wanted = {f"{name}.{ending}" for name, several in endings.items() for ending in several}
    assert wanted <= {path.name for path in folder.iterdir()}
    origin = json.loads((folder / "provenance.json").read_text())
    assert (origin["profile"], origin["seeds"]) == ("smoke", [0]) and origin["cells"]


def sensible(folder):
    from unlearnkit.report import read_study

    study = read_study(folder)
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
