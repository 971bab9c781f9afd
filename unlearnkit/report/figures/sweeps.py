"""How the learning rates were chosen: average gap against rate, on the validation forget set."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    study_methods,
)


def sweep_data(s: Any) -> pd.DataFrame:
    """Return what `sweep` draws: the study's sweep without Retrain's rows (see `sweeps`)."""
    return s.sweep[s.sweep["method"] != "retrain"].reset_index(drop=True)


@style.styled
def sweep(s: Any) -> Figure:
    """Draw the average gap of each method at each rate that was tried; a ring marks the choice.

    Parameters
    ----------
    s : Study
        A rate whose training diverged has no point.
    """
    data = sweep_data(s)
    names = arranged(ARCHITECTURES, data["architecture"])
    look = style.looks(study_methods(s))
    methods = [method for method in look if method in set(data["method"])]
    fig = KitFigure(figsize=(style.WIDTH, 2.6))
    axes = fig.subplots(1, max(len(names), 1), squeeze=False)[0]
    if not names:
        style.note(axes[0], "this study has no sweep")
        return fig
    for index, (ax, name) in enumerate(zip(axes, names, strict=True)):
        part = data[data["architecture"] == name]
        for method in methods:
            _curve(ax, part[part["method"] == method].sort_values("lr"), look[method])
        style.log_axis(ax.yaxis, part["average_gap"].dropna())
        ax.set_xscale("log")
        ax.set_xlabel("Learning rate")
        style.panel_title(ax, index, architecture_title(name))
    axes[0].set_ylabel("Average gap to Retrain (points)")
    style.legend_above(fig, style.method_handles(methods, look, lines=True))
    text = (
        "Validation forget set and validation images, one seed; ring: the smallest gap, "
        "the rate taken."
    )
    style.footer(fig, s, text)
    return fig


def _curve(ax: Axes, rates: pd.DataFrame, look: style.Look) -> None:
    ax.plot(rates["lr"], rates["average_gap"], color=look.color, marker=look.marker, ls=look.line)
    best = rates[rates["chosen"]]
    ring = {"s": 46, "facecolors": "none", "edgecolors": look.color, "linewidths": 1.0}
    ax.scatter(best["lr"], best["average_gap"], **ring)
