"""Figures 3 and 4: a dot a model or a mean; and a look at the images."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from unlearnkit.names import ID
from unlearnkit.report.claims import EXACT, models_of, table5
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.frames import over_seeds, summaries
from unlearnkit.report.stats import correlation
from unlearnkit.report.study import NothingToDraw, Study, arranged

MEASURES = {
    "average_gap": "Average gap\nto Retrain (points) ↓",
    "gap_mean": "Fairness-gap,\nmean over layers",
    "drop": "Drop under\n{attack} (points) ↓",
    "relative_seconds": "Time relative\nto all layers ↓",
    "relative_memory": "Memory relative\nto all layers ↓",
}


def conjectures_statistics(
    s: Study, *, reading: str = "std", attack: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return the rank correlations behind both conjectures, models taken as exchangeable.

    C1: mean fairness-gap with test accuracy over the original's checkpoints. C2: mean
    fairness-gap with the drop over every model, for each architecture, also with test accuracy
    held fixed; and for more than one architecture ``across`` (pooled as they are) and ``within``
    (pooled after ranking inside each). The untrained network, progress 0, counts in none of them.
    Models of a seed share an original; `claims.table5` judges over seeds instead. Columns:
    conjecture, models, given, rho, low, high (95 % bootstrap), p (permutation), n.
    """
    data = models_of(s, reading=reading, attack=attack or s.attack).query("progress > 0")
    asked = []
    for name, part in data.groupby("architecture", sort=False):
        asked.append(("C1", name, "", part[part["method"] == "original"], "accuracy"))
        asked += [("C2", name, given, part, "drop") for given in ("", "accuracy")]
    if data["architecture"].nunique() > 1:
        both = ["gap_mean", "drop"]
        ranks = data.dropna(subset=both).groupby("architecture")[both].rank(pct=True)
        asked += [("C2", "across", "", data, "drop"), ("C2", "within", "", ranks, "drop")]
    found = []
    for conjecture, models, given, part, other in asked:
        fixed = part[given] if given else None
        rho = correlation(part["gap_mean"], part[other], fixed, seed=seed)
        found.append({"conjecture": conjecture, "models": models, "given": given, **rho})
    return pd.DataFrame(found)


