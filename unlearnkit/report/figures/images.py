"""A look at live models: the images, what an attack does to them, and where features lie."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patheffects import withStroke

from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure

WRONG = "#D55E00"


def _pixels(images: Any) -> np.ndarray:
    """Return images [N, S, S, 3] or [N, 3, S, S], uint8 or in [0, 1], as floats [N, S, S, 3]."""
    images = np.asarray(images)
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    return images / 255 if images.dtype == np.uint8 else images.astype(float)


def _row(images: np.ndarray) -> np.ndarray:
    """Return images [N, S, S, 3] side by side, a white line around each."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    return np.concatenate(list(framed), axis=1)


@style.drawing
def samples(images: Any, labels: Any, classes: Sequence[str]) -> KitFigure:
    """Show the first eight images of every class, of ten classes at the most.

    `images` are [N, S, S, 3] or [N, 3, S, S], uint8 or floats in [0, 1], `labels` [N]: arrays or
    tensors.
    """
    pictures, labels, classes = _pixels(images), np.asarray(labels), classes[:10]
    across = 1 if style.is_narrow() else 2
    rows = -(-len(classes) // across)
    fig, axes = style.panels(rows, across, 0.09 + 0.42 * rows)
    for label, (ax, name) in enumerate(zip(axes.flat, classes, strict=False)):
        shown = pictures[labels == label][:8]
        blank = np.ones((8 - len(shown), *pictures.shape[1:]))
        ax.imshow(_row(np.concatenate([shown, blank])), interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.alt = f"The first eight images of each class: {', '.join(classes)}."
    return fig


@style.drawing
def adversarial_strip(
    images: Any,
    adversarial: Any,
    labels: Any,
    said: Mapping[str, Any],
    classes: Sequence[str],
    source: str = "",
) -> KitFigure:
    """Show images, what an attack added, the attacked images, and what models say of these.

    `images` and `adversarial` as in `samples`, `labels` [N]; `said`: a model's title -> the class
    indices [N] that it predicts for the `adversarial`, made on the model titled `source`. The first
    eight are shown, four in a column. Data: a row for each image and model; label, says (names).
    """
    count = 4 if style.is_narrow() else 8
    clean, attacked = _pixels(images)[:count], _pixels(adversarial)[:count]
    truth = [classes[int(label)] for label in labels[:count]]
    change = attacked - clean
    times = max(1, int(0.5 / max(np.abs(change).max(), 1e-9)))
    size = clean.shape[1] + 2
    grid = np.concatenate([_row(x) for x in (clean, 0.5 + times * change, attacked)])
    line, centres = 0.32 * size, (np.arange(len(truth)) + 0.5) * size
    below = grid.shape[0] + line * (0.7 + np.arange(len(said)))
    inches = (style.width() - 1.05) / len(truth)  # of an image
    fig, axes = style.panels(1, 1, inches * (below[-1] + line) / size + 0.55)
    ax = axes[0, 0]
    ax.imshow(grid.clip(0, 1), interpolation="nearest")
    rows = []
    for y, (model, answers) in zip(below, said.items(), strict=True):
        for number, (x, name) in enumerate(zip(centres, truth, strict=True)):
            says = classes[int(answers[number])]
            look = {} if says == name else {"color": WRONG, "weight": "bold"}
            look |= {"fontsize": 5 if style.is_narrow() else 6}
            ax.text(x, y, says[:12], ha="center", va="center", **look)
            rows.append({"image": number, "model": model, "label": name, "says": says})
    ax.set_xticks(centres, [name[:12] for name in truth])
    ax.xaxis.tick_top()
    places = [*(np.arange(3) + 0.5) * size, *below]
    ax.set_yticks(places, ["image", f"change × {times}", "attacked", *map("{} says".format, said)])
    ax.set(ylim=(below[-1] + line / 2, 0))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    fig.data = pd.DataFrame(rows)
    wrong = fig.data[fig.data["says"] != fig.data["label"]].groupby("model").size()
    made = f" made on {source}" if source else ""
    text = f"Adversarial images{made}; largest change of a pixel: "
    text += f"{255 * np.abs(change).max():.3g}/255, shown {times} times as large around grey; "
    text += "above: the true class, below: what each model says of the attacked image, in bold "
    text += "where that is wrong."
    counts = "; ".join(f"{model} {wrong.get(model, 0)} of {len(truth)}" for model in said)
    fig.alt = f"Images of {', '.join(truth)} before and after an attack. Taken for another "
    fig.alt += f"class: {counts}. {text}"
    return style.settle(fig, text)


@style.drawing
def embedding(
    coordinates: Mapping[str, Any], labels: Any, forget: Any, classes: Sequence[str]
) -> KitFigure:
    """Draw where images lie in two dimensions, a panel for each model, the forget set ringed.

    `coordinates`: a model's title -> [N, 2], such as scikit-learn's t-SNE of `metrics.features`;
    `labels` [N]; `forget` [N], a bool mask. A class is named at the median of its images. Data:
    model, x, y, label (name), forget.
    """
    labels, forget = np.asarray(labels), np.asarray(forget, dtype=bool)
    across = 1 if style.is_narrow() else min(len(coordinates), 3)
    rows, side = -(-len(coordinates) // across), min(2.4, (style.width() - 0.1) / across)
    fig, axes = style.panels(rows, across, 0.6 + side * rows)
    colors = sns.color_palette("colorblind" if len(classes) <= 10 else "husl", len(classes))
    halo, frames = [withStroke(linewidth=1.6, foreground="white")], []
    for ax, (model, points) in zip(axes.flat, coordinates.items(), strict=False):
        x, y = np.asarray(points, dtype=float).T
        for label, color, marker in zip(np.unique(labels), colors, cycle("os^vDPX<>p")):
            of = labels == label
            kept, gone = of & ~forget, of & forget
            ax.scatter(x[kept], y[kept], s=5, fc=color, lw=0, alpha=0.55, marker=marker)
            ax.scatter(x[gone], y[gone], s=13, fc=color, ec="black", lw=0.6, marker=marker)
            place = np.median(x[of]), np.median(y[of])
            look = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 6}
            ax.text(*place, classes[label], path_effects=halo, **look)
        ax.scatter([], [], s=13, fc="none", ec="black", lw=0.6, label="forget set")
        ax.set(title=model, xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        names = [classes[label] for label in labels]
        columns = {"model": model, "x": x, "y": y, "label": names, "forget": forget}
        frames.append(pd.DataFrame(columns))
    for ax in axes.flat[len(coordinates) :]:
        ax.set_axis_off()
    fig.data = pd.concat(frames, ignore_index=True)
    text = f"{len(labels)} images, {forget.sum()} of them, ringed, of the forget set; near points: "
    text += "images whose features are alike. Distances between groups mean little."
    fig.alt = f"Scatter plot of images by their features, for {', '.join(coordinates)}. {text}"
    handles, names = axes[0, 0].get_legend_handles_labels()
    return style.settle(fig, text, dict(zip(names, handles, strict=True)))
