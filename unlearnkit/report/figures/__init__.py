"""The study's figures; `figure.data` is the frame that each shows.

Common parameters: `forget`, a forget set of the study, and `attack`, a measured one (the study's
own if left out); `reading`, how σ is pooled, one of `unlearnkit.names.READINGS`. With
`column=True` every figure is drawn 3.3 inches wide, for a column of a page, not 7. Its `alt` says
in words what is seen. The data of Figures 1, 2 and 4 hold mean, low, high (minimum and maximum),
std and n over seeds. A study that lacks all that a figure shows raises `NothingToDraw`. Here are
the figures with a line a method that have no file of their own.
"""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from unlearnkit.names import ID
from unlearnkit.report.figures import style
from unlearnkit.report.figures.images import adversarial_strip, embedding, samples
from unlearnkit.report.figures.layers import KEYS, fairness_gap, sigma_by_class
from unlearnkit.report.figures.membership import roc
from unlearnkit.report.figures.points import (
    conjectures,
    conjectures_statistics,
    layerwise,
    tradeoff,
)
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.figures.verdicts import forest
from unlearnkit.report.frames import excess, over_seeds
from unlearnkit.report.study import NothingToDraw, Study

__all__ = ["adversarial_strip", "conjectures", "conjectures_statistics", "embedding"]
__all__ += ["fairness_gap", "forest", "layerwise", "robustness", "roc", "samples"]
__all__ += ["sigma_by_class", "sweep", "tradeoff"]


@style.drawing
def robustness(
    s: Study, forget: str | None = None, attack: str | None = None, epsilon: float | None = None
) -> KitFigure:
    """Draw Figure 2, one row an architecture: accuracy, excess over Retrain, drop per class.

    `epsilon` (pixel units) says where the drop per class is shown; by default where Retrain's
    accuracy is nearest to half of its clean accuracy, so that the drop can differ both ways. Data:
    a row for each architecture, method, quantity (accuracy in %, drop and excess in percentage
    points), epsilon and class_index (-1 = all); white-box, test images.
    """
    attack = attack or s.attack
    of = {"forget": forget or s.first_forget, "attack": attack, "images": "test", "scope": "all"}
    robust = s.rows("robust", access="white-box", progress=1.0, **of)
    keys, quantities = ["attack", "epsilon", "class_index"], ["accuracy", "drop", "excess"]
    long = excess(robust).melt([*ID, *keys], quantities, "quantity")
    data = over_seeds(long, [*KEYS, "attack", "quantity", *keys[1:]], "value")
    title = s.title(attack)
    if data.empty:
        measured = ", ".join(map(s.title, s.robust["attack"].unique())) or "none"
        raise NothingToDraw(f"{title} not measured for this forget set; measured: {measured}")
    grids = {name: _drops(part, epsilon) for name, part in data.groupby("architecture", sort=False)}
    drawn = pd.concat([grid.stack() for _, grid in grids.values()])
    fig = KitFigure(figsize=(style.WIDTH, 0.8 + 2.1 * len(grids)))
    axes = fig.subplots(len(grids), 3, squeeze=False, width_ratios=(1, 1, 1.15))
    for (left, middle, right), (name, (level, grid)) in zip(axes, grids.items(), strict=True):
        part = data.query("architecture == @name and class_index == -1 and n > 0")
        _against_epsilon(left, s, part[part["quantity"] == "accuracy"], 0.0)
        left.set(title=f"{s.title(name)}: accuracy", ylabel="Accuracy (%)", ylim=(0, 102))
        part = part.query("quantity == 'excess' and epsilon > 0 and method != 'retrain'")
        _against_epsilon(middle, s, part, 0.06)
        middle.set(title=f"{s.title(name)}: excess drop", ylabel="Drop minus Retrain's (points)")
        _per_class(right, s, grid, vmin=drawn.min(), vmax=drawn.max())
        right.set_title(f"{s.title(name)}: drop per class at ε = {255 * level:.3g}/255")
    for ax in axes[-1, :2]:
        ax.set_xlabel(f"{title}, ε (1/255)")
    for ax in axes[:-1, 2]:
        ax.set(xticklabels=[], xlabel="")
    text = f"{title}, white-box, % of the attacked test images; "
    text += style.about(data, "marker: mean, bar: minimum to maximum")
    return style.finish(fig, s, data, text)


