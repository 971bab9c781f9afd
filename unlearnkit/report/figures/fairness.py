"""Figure 1: the fairness-gap at each normalisation layer, beside the published values."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure, Look
from unlearnkit.report.frames import over_seeds
from unlearnkit.report.published import GROUPS, LARGE, LAYERS, read_published
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    rows,
    study_methods,
)

TRIMMED_WORDS = (
    "trimmed std: without the 1 % of each class's images, at least one, furthest from its mean"
)
KEYS = ["architecture", "forget", "method", "layer_index", "layer_name"]


def fairness_gap_data(
    s: Any, forget: str | None = None, reading: str = "std", published: bool = True
) -> pd.DataFrame:
    """Return what Figure 1 draws: one row for each architecture, method and layer.

    Columns: architecture, forget, method, layer_index, layer_name, mean, low, high (minimum and
    maximum over seeds), std, n, and published, reading_error (NaN where the publication's curve
    is hidden or has another number of layers).
    """
    gap = rows(s, "gap", scope="all", progress=1.0, reading=reading)
    gap = gap[gap["forget"] == style.default_forget(s, forget)]
    table = over_seeds(gap, KEYS, "gap")
    paper = read_published().rename(columns={"fairness_gap": "published"})
    layers = table.groupby("architecture")["layer_index"].max() if len(table) else {}
    same = [name for name, count in LAYERS.items() if published and layers.get(name) == count]
    paper = paper[paper["architecture"].isin(same)]
    return table.merge(paper, how="left", on=["architecture", "method", "layer_index"])


@style.styled
def fairness_gap(
    s: Any, forget: str | None = None, reading: str = "std", published: bool = True
) -> Figure:
    """Draw Figure 1: fairness-gap against layer index, in the publication's panels.

    ResNet50 has two, with all models and without SalUn and SCRUB; any other architecture one.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.
    reading : str
        How σ is pooled, one of `unlearnkit.fairness.READINGS`.
    published : bool
        Overlay the values read off the published figure as hollow markers.
    """
    forget = style.default_forget(s, forget)
    data = fairness_gap_data(s, forget, reading, published)
    look = style.looks(study_methods(s))
    panels = _panels(data)
    columns = min(max(len(panels), 1), 3)
    height = -(-max(len(panels), 1) // columns)
    fig = KitFigure(figsize=(style.WIDTH, 0.65 + 2.3 * height))
    axes = fig.subplots(height, columns, squeeze=False).ravel()
    for ax in axes[max(len(panels), 1) :]:
        ax.set_axis_off()
    if not panels:
        style.note(axes[0], f"no fairness-gap ({reading}) was measured for this forget set")
        style.footer(fig, s, style.forget_words(forget).capitalize() + ".")
        return fig
    for index, (ax, (title, part)) in enumerate(zip(axes, panels, strict=False)):
        _panel(ax, part, look)
        style.panel_title(ax, index, title)
    for ax in axes[::columns]:
        ax.set_ylabel("Fairness-gap")
    methods = arranged(look, data["method"])
    style.legend_above(fig, _handles(methods, look, data))
    style.footer(fig, s, _small_print(data, forget, reading))
    return fig


def _panels(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    panels = []
    for name in arranged(ARCHITECTURES, data["architecture"]):
        part = data[data["architecture"] == name]
        large = part["method"].isin(LARGE)
        both = name == "resnet50" and 0 < large.sum() < len(part)
        panels.append(
            (f"{architecture_title(name)}, all models" if both else architecture_title(name), part)
        )
        if both:
            panels.append((f"{architecture_title(name)} except SalUn, SCRUB", part[~large]))
    return panels


def _panel(ax: Axes, part: pd.DataFrame, look: Mapping[str, Look]) -> None:
    layers = int(part["layer_index"].max())
    every = max(1, round(layers / 8))
    for place, method in enumerate(arranged(look, part["method"])):
        curve = part[part["method"] == method].sort_values("layer_index")
        kind, x = look[method], curve["layer_index"]
        ax.fill_between(x, curve["low"], curve["high"], color=kind.color, alpha=0.16, lw=0)
        ax.plot(
            x,
            curve["mean"],
            color=kind.color,
            linestyle=kind.line,
            marker=kind.marker,
            markersize=2.6,
            markevery=(place % every, every),
            label=method,
        )
        ax.plot(
            x,
            curve["published"],
            color=kind.color,
            linestyle="none",
            marker=kind.marker,
            markersize=2.2,
            markerfacecolor="white",
            markeredgewidth=0.45,
            alpha=0.75,
            zorder=1.5,
            label="_published",
        )
    drawn = pd.concat([part["mean"], part["published"]])
    if style.wide_range(drawn):
        style.log_axis(ax.yaxis, drawn)
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlabel("Layer index")
    margin = max(0.02 * layers, 0.45)
    ax.set_xlim(1 - margin, layers + margin)
    ax.set_xticks(range(1, layers + 1) if layers <= 12 else [1, *range(10, layers + 1, 10)])
    _mark_groups(ax, layers)


def _mark_groups(ax: Axes, layers: int) -> None:
    """Mark the boundaries of stages or blocks lightly, their names along the upper edge."""
    if not (groups := GROUPS.get(layers)):
        return
    ends = [first for first, _ in groups[1:]] + [layers + 1]
    for (first, name), end in zip(groups, ends, strict=True):
        if first > 1:
            ax.axvline(first - 0.5, color="#cfcfcf", lw=0.5, zorder=0.5)
        ax.annotate(
            name,
            ((first + end - 1) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -1),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=5,
            color=style.FAINT,
        )


def _handles(methods: Sequence[str], look: Mapping[str, Look], data: pd.DataFrame) -> list:
    handles: list = style.method_handles(methods, look, lines=True)
    if (data["n"] > 1).any():
        handles.append(Patch(color=style.FAINT, alpha=0.3, lw=0, label="range"))
    if data["published"].notna().any():
        hollow = {"marker": "o", "markersize": 2.6, "markerfacecolor": "white"}
        handles.append(
            Line2D([], [], color=style.INK, linestyle="none", label="published", **hollow)
        )
    return handles


def _small_print(data: pd.DataFrame, forget: str, reading: str) -> str:
    words = TRIMMED_WORDS if reading == "trimmed_std" else f"reading: {reading.replace('_', ' ')}"
    parts = [
        "Fairness-gap: largest minus smallest class σ of the layer's output "
        f"({words}; test images)",
        style.forget_words(forget),
        style.seeds_words(data["n"]),
    ]
    if data["published"].notna().any():
        parts.append("hollow: published values (CIFAR-10), read off the figure")
    return "; ".join(parts) + "."
