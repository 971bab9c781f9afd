"""The study's four figures: a tidy frame to look at, a figure drawn from it, files to keep.

Each figure `f(s, ...)` has a companion `f_data(s, ...)` that returns the frame drawn from.
"""

from unlearnkit.report.figures.conjectures import (
    conjectures,
    conjectures_data,
    conjectures_statistics,
)
from unlearnkit.report.figures.fairness import fairness_gap, fairness_gap_data
from unlearnkit.report.figures.layerwise import layerwise, layerwise_data
from unlearnkit.report.figures.robustness import robustness, robustness_data
from unlearnkit.report.figures.samples import samples
from unlearnkit.report.figures.saving import save_figure
from unlearnkit.report.figures.sweeps import sweep, sweep_data

__all__ = [
    "conjectures",
    "conjectures_data",
    "conjectures_statistics",
    "fairness_gap",
    "fairness_gap_data",
    "layerwise",
    "layerwise_data",
    "robustness",
    "robustness_data",
    "samples",
    "save_figure",
    "sweep",
    "sweep_data",
]
