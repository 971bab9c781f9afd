"""Our curves beside the published ones: copies agree, mirror images do not, gaps leave rows out."""

import numpy as np
import pandas as pd
import pytest
from helpers_report import changed, invented, model

from unlearnkit.report.published import _holds, _parts_at, curves, read_published
from unlearnkit.report.published import nearest, observations, outliers, readings
from unlearnkit.report.tables.saving import latex, markdown, numeric

PAPER = read_published()
METHODS = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun"]


def copied() -> dict[tuple[str, str], np.ndarray]:
    """Return the published gaps by architecture and method, hidden ones amid the others."""
    found = {}
    for architecture, part in PAPER.groupby("architecture"):
        wide = part.pivot(index="layer_index", columns="method", values="fairness_gap")
        if architecture == "resnet50":
            wide.loc[[50, 51]] = wide.loc[[50, 51]].ffill().bfill()
        small = wide.drop(columns=["salun", "scrub"]).median(axis=1).fillna(0.15)
        found |= {(architecture, name): wide[name].fillna(small).to_numpy() for name in METHODS}
    return found


COPY = copied()
MIRROR = {key: 0.01 / gap for key, gap in COPY.items()}


def scaled(factor, methods=METHODS):
    return {key: gap * (factor if key[1] in methods else 1) for key, gap in COPY.items()}


def models_of(curves, seed=0, **others):
    """Return models of one seed with these gaps, in that seed also under other readings."""
    return [
        model(
            method,
            seed,
            architecture=architecture,
            gap={"std": gap} | {name: other[architecture, method] for name, other in others.items()},
        )
        for (architecture, method), gap in curves.items()
    ]


def study(*seeds, **others):
    """Return a study with these gaps for each seed, and for other readings in its first."""
    models = [m for k, gaps in enumerate(seeds) for m in models_of(gaps, k, **others if not k else {})]
    return invented(models)
