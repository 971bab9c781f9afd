"""Do two sets of results agree? Cell by cell: identical, within tolerance, different."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearnkit import results
from unlearnkit.errors import UserError
from unlearnkit.results import Results

ACCURACIES = ("quality", "robustness", "transfer")
COMPARED = ("std", "channel_std", "trimmed_std")  # variance is the square of std
VERDICTS = ("identical", "within tolerance", "different", "not committed", "not computed")
Stages = list[dict[str, Any]]


class Comparison(NamedTuple):
    """How a cell compares, one of `VERDICTS`; `worst`: the number furthest outside tolerance."""

    cell: str
    verdict: str
    worst: str = ""


def compare(ours: Results, committed: Results, *, points: float, ratio: float) -> list[Comparison]:
    """Compare results cell by cell: on another processor, training rounds differently.

    `points` is the tolerance of accuracies, in percent points; `ratio` that of a layer's spreads
    and of what methods report: the largest difference of a row as a share of its largest value.
    """
    mine, theirs = ({r.cell.name: r.stages for r in some.records} for some in (ours, committed))
    names = sorted(mine.keys() | theirs.keys())
    return [_compared(name, mine.get(name), theirs.get(name), points, ratio) for name in names]


def _compared(
    cell: str, mine: Stages | None, theirs: Stages | None, points: float, ratio: float
) -> Comparison:
    if mine is None or theirs is None:
        return Comparison(cell, "not computed" if mine is None else "not committed")
    if mine == theirs:
        return Comparison(cell, "identical")
    keys = [{(stage["stage"], stage["key"]) for stage in some} for some in (mine, theirs)]
    if keys[0] != keys[1]:
        return Comparison(cell, "different", "other settings")
    ours, expected = _rows(mine), _rows(theirs)
    lengths = [{name: len(row) for name, row in rows.items()} for rows in (ours, expected)]
    if lengths[0] != lengths[1]:
        return Comparison(cell, "different", "other numbers are given")
    worst, place = 0.0, ""
    for name, row in ours.items():
        apart, scale = np.abs(np.subtract(row, expected[name])).max(), points
        if not name.startswith(ACCURACIES):
            scale = ratio * (np.abs(expected[name]).max() or 1.0)
        # Nothing is near a number that is none; the last digits are those of rounding.
        distance = round(apart / scale, 9) if np.isfinite(apart) else np.inf
        worst, place = max((worst, place), (distance, name))
    if worst <= 1:
        return Comparison(cell, "within tolerance")
    return Comparison(cell, "different", f"{place}: {worst:.1f} x the tolerance")


def _rows(stages: Stages) -> dict[str, list[float]]:
    """Return the numbers to compare, by their names; accuracies in %."""
    rows: dict[str, list[float]] = {}
    for stage in stages:
        name, value = stage["stage"], stage["value"]
        if "sets" in value:
            for which, counts in value["sets"].items():
                for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
                    accuracy = 100 * sum(right) / sum(counts["n"])
                    rows[f"{name} {which} at {epsilon:g}/255"] = [accuracy]
        elif "layers" in value:
            for reading in value.keys() & COMPARED:
                for layer, row in zip(value["layers"], value[reading], strict=True):
                    rows[f"{name} {reading} {layer}"] = row
        elif "distances" in value:  # what was not broken lies further than any pixel can move
            sizes = [255.0 if size is None else size for size in value["distances"]]
            rows[f"{name} median"] = [float(np.median(sizes))]
        elif "margins" in value:
            for which, found in value["margins"].items():
                rows[f"{name} {which} median"] = [float(np.median(found))]
        else:
            numbers = value.get("log", value).items()
            rows |= {f"{name} {what}": [n] for what, n in numbers if not isinstance(n, str)}
    return rows


def reproduction(ours: Results, committed: Results) -> str:
    """Return how many cells have each verdict, and which differ, by our profile's tolerances."""
    table = ours.study["settings"]["report"]
    points, ratio = table["tolerance_points"], table["tolerance_ratio"]
    compared = compare(ours, committed, points=points, ratio=ratio)
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


def compare_and_accept(own: Path, committed: Path, accept: bool) -> list[str]:
    """Return how this machine's results compare with the committed ones; replace them if asked."""
    ours, lines, held = results.read(own), [], 0
    if (committed / "study.json").exists():
        theirs = results.read(committed)
        held = len(theirs.records)
        lines.append(reproduction(ours, theirs))
    elif not accept:
        lines.append(f"Reproduction: no committed results in {committed} to compare with")
    if accept and len(ours.records) < max(1, held):
        number = f"{len(ours.records)} of {ours.study['cells']} models so far"
        raise UserError(f"not accepted: {number}, and {committed} holds {held}")
    if accept:
        results.write(ours, committed)
        lines.append(f"Accepted: these results ({len(ours.records)} models) are now in {committed}")
    return lines
