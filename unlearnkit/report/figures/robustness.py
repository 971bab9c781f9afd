"""Figure 2: accuracy against the attack's strength, excess over Retrain, and drop per class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure, Look
from unlearnkit.report.frames import over_seeds
from unlearnkit.report.tables import frames
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    attack_title,
    method_title,
    rows,
    study_methods,
)
from unlearnkit.results import ID

KEYS = ["architecture", "forget", "method", "attack", "quantity", "epsilon", "class_index"]
QUARTERS = {0.25: "¼", 0.5: "½", 0.75: "¾"}
READABLE_CLASSES = 12  # beyond this many the cells of the heat map are too small for numbers


def robustness_data(s: Any, forget: str | None = None, attack: str = "pgd") -> pd.DataFrame:
    """Return what Figure 2 draws: one row for each architecture, method, quantity, ε and class.

    Columns: architecture, forget, method, attack, quantity (accuracy in %, drop and excess in
    percentage points), epsilon (pixel units), class_index (−1 = all), mean, low, high (minimum
    and maximum over seeds), std, n. White-box, test images.
    """
    robust = rows(
        s, "robust", attack=attack, images="test", access="white-box", scope="all", progress=1.0
    )
    robust = robust[robust["forget"] == style.default_forget(s, forget)]
    if robust.empty:
        return over_seeds(pd.DataFrame(columns=[*KEYS, "value"]), KEYS, "value")
    quantities = ["accuracy", "drop", "excess"]
    keys = [*ID, "attack", "epsilon", "class_index"]
    long = frames.excess(robust).melt(keys, quantities, "quantity", "value")
    return over_seeds(long, KEYS, "value")


@style.styled
def robustness(
    s: Any, forget: str | None = None, attack: str = "pgd", epsilon: float | None = None
) -> Figure:
    """Draw Figure 2, one row an architecture.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.
    attack : str
        Name of a measured attack.
    epsilon : float, optional
        Where the drop per class is shown, in pixel units; by default where Retrain's accuracy is
        nearest to half of its clean accuracy, so that the drop can differ both ways.
    """
    forget = style.default_forget(s, forget)
    data = robustness_data(s, forget, attack)
    look = style.looks(study_methods(s))
    names = arranged(ARCHITECTURES, data["architecture"])
    fig = KitFigure(figsize=(style.WIDTH, 0.8 + 2.1 * max(len(names), 1)))
    axes = fig.subplots(max(len(names), 1), 3, squeeze=False, width_ratios=(1, 1, 1.15))
    if not names:
        for ax in axes[0]:
            style.note(ax, _missing(s, attack))
        style.footer(fig, s, style.forget_words(forget).capitalize() + ".")
        return fig
    parts = [data[data["architecture"] == name] for name in names]
    levels = [_epsilon(part, epsilon) for part in parts]
    cells = pd.concat([_classes(part, e)["mean"] for part, e in zip(parts, levels, strict=True)])
    limits = (float(cells.min()), max(float(cells.max()), float(cells.min()) + 1.0))
    for row, (name, part, shown) in enumerate(zip(names, parts, levels, strict=True)):
        title = architecture_title(name)
        _curves(axes[row, 0], part, look, "accuracy")
        _curves(axes[row, 1], part, look, "excess")
        drawn = _per_class(fig, axes[row, 2], part, look, shown, limits)
        if drawn:
            _name_classes(axes[row, 2], getattr(s, "classes", None), last=row == len(names) - 1)
        where = f" at ε = {epsilon_label(shown)}/255" if drawn else ""
        style.panel_title(axes[row, 0], 3 * row, f"{title}: accuracy")
        style.panel_title(axes[row, 1], 3 * row + 1, f"{title}: excess drop")
        style.panel_title(axes[row, 2], 3 * row + 2, f"{title}: drop per class{where}")
        axes[row, 0].set_ylabel("Accuracy (%)")
        axes[row, 1].set_ylabel("Drop minus Retrain's (points)")
    for ax in axes[-1, :2]:
        ax.set_xlabel(f"{attack_title(attack)}, ε (1/255)")
    style.legend_above(fig, style.method_handles(arranged(look, data["method"]), look, lines=True))
    text = f"{attack_title(attack)}, white-box, % of the attacked test images; "
    text += f"{style.forget_words(forget)}; "
    style.footer(fig, s, text + style.seeds_words(data["n"][data["n"] > 0]) + ".")
    return fig


def epsilon_label(epsilon: float) -> str:
    """Return ε in units of 1/255: ``¼``, ``1½``, ``8``, ``0.3``."""
    value = round(255 * epsilon, 4)
    whole, part = divmod(value, 1)
    if part in QUARTERS:
        return f"{int(whole) or ''}{QUARTERS[part]}"
    return f"{value:.3g}"


def _name_classes(ax: Axes, names: Sequence[str] | None, last: bool) -> None:
    """Put the classes' names, where they are words and there is room, below the last heat map."""
    if not last:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
        return
    if not names or len(names) > READABLE_CLASSES or all(str(name).isdigit() for name in names):
        return
    shown = [str(names[int(tick)])[:12] for tick in ax.get_xticks()]
    ax.set_xticks(ax.get_xticks(), shown, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_xlabel("")


def _missing(s: Any, attack: str) -> str:
    measured = arranged([], rows(s, "robust")["attack"])
    others = ", ".join(map(attack_title, measured)) or "none"
    return f"{attack_title(attack)} not measured for this forget set; measured: {others}"


def _curves(ax: Axes, part: pd.DataFrame, look: Mapping[str, Look], quantity: str) -> None:
    """Draw `quantity` against ε, the steps of ε spaced evenly: they double."""
    part = part[(part["quantity"] == quantity) & (part["class_index"] == -1) & (part["n"] > 0)]
    if quantity == "excess":
        ax.axhline(0, color=look["retrain"].color if "retrain" in look else style.INK, lw=0.9)
        part = part[(part["method"] != "retrain") & (part["epsilon"] > 0)]
    if part.empty:
        style.note(ax, "no retrained model to compare with" if quantity == "excess" else "no data")
        return
    levels = sorted(part["epsilon"].unique())
    for method in arranged(look, part["method"]):
        curve = part[part["method"] == method].sort_values("epsilon")
        x = [levels.index(value) for value in curve["epsilon"]]
        kind = look[method]
        ax.fill_between(x, curve["low"], curve["high"], color=kind.color, alpha=0.09, lw=0)
        ax.plot(x, curve["mean"], color=kind.color, ls=kind.line, marker=kind.marker, label=method)
    ax.set_xticks(range(len(levels)), [epsilon_label(level) for level in levels])
    if quantity == "accuracy":
        ax.set_ylim(0, 102)


def _epsilon(part: pd.DataFrame, epsilon: float | None) -> float:
    """Return the measured ε > 0 nearest to `epsilon`, or where half the clean accuracy is left."""
    whole = part[(part["class_index"] == -1) & (part["quantity"] == "accuracy")]
    retrained = whole[whole["method"] == "retrain"]
    curve = (retrained if len(retrained) else whole).groupby("epsilon")["mean"].mean()
    attacked = curve[curve.index > 0]
    if attacked.empty:
        return 0.0
    if epsilon is not None:
        return float(attacked.index[np.abs(attacked.index - epsilon).argmin()])
    return float((attacked - curve.iloc[0] / 2).abs().idxmin())


def _classes(part: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    part = part[(part["class_index"] >= 0) & (part["quantity"] == "drop") & (part["n"] > 0)]
    return part[part["epsilon"] == epsilon]


def _per_class(
    fig: Figure,
    ax: Axes,
    part: pd.DataFrame,
    look: Mapping[str, Look],
    epsilon: float,
    limits: tuple[float, float],
) -> bool:
    """Draw a heat map, method × class, of the mean drop at `epsilon`; say whether there is one."""
    part = _classes(part, epsilon)
    if part.empty:
        style.note(ax, "no accuracy per class stored")
        return False
    grid = part.pivot(index="method", columns="class_index", values="mean")
    grid = grid.loc[arranged(look, grid.index)]
    values = grid.to_numpy(dtype=float)
    low, top = limits
    image = ax.imshow(
        values, cmap="Blues", interpolation="nearest", vmin=low, vmax=top, aspect="auto"
    )
    classes = list(grid.columns)
    step = 1 if len(classes) <= READABLE_CLASSES else -(-len(classes) // 10)
    ax.set_xticks(range(0, len(classes), step), [str(int(c)) for c in classes[::step]])
    ax.set_yticks(range(len(grid)), [method_title(method) for method in grid.index])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("Class index")
    bar = fig.colorbar(image, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label("Drop (points)")
    bar.outline.set_visible(False)
    if len(classes) <= READABLE_CLASSES:
        for (row, column), value in np.ndenumerate(values):
            dark = value > low + 0.6 * (top - low)
            text = "" if np.isnan(value) else f"{value:.0f}"
            color = "white" if dark else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=5.5, color=color)
    return True
