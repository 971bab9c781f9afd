"""Do two sets of results agree? Cell by cell: identical, within tolerance, different."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unlearnkit.results import Results

COMPARED = ("std", "channel_std", "trimmed_std")  # variance is the square of std
VERDICTS = ("identical", "within tolerance", "different", "not committed", "not computed")


@dataclass(frozen=True)
class Comparison:
    """How a cell compares, one of `VERDICTS`; `worst`: the number furthest outside tolerance."""

    cell: str
    verdict: str
    worst: str = ""


def compare(ours: Results, committed: Results, *, points: float, ratio: float) -> list[Comparison]:
    """Compare results cell by cell.

    Parameters
    ----------
    points : float
        Tolerance of accuracies, in percent points.
    ratio : float
        Tolerance of a layer's spreads and of what methods report: the largest difference of a row
        as a share of its largest value. Training on another processor rounds differently, so
        results repeat to the last digit only on the machine that made them.
    """
    mine, theirs = ({r.cell.name: r.stages for r in some.records} for some in (ours, committed))
    compared = []
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in theirs:
            compared.append(Comparison(name, "not committed"))
        elif name not in mine:
            compared.append(Comparison(name, "not computed"))
        else:
            found = _compare_stages(mine[name], theirs[name], points, ratio)
            compared.append(Comparison(name, *found))
    return compared


def _compare_stages(
    mine: list[dict[str, Any]], theirs: list[dict[str, Any]], points: float, ratio: float
) -> tuple[str, str]:
    if {s["stage"]: s["key"] for s in mine} != {s["stage"]: s["key"] for s in theirs}:
        return "different", "other settings"
    reference = {stage["stage"]: stage["value"] for stage in theirs}
    if all(stage["value"] == reference[stage["stage"]] for stage in mine):
        return "identical", ""
    if any(_shape(stage["value"]) != _shape(reference[stage["stage"]]) for stage in mine):
        return "different", "other numbers are given"
    worst, label = 0.0, ""
    for stage in mine:
        for what, distance in _distances(stage, reference[stage["stage"]], points, ratio):
            if distance > worst:
                worst, label = distance, f"{stage['stage']} {what}: {distance:.1f} x the tolerance"
    return ("different", label) if worst > 1 else ("within tolerance", "")


def _distances(
    stage: dict[str, Any], reference: Any, points: float, ratio: float
) -> Iterator[tuple[str, float]]:
    """Yield (what, |difference| / tolerance) of every number of a stage."""
    kind, value = stage["stage"].split("/")[0], stage["value"]
    if kind == "quality":
        for metric, number in value.items():
            apart = abs(number - reference[metric])
            yield metric, apart / points if math.isfinite(apart) else math.inf
    elif kind in ("robustness", "transfer"):
        for name, counts in value["sets"].items():
            there = reference["sets"][name]
            rows = zip(value["epsilons"], counts["right"], there["right"], strict=True)
            for epsilon, right, expected in rows:
                moved = 100 * abs(sum(right) - sum(expected)) / sum(counts["n"])
                yield f"{name} at {epsilon:g}/255", moved / points
    elif kind == "fairness":
        for reading in (name for name in COMPARED if name in value):
            rows = zip(value["layers"], value[reading], reference[reading], strict=True)
            for layer, row, expected in rows:
                yield f"{reading} {layer}", _row_distance(row, expected) / ratio
    elif kind == "measure":
        yield "value", _row_distance([value["value"]], [reference["value"]]) / ratio
    else:
        for name, number in value.get("log", {}).items():
            yield name, _row_distance([number], [reference["log"][name]]) / ratio


def _row_distance(row: list[float], expected: list[float]) -> float:
    """Return the largest difference over the largest expected value: infinite, if one is none."""
    if not all(map(math.isfinite, (*row, *expected))):
        return math.inf
    scale = max(map(abs, expected)) or 1.0
    return max(abs(a - b) for a, b in zip(row, expected, strict=True)) / scale


def _shape(value: Any) -> Any:
    """Return the names and lengths of a JSON value, without its numbers."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    return [_shape(inner) for inner in value] if isinstance(value, list) else None


def summary(compared: list[Comparison], *, points: float, ratio: float) -> str:
    """Return the report's lines: how many cells of each verdict, and which are different."""
    counts = Counter(comparison.verdict for comparison in compared)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    lines = [
        f"Reproduction: {len(compared)} cells: {', '.join(parts)}",
        f"  (tolerance: {points:g} percent points of accuracies, {100 * ratio:g} % of spreads)",
    ]
    different = [c for c in compared if c.verdict == "different"]
    lines += [f"  different: {c.cell}  {c.worst}" for c in different[:10]]
    if len(different) > 10:
        lines.append(f"  ... and {len(different) - 10} more")
    return "\n".join(lines)
