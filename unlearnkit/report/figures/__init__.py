"""The study's figures, drawn from its frames.

Each figure `f(s, ...)` has a companion `f_data(s, ...)` that returns the frame it shows. Common
parameters: `forget`, a forget set of the study, and `attack`, a measured one (the study's own if
left out); `reading`, how σ is pooled, one of `unlearnkit.results.READINGS`. A study that lacks all
that a figure shows raises `NothingToDraw`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearnkit.report import claims
from unlearnkit.report.figures.style import (
    EXACT,
    FAINT,
    MARKERS,
    WIDTH,
    KitFigure,
    about,
    finish,
    lines,
    log_if_wide,
    look,
    note,
    palette,
    save_figure,
    scope_markers,
)
from unlearnkit.report.frames import excess, over_seeds, summaries
from unlearnkit.report.published import GROUPS, LARGE, LARGE_ON, LAYERS, read_published
from unlearnkit.report.stats import correlation
from unlearnkit.report.study import NothingToDraw, Study
from unlearnkit.results import ID

__all__ = ["NothingToDraw", "conjectures", "conjectures_data", "conjectures_statistics"]
__all__ += ["fairness_gap", "fairness_gap_data", "layerwise", "layerwise_data", "robustness"]
__all__ += ["robustness_data", "samples", "save_figure", "sweep", "sweep_data"]

KEYS = ["architecture", "forget", "method"]
MEASURES = {
    "average_gap": "Average gap\nto Retrain (points) ↓",
    "gap_mean": "Fairness-gap,\nmean over layers",
    "drop": "Drop under\n{attack} (points) ↓",
    "relative_seconds": "Time relative\nto all layers ↓",
    "relative_memory": "Memory relative\nto all layers ↓",
}


def fairness_gap_data(
    s: Study, forget: str | None = None, reading: str = "std", published: bool = True
) -> pd.DataFrame:
    """Return what Figure 1 draws: one row for each architecture, method and layer.

    Columns: architecture, forget, method, layer_index, layer_name, mean, low, high (minimum and
    maximum over seeds), std, n, and published, reading_error (NaN where the publication's curve
    is hidden or has another number of layers).
    """
    of = {"forget": forget or s.first_forget, "reading": reading, "scope": "all", "progress": 1.0}
    table = over_seeds(s.rows("gap", **of), [*KEYS, "layer_index", "layer_name"], "gap")
    layers = table.groupby("architecture")["layer_index"].max()
    same = [name for name, count in LAYERS.items() if published and layers.get(name) == count]
    paper = read_published().rename(columns={"fairness_gap": "published"})
    paper = paper[paper["architecture"].isin(same)]
    return table.merge(paper, how="left", on=["architecture", "method", "layer_index"])


@look()
def fairness_gap(
    s: Study, forget: str | None = None, reading: str = "std", published: bool = True
) -> Figure:
    """Draw Figure 1, the fairness-gap against the layer index, in the publication's panels.

    ResNet50 has two, with all models and without SalUn and SCRUB; any other architecture one.
    `published` adds the values read off the published figure as hollow markers.
    """
    data = fairness_gap_data(s, forget, reading, published)
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured for this forget set")
    panels = {}
    for name, part in data.groupby("architecture", sort=False):
        rest = part[~part["method"].isin(LARGE)]
        if name == LARGE_ON and 0 < len(rest) < len(part):
            panels[f"{s.title(name)}, all models"] = part
            panels[f"{s.title(name)} except SalUn, SCRUB"] = rest
        else:
            panels[s.title(name)] = part
    rows = -(-len(panels) // 3)
    fig = KitFigure(figsize=(WIDTH, 0.65 + 2.3 * rows))
    axes = fig.subplots(rows, min(len(panels), 3), squeeze=False)
    for ax, (title, part) in zip(axes.flat, panels.items(), strict=False):
        _layers(ax, s, part)
        ax.set(title=title, xlabel="Layer index", ylabel="Fairness-gap" if ax in axes[:, 0] else "")
    which = reading.replace("_", " ")
    if reading == "trimmed_std":
        which += ", without the 1 % of each class's images, at least one, furthest from its mean"
    text = (
        f"Fairness-gap: largest minus smallest class σ of a layer's output ({which}; test images); "
    )
    if data["published"].notna().any():
        text += "hollow: published values (CIFAR-10), read off the figure; "
    what = "line: mean, band (Original, Retrain): minimum to maximum"
    return finish(fig, s, text + about(data, what))


def _layers(ax: Axes, s: Study, data: pd.DataFrame) -> None:
    count, kind = int(data["layer_index"].max()), lines(s, data)
    sns.lineplot(data, x="layer_index", y="mean", ax=ax, **kind)
    for place, line in enumerate(ax.lines):  # markers of one method beside those of another
        line.set_markevery((place % max(1, count // 8), max(1, count // 8)))
    hollow = {"ls": "none", "ms": 2.2, "mfc": "white", "mew": 0.45, "zorder": 1.5}
    for method, part in data.groupby("method"):
        color, marker = kind["palette"][method], kind["markers"][method]
        ax.plot("layer_index", "published", marker, data=part, color=color, label="", **hollow)
        if method in EXACT:
            area = {"color": color, "alpha": 0.16, "lw": 0}
            ax.fill_between("layer_index", "low", "high", data=part, label="", **area)
    if data["published"].notna().any():
        ax.plot([], [], "o", mfc="white", color=FAINT, label="published")
    if not log_if_wide(ax.yaxis, pd.concat([data["mean"], data["published"]])):
        ax.set_ylim(bottom=0)
    ax.set_xlim(1 - max(0.02 * count, 0.45), count + max(0.02 * count, 0.45))
    ax.set_xticks(range(1, count + 1) if count <= 12 else [1, *range(10, count + 1, 10)])
    ax.grid(axis="x", visible=False)
    groups = GROUPS.get(count, ())
    for (first, name), (after, _) in zip(groups, (*groups[1:], (count + 1, "")), strict=True):
        if first > 1:
            ax.axvline(first - 0.5, color="#cfcfcf", lw=0.5, zorder=0.5)
        small = {"fontsize": 5, "color": FAINT, "ha": "center", "va": "top"}
        ax.text((first + after - 1) / 2, 0.99, name, transform=ax.get_xaxis_transform(), **small)


def robustness_data(s: Study, forget: str | None = None, attack: str | None = None) -> pd.DataFrame:
    """Return what Figure 2 draws: one row for each architecture, method, quantity, ε and class.

    Columns: architecture, forget, method, attack, quantity (accuracy in %, drop and excess in
    percentage points), epsilon (pixel units), class_index (−1 = all), mean, low, high (minimum
    and maximum over seeds), std, n. White-box, test images.
    """
    of = {"forget": forget or s.first_forget, "attack": attack or s.attack, "images": "test"}
    robust = s.rows("robust", access="white-box", scope="all", progress=1.0, **of)
    keys, quantities = ["attack", "epsilon", "class_index"], ["accuracy", "drop", "excess"]
    long = excess(robust).melt([*ID, *keys], quantities, "quantity")
    return over_seeds(long, [*KEYS, "attack", "quantity", "epsilon", "class_index"], "value")


@look()
def robustness(
    s: Study, forget: str | None = None, attack: str | None = None, epsilon: float | None = None
) -> Figure:
    """Draw Figure 2, one row an architecture: accuracy, excess over Retrain, drop per class.

    `epsilon` (pixel units) says where the drop per class is shown; by default where Retrain's
    accuracy is nearest to half of its clean accuracy, so that the drop can differ both ways.
    """
    data, title = robustness_data(s, forget, attack), s.title(attack or s.attack)
    if data.empty:
        measured = ", ".join(map(s.title, s.robust["attack"].unique())) or "none"
        raise NothingToDraw(f"{title} not measured for this forget set; measured: {measured}")
    grids = {name: _drops(part, epsilon) for name, part in data.groupby("architecture", sort=False)}
    drawn = pd.concat([grid.stack() for _, grid in grids.values()])
    fig = KitFigure(figsize=(WIDTH, 0.8 + 2.1 * len(grids)))
    axes = fig.subplots(len(grids), 3, squeeze=False, width_ratios=(1, 1, 1.15))
    for (left, middle, right), (name, (level, grid)) in zip(axes, grids.items(), strict=True):
        part = data[(data["architecture"] == name) & (data["class_index"] == -1) & (data["n"] > 0)]
        _against_epsilon(left, s, part[part["quantity"] == "accuracy"], 0.0)
        left.set(title=f"{s.title(name)}: accuracy", ylabel="Accuracy (%)", ylim=(0, 102))
        part = part[(part["quantity"] == "excess") & (part["epsilon"] > 0)]
        _against_epsilon(middle, s, part[part["method"] != "retrain"], 0.06)
        middle.set(title=f"{s.title(name)}: excess drop", ylabel="Drop minus Retrain's (points)")
        _per_class(right, s, grid, vmin=drawn.min(), vmax=drawn.max())
        right.set_title(f"{s.title(name)}: drop per class at ε = {255 * level:.3g}/255")
    for ax in axes[-1, :2]:
        ax.set_xlabel(f"{title}, ε (1/255)")
    for ax in axes[:-1, 2]:
        ax.set(xticklabels=[], xlabel="")
    text = f"{title}, white-box, % of the attacked test images; "
    return finish(fig, s, text + about(data, "marker: mean, bar: minimum to maximum"))


def _against_epsilon(ax: Axes, s: Study, data: pd.DataFrame, apart: float) -> None:
    """Draw means and ranges at evenly spaced ε, which double, the methods `apart` at each."""
    if data.empty:
        note(ax, "no retrained model to compare with")
        return
    levels = sorted(data["epsilon"].unique())
    shift = {method: apart * (i - len(s.methods) / 2) for i, method in enumerate(s.methods)}
    x = data["epsilon"].map(levels.index) + data["method"].map(shift)
    sns.lineplot(data.assign(x=x), x="x", y="mean", ax=ax, **lines(s, data))
    ax.vlines(x, data["low"], data["high"], data["method"].map(palette(s)), lw=0.7)
    ax.set_xticks(range(len(levels)), [f"{255 * level:.3g}" for level in levels])
    ax.grid(axis="x", visible=False)
    if apart:
        ax.axhline(0, color=palette(s)["retrain"], lw=0.9, zorder=1)
    ax.set_xlabel("")


def _drops(data: pd.DataFrame, epsilon: float | None) -> tuple[float, pd.DataFrame]:
    """Return the ε > 0 to show the classes at, and the mean drop there, method × class."""
    whole = data[(data["class_index"] == -1) & (data["quantity"] == "accuracy")]
    exact = whole[whole["method"] == "retrain"]
    curve = (whole if exact.empty else exact).groupby("epsilon")["mean"].mean()
    half = (curve - curve.iloc[0] / 2).abs()
    far = half if epsilon is None else pd.Series(abs(curve.index - epsilon), curve.index)
    level = far[far.index > 0].idxmin()
    part = data[(data["quantity"] == "drop") & (data["epsilon"] == level)]
    part = part[part["class_index"] >= 0]
    return level, part.pivot(index="method", columns="class_index", values="mean")


def _per_class(ax: Axes, s: Study, grid: pd.DataFrame, **limits: float) -> None:
    if grid.empty:
        note(ax, "no accuracy per class stored")
        return
    few = grid.shape[1] <= 12  # of more classes the cells are too small for numbers
    grid = grid.reindex([method for method in s.methods if method in grid.index])
    grid = grid.rename(index=s.title, columns=lambda index: s.classes[int(index)][:12])
    numbers = {"annot": few, "fmt": ".0f", "annot_kws": {"size": 5.5}}
    bar = {"label": "Drop (points)", "pad": 0.02, "fraction": 0.05}
    sns.heatmap(grid, cmap="Blues", cbar_kws=bar, ax=ax, **numbers, **limits)
    ax.tick_params(length=0)
    ax.set(xlabel="Class", ylabel="")


def conjectures_data(s: Study, *, reading: str = "std", attack: str | None = None) -> pd.DataFrame:
    """Return what Figure 3 draws: the models, each once (see `claims.models_of`)."""
    return claims.models_of(s, reading=reading, attack=attack or s.attack)


def conjectures_statistics(
    s: Study, *, reading: str = "std", attack: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return the rank correlations behind both conjectures, models taken as exchangeable.

    C1: mean fairness-gap with test accuracy over the original's checkpoints. C2: mean
    fairness-gap with the drop over every model, for each architecture, also with test accuracy
    held fixed; and for more than one architecture ``across`` (pooled as they are) and ``within``
    (pooled after ranking inside each). The untrained network, progress 0, counts in none of them.
    Models of a seed share an original; `claims.table5` judges over seeds instead.

    Returns
    -------
    DataFrame
        conjecture, models, given, rho, low, high (95 % bootstrap), p (permutation), n.
    """
    data = conjectures_data(s, reading=reading, attack=attack)
    data = data[data["progress"] > 0]
    both = ["gap_mean", "drop"]
    asked = []
    for name, part in data.groupby("architecture", sort=False):
        asked.append(("C1", name, "", part[part["method"] == "original"], "accuracy"))
        asked += [("C2", name, given, part, "drop") for given in ("", "accuracy")]
    if data["architecture"].nunique() > 1:
        ranks = data.dropna(subset=both).groupby("architecture")[both].rank(pct=True)
        asked += [("C2", "across", "", data, "drop"), ("C2", "within", "", ranks, "drop")]
    found = []
    for conjecture, models, given, part, other in asked:
        fixed = part[given] if given else None
        rho = correlation(part["gap_mean"], part[other], fixed, seed=seed)
        found.append({"conjecture": conjecture, "models": models, "given": given, **vars(rho)})
    return pd.DataFrame(found)


