"""Figure 4: unlearning restricted to groups of layers: quality, gap, robustness, time, memory."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure, Look
from unlearnkit.report.frames import over_seeds
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    attack_title,
    method_title,
    study_methods,
    summaries,
)
from unlearnkit.results import ID, SCOPES

MEASURES = {
    "average_gap": "Average gap\nto Retrain (points) ↓",
    "gap_mean": "Fairness-gap,\nmean over layers",
    "drop": "Drop under\n{attack} (points) ↓",
    "relative_seconds": "Time relative\nto all layers ↓",
    "relative_memory": "Memory relative\nto all layers ↓",
}
KEYS = ["architecture", "forget", "method", "scope", "measure"]
REFERENCES = {"original": ":", "retrain": "--"}


def layerwise_data(
    s: Any, forget: str | None = None, *, reading: str = "std", attack: str = "pgd"
) -> pd.DataFrame:
    """Return what Figure 4 draws: one row for each architecture, method, scope and measure.

    Columns: architecture, forget, method, scope, measure (average_gap, gap_mean, drop,
    relative_seconds, relative_memory), mean, low, high (minimum and maximum over seeds), std, n.
    """
    table = summaries(s, reading=reading, attack=attack)
    table = table[(table["progress"] == 1.0) & (table["forget"] == style.default_forget(s, forget))]
    long = table.melt(ID, list(MEASURES), "measure", "value")
    return over_seeds(long.dropna(subset=["value"]), KEYS, "value")


@style.styled
def layerwise(
    s: Any, forget: str | None = None, *, reading: str = "std", attack: str = "pgd"
) -> Figure:
    """Draw Figure 4: a row an architecture, a column a measure, a line of dots a method.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.
    reading, attack : str
        Which fairness-gap, and the attack the drop is under (mean over ε > 0).
    """
    forget = style.default_forget(s, forget)
    data = layerwise_data(s, forget, reading=reading, attack=attack)
    look = style.looks(study_methods(s))
    names = arranged(ARCHITECTURES, data["architecture"])
    scopes = style.scope_markers(data["scope"])
    restricted = set(data["method"][data["scope"] != "all"])
    methods = [m for m in arranged(look, data["method"]) if m not in REFERENCES or m in restricted]
    lines = max(len(names), 1)
    height = 0.95 + lines * (0.45 + 0.27 * max(len(methods), 3))
    fig = KitFigure(figsize=(style.WIDTH, height))
    axes = fig.subplots(lines, len(MEASURES), squeeze=False)
    for row in range(lines):
        for column, measure in enumerate(MEASURES):
            ax = axes[row, column]
            part = data[data["measure"] == measure]
            part = part[part["architecture"] == names[row]] if names else part
            if part[part["method"].isin(methods)].empty:
                style.note(ax, "not measured")
            else:
                _dots(ax, part, methods, look, scopes)
            if row == lines - 1:
                ax.set_xlabel(MEASURES[measure].format(attack=_short_attack(attack)))
            if column:
                ax.tick_params(labelleft=False)
        style.panel_title(axes[row, 0], row, architecture_title(names[row]) if names else "no data")
    fig.align_xlabels(axes[-1])
    style.legend_above(fig, _handles(scopes, data, look))
    text = (
        f"{style.forget_words(forget).capitalize()}; drop averaged over ε > 0; "
        + style.seeds_words(data["n"], "dot: mean, bar: minimum to maximum")
        + "."
    )
    if list(scopes) == ["all"]:
        text += " No run restricted to a group of layers is stored."
    style.footer(fig, s, text)
    return fig


def _short_attack(attack: str) -> str:
    return attack_title(attack).removesuffix(" (torchattacks)")


def _dots(
    ax: Axes,
    part: pd.DataFrame,
    methods: list[str],
    look: Mapping[str, Look],
    scopes: Mapping[str, str],
) -> None:
    step = 0.72 / max(len(scopes), 1)
    for place, method in enumerate(methods):
        if place % 2:
            ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", lw=0, zorder=0)
        color = look[method].color
        for index, (scope, marker) in enumerate(scopes.items()):
            dot = part[(part["method"] == method) & (part["scope"] == scope)]
            y = [place + step * (index - (len(scopes) - 1) / 2)] * len(dot)
            ax.hlines(y, dot["low"], dot["high"], color=color, lw=0.8)
            face = color if scope == "all" else "white"
            kind = {"marker": marker, "color": color, "mfc": face, "mew": 0.8}
            ax.plot(dot["mean"], y, ls="none", clip_on=False, **kind)  # whole at a panel's edge
    measure = part["measure"].iloc[0]
    if measure.startswith("relative"):
        ax.axvline(1, color=style.FAINT, lw=0.7, zorder=0.8)
    elif measure in ("gap_mean", "drop"):
        for method in REFERENCES:
            mean = part[(part["method"] == method) & (part["scope"] == "all")]["mean"]
            for value in mean:
                line = REFERENCES[method]
                ax.axvline(value, color=look[method].color, lw=0.9, ls=line, zorder=0.8)
    if measure == "gap_mean" and style.wide_range(part["mean"], 10):
        style.log_axis(ax.xaxis, part["mean"])
    elif measure != "drop" and part["low"].min() >= 0:
        ax.set_xlim(left=0)
    ax.set_yticks(range(len(methods)), [method_title(method) for method in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")


def _handles(
    scopes: Mapping[str, str], data: pd.DataFrame, look: Mapping[str, Look]
) -> list[Line2D]:
    handles = []
    for scope, marker in scopes.items():
        face = style.INK if scope == "all" else "white"
        words = f"{scope} layers" if scope in SCOPES else scope
        kind = {"color": style.INK, "marker": marker, "mfc": face, "mew": 0.8, "ls": "none"}
        handles.append(Line2D([], [], label=words, **kind))
    for method, line in REFERENCES.items():
        if (data["method"] == method).any():
            words = f"{method_title(method)} (all layers)"
            handles.append(Line2D([], [], color=look[method].color, lw=0.9, ls=line, label=words))
    return handles