@style.look()
def conjectures(s: Study, *, reading: str = "std", attack: str | None = None) -> KitFigure:
    """Draw Figure 3: gap and accuracy along training (C1), the gap against the mean drop (C2).

    The correlations are Table 5's: within each seed, with interval and verdict over seeds. Data:
    the models, each once (see `claims.models_of`).
    """
    attack = attack or s.attack
    models = models_of(s, reading=reading, attack=attack)
    data = models.dropna(subset=["gap_mean"])
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured")
    judged = table5(s, reading=reading, attack=attack)
    names = data["architecture"].unique()
    rows = -(-len(names) // 2)
    fig = KitFigure(figsize=(style.WIDTH, 2.8 + 2.5 * rows))
    (left, right), *axes = fig.subplots(1 + rows, 2, height_ratios=[1] + [1.1] * rows)
    _along_training(left, data, "gap_mean")
    _along_training(right, data, "accuracy")
    found = judged.query("Claim == 'C1' and Key == 'yes'")
    said = [f"{row.Architecture}: {_rho(row)}" for row in found.itertuples()]
    title = "\n".join(["C1: gap along the original's training", *said])
    left.set(title=title, ylabel="Mean fairness-gap")
    right.set(title="C1: accuracy along the original's training", ylabel="Test accuracy (%)")
    for ax, name in zip(np.ravel(axes), names, strict=False):
        _gap_and_drop(ax, s, data[data["architecture"] == name])
        found = judged[(judged["Claim"] == "C2") & (judged["Architecture"] == s.title(name))]
        words = {"no": "", "yes": "at fixed accuracy: "}
        said = [words[row.Key] + _rho(row) for row in found.iloc[:2].itertuples()]
        title = "\n".join([f"C2, {s.title(name)}", *said])
        ax.set(title=title, ylabel=f"Drop under {s.title(attack)} (points)")
    text = (
        "C1: line: mean, band: minimum to maximum over seeds. C2: one point a model, drop averaged "
        "over ε > 0. Spearman's ρ of gap and accuracy (C1), gap and drop (C2) within a seed: mean, "
        f"95 % interval, verdict (Table 5); seeds: {data['seed'].nunique()}."
    )
    if (data["progress"] == 0).any():
        text += " Progress 0, the untrained network, is drawn but in no ρ."
    return style.finish(fig, s, models, text)


def _rho(row: Any) -> str:
    interval = f" [{row.Low:+.2f}, {row.High:+.2f}]" if row.Seeds > 1 else ""
    return f"ρ = {row.Value:+.2f}{interval}: {row.Verdict}" if row.Seeds else "ρ undefined"


def _along_training(ax: Axes, data: pd.DataFrame, column: str) -> None:
    original = data[data["method"] == "original"].dropna(subset=[column])
    if original["progress"].nunique() < 2:
        return style.note(ax, "no checkpoint along the original's training stored")
    markers = dict(zip(original["architecture"].unique(), cycle(style.MARKERS), strict=False))
    kind = {"style": "architecture", "markers": markers, "color": "black"}
    band = {"errorbar": ("pi", 100), "err_kws": {"lw": 0}}
    sns.lineplot(original, x="progress", y=column, ax=ax, **kind, **band)
    ax.set_xlabel("Training progress (fraction of epochs)")
    if column == "gap_mean" and not style.log_if_wide(ax.yaxis, original[column]):
        ax.set_ylim(bottom=0)


def _gap_and_drop(ax: Axes, s: Study, models: pd.DataFrame) -> None:
    models = models.dropna(subset=["drop"])
    if models.empty:
        return style.note(ax, "no model with both a fairness-gap and a robustness drop")
    done = models["progress"] == 1
    sns.scatterplot(models[done], x="gap_mean", y="drop", ax=ax, **style.dots(s, models[done]))
    if not done.all():
        x, y = models["gap_mean"][~done], models["drop"][~done]
        ax.scatter(x, y, s=9, fc="white", ec="black", lw=0.7, label="checkpoint")
    style.log_if_wide(ax.xaxis, models["gap_mean"])
    ax.set_xlabel("Mean fairness-gap over layers")


@style.look()
def layerwise(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str | None = None
) -> KitFigure:
    """Draw Figure 4: a row an architecture, a column a measure, a line of dots a method.

    Data: a row for each architecture, method, scope and measure, one of `MEASURES`.
    """
    table = summaries(s, reading=reading, attack=attack)
    table = table[(table["progress"] == 1.0) & (table["forget"] == (forget or s.first_forget))]
    long = table.melt(ID, list(MEASURES), "measure").dropna(subset=["value"])
    data = over_seeds(long, ["architecture", "forget", "method", "scope", "measure"], "value")
    unlearned = ~data["method"].isin(EXACT) | (data["scope"] != "all")
    methods = arranged(s.methods, data["method"][unlearned])
    if not methods:
        raise NothingToDraw("no unlearned model was measured for this forget set")
    names = data["architecture"].unique()
    height = 0.7 + 0.27 * max(len(methods), 3)
    fig = KitFigure(figsize=(style.WIDTH, 0.95 + len(names) * height))
    axes = fig.subplots(len(names), len(MEASURES), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        row[0].set_title(s.title(name))
        for ax, (measure, label) in zip(row, MEASURES.items(), strict=True):
            part = data[(data["architecture"] == name) & (data["measure"] == measure)]
            _dots(ax, s, part, methods)
            ax.set(xlabel=label.format(attack=s.title(attack or s.attack)), ylabel="")
        for ax in [ax for ax in row if ax.has_data()][1:]:
            ax.tick_params(labelleft=False)
    fig.align_xlabels()
    text = "Drop averaged over ε > 0; "
    text += style.about(data, "marker: mean, bar: minimum to maximum")
    if set(data["scope"]) == {"all"}:
        text += " No run restricted to a group of layers is stored."
    return style.finish(fig, s, data, text, unnamed=s.methods)


def _dots(ax: Axes, s: Study, data: pd.DataFrame, methods: list[str]) -> None:
    part, colors = data[data["method"].isin(methods)], style.palette(s)
    if part.empty:
        return style.note(ax, "not measured")
    kind, measure = style.dots(s, part), part["measure"].iloc[0]
    scopes = kind["style_order"]
    shift = {scope: 0.72 * ((i + 0.5) / len(scopes) - 0.5) for i, scope in enumerate(scopes)}
    y = part["method"].map(methods.index) + part["scope"].map(shift)
    ax.hlines(y, part["low"], part["high"], part["method"].map(colors), lw=0.8)
    sns.scatterplot(part, x="mean", y=y, ax=ax, **kind)
    ax.collections[-1].set_clip_on(False)  # dots at a panel's edge are seen whole
    if measure.startswith("relative"):
        ax.axvline(1, color=style.FAINT, lw=0.7, zorder=0.8)
    for method, line in zip(EXACT, (":", "--"), strict=True):
        whole = data.query("method == @method and scope == 'all'")["mean"]
        if measure in ("gap_mean", "drop") and len(whole):
            label = f"{s.title(method)} (all layers)"
            ax.axvline(whole.item(), color=colors[method], lw=0.9, ls=line, label=label)
    log = measure == "gap_mean" and style.log_if_wide(ax.xaxis, data["mean"])
    if not log and measure != "drop":
        ax.set_xlim(left=0)
    for place in range(1, len(methods), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", lw=0, zorder=0)
    ax.set_yticks(range(len(methods)), map(s.title, methods))
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


@style.look()
def samples(images: Any, labels: Any, classes: Sequence[str]) -> KitFigure:
    """Show the first eight images of every class, of ten classes at the most.

    `images` are uint8 [N, S, S, 3] or [N, 3, S, S], `labels` [N]: arrays or tensors.
    """
    images, labels, classes = np.asarray(images), np.asarray(labels), classes[:10]
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(classes) // 2)
    fig = KitFigure(figsize=(style.WIDTH, 0.09 + 0.42 * rows))
    axes = fig.subplots(rows, 2, squeeze=False)
    for label, (ax, name) in enumerate(zip(axes.flat, classes, strict=False)):
        shown = framed[labels == label][:8]
        blank = np.full((8 - len(shown), *framed.shape[1:]), 255, np.uint8)
        ax.imshow(np.concatenate([*shown, *blank], axis=1), interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return fig
