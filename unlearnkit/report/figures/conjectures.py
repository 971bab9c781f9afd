"""Figure 3: the two conjectures, tested over every model at hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unlearnkit.report.claims import models_of
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure, Look
from unlearnkit.report.frames import over_seeds
from unlearnkit.report.stats import Correlation, correlation
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    attack_title,
    study_methods,
)

LINES = (("-", "o"), ((0, (4, 1.5)), "s"), ((0, (1.2, 1)), "^"), ((0, (4, 1, 1, 1)), "D"))


def conjectures_data(s: Any, *, reading: str = "std", attack: str = "pgd") -> pd.DataFrame:
    """Return what Figure 3 draws: the models, each once (see `claims.models_of`)."""
    return models_of(s, reading=reading, attack=attack)


def conjectures_statistics(
    s: Any, *, reading: str = "std", attack: str = "pgd", seed: int = 0
) -> pd.DataFrame:
    """Return the rank correlations behind both conjectures.

    C1: mean fairness-gap with test accuracy over the original's checkpoints. C2: mean
    fairness-gap with the drop over every model: for each architecture, also with test accuracy
    held fixed; and for more than one architecture ``across`` (pooled as they are) and ``within``
    (pooled after ranking inside each architecture, so that a difference between architectures
    cannot make the correlation). The untrained network, progress 0, counts in none of them: how its
    outputs spread says nothing about training. Models are taken as exchangeable, though those of a
    seed share an original; `claims.table5` judges over seeds instead.

    Returns
    -------
    DataFrame
        conjecture, models, given, rho, low, high (95 % bootstrap), p (permutation), n.
    """
    return pd.DataFrame(
        {"conjecture": c, "models": models, "given": given, **vars(value)}
        for (c, models, given), value in _correlations(
            conjectures_data(s, reading=reading, attack=attack), seed
        ).items()
    )


def _correlations(data: pd.DataFrame, seed: int) -> dict[tuple[str, str, str], Correlation]:
    found = {}
    names = arranged(ARCHITECTURES, data["architecture"])
    data = data[data["progress"] > 0]
    for name in names:
        part = data[data["architecture"] == name]
        along = part[part["method"] == "original"]
        found["C1", name, ""] = correlation(along["gap_mean"], along["accuracy"], seed=seed)
        gap, drop = part["gap_mean"], part["drop"]
        found["C2", name, ""] = correlation(gap, drop, seed=seed)
        found["C2", name, "accuracy"] = correlation(gap, drop, part["accuracy"], seed=seed)
    if len(names) > 1:
        both = data.dropna(subset=["gap_mean", "drop"])
        found["C2", "across", ""] = correlation(both["gap_mean"], both["drop"], seed=seed)
        ranked = both.groupby("architecture")[["gap_mean", "drop"]].rank(pct=True)
        found["C2", "within", ""] = correlation(ranked["gap_mean"], ranked["drop"], seed=seed)
    return found


@style.styled
def conjectures(s: Any, *, reading: str = "std", attack: str = "pgd", seed: int = 0) -> Figure:
    """Draw Figure 3: the gap along training (C1), and the gap against vulnerability (C2).

    Parameters
    ----------
    s : Study
    reading, attack : str
        Which fairness-gap, and the attack the drop is under (mean over ε > 0).
    seed : int
        Of the bootstrap and the permutations.
    """
    data = conjectures_data(s, reading=reading, attack=attack)
    look = style.looks(study_methods(s))
    names = arranged(ARCHITECTURES, data["architecture"])
    rho = _correlations(data, seed)
    columns = min(max(len(names), 1), 2)
    height = -(-max(len(names), 1) // columns)
    fig = KitFigure(figsize=(style.WIDTH, 2.6 + 2.5 * height))
    grid = fig.add_gridspec(1 + height, 6, height_ratios=[0.85] + [1] * height)
    top = [fig.add_subplot(grid[0, :3]), fig.add_subplot(grid[0, 3:])]
    _training(top, data, names, rho)
    span = 6 // columns
    markers = style.scope_markers(data["scope"])
    for index in range(max(len(names), 1)):
        row, column = divmod(index, columns)
        ax = fig.add_subplot(grid[1 + row, span * column : span * (column + 1)])
        if not names:
            style.note(ax, "no model stored")
            continue
        _scatter(ax, data[data["architecture"] == names[index]], look, markers)
        name = names[index]
        title = f"C2, {architecture_title(name)}\n{rho['C2', name, '']}"
        title += f"\nat fixed accuracy: {rho['C2', name, 'accuracy']}"
        style.panel_title(ax, 2 + index, title, size=6.5)
        ax.set_xlabel("Mean fairness-gap over layers")
        if column == 0:
            ax.set_ylabel(f"Drop under {attack_title(attack)} (points)")
    _legend(fig, data, look, markers)
    style.footer(fig, s, _small_print(data, rho))
    return fig


def _training(
    axes: Sequence[Axes],
    data: pd.DataFrame,
    names: Sequence[str],
    rho: Mapping[tuple[str, str, str], Correlation],
) -> None:
    along = data[data["method"] == "original"]
    for ax, column, label in (
        (axes[0], "gap_mean", "Mean fairness-gap"),
        (axes[1], "accuracy", "Test accuracy (%)"),
    ):
        table = over_seeds(along.dropna(subset=[column]), ["architecture", "progress"], column)
        ax.set_ylabel(label)
        ax.set_xlabel("Training progress (fraction of epochs)")
        if table["progress"].nunique() < 2:
            style.note(ax, "no checkpoint along the original's training stored")
            continue
        for name, (line, marker) in zip(names, LINES * len(names), strict=False):
            curve = table[table["architecture"] == name].sort_values("progress")
            x = curve["progress"]
            ax.fill_between(x, curve["low"], curve["high"], color="black", alpha=0.12, lw=0)
            ax.plot(x, curve["mean"], color="black", ls=line, marker=marker, label=name)
        if column == "gap_mean" and _apart(table):
            style.log_axis(ax.yaxis, table["mean"])
        elif column == "gap_mean":
            ax.set_ylim(bottom=0)
    style.panel_title(axes[0], 0, "C1: gap along the original's training")
    style.panel_title(axes[1], 1, "C1: accuracy along the original's training")
    if axes[0].lines:
        words = [
            f"{architecture_title(n)}: gap with accuracy {_short(rho['C1', n, ''])}" for n in names
        ]
        handles = list(axes[0].lines)
        axes[1].legend(handles, words, loc="lower right", handlelength=2.4)


def _apart(table: pd.DataFrame) -> bool:
    """Say whether one architecture's curve would lie flat on the axis of another's."""
    largest = table.groupby("architecture")["mean"].max()
    smallest = table["mean"].min()
    return bool(largest.max() > 8 * largest.min() and largest.max() < 1000 * smallest)


def _short(value: Correlation) -> str:
    return f"ρ = {value.rho:+.2f}" if value.n and not np.isnan(value.rho) else "ρ undefined"


def _scatter(
    ax: Axes, part: pd.DataFrame, look: Mapping[str, Look], markers: Mapping[str, str]
) -> None:
    part = part.dropna(subset=["gap_mean", "drop"])
    if part.empty:
        style.note(ax, "no model with both a fairness-gap and a robustness drop")
        return
    for (method, scope), group in part.groupby(["method", "scope"], sort=False):
        done = group["progress"] == 1.0
        kind = {"marker": markers[scope], "edgecolors": look[method].color, "linewidths": 0.7}
        for rows_, face, size in ((done, look[method].color, 17), (~done, "white", 9)):
            points = group[rows_]
            alpha = 0.8 if face != "white" else 1.0
            ax.scatter(
                points["gap_mean"], points["drop"], s=size, facecolors=face, alpha=alpha, **kind
            )
    if style.wide_range(part["gap_mean"], 3):
        style.log_axis(ax.xaxis, part["gap_mean"])
    ax.grid(True, axis="both")


def _legend(
    fig: Figure, data: pd.DataFrame, look: Mapping[str, Look], markers: Mapping[str, str]
) -> None:
    """One legend: methods by colour, scopes by shape, checkpoints small and hollow."""
    if data.empty:
        return
    dot = {"linestyle": "none", "marker": "o"}
    handles = [
        Line2D([], [], color=h.get_color(), label=h.get_label(), markersize=4, **dot)
        for h in style.method_handles(arranged(look, data["method"]), look, lines=False)
    ]
    if len(markers) > 1:
        handles += [
            Line2D(
                [], [], color=style.FAINT, linestyle="none", marker=mark, label=f"{scope} layers"
            )
            for scope, mark in markers.items()
        ]
    if (data["progress"] < 1).any():
        hollow = {"markersize": 3, "markerfacecolor": "white", "color": "black"}
        handles.append(Line2D([], [], label="checkpoint", **dot, **hollow))
    style.legend_above(fig, handles, 8)


def _small_print(data: pd.DataFrame, rho: Mapping[tuple[str, str, str], Correlation]) -> str:
    along = data[data["method"] == "original"].groupby(["architecture", "progress"]).size()
    parts = [
        f"(a, b) {style.seeds_words(along)}",
        "C2: one point a model, drop averaged over ε > 0",
    ]
    if (data["progress"] == 0).any():
        parts.append("progress 0, the untrained network, is drawn but in no ρ")
    parts += [
        f"{words}: {rho['C2', key, '']}"
        for key, words in (("across", "pooled across architectures"), ("within", "within them"))
        if ("C2", key, "") in rho
    ]
    parts.append(
        "Spearman's ρ, 95 % bootstrap interval, permutation p; points taken as exchangeable"
    )
    return "; ".join(parts) + "."
