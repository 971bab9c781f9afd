"""From what the stages of each model have stored to the rows of a study's frames."""

from collections.abc import Iterable, Iterator
from dataclasses import astuple
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.names import ID, READINGS
from unlearnkit.results import Record, Results

Json = dict[str, Any]
COLUMNS = {
    "quality": [*ID, "metric", "value"],
    "cost": [*ID, "seconds", "training_memory", "peak_memory", "parameters"],
    "sigma": [*ID, "reading", "layer_index", "layer_name", "class_index", "sigma"],
    "gap": [*ID, "reading", "layer_index", "layer_name", "gap"],
    "robust": [*ID, "attack", "epsilon", "images", "access", "class_index", "n", "accuracy"],
    "log": [*ID, "name", "value"],
}


def frame(name: str, results: Results) -> pd.DataFrame:
    """Return frame `name` of a `study.Study`: no rows where nothing was measured."""
    rows = []
    for record in results.records:
        cell = astuple(record.cell)
        for stage in record.stages:
            kind, _, of = stage["stage"].partition("/")
            if kind in ROWS[name]:
                rows += [(*cell, *row) for row in ROWS[name][kind](stage["value"], of)]
        if name == "cost" and record.cell.progress == 1:
            rows.append((*cell, *_cost(record.stages[0]["value"], facts(results, record))))
    return pd.DataFrame(rows, columns=COLUMNS[name])


def facts(results: Results, record: Record) -> Json:
    """Return what belongs to the machine that computed a model: seconds, memory, walls."""
    return results.machine["cells"].get(record.cell.name, {})


def _cost(made: Json, machine: Json) -> tuple:
    memory = made.get("memory", {}).get("total")
    return machine.get("seconds"), memory, machine.get("peak_memory"), made.get("parameters")


def _layers(value: Json) -> Iterator[tuple]:
    """Yield reading, layer_index, layer_name and σ of each class, of the readings measured."""
    for reading in (name for name in READINGS if name in value):
        for index, (layer, row) in enumerate(zip(value["layers"], value[reading], strict=True), 1):
            yield reading, index, layer, row


def _sigma(value: Json, _: str) -> Iterable[tuple]:
    return ((*layer, label, x) for *layer, row in _layers(value) for label, x in enumerate(row))


def _gaps(value: Json, _: str) -> Iterable[tuple]:
    return ((*layer, float(np.ptp(row))) for *layer, row in _layers(value))


def _accuracies(access: str, value: Json, attack: str) -> Iterator[tuple]:
    """Yield the accuracy under attack for each set of images, ε and class, -1 for all."""
    for images, counts in value["sets"].items():
        for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
            classes = {-1: (sum(counts["n"]), sum(right))}
            classes |= enumerate(zip(counts["n"], right, strict=True))
            for index, (n, hits) in classes.items():
                if n:
                    yield attack, epsilon / 255, images, access, index, n, 100 * hits / n


ROWS = {  # frame -> kind of stage -> function of its value and of what follows the slash
    "quality": {
        "quality": lambda value, _: value.items(),
        "measure": lambda value, _: [(value["name"], value["value"])],
    },
    "sigma": {"fairness": _sigma},
    "gap": {"fairness": _gaps},
    "robust": {
        "robustness": partial(_accuracies, "white-box"),
        "transfer": partial(_accuracies, "transfer"),
    },
    "cost": {},  # of models, not of stages
    "log": {"unlearn": lambda value, _: value["log"].items()},
}
