"""The three wings: science knows no study, study computes, report is drawn from results alone."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "unlearnkit"
SCIENCE = {"data", "models", "scopes", "training", "methods", "attacks", "fairness", "metrics"}
SCIENCE |= {"cost", "distance", "interventions", "measures", "membership"}
FLOORS = 8
DRAWING = "unlearnkit.report.figures"


def imports() -> dict[str, set[str]]:
    """Return which rooms, modules or folders, each room imports, inside functions too."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        inside = found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not getattr(node, "level", 0), f"{path.name} imports relatively"
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                names = ([*f"{start}{alias.name}".split("."), ""] for alias in node.names)
                inside |= {inner for top, inner, *_ in names if top == "unlearnkit"} - {room}
    return {room: inside & found.keys() for room, inside in found.items()}


def test_the_wings_know_each_other_one_way_without_a_circle_or_a_tower():
    rooms = imports()
    assert set(rooms) >= SCIENCE
    assert not [name for name in SCIENCE if rooms[name] & {"study", "report"}]
    assert "report" not in rooms["study"]
    floor: dict[str, int] = {}
    for name in TopologicalSorter(rooms).static_order():  # raises CycleError
        floor[name] = 1 + max((floor[below] for below in rooms[name]), default=0)
    assert max(floor.values()) <= FLOORS, floor


def test_reading_results_loads_no_torch_and_only_figures_load_what_draws():
    names = sorted(f"unlearnkit.report.{path.stem}" for path in (PACKAGE / "report").glob("*.py"))
    names = ("unlearnkit", *names, DRAWING)
    code = "".join(f"import sys, {name}\nprint(*sys.modules)\n" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, read, drawn = (set(line.split()) for line in done.stdout.splitlines())
    assert DRAWING in drawn
    assert not drawn & {"torch", "timm", "torchvision", "torchattacks", "sklearn"}
    assert not read & {"seaborn", "matplotlib.pyplot"}
