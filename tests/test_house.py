"""The three wings: science knows no study, study computes, report is drawn from results alone."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "unlearnkit"
SCIENCE = {"data", "models", "scopes", "training", "methods", "attacks", "fairness", "metrics"}
SCIENCE |= {"cost", "measures"}
FLOORS = 8


def room(path: Path) -> str:
    """Return the room a file belongs to: a folder is one."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports() -> dict[str, set[str]]:
    """Return which rooms each room imports, inside functions too."""
    found = {room(path): set() for path in PACKAGE.rglob("*.py")}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "unlearnkit":
                names = [f"unlearnkit.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} imports relatively"
                names = [node.module]
            for name in names:
                inner = name.split(".")[1:2]
                if name.startswith("unlearnkit.") and inner[0] in found:
                    found[room(path)] |= set(inner) - {room(path)}
    return found


def test_there_is_no_circle_and_no_tower():
    rooms = imports()
    floor: dict[str, int] = {}
    for name in TopologicalSorter(rooms).static_order():  # raises CycleError
        floor[name] = 1 + max((floor[below] for below in rooms[name]), default=0)
    assert max(floor.values()) <= FLOORS, floor


def test_science_knows_neither_study_nor_report():
    rooms = imports()
    assert set(rooms) >= SCIENCE
    for name in SCIENCE:
        assert not rooms[name] & {"study", "report"}, name


def test_study_knows_no_report():
    assert "report" not in imports()["study"]


@pytest.mark.parametrize("module", sorted(p.stem for p in (PACKAGE / "report").glob("*.py")))
def test_reading_results_loads_no_torch(module):
    name = "unlearnkit.report" if module == "__init__" else f"unlearnkit.report.{module}"
    code = f"import {name}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "timm", "torchvision", "torchattacks", "sklearn"}
    assert not loaded & {"seaborn", "matplotlib.pyplot"} or module.startswith("fig")
