"""Figure 1 and the classes behind it: what is drawn against the layer index."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from unlearnkit.names import ID
from unlearnkit.report.claims import EXACT
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.frames import over_seeds
from unlearnkit.report.published import DATASET, GROUPS, LARGE, LARGE_ON, LAYERS, read_published
from unlearnkit.report.study import NothingToDraw, Study

KEYS = ["architecture", "forget", "method"]
ALIKE = ["std", "trimmed_std"]  # readings of one unit, drawn on the same axes
WITHOUT = {
    "trimmed_std": ", without the 1 % of each class's images, at least one, furthest from its mean"
}


@style.drawing
def fairness_gap(
    s: Study, forget: str | None = None, reading: str = "std", published: bool = True
) -> KitFigure:
    """Draw Figure 1, the fairness-gap against the layer index, in the publication's panels.

    ResNet-50 has two, with all models and without SalUn and SCRUB; any other architecture one. All
    panels of an architecture share their y axis, also between the readings std and trimmed_std.
    `published` adds a row of the values read off the published figure, if the study is of CIFAR-10
    as that is. Data: a row for each architecture, method and layer; published and reading_error are
    NaN where the publication's curve is hidden or has another number of layers.
    """
    of = {"forget": forget or s.first_forget, "scope": "all", "progress": 1.0}
    readings = ALIKE if reading in ALIKE else [reading]
    gaps = pd.concat([s.rows("gap", reading=name, **of) for name in readings])
    gaps = over_seeds(gaps, [*KEYS, "reading", "layer_index", "layer_name"], "gap")
    data = gaps[gaps["reading"] == reading].drop(columns="reading")
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured for this forget set")
    layers = data.groupby("architecture")["layer_index"].max()
    paper = read_published().rename(columns={"fairness_gap": "published"})
    same = [name for name, count in LAYERS.items() if layers.get(name) == count]
    paper = paper[paper["architecture"].isin(same if s.dataset.startswith(DATASET) else [])]
    data = data.merge(paper, how="left", on=["architecture", "method", "layer_index"])
    shown = published and data["published"].notna().any()
    panels = []
    for name, part in data.groupby("architecture", sort=False):
        rest = part[~part["method"].isin(LARGE)]
        if name == LARGE_ON and 0 < len(rest) < len(part):
            panels += [(name, ", all models", part), (name, ", without SalUn, SCRUB", rest)]
        else:
            panels.append((name, "", part))
    across = min(len(panels), 3)
    rows = -(-len(panels) // 3)
    if style.is_narrow():
        fig, axes = style.panels(len(panels), 1 + shown, 0.95 + 1.35 * len(panels))
        ours, theirs = axes[:, 0], axes[:, -1]
    else:
        fig, axes = style.panels(rows * (1 + shown), across, 0.65 + 1.95 * rows * (1 + shown))
        ours, theirs = axes[:rows].flat, axes[-rows:].flat
    for row, column in ((ours, "mean"), (theirs, "published"))[: 1 + shown]:
        for ax, (name, words, part) in zip(row, panels, strict=False):
            if part[column].notna().any():
                _against_layer(ax, s, part, column)
                title = (s.title(name) if column == "mean" else "published") + words
                ax.set_title(textwrap.fill(title, 20) if style.is_narrow() else title)
                _reach(ax, gaps[gaps["architecture"] == name], paper, name)
    for ax in axes[:, 0]:
        ax.set_ylabel("Fairness-gap")
    for ax in axes[:-1].flat if style.is_narrow() else ():
        ax.set_xlabel("")
    which = reading.replace("_", " ") + WITHOUT.get(reading, "")
    text = f"Fairness-gap: largest minus smallest class σ of a layer's output ({which}; test "
    text += "images); published: values read off the figure, CIFAR-10; " if shown else "images); "
    text += style.about(s, data, "line: mean, band (Original, Retrain): minimum to maximum")
    alt = "Line chart of the fairness-gap against the layer index, a line a method."
    for name, part in data.groupby("architecture", sort=False):
        means, top = part.groupby("method")["mean"].mean(), part.loc[part["mean"].idxmax()]
        methods = [method for method in s.methods if method in means]
        alt += f" {s.title(name)}, mean over layers: "
        alt += style.listed(map(s.title, methods), means[methods]) + "; largest: "
        alt += f"{s.title(top['method'])} at layer {top['layer_index']}, {top['mean']:.3g}."
    return style.finish(fig, s, data, text, alt)


def _against_layer(ax: Axes, s: Study, data: pd.DataFrame, column: str) -> None:
    count, kind = int(data["layer_index"].max()), style.lines(s, data)
    sns.lineplot(data, x="layer_index", y=column, ax=ax, **kind)
    every = max(1, count // 8)
    for place, line in enumerate(ax.lines):  # one method's markers beside another's
        strong = line.get_linewidth() > 1
        line.set(markevery=(place % every, every), markersize=3.4 if strong else 2.6)
        line.set_zorder(2.5 if strong else 2)
    for method, part in data[data["method"].isin(EXACT)].groupby("method"):
        band = {"fc": kind["palette"][method], "alpha": 0.16, "lw": 0}
        if column == "mean":
            ax.fill_between(part["layer_index"], part["low"], part["high"], **band)
    _layers(ax, count)
    small = {"fontsize": 5, "color": style.FAINT, "ha": "center", "va": "top"}
    groups = GROUPS.get(count, ())
    for (first, name), (after, _) in zip(groups, (*groups[1:], (count + 1, "")), strict=False):
        said = name.replace("stage ", "st. ") if style.is_narrow() else name
        ax.text((first + after - 1) / 2, 0.99, said, transform=ax.get_xaxis_transform(), **small)
        if first > 1:
            ax.axvline(first - 0.5, color="#cfcfcf", lw=0.5, zorder=0.5)


def _layers(ax: Axes, count: int) -> None:
    """Number `count` layers along the x axis."""
    step = 20 if style.is_narrow() and count > 40 else 10
    margin = max(0.02 * count, 0.45)
    ticks = range(1, count + 1) if count <= 12 else [1, *range(step, count + 1, step)]
    ax.set(xlim=(1 - margin, count + margin), xticks=ticks, xlabel="Layer index", ylabel="")
    ax.grid(axis="x", visible=False)


def _reach(ax: Axes, gaps: pd.DataFrame, paper: pd.DataFrame, name: str) -> None:
    """Set the y axis to hold all that an architecture's panels show, in every reading alike."""
    bands = gaps[gaps["method"].isin(EXACT)]
    theirs = paper.loc[paper["architecture"] == name, "published"]
    values = pd.concat([gaps["mean"], bands["low"], bands["high"], theirs])
    if style.log_if_wide(ax.yaxis, values):
        ax.set_ylim(values[values > 0].min() / 1.2, values.max() * 1.8)
    else:
        ax.set_ylim(0, values.max() * 1.12)