def _against_epsilon(ax: Axes, s: Study, data: pd.DataFrame, apart: float) -> None:
    """Draw means and ranges at evenly spaced ε, which double, the methods `apart` at each."""
    if data.empty:
        style.note(ax, "no retrained model to compare with")
        return
    levels, colors = sorted(data["epsilon"].unique()), style.palette(s)
    shift = {method: apart * (i - len(s.methods) / 2) for i, method in enumerate(s.methods)}
    x = data["epsilon"].map(levels.index) + data["method"].map(shift)
    sns.lineplot(data, x=x, y="mean", ax=ax, **style.lines(s, data))
    ax.vlines(x, data["low"], data["high"], data["method"].map(colors), lw=0.7)
    if apart:
        ax.axhline(0, color=colors["retrain"], lw=0.9, zorder=1)
    ax.set_xticks(range(len(levels)), [f"{255 * level:.3g}" for level in levels])
    ax.set_xlabel("")
    ax.grid(axis="x", visible=False)


def _drops(data: pd.DataFrame, epsilon: float | None) -> tuple[float, pd.DataFrame]:
    """Return the ε > 0 to show the classes at, and the mean drop there, method × class."""
    whole = data.query("class_index == -1 and quantity == 'accuracy'")
    exact = whole[whole["method"] == "retrain"]
    curve = (whole if exact.empty else exact).groupby("epsilon")["mean"].mean()
    far = (curve - curve.iloc[0] / 2).abs()
    if epsilon is not None:
        far = pd.Series(abs(curve.index - epsilon), curve.index)
    level = far[far.index > 0].idxmin()
    part = data.query("quantity == 'drop' and class_index >= 0 and epsilon == @level")
    return level, part.pivot(index="method", columns="class_index", values="mean")


def _per_class(ax: Axes, s: Study, grid: pd.DataFrame, **limits: float) -> None:
    few = grid.shape[1] <= 12  # of more classes the cells are too small for numbers
    grid = grid.reindex([method for method in s.methods if method in grid.index])
    grid = grid.rename(index=s.title, columns=lambda index: s.classes[int(index)][:12])
    numbers = {"annot": few, "fmt": ".0f", "annot_kws": {"size": 5.5}}
    bar = {"label": "Drop (points)", "pad": 0.02, "fraction": 0.05}
    sns.heatmap(grid, cmap="Blues", cbar_kws=bar, ax=ax, **numbers, **limits)
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="Class", ylabel="")


@style.drawing
def sweep(s: Study) -> KitFigure:
    """Draw the average gap of each method at each rate that was tried; a ring marks the choice.

    A rate whose training diverged has no point. Data: a row for each architecture, method and lr,
    with mean, low, high, std and n of the average gap over the seeds that tried it, and chosen.
    """
    tried = s.sweep[s.sweep["method"] != "retrain"]
    data = over_seeds(tried, ["architecture", "method", "lr", "chosen"], "average_gap")
    if data.empty:
        raise NothingToDraw("this study has no sweep")
    names = data["architecture"].unique()
    down, across = (len(names), 1) if style.is_narrow() else (1, len(names))
    fig, axes = style.panels(down, across, 0.6 + 2.0 * down)
    alt = "Line chart of the average gap at each learning rate; taken:"
    for ax, name in zip(axes.flat, names, strict=True):
        part = data[data["architecture"] == name]
        sns.lineplot(part, x="lr", y="mean", ax=ax, **style.lines(s, part))
        colors, best = part["method"].map(style.palette(s)), part[part["chosen"]]
        ring = {"s": 46, "fc": "none", "ec": colors[part["chosen"]]}
        ax.scatter(best["lr"], best["mean"], **ring)
        alt += f" {s.title(name)}: {style.listed(map(s.title, best['method']), best['lr'])}."
        ax.vlines(part["lr"], part["low"], part["high"], colors, lw=0.7)
        style.log_if_wide(ax.xaxis, part["lr"], factor=0.0)
        style.log_if_wide(ax.yaxis, part["mean"], factor=0.0)
        ax.set(title=s.title(name), xlabel="Learning rate", ylabel="Average gap (points)")
    many = tried["seed"].nunique()
    over = f"marker: mean, bar: minimum to maximum over {many} seeds" if many > 1 else "one seed"
    text = f"Average gap to Retrain on validation images and a validation forget set; {over}; "
    text += "ring: the rate taken, the nearest of those that every seed tried."
    return style.finish(fig, s, data, text, alt)
