"""Figure 2 and the sweep: a line a method."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from unlearnkit.names import ID
from unlearnkit.report.figures import style
from unlearnkit.report.figures.layers import KEYS
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.frames import excess, nearer, over_seeds
from unlearnkit.report.study import NothingToDraw, Study

POINTS = 49  # of a curve of minimal distances
DISTANCE = "minimal distance"


@style.drawing
def robustness(
    s: Study,
    forget: str | None = None,
    attack: str | None = None,
    access: str = "white-box",
) -> KitFigure:
    """Draw Figure 2, one row an architecture: accuracy by ε, excess over Retrain, drop per class.

    Markers are accuracies under the attack, with this `access`: ``white-box``, or ``transfer`` for
    images made on the original. Where minimal distances were measured, white-box lines are the
    share of images with a distance above ε, and the excess is in distance (`frames.nearer`); else
    lines join the markers, and the excess is in drop. The drop per class is at the ε where
    Retrain's accuracy is nearest to half of its clean accuracy, so that it can differ both ways.
    Data: a row for each architecture, method, attack (the attack's name, or ``minimal distance``),
    quantity (accuracy in %, drop and excess in percentage points; nearer, nearest and furthest in
    1/255), epsilon and class_index (-1 = all); test images.
    """
    attack = attack or s.attack
    of = {"forget": forget or s.first_forget, "scope": "all", "progress": 1.0}
    robust = s.rows("robust", access=access, attack=attack, images="test", **of)
    keys, quantities = ["attack", "epsilon", "class_index"], ["accuracy", "drop", "excess"]
    long = excess(robust).melt([*ID, *keys], quantities, "quantity")
    title = s.title(attack)
    if not (long["epsilon"] > 0).any():
        found = s.rows("robust", access=access, images="test", **of)
        measured = ", ".join(map(s.title, found["attack"].unique())) or "none"
        raise NothingToDraw(
            f"{title} ({access}) not measured for this forget set; measured: {measured}"
        )
    distances = s.distance.iloc[:0]
    if access == "white-box":
        distances = _distances(s, of, long.loc[long["epsilon"] > 0, "epsilon"])
    long = pd.concat([long, distances]) if len(distances) else long
    data = over_seeds(long, [*KEYS, "attack", "quantity", *keys[1:]], "value")
    attacked = data[data["attack"] == attack]
    parts = dict(list(data.groupby("architecture", sort=False)))
    grids = {name: _drops(part[part["attack"] == attack]) for name, part in parts.items()}
    drawn = pd.concat([grid.stack() for _, grid in grids.values()])
    if style.is_narrow():
        fig, axes = style.panels(3 * len(parts), 1, 0.9 + 6.0 * len(parts))
    else:
        ratios = {"width_ratios": (1, 1, 1.15)}
        fig, axes = style.panels(len(parts), 3, 0.9 + 1.8 * len(parts), **ratios)
    for row, (name, part) in zip(axes.reshape(-1, 3), parts.items(), strict=True):
        (left, middle, right), (level, grid) = row, grids[name]
        part = part[(part["class_index"] == -1) & (part["n"] > 0)]
        _against_epsilon(left, s, part[part["quantity"] == "accuracy"], 0.0)
        left.set_xlabel(f"{title}, ε (1/255)")
        left.set(title=f"{s.title(name)}: accuracy", ylabel="Accuracy (%)", ylim=(0, 102))
        if len(distances):
            _nearer(middle, s, part)
            middle.set_title(f"{s.title(name)}: excess distance")
        else:
            part = part.query("quantity == 'excess' and epsilon > 0 and method != 'retrain'")
            _against_epsilon(middle, s, part, 0.06)
            middle.set_xlabel(f"{title}, ε (1/255)")
            middle.set(title=f"{s.title(name)}: excess drop", ylabel="Drop − Retrain's (points)")
        _per_class(right, s, grid, vmin=drawn.min(), vmax=drawn.max())
        right.set_title(f"{s.title(name)}: drop per class at ε = {255 * level:.3g}/255")
    for ax in axes[:-1, 2:].flat:  # the classes stand below the last
        ax.set(xticklabels=[], xlabel="")
    title += ", white-box" if access == "white-box" else " images made on the original"
    text = f"{title}, % of the attacked test images; "
    if len(distances):
        text = f"Markers: {text}lines: % with a minimal distance above ε. Excess distance: minimal "
        text += "distance minus Retrain's, of images that both get right; median and middle half "
        text += "of the images; "
    text += style.about(s, attacked, "mean, bar: minimum to maximum")
    return style.finish(fig, s, data, text)


def _distances(s: Study, of: dict[str, Any], levels: pd.Series) -> pd.DataFrame:
    """Return what minimal distances say: accuracy at any ε up to the `levels`, and the excess."""
    found = s.rows("distance", **of)
    if found.empty:
        return found
    grid = [0.0, *np.geomspace(levels.min(), levels.max(), POINTS)]
    share = pd.DataFrame({e: 100.0 * (found["distance"] > e) for e in grid}, found.index)
    share = share.groupby([found[name] for name in ID], sort=False).mean().reset_index()
    share = share.melt(ID, var_name="epsilon").assign(quantity="accuracy")
    near = nearer(s).merge(found[ID].drop_duplicates(), on=ID)
    near = near.melt(ID, var_name="quantity").assign(epsilon=0.0)
    return pd.concat([share, near]).assign(attack=DISTANCE, class_index=-1)


def _against_epsilon(ax: Axes, s: Study, data: pd.DataFrame, apart: float) -> None:
    """Draw means and ranges at each ε, the methods `apart` doublings; 0 stands left of the rest."""
    if data.empty:
        style.note(ax, "no retrained model to compare with")
        return
    curve, look = data[data["attack"] == DISTANCE], style.lines(s, data)
    data, colors = data.drop(curve.index), style.palette(s)
    levels = pd.Series(255 * np.sort(data["epsilon"].unique()))
    clean = levels[levels > 0].min() / 2
    if len(curve):
        x = (255 * curve["epsilon"]).replace(0, clean)
        sns.lineplot(curve, x=x, y="mean", ax=ax, **look | {"markers": False})
        look |= {"dashes": False, "linestyle": "none"}
    shift = {method: 2 ** (apart * (i - len(s.methods) / 2)) for i, method in enumerate(s.methods)}
    x = (255 * data["epsilon"]).replace(0, clean) * data["method"].map(shift)
    sns.lineplot(data, x=x, y="mean", ax=ax, **look)
    ax.vlines(x, data["low"], data["high"], data["method"].map(colors), lw=0.7)
    if apart:
        ax.axhline(0, color=colors["retrain"], lw=0.9, zorder=1)
    ax.set_xscale("log", base=2)
    ax.set_xticks(levels.replace(0, clean), [f"{level:.3g}" for level in levels])
    ax.minorticks_off()
    ax.grid(axis="x", visible=False)


def _nearer(ax: Axes, s: Study, data: pd.DataFrame) -> None:
    """Draw the excess of minimal distance of each method but Retrain: median and middle half."""
    data = data[data["quantity"].isin(["nearer", "nearest", "furthest"])]
    if data.empty:
        style.note(ax, "no retrained model to compare with")
        return
    table = data.pivot(index="method", columns="quantity", values=["mean", "low", "high"])
    table = table.loc[[name for name in s.methods if name in table.index and name != "retrain"]]
    colors, y = table.index.map(style.palette(s)), np.arange(len(table))
    ax.hlines(y, table["mean", "nearest"], table["mean", "furthest"], colors, lw=4, alpha=0.25)
    ax.hlines(y, table["low", "nearer"], table["high", "nearer"], colors, lw=0.8)
    for place, method in enumerate(table.index):
        look = {"marker": style.markers(s)[method], "color": colors[place], "zorder": 3}
        ax.scatter(table["mean", "nearer"].iloc[place], place, s=15, lw=0, **look)
    ax.axvline(0, color=style.palette(s)["retrain"], lw=0.9, zorder=1)
    ax.set_yticks(y, map(s.title, table.index))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("Minimal distance − Retrain's (1/255)")


def _drops(data: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """Return the ε > 0 to show the classes at, and the mean drop there, method × class."""
    whole = data.query("class_index == -1 and quantity == 'accuracy'")
    exact = whole[whole["method"] == "retrain"]
    curve = (whole if exact.empty else exact).groupby("epsilon")["mean"].mean()
    far = (curve - curve.iloc[0] / 2).abs()
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