@style.drawing
def sigma_by_class(
    s: Study,
    forget: str | None = None,
    reading: str = "std",
    methods: Sequence[str] = ("original", "retrain", "cf"),
) -> KitFigure:
    """Draw σ of each class at each layer, relative to the layer's mean over the classes.

    The class with the largest σ and that with the smallest make the fairness-gap: dots mark them. A
    panel for each architecture and each of the `methods`, over all layers. Data: a row for each
    architecture, method, layer and class; mean, low, high, std and n of the ratio over seeds.
    """
    of = {"forget": forget or s.first_forget, "scope": "all", "progress": 1.0}
    rows = s.rows("sigma", reading=reading, method=list(methods), **of)
    if rows.empty:
        raise NothingToDraw(f"no σ ({reading}) of {', '.join(methods)} was measured")
    level = rows.groupby([*ID, "layer_index"])["sigma"].transform("mean")
    rows = rows.assign(ratio=rows["sigma"] / level.replace(0, np.nan))
    data = over_seeds(rows, [*KEYS, "layer_index", "class_index"], "ratio")
    parts = dict(list(data.groupby(["architecture", "method"])))
    names = data["architecture"].unique()
    methods = [method for method in methods if method in set(data["method"])]
    shape = (len(names), len(methods))
    high = 0.25 + 0.09 * np.clip(data["class_index"].nunique(), 5, 20)
    if style.is_narrow():
        fig, axes = style.panels(shape[0] * shape[1], 1, 0.6 + shape[0] * (0.2 + high * shape[1]))
        axes = axes.reshape(shape)
    else:
        fig, axes = style.panels(*shape, 0.5 + (high + 0.25) * shape[0], sharey=True)
    alt = "Heat map of σ by class and layer, relative to the layer's mean over classes."
    for row, name in zip(axes, names, strict=True):
        values = data.loc[data["architecture"] == name, "mean"]
        wide = values.min() > 0 and values.max() > 3 * values.min()
        norm = (LogNorm if wide else Normalize)(values.min(), values.max())
        for ax, method in zip(row, methods, strict=True):
            if (name, method) in parts:
                mesh, said = _by_class(ax, s, parts[name, method], norm)
                alt += f" {s.title(name)}, {s.title(method)}, last layer: {said}."
                ax.set_title(f"{s.title(name)}, {s.title(method)}")
        for ax in row[:-1] if style.is_narrow() else ():
            ax.set_xlabel("")
            ax.tick_params(axis="x", labelbottom=False)
        bar = fig.colorbar(mesh, ax=list(row), pad=0.01, aspect=15 * (1 + style.is_narrow()))
        bar.set_label("σ / mean")
        style.log_if_wide(bar.ax.yaxis, values, factor=0.0 if wide else np.inf)
        bar.outline.set_visible(False)
    text = "σ of a class's outputs at a layer relative to the mean over classes "
    text += f"({reading.replace('_', ' ')}; test images); white dot: the largest, black: the "
    text += "smallest, whose difference is the fairness-gap; " + style.about(s, data, "mean")
    return style.finish(fig, s, data, text, alt)


def _by_class(ax: Axes, s: Study, data: pd.DataFrame, norm: Normalize) -> tuple:
    """Draw one model's classes; return the mesh, and who is on top and at the end."""
    grid = data.pivot(index="class_index", columns="layer_index", values="mean")
    layers, classes = grid.columns, [s.classes[int(index)][:12] for index in grid.index]
    mesh = ax.pcolormesh(layers, range(len(classes)), grid, cmap="Blues", norm=norm)
    mesh.set_rasterized(True)
    for color, place in (("white", grid.idxmax()), ("black", grid.idxmin())):
        ax.scatter(layers, grid.index.get_indexer(place), s=3, fc=color, ec="black", lw=0.25)
    _layers(ax, len(layers))
    for first, _ in GROUPS.get(len(layers), ())[1:]:
        ax.axvline(first - 0.5, color="white", lw=0.8)
    every = -(-len(classes) // 20)
    ax.set_yticks(range(0, len(classes), every), classes[::every], fontsize=5.5)
    ax.set(xlim=(0.5, len(layers) + 0.5), ylim=(len(classes) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    last = grid.iloc[:, -1]
    ends = (("largest", last.idxmax()), ("smallest", last.idxmin()))
    return mesh, ", ".join(f"{w} class {s.classes[int(i)]} ({last[i]:.3f})" for w, i in ends)