@look()
def conjectures(s: Study, *, reading: str = "std", attack: str | None = None) -> Figure:
    """Draw Figure 3: gap and accuracy along training (C1), the gap against the mean drop (C2).

    The correlations are Table 5's: within each seed, with interval and verdict over seeds.
    """
    data = conjectures_data(s, reading=reading, attack=attack)
    data = data.dropna(subset=["gap_mean"])
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured")
    judged = claims.table5(s, reading=reading, attack=attack or s.attack)
    names = data["architecture"].unique()
    rows = -(-len(names) // 2)
    fig = KitFigure(figsize=(WIDTH, 2.8 + 2.5 * rows))
    axes = fig.subplots(1 + rows, 2, height_ratios=[1] + [1.1] * rows)
    original = data[data["method"] == "original"]
    _along(axes[0, 0], original, "gap_mean")
    _along(axes[0, 1], original, "accuracy")
    found = judged[(judged["Claim"] == "C1") & (judged["Key"] == "yes")]
    title = [f"{row.Architecture}: with accuracy {_rho(row)}" for row in found.itertuples()]
    axes[0, 0].set_title("\n".join(["C1: gap along the original's training", *title]))
    axes[0, 0].set_ylabel("Mean fairness-gap")
    axes[0, 1].set(title="C1: accuracy along the original's training", ylabel="Test accuracy (%)")
    for ax, name in zip(axes[1:].flat, names, strict=False):
        _scatter(ax, s, data[data["architecture"] == name])
        ax.set_ylabel(f"Drop under {s.title(attack or s.attack)} (points)")
        found = judged[(judged["Claim"] == "C2") & (judged["Architecture"] == s.title(name))]
        words = {"no": "", "yes": "at fixed accuracy: "}
        title = [words[row.Key] + _rho(row) for row in found.iloc[:2].itertuples()]
        ax.set_title("\n".join([f"C2, {s.title(name)}", *title]))
    text = (
        "C1: line: mean, band: minimum to maximum over seeds. C2: one point a model, drop averaged "
    )
    text += "over ε > 0. ρ: Spearman's within a seed; mean, 95 % interval over "
    text += f"{data['seed'].nunique()} seeds, verdict (Table 5)"
    if (data["progress"] == 0).any():
        text += "; progress 0, the untrained network, is drawn but in no ρ"
    return finish(fig, s, text + ".")


def _rho(row: Any) -> str:
    """Return the words for a row of Table 5."""
    interval = f" [{row.Low:+.2f}, {row.High:+.2f}]" if row.Seeds > 1 else ""
    return f"ρ = {row.Value:+.2f}{interval}: {row.Verdict}" if row.Seeds else "ρ undefined"


def _along(ax: Axes, original: pd.DataFrame, column: str) -> None:
    original = original.dropna(subset=[column])
    if original["progress"].nunique() < 2:
        note(ax, "no checkpoint along the original's training stored")
        return
    markers = dict(zip(original["architecture"].unique(), MARKERS * 9, strict=False))
    kind = {"style": "architecture", "markers": markers, "color": "black"}
    band = {"errorbar": ("pi", 100), "err_kws": {"lw": 0}}
    sns.lineplot(original, x="progress", y=column, ax=ax, **kind, **band)
    ax.set_xlabel("Training progress (fraction of epochs)")
    if column == "gap_mean" and not log_if_wide(ax.yaxis, original[column]):
        ax.set_ylim(bottom=0)


def _scatter(ax: Axes, s: Study, models: pd.DataFrame) -> None:
    models = models.dropna(subset=["drop"])
    if models.empty:
        note(ax, "no model with both a fairness-gap and a robustness drop")
        return
    done = models["progress"] == 1
    kind = {"palette": palette(s), "style": "scope", "markers": scope_markers(models), "s": 17}
    sns.scatterplot(models[done], x="gap_mean", y="drop", hue="method", ax=ax, **kind)
    hollow = {"fc": "white", "ec": "black", "lw": 0.7, "label": "checkpoint"}
    if not done.all():
        ax.scatter("gap_mean", "drop", 9, data=models[~done], **hollow)
    log_if_wide(ax.xaxis, models["gap_mean"])
    ax.set_xlabel("Mean fairness-gap over layers")


def layerwise_data(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str | None = None
) -> pd.DataFrame:
    """Return what Figure 4 draws: one row for each architecture, method, scope and measure.

    Columns: architecture, forget, method, scope, measure (average_gap, gap_mean, drop,
    relative_seconds, relative_memory), mean, low, high (minimum and maximum over seeds), std, n.
    """
    table = summaries(s, reading=reading, attack=attack)
    table = table[(table["progress"] == 1.0) & (table["forget"] == (forget or s.first_forget))]
    long = table.melt(ID, list(MEASURES), "measure", "value").dropna(subset=["value"])
    return over_seeds(long, [*KEYS, "scope", "measure"], "value")


@look()
def layerwise(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str | None = None
) -> Figure:
    """Draw Figure 4: a row an architecture, a column a measure, a line of dots a method."""
    data = layerwise_data(s, forget, reading=reading, attack=attack)
    found = set(data["method"][~data["method"].isin(EXACT) | (data["scope"] != "all")])
    methods = [method for method in s.methods if method in found]
    if not methods:
        raise NothingToDraw("no unlearned model was measured for this forget set")
    names = data["architecture"].unique()
    height = 0.7 + 0.27 * max(len(methods), 3)
    fig = KitFigure(figsize=(WIDTH, 0.95 + len(names) * height))
    axes = fig.subplots(len(names), len(MEASURES), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        row[0].set_title(s.title(name))
        for ax, (measure, label) in zip(row, MEASURES.items(), strict=True):
            part = data[(data["architecture"] == name) & (data["measure"] == measure)]
            _dots(ax, s, part, methods)
            ax.set(xlabel=label.format(attack=s.title(attack or s.attack)), ylabel="")
            ax.tick_params(axis="y", length=0, labelleft=ax is row[0])
    fig.align_xlabels()
    text = "Drop averaged over ε > 0; " + about(data, "marker: mean, bar: minimum to maximum")
    return finish(fig, s, text, unnamed=s.methods)


def _dots(ax: Axes, s: Study, data: pd.DataFrame, methods: list[str]) -> None:
    part, markers = data[data["method"].isin(methods)], scope_markers(data)
    if part.empty:
        note(ax, "not measured")
        return
    step = 0.72 / len(markers)
    shift = {scope: step * (i + 0.5) - 0.36 for i, scope in enumerate(markers)}
    y = part["method"].map(methods.index) + part["scope"].map(shift)
    ax.hlines(y, part["low"], part["high"], part["method"].map(palette(s)), lw=0.8)
    kind = {"palette": palette(s), "style": "scope", "markers": markers, "s": 17}
    sns.scatterplot(part.assign(y=y), x="mean", y="y", hue="method", ax=ax, **kind)
    ax.collections[-1].set_clip_on(False)  # dots at a panel's edge are seen whole
    measure = part["measure"].iloc[0]
    if measure.startswith("relative"):
        ax.axvline(1, color=FAINT, lw=0.7, zorder=0.8)
    for method, line in zip(EXACT, (":", "--"), strict=True):
        whole = data[(data["method"] == method) & (data["scope"] == "all")]["mean"]
        if measure in ("gap_mean", "drop") and len(whole):
            label = f"{s.title(method)} (all layers)"
            ax.axvline(whole.item(), color=palette(s)[method], lw=0.9, ls=line, label=label)
    log = measure == "gap_mean" and log_if_wide(ax.xaxis, data["mean"])
    if not log and measure != "drop":
        ax.set_xlim(left=0)
    for place in range(1, len(methods), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", lw=0, zorder=0)
    ax.set_yticks(range(len(methods)), map(s.title, methods))
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def sweep_data(s: Study) -> pd.DataFrame:
    """Return what `sweep` draws: the study's sweep without Retrain's rows."""
    return s.sweep[s.sweep["method"] != "retrain"].reset_index(drop=True)


@look()
def sweep(s: Study) -> Figure:
    """Draw the average gap of each method at each rate that was tried; a ring marks the choice.

    A rate whose training diverged has no point.
    """
    data = sweep_data(s)
    if data.empty:
        raise NothingToDraw("this study has no sweep")
    names = data["architecture"].unique()
    fig = KitFigure(figsize=(WIDTH, 2.6))
    for ax, name in zip(fig.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        part = data[data["architecture"] == name]
        sns.lineplot(part, x="lr", y="average_gap", ax=ax, **lines(s, part))
        best = part[part["chosen"]]
        color = best["method"].map(palette(s))
        ax.scatter(best["lr"], best["average_gap"], s=46, fc="none", ec=color)
        for axis, values in ((ax.xaxis, part["lr"]), (ax.yaxis, part["average_gap"])):
            log_if_wide(axis, values, factor=0.0)
        ax.set(title=s.title(name), xlabel="Learning rate", ylabel="Average gap (points)")
    text = (
        "Average gap to Retrain on validation images and a validation forget set, one seed; ring: "
    )
    text += "the smallest gap, the rate taken."
    return finish(fig, s, text)


@look()
def samples(
    images: Any, labels: Any, classes: Sequence[str], each: int = 8, most: int = 10
) -> Figure:
    """Show the first `each` images of every class, of `most` classes at the most.

    Parameters
    ----------
    images, labels : arrays or tensors, uint8 [N, S, S, 3] or [N, 3, S, S], and [N]
    """
    images, labels, classes = np.asarray(images), np.asarray(labels), classes[:most]
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(classes) // 2)
    fig = KitFigure(figsize=(WIDTH, 0.09 + 0.42 * rows))
    axes = fig.subplots(rows, 2, squeeze=False)
    for label, (ax, name) in enumerate(zip(axes.flat, classes, strict=False)):
        shown = framed[labels == label][:each]
        blank = np.full((each - len(shown), *framed.shape[1:]), 255, np.uint8)
        ax.imshow(np.concatenate([*shown, *blank], axis=1), interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    return fig
