"""The study's figures, drawn from its frames.

Each figure `f(s, ...)` has a companion `f_data(s, ...)` that returns the frame it shows. Common
parameters: `forget`, a forget set of the study (its first if left out); `reading`, how σ is pooled
(one of `unlearnkit.results.READINGS`); `attack`, a measured attack. A study that lacks all that a
figure shows raises `NothingToDraw`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unlearnkit.report import claims
from unlearnkit.report.figures.style import (
    FAINT,
    WIDTH,
    KitFigure,
    NothingToDraw,
    by_method,
    by_scope,
    finish,
    log_axis,
    look,
    method_handles,
    note,
    save_figure,
    seeds_words,
    wide,
)
from unlearnkit.report.published import GROUPS, LARGE, LARGE_ON, LAYERS, read_published
from unlearnkit.report.stats import over_seeds, partial_spearman, spearman
from unlearnkit.report.study import Study
from unlearnkit.report.frames import excess, forget_title, summaries
from unlearnkit.results import ID, SCOPES

RANGE = ("pi", 100)  # minimum to maximum
EXACT = ("original", "retrain")
KEYS = ["architecture", "forget", "method"]
MEASURES = {
    "average_gap": "Average gap\nto Retrain (points) ↓",
    "gap_mean": "Fairness-gap,\nmean over layers",
    "drop": "Drop under\n{attack} (points) ↓",
    "relative_seconds": "Time relative\nto all layers ↓",
    "relative_memory": "Memory relative\nto all layers ↓",
}


def _gaps(s: Study, forget: str | None, reading: str) -> pd.DataFrame:
    equal = {"forget": forget or s.first_forget, "reading": check_reading(reading)}
    return s.rows("gap", scope="all", progress=1.0, **equal)


def fairness_gap_data(
    s: Study, forget: str | None = None, reading: str = "std", published: bool = True
) -> pd.DataFrame:
    """Return what Figure 1 draws: one row for each architecture, method and layer.

    Columns: architecture, forget, method, layer_index, layer_name, mean, low, high (minimum and
    maximum over seeds), std, n, and published, reading_error (NaN where the publication's curve
    is hidden or has another number of layers).
    """
    gaps = _gaps(s, forget, reading)
    table = over_seeds(gaps, [*KEYS, "layer_index", "layer_name"], "gap")
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
    data, gaps = fairness_gap_data(s, forget, reading, published), _gaps(s, forget, reading)
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured for this forget set")
    large = data["method"].isin(LARGE)
    panels = []
    for name, part in data.groupby("architecture", sort=False):
        rest = part[~large]
        split = name == LARGE_ON and 0 < len(rest) < len(part)
        panels.append((f"{s.title(name)}, all models" if split else s.title(name), part))
        if split:
            panels.append((f"{s.title(name)} except SalUn, SCRUB", rest))
    rows = -(-len(panels) // 3)
    fig = KitFigure(figsize=(WIDTH, 0.65 + 2.3 * rows))
    axes = fig.subplots(rows, min(len(panels), 3), squeeze=False)
    for ax, (title, part) in zip(axes.flat, panels, strict=False):
        shown = part[["architecture", "method"]].drop_duplicates()
        _layers(ax, s, gaps.merge(shown), part)
        ax.set_title(title)
    for ax in axes[:, 0]:
        ax.set_ylabel("Fairness-gap")
    handles = method_handles(s, data)
    trimmed = ", without the 1 % of each class's images, at least one, furthest from its mean"
    text = (
        "Fairness-gap: largest minus smallest class σ of the layer's output (reading: "
        f"{reading.replace('_', ' ')}{trimmed if reading == 'trimmed_std' else ''}; test images); "
        f"forget set: {forget_title(forget or s.first_forget)}; "
    )
    if data["published"].notna().any():
        hollow = {"marker": "o", "mfc": "white", "ls": "none", "color": FAINT}
        handles.append(Line2D([], [], label="published", **hollow))
        text += "hollow: published values (CIFAR-10), read off the figure; "
    what = "line: mean, band (Original and Retrain): minimum to maximum"
    return finish(fig, s, handles, text + seeds_words(data, what))


def _layers(ax: Axes, s: Study, gaps: pd.DataFrame, data: pd.DataFrame) -> None:
    layers = int(data["layer_index"].max())
    kinds, exact = by_method(s), gaps["method"].isin(EXACT)
    for part, band, width in ((gaps[~exact], None, 0.9), (gaps[exact], RANGE, 1.4)):
        every = {"lw": width, "markevery": max(1, layers // 8)}
        sns.lineplot(part, x="layer_index", y="gap", errorbar=band, ax=ax, **kinds, **every)
    for method, part in data.groupby("method"):
        hollow = {"mfc": "white", "ms": 2.2, "mew": 0.45, "ls": "none", "zorder": 1.5}
        kind = {"color": kinds["palette"][method], "marker": kinds["markers"][method]}
        ax.plot(part["layer_index"], part["published"], **kind, **hollow)
    drawn = pd.concat([data["mean"], data["published"]])
    if wide(drawn):
        log_axis(ax.yaxis, drawn)
    else:
        ax.set_ylim(bottom=0)
    margin = max(0.02 * layers, 0.45)
    ax.set(xlabel="Layer index", ylabel="", xlim=(1 - margin, layers + margin))
    ax.set_xticks(range(1, layers + 1) if layers <= 12 else [1, *range(10, layers + 1, 10)])
    groups = GROUPS.get(layers, ())
    for (first, name), (after, _) in zip(groups, (*groups[1:], (layers + 1, "")), strict=True):
        if first > 1:
            ax.axvline(first - 0.5, color="#cfcfcf", lw=0.5, zorder=0.5)
        kind = {"fontsize": 5, "color": FAINT, "ha": "center", "va": "top"}
        ax.text((first + after - 1) / 2, 0.99, name, transform=ax.get_xaxis_transform(), **kind)


def _attacked(s: Study, forget: str | None, attack: str) -> pd.DataFrame:
    whole = {"images": "test", "access": "white-box", "scope": "all", "progress": 1.0}
    robust = s.rows("robust", attack=attack, forget=forget or s.first_forget, **whole)
    keys = [*ID, "attack", "epsilon", "class_index"]
    return excess(robust).melt(keys, ["accuracy", "drop", "excess"], "quantity")


def robustness_data(s: Study, forget: str | None = None, attack: str = "pgd") -> pd.DataFrame:
    """Return what Figure 2 draws: one row for each architecture, method, quantity, ε and class.

    Columns: architecture, forget, method, attack, quantity (accuracy in %, drop and excess in
    percentage points), epsilon (pixel units), class_index (−1 = all), mean, low, high (minimum
    and maximum over seeds), std, n. White-box, test images.
    """
    keys = [*KEYS, "attack", "quantity", "epsilon", "class_index"]
    return over_seeds(_attacked(s, forget, attack), keys, "value")


@look()
def robustness(
    s: Study, forget: str | None = None, attack: str = "pgd", epsilon: float | None = None
) -> Figure:
    """Draw Figure 2, one row an architecture: accuracy, excess over Retrain, drop per class.

    `epsilon` (pixel units) says where the drop per class is shown; by default where Retrain's
    accuracy is nearest to half of its clean accuracy, so that the drop can differ both ways.
    """
    data, values = robustness_data(s, forget, attack), _attacked(s, forget, attack)
    if data.empty:
        measured = ", ".join(map(s.title, s.robust["attack"].unique())) or "none"
        message = f"{s.title(attack)} was not measured for this forget set; measured: {measured}"
        raise NothingToDraw(message)
    grids = {name: _drops(part, epsilon) for name, part in data.groupby("architecture", sort=False)}
    drawn = pd.concat([grid.stack() for _, grid in grids.values()])
    fig = KitFigure(figsize=(WIDTH, 0.8 + 2.1 * len(grids)))
    axes = fig.subplots(len(grids), 3, squeeze=False, width_ratios=(1, 1, 1.15))
    for row, (name, (level, grid)) in zip(axes, grids.items(), strict=True):
        part = values[(values["architecture"] == name) & (values["class_index"] == -1)]
        _against_epsilon(row[0], s, part[part["quantity"] == "accuracy"], 0.0)
        part = part[(part["quantity"] == "excess") & (part["epsilon"] > 0)]
        _against_epsilon(row[1], s, part[part["method"] != "retrain"].dropna(), 0.06)
        _per_class(row[2], s, grid, vmin=drawn.min(), vmax=drawn.max())
        row[0].set(title=f"{s.title(name)}: accuracy", ylabel="Accuracy (%)", ylim=(0, 102))
        row[1].set(title=f"{s.title(name)}: excess drop", ylabel="Drop minus Retrain's (points)")
        row[1].axhline(0, color=by_method(s)["palette"]["retrain"], lw=0.9, zorder=1)
        row[2].set_title(f"{s.title(name)}: drop per class at ε = {255 * level:.3g}/255")
    for ax in axes[-1, :2]:
        ax.set_xlabel(f"{s.title(attack)}, ε (1/255)")
    text = f"{s.title(attack)}, white-box, % of the attacked test images; forget set: "
    text += f"{forget_title(forget or s.first_forget)}; "
    text += seeds_words(data, "dot: mean, bar: minimum to maximum")
    return finish(fig, s, method_handles(s, data), text)


def _against_epsilon(ax: Axes, s: Study, values: pd.DataFrame, apart: float) -> None:
    """Draw a value against ε, its steps evenly spaced since they double, methods `apart` from
    each other so that their bars can be seen.
    """
    if values.empty:
        note(ax, "no retrained model to compare with")
    levels = sorted(values["epsilon"].unique())
    methods = [method for method in s.methods if method in set(values["method"])]
    shift = {method: apart * (i - len(methods) / 2 + 0.5) for i, method in enumerate(methods)}
    x = values["epsilon"].map(levels.index) + values["method"].map(shift)
    bars = {"errorbar": RANGE, "err_style": "bars", "err_kws": {"elinewidth": 0.6}, "lw": 0.9}
    sns.lineplot(values.assign(x=x), x="x", y="value", ax=ax, **by_method(s), **bars)
    ax.set_xticks(range(len(levels)), [f"{255 * level:.3g}" for level in levels])
    ax.set_xlabel("")


def _drops(data: pd.DataFrame, epsilon: float | None) -> tuple[float, pd.DataFrame]:
    """Return the ε > 0 to show the classes at, and the mean drop there, method × class."""
    whole = data[(data["class_index"] == -1) & (data["quantity"] == "accuracy")]
    exact = whole[whole["method"] == "retrain"]
    curve = (whole if exact.empty else exact).groupby("epsilon")["mean"].mean()
    half = (curve - curve.iloc[0] / 2).abs()
    far = half if epsilon is None else pd.Series(abs(half.index - epsilon), half.index)
    level = far[far.index > 0].idxmin()
    part = data[(data["quantity"] == "drop") & (data["epsilon"] == level)]
    part = part[part["class_index"] >= 0]
    return level, part.pivot(index="method", columns="class_index", values="mean")


def _per_class(ax: Axes, s: Study, grid: pd.DataFrame, **limits: float) -> None:
    if grid.empty:
        note(ax, "no accuracy per class stored")
        return
    grid = grid.reindex([method for method in s.methods if method in grid.index])
    few = grid.shape[1] <= 12  # of more classes the cells are too small for numbers
    sns.heatmap(
        grid.rename(index=s.title, columns=lambda index: str(s.classes[int(index)])[:12]),
        cmap="Blues",
        annot=few,
        fmt=".0f",
        annot_kws={"size": 5.5},
        cbar_kws={"label": "Drop (points)", "pad": 0.02, "fraction": 0.05},
        ax=ax,
        **limits,
    )
    ax.tick_params(length=0)
    ax.set(xlabel="Class", ylabel="")


def conjectures_data(s: Study, *, reading: str = "std", attack: str = "pgd") -> pd.DataFrame:
    """Return what Figure 3 draws: the models, each once (see `claims.models_of`)."""
    return claims.models_of(s, reading=reading, attack=attack)


def conjectures_statistics(
    s: Study, *, reading: str = "std", attack: str = "pgd", seed: int = 0
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
    found = {}
    for name, part in data.groupby("architecture", sort=False):
        along = part[part["method"] == "original"]
        gap, drop = part["gap_mean"], part["drop"]
        found["C1", name, ""] = spearman(along["gap_mean"], along["accuracy"], seed=seed)
        found["C2", name, ""] = spearman(gap, drop, seed=seed)
        found["C2", name, "accuracy"] = partial_spearman(gap, drop, part["accuracy"], seed=seed)
    if data["architecture"].nunique() > 1:
        both = data.dropna(subset=["gap_mean", "drop"])
        ranks = both.groupby("architecture")[["gap_mean", "drop"]].rank(pct=True)
        for words, pooled in (("across", both), ("within", ranks)):
            found["C2", words, ""] = spearman(pooled["gap_mean"], pooled["drop"], seed=seed)
    return pd.DataFrame(
        {"conjecture": conjecture, "models": models, "given": given, **vars(rho)}
        for (conjecture, models, given), rho in found.items()
    )


@look()
def conjectures(s: Study, *, reading: str = "std", attack: str = "pgd") -> Figure:
    """Draw Figure 3: gap and accuracy along training (C1), the gap against the mean drop (C2).

    The correlations are Table 5's: within each seed, with interval and verdict over seeds.
    """
    data = conjectures_data(s, reading=reading, attack=attack)
    judged = claims.table5(s, reading=reading, attack=attack)
    names = data.loc[data["gap_mean"].notna(), "architecture"].unique()
    if not len(names):
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured")
    rows = -(-len(names) // 2)
    fig = KitFigure(figsize=(WIDTH, 2.6 + 2.5 * rows))
    axes = fig.subplots(1 + rows, 2, height_ratios=[0.85] + [1] * rows)
    original = data[data["method"] == "original"]
    for ax, column, label in (
        (axes[0, 0], "gap_mean", "Mean fairness-gap"),
        (axes[0, 1], "accuracy", "Test accuracy (%)"),
    ):
        _along(ax, s, original.dropna(subset=[column]), column)
        ax.set(xlabel="Training progress (fraction of epochs)", ylabel=label)
    axes[0, 0].set_title("C1: gap along the original's training")
    axes[0, 1].set_title("C1: accuracy along the original's training")
    scopes = by_scope(data)
    for ax, name in zip(axes[1:].flat, names, strict=False):
        _scatter(ax, s, data[data["architecture"] == name], scopes)
        title = f"C2, {s.title(name)}"
        rows = judged[(judged["Claim"] == "C2") & (judged["Architecture"] == s.title(name))]
        for _, row in rows.iloc[:2].iterrows():
            title += f"\n{'at fixed accuracy: ' if row['Key'] == 'yes' else ''}{_rho(row)}"
        ax.set_title(title, fontsize=6.5)
        ax.set(
            xlabel="Mean fairness-gap over layers", ylabel=f"Drop under {s.title(attack)} (points)"
        )
    handles = []
    for handle in method_handles(s, data):
        handle.set(marker="o", linestyle="none")
        handles.append(handle)
    if len(scopes) > 1:
        for scope, marker in scopes.items():
            handles.append(
                Line2D([], [], label=f"{scope} layers", marker=marker, ls="none", color=FAINT)
            )
    if (data["progress"] < 1).any():
        hollow = {"ms": 3, "mfc": "white", "color": "black", "ls": "none"}
        handles.append(Line2D([], [], label="checkpoint", marker="o", **hollow))
    text = "(a, b) line: mean, band: minimum to maximum over seeds; C2: one point a model, drop averaged over ε > 0; "
    text += "ρ: Spearman's, within each seed, with its 95 % interval over seeds (Table 5)"
    if (data["progress"] == 0).any():
        text += "; progress 0, the untrained network, is drawn but in no ρ"
    return finish(fig, s, handles, text + ".")


def _rho(row: pd.Series) -> str:
    interval = f" [{row['Low']:+.2f}, {row['High']:+.2f}]" if row["Seeds"] > 1 else ""
    return f"ρ = {row['Value']:+.2f}{interval}, {row['Seeds']} seeds: {row['Verdict']}"


def _along(ax: Axes, s: Study, original: pd.DataFrame, column: str) -> None:
    if original["progress"].nunique() < 2:
        note(ax, "no checkpoint along the original's training stored")
        return
    named = original.assign(architecture=original["architecture"].map(s.title))
    kind = {"style": "architecture", "markers": True, "errorbar": RANGE, "color": "black"}
    sns.lineplot(named, x="progress", y=column, ax=ax, **kind)
    ax.legend(loc="best")
    if column == "gap_mean":
        largest = original.groupby("architecture")[column].max()
        if largest.max() > 8 * largest.min():  # the smaller one's curve would lie flat
            log_axis(ax.yaxis, original[column])
        else:
            ax.set_ylim(bottom=0)


def _scatter(ax: Axes, s: Study, models: pd.DataFrame, scopes: dict[str, str]) -> None:
    models = models.dropna(subset=["gap_mean", "drop"])
    if models.empty:
        note(ax, "no model with both a fairness-gap and a robustness drop")
        return
    done = models["progress"] == 1
    kind = by_method(s) | {"style": "scope", "markers": scopes, "alpha": 0.8, "s": 17}
    del kind["dashes"]
    sns.scatterplot(models[done], x="gap_mean", y="drop", ax=ax, **kind)
    ax.scatter("gap_mean", "drop", 9, data=models[~done], fc="white", ec="black", lw=0.7)
    if wide(models["gap_mean"], 3):
        log_axis(ax.xaxis, models["gap_mean"])
    ax.grid(True, axis="both")


def _measured(s: Study, forget: str | None, reading: str, attack: str) -> pd.DataFrame:
    table = summaries(s, reading=reading, attack=attack)
    table = table[(table["progress"] == 1.0) & (table["forget"] == (forget or s.first_forget))]
    return table.melt(ID, list(MEASURES), "measure", "value").dropna(subset=["value"])


def layerwise_data(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str = "pgd"
) -> pd.DataFrame:
    """Return what Figure 4 draws: one row for each architecture, method, scope and measure.

    Columns: architecture, forget, method, scope, measure (average_gap, gap_mean, drop,
    relative_seconds, relative_memory), mean, low, high (minimum and maximum over seeds), std, n.
    """
    values = _measured(s, forget, reading, attack)
    return over_seeds(values, [*KEYS, "scope", "measure"], "value")


@look()
def layerwise(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str = "pgd"
) -> Figure:
    """Draw Figure 4: a row an architecture, a column a measure, a line of dots a method."""
    values = _measured(s, forget, reading, attack)
    found = values[~values["method"].isin(EXACT) | (values["scope"] != "all")]["method"]
    methods = [method for method in s.methods if method in set(found)]
    if not methods:
        raise NothingToDraw("no unlearned model was measured for this forget set")
    names = values["architecture"].unique()
    fig = KitFigure(figsize=(WIDTH, 0.95 + len(names) * (0.7 + 0.27 * max(len(methods), 3))))
    axes = fig.subplots(len(names), len(MEASURES), squeeze=False)
    scopes = by_scope(values)
    for row, name in zip(axes, names, strict=True):
        for ax, (measure, label) in zip(row, MEASURES.items(), strict=True):
            part = values[(values["architecture"] == name) & (values["measure"] == measure)]
            _dots(ax, s, part, methods, scopes)
            ax.set(xlabel=label.format(attack=s.title(attack)), ylabel="")
            ax.tick_params(axis="y", length=0, labelleft=ax is row[0])
        row[0].set_title(s.title(name))
    fig.align_xlabels()
    dot = {"color": "black", "ls": "none"}
    handles = [
        Line2D(
            [],
            [],
            label=f"{scope} layers",
            marker=marker,
            mfc="black" if scope == "all" else "white",
            **dot,
        )
        for scope, marker in scopes.items()
    ]
    for method, line in zip(EXACT, (":", "--"), strict=True):
        if method in set(values["method"]):
            color = by_method(s)["palette"][method]
            handles.append(
                Line2D([], [], label=f"{s.title(method)} (all layers)", color=color, ls=line)
            )
    text = f"Forget set: {forget_title(forget or s.first_forget)}; drop averaged over ε > 0; "
    data = layerwise_data(s, forget, reading=reading, attack=attack)
    return finish(fig, s, handles, text + seeds_words(data, "dot: mean, bar: minimum to maximum"))


def _dots(
    ax: Axes, s: Study, values: pd.DataFrame, methods: list[str], scopes: dict[str, str]
) -> None:
    whole = values[values["scope"] == "all"].groupby("method")["value"].mean()
    part = values[values["method"].isin(methods)]
    if part.empty:
        note(ax, "not measured")
        return
    measure = part["measure"].iloc[0]
    places = list(scopes)
    step = 0.72 / len(scopes)
    y = part["method"].map(methods.index)
    y += step * (part["scope"].map(places.index) - (len(scopes) - 1) / 2)
    kind = by_method(s) | {"style": "scope", "markers": scopes, "dashes": False, "ls": "none"}
    bars = {"errorbar": RANGE, "err_style": "bars", "err_kws": {"elinewidth": 0.8}}
    sns.lineplot(part.assign(y=y), x="value", y="y", orient="y", ax=ax, **kind, **bars)
    for line in ax.lines:
        line.set(clip_on=False, markeredgecolor=line.get_color())
        if line.get_marker() != scopes.get("all"):
            line.set_markerfacecolor("white")
    if measure.startswith("relative"):
        ax.axvline(1, color=FAINT, lw=0.7, zorder=0.8)
    elif measure in ("gap_mean", "drop"):
        for method, line in zip(EXACT, (":", "--"), strict=True):
            if method in whole:
                ax.axvline(
                    whole[method],
                    color=by_method(s)["palette"][method],
                    lw=0.9,
                    ls=line,
                    zorder=0.8,
                )
    if measure == "gap_mean" and wide(values["value"]):
        log_axis(ax.xaxis, values["value"])
    elif measure != "drop":
        ax.set_xlim(left=0)
    for place in range(1, len(methods), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", lw=0, zorder=0)
    ax.set_yticks(range(len(methods)), map(s.title, methods))
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.grid(False, axis="y")


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
        best = part[part["chosen"]]
        sns.lineplot(part, x="lr", y="average_gap", ax=ax, **by_method(s))
        rings = best["method"].map(by_method(s)["palette"])
        ax.scatter(best["lr"], best["average_gap"], s=46, fc="none", ec=rings)
        log_axis(ax.xaxis, part["lr"])
        log_axis(ax.yaxis, part["average_gap"])
        ax.set(
            title=s.title(name), xlabel="Learning rate", ylabel="Average gap to Retrain (points)"
        )
    text = "Validation forget set and validation images, one seed; ring: the smallest gap, the rate taken."
    return finish(fig, s, method_handles(s, data), text)


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
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for label, (ax, name) in enumerate(zip(axes.flat, classes, strict=False)):
        shown = framed[labels == label][:each]
        blank = np.full((each - len(shown), *framed.shape[1:]), 255, np.uint8)
        ax.imshow(np.concatenate([*shown, *blank], axis=1), interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    return fig
