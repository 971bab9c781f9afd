"""From what a stage has stored to the rows of the study's data frames."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.results import ID, READINGS

COLUMNS = {
    "quality": [*ID, "metric", "value"],
    "cost": [*ID, "seconds", "training_memory", "peak_memory", "parameters"],
    "sigma": [*ID, "reading", "layer_index", "layer_name", "class_index", "sigma"],
    "gap": [*ID, "reading", "layer_index", "layer_name", "gap"],
    "robust": [*ID, "attack", "epsilon", "images", "access", "class_index", "n", "accuracy"],
    "log": [*ID, "name", "value"],
}


def frame(name: str, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return `rows` as the study's frame `name`, with its columns even if there is no row."""
    return pd.DataFrame(list(rows), columns=COLUMNS[name])


def quality_rows(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one row for each metric (%)."""
    for metric, value in stage["value"].items():
        yield {"metric": metric, "value": value}


def log_rows(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one row for each number a method reports about itself."""
    for name, value in stage["value"]["log"].items():
        yield {"name": name, "value": value}


def sigma_rows(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield σ, one row for each reading that was measured, layer and class."""
    value = stage["value"]
    for reading in (name for name in READINGS if name in value):
        for index, layer in enumerate(value["layers"]):
            for class_index, sigma in enumerate(value[reading][index]):
                yield {
                    "reading": reading,
                    "layer_index": index + 1,
                    "layer_name": layer,
                    "class_index": class_index,
                    "sigma": sigma,
                }


def gap_rows(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fairness-gap, one row for each reading that was measured and layer."""
    value = stage["value"]
    for reading in (name for name in READINGS if name in value):
        gaps = np.ptp(np.array(value[reading], dtype=float), axis=1).tolist()
        for index, gap in enumerate(gaps):
            yield {
                "reading": reading,
                "layer_index": index + 1,
                "layer_name": value["layers"][index],
                "gap": gap,
            }


def robust_rows(stage: dict[str, Any], access: str) -> Iterator[dict[str, Any]]:
    """Yield accuracy under attack (%), one row for each ε, set of images and class, -1 for all."""
    value = stage["value"]
    for images, counts in value["sets"].items():
        for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
            row = {
                "attack": stage["stage"].split("/")[1],
                "epsilon": epsilon / 255,
                "images": images,
                "access": access,
            }
            whole = sum(counts["n"])
            yield {**row, "class_index": -1, "n": whole, "accuracy": 100 * sum(right) / whole}
            for class_index, (n, hits) in enumerate(zip(counts["n"], right, strict=True)):
                if n:
                    accuracy = 100 * hits / n
                    yield {**row, "class_index": class_index, "n": n, "accuracy": accuracy}
