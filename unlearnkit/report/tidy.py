"""A study's frames: made of what the stages of each model have stored, cut, and kept."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlearnkit.names import ID, READINGS
from unlearnkit.results import Record, Results

if TYPE_CHECKING:
    from unlearnkit.report.study import Study

COLUMNS = {
    "quality": [*ID, "metric", "value"],
    "cost": [*ID, "seconds", "training_memory", "peak_memory", "parameters"],
    "sigma": [*ID, "reading", "layer_index", "layer_name", "class_index", "sigma"],
    "gap": [*ID, "reading", "layer_index", "layer_name", "gap", "relative"],
    "robust": [*ID, "attack", "epsilon", "images", "access", "class_index", "n", "accuracy"],
    "distance": [*ID, "image", "distance"],
    "log": [*ID, "name", "value"],
}


def frame(name: str, results: Results) -> pd.DataFrame:
    """Return frame `name` of a `study.Study`: no rows where nothing was measured."""
    rows: list[tuple] = []
    for record in results.records:
        cell = tuple(vars(record.cell).values())
        for stage in record.stages:
            kind, _, of = stage["stage"].partition("/")
            rows += [(*cell, *row) for row in _rows(name, kind, of, stage["value"])]
        if name == "cost" and record.cell.progress == 1:
            made, machine = record.stages[0]["value"], facts(results, record)
            memory = made.get("memory", {}).get("total"), machine.get("peak_memory")
            rows.append((*cell, machine.get("seconds"), *memory, made.get("parameters")))
    # Also of no rows: what is merged has to agree.
    return pd.DataFrame(rows, columns=COLUMNS[name]).astype({"seed": int, "progress": float})


def facts(results: Results, record: Record) -> dict[str, Any]:
    """Return what belongs to the machine that computed a model: seconds, memory, walls."""
    return results.machine["cells"].get(record.cell.name, {})


def _rows(name: str, kind: str, of: str, value: dict[str, Any]) -> Iterator[tuple]:
    """Yield the rows that a stage has for frame `name`; `of` follows the slash in its label."""
    match name, kind:
        case ("quality", "quality"):
            yield from value.items()
        case ("quality", "measure"):
            yield value["name"], value["value"]
        case ("log", "unlearn"):
            yield from value["log"].items()
        case ("distance", "distance"):
            sizes = (np.inf if size is None else size / 255 for size in value["distances"])
            yield from enumerate(sizes)
        case ("sigma" | "gap", "fairness"):
            for reading in (known for known in READINGS if known in value):
                layers = zip(value["layers"], value[reading], strict=True)
                for index, (layer, row) in enumerate(layers, 1):
                    gap, mean = float(np.ptp(row)), float(np.mean(row))
                    both = gap, gap / mean if mean else np.nan
                    found = [both] if name == "gap" else enumerate(row)
                    yield from ((reading, index, layer, *numbers) for numbers in found)
        case ("robust", "robustness" | "transfer"):
            access = "white-box" if kind == "robustness" else "transfer"
            for images, counts in value["sets"].items():
                for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
                    classes = [(-1, sum(counts["n"]), sum(right))]
                    classes += zip(range(len(right)), counts["n"], right, strict=True)
                    for index, n, hits in classes:
                        if n:
                            accuracy = 100 * hits / n
                            yield of, epsilon / 255, images, access, index, n, accuracy


def arranged(known: Iterable[str], values: Iterable[str]) -> list[str]:
    """Return the distinct `values`: those `known` first, in that order, then as they appear."""
    found = dict.fromkeys(values)
    return list(dict.fromkeys([*(name for name in known if name in found), *found]))


def where(frame: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """Return the rows whose columns have (one of) the values in `equal`."""
    for column, value in equal.items():
        frame = frame[frame[column].isin(value if isinstance(value, list) else [value])]
    return frame


def made_once(function: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Decorate a function of a study and keywords: its frame is made once, and copies returned."""

    @wraps(function)
    def copied(s: "Study", **options: Any) -> pd.DataFrame:
        of = (function, *sorted(options.items()))
        if of not in s.made:
            s.made[of] = function(s, **options)
        return s.made[of].copy()

    return copied
