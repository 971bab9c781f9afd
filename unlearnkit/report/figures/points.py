"""Figures 3 and 4, and the trade-off: a dot a model or a mean."""

from itertools import cycle
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unlearnkit.names import ID, SCOPES
from unlearnkit.report.claims import EXACT, models_of, table5
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.frames import beside_retrain, marks, over_seeds, summaries
from unlearnkit.report.study import NothingToDraw, Study
from unlearnkit.report.tidy import arranged, where

MEASURES = {
    "average_gap": "Average gap\nto Retrain (points) ↓",
    "gap_mean": "Fairness-gap,\nmean over layers",
    "drop": "Drop under\n{attack} (points) ↓",
    "relative_seconds": "Time relative\nto all layers ↓",
    "relative_memory": "Memory relative\nto all layers ↓",
}


@style.drawing
def conjectures(s: Study, *, reading: str = "std", attack: str | None = None) -> KitFigure:
    """Draw Figure 3: gap and accuracy along training (C1), the gap against the mean drop (C2).

    The correlations are Table 5's: within each seed, with interval and verdict over seeds. Data:
    the models, each once (see `claims.models_of`).
    """
    attack = attack or s.attack
    models = models_of(s, reading=reading, attack=attack)
    data = models.query("progress > 0").dropna(subset=["gap_mean"])
    if data.empty:
        raise NothingToDraw(f"no fairness-gap ({reading}) was measured")
    judged = table5(s, reading=reading, attack=attack)
    names = data["architecture"].unique()
    rows = len(names) if style.is_narrow() else -(-len(names) // 2)
    if style.is_narrow():
        fig, axes = style.panels(2 + rows, 1, 3.4 + 2.2 * rows)
    else:
        fig, axes = style.panels(1 + rows, 2, 2.6 + 2.5 * rows, height_ratios=[1] + [1.2] * rows)
    left, right, *axes = axes.flat
    _along_training(left, data, "gap_mean")
    _along_training(right, data, "accuracy")
    found = judged.query("Claim == 'C1' and Key == 'yes'")
    said = [f"{row.Architecture}: {_rho(row)}" for row in found.itertuples()]
    title = "\n".join(["C1: gap along the original's training", *said])
    left.set(title=title, ylabel="Mean fairness-gap")
    right.set(title="C1: accuracy along the original's training", ylabel="Test accuracy (%)")
    for ax, name in zip(axes, names, strict=False):
        _gap_and_drop(ax, s, data[data["architecture"] == name])
        found = judged[(judged["Claim"] == "C2") & (judged["Architecture"] == s.title(name))]
        words = {"no": "", "yes": "at fixed accuracy: "}
        said = [words[row.Key] + _rho(row) for row in found.iloc[:2].itertuples()]
        title = "\n".join([f"C2, {s.title(name)}", *said])
        ax.set(title=title, ylabel=f"Drop under {s.title(attack)} (points)")
    text = (
        "C1: line: mean, band: minimum to maximum over seeds. C2: one point a model, hollow if it "
        "was unlearned in a group of layers or is a checkpoint; drop averaged over ε > 0. "
        "Spearman's ρ of gap and accuracy (C1), gap and drop (C2) within a seed: mean, 95 % "
        f"interval, verdict (Table 5); seeds: {data['seed'].nunique()}."
    )
    if (models["progress"] == 0).any():
        text += " Progress 0, the untrained network, is left out."
    alt = f"Line charts along training, and scatter plots of {len(data)} models."
    return style.finish(fig, s, models, text, alt)


def _rho(row: Any) -> str:
    interval = f" [{row.Low:+.2f}, {row.High:+.2f}]" if row.Seeds > 1 else ""
    said = f"ρ = {row.Value:+.2f}{interval}: {row.Verdict}" if row.Seeds else "ρ undefined"
    return said.replace("-", "−")


def _along_training(ax: Axes, data: pd.DataFrame, column: str) -> None:
    original = data[data["method"] == "original"].dropna(subset=[column])
    if original["progress"].nunique() < 2:
        return style.note(ax, "no checkpoint along the original's training stored")
    markers = dict(zip(original["architecture"].unique(), cycle(style.MARKERS), strict=False))
    kind = {"style": "architecture", "markers": markers, "color": "black"}
    band = {"errorbar": ("pi", 100), "err_kws": {"lw": 0}}
    sns.lineplot(original, x="progress", y=column, ax=ax, **kind, **band)
    ax.set_xlabel("Training progress (fraction of epochs)")
    if column == "gap_mean":
        style.log_if_wide(ax.yaxis, original[column], factor=0.0)


def _gap_and_drop(ax: Axes, s: Study, models: pd.DataFrame) -> None:
    models = models.dropna(subset=["drop"])
    if models.empty:
        return style.note(ax, "no model with both a fairness-gap and a robustness drop")
    colors, markers = style.palette(s), style.markers(s)
    for method in arranged(colors, models["method"]):
        part = models[models["method"] == method]
        whole = (part["scope"] == "all") & (part["progress"] == 1)
        look = {"marker": markers[method], "ec": colors[method], "lw": 0.7}
        for rows, face, size in ((part[~whole], "none", 9), (part[whole], colors[method], 19)):
            ax.scatter(rows["gap_mean"], rows["drop"], s=size, fc=face, **look)
        ax.scatter([], [], s=19, fc=colors[method], label=method, **look)
    style.log_if_wide(ax.xaxis, models["gap_mean"], factor=0.0)
    ax.set_xlabel("Mean fairness-gap over layers")


@style.drawing
def layerwise(
    s: Study, forget: str | None = None, *, reading: str = "std", attack: str | None = None
) -> KitFigure:
    """Draw Figure 4: a row an architecture, a column a measure, a line of dots a method.

    Data: a row for each architecture, method, scope and measure, one of `MEASURES`.
    """
    table = summaries(s, reading=reading, attack=attack)
    table = where(table, progress=1.0, forget=forget or s.first_forget)
    long = table.melt(ID, list(MEASURES), "measure").dropna(subset=["value"])
    data = over_seeds(long, ["architecture", "forget", "method", "scope", "measure"], "value")
    unlearned = ~data["method"].isin(EXACT) | (data["scope"] != "all")
    methods = arranged(s.methods, data["method"][unlearned])
    if not methods:
        raise NothingToDraw("no unlearned model was measured for this forget set")
    names = data["architecture"].unique()
    across, each = (3, 0.18) if style.is_narrow() else (len(MEASURES), 0.27)
    rows = -(-len(MEASURES) // across) * len(names)
    fig, axes = style.panels(rows, across, 0.95 + rows * (0.7 + each * max(len(methods), 3)))
    for row, name in zip(axes.reshape(len(names), -1), names, strict=True):
        row[0].set_title(s.title(name))
        for ax, (measure, label) in zip(row, MEASURES.items(), strict=False):
            part = data[(data["architecture"] == name) & (data["measure"] == measure)]
            _dots(ax, s, part, methods)
            label = label.format(attack=s.title(attack or s.attack))
            ax.set_xlabel(label, fontsize=5.6 if style.is_narrow() else None)
            if style.is_narrow():
                ax.tick_params(axis="x", labelsize=5.6)
                if ax.get_xscale() == "linear":
                    ax.xaxis.set_major_locator(MaxNLocator(3))
        for several in row.reshape(-1, across):
            for ax in [ax for ax in several if ax.has_data()][1:]:
                ax.tick_params(labelleft=False)
    fig.align_xlabels()
    text = "Drop averaged over ε > 0; "
    text += style.about(s, data, "marker: mean, bar: minimum to maximum")
    if set(data["scope"]) == {"all"}:
        text += " No run restricted to a group of layers is stored."
    alt = "Dot plot of what unlearning a group of layers does, mean over methods."
    shown = data[data["method"].isin(methods) & data["measure"].isin(["average_gap", "drop"])]
    for (name, measure), part in shown.groupby(["architecture", "measure"], sort=False):
        means = part.groupby("scope")["mean"].mean().reindex(arranged(SCOPES, part["scope"]))
        alt += f" {s.title(name)}, {measure.replace('_', ' ')} (points): "
        alt += style.listed((f"{scope} layers" for scope in means.index), means) + "."
    return style.finish(fig, s, data, text, alt, unnamed=s.methods)


@style.drawing
def tradeoff(s: Study, forget: str | None = None, attack: str | None = None) -> KitFigure:
    """Draw each model's average gap against its excess: the right images lost, over Retrain's.

    Of the images that a model gets right when clean, those that it gets wrong under attack: a
    share, so that a lower clean accuracy is no merit. Small: a model; large: its method's mean over
    seeds. Unlearning that Retrain cannot be told from lies at 0, 0. Models over all layers,
    averaged over ε > 0. Data: `summaries` of the models with the column excess (percentage points).
    """
    table = summaries(s, attack=attack)
    table = beside_retrain(table, ["architecture", "forget", "seed"], ["kept"])
    table["excess"] = table.pop("kept_retrain") - table["kept"]
    place = {"forget": forget or s.first_forget, "scope": "all", "progress": 1.0}
    data = where(table, **place)
    data = data[data["method"] != "retrain"].dropna(subset=["average_gap", "excess"])
    title = s.title(attack or s.attack)
    if data.empty:
        raise NothingToDraw(f"not measured: average gap and accuracy under {title} of one model")
    names = data["architecture"].unique()
    across = 1 if style.is_narrow() else min(len(names), 2)
    rows = -(-len(names) // across)
    fig, axes = style.panels(rows, across, 0.75 + 2.3 * rows)
    colors, markers = style.palette(s), style.markers(s)
    found = where(marks(s).query("mark != ''"), **place)
    hollow = set(zip(found["architecture"], found["method"], strict=True))
    alt = f"Scatter plot of average gap and excess of right images lost under {title} (points)."
    for ax, name in zip(axes.flat, names, strict=False):
        means = []
        for method in arranged(colors, data["method"]):
            part = data[(data["architecture"] == name) & (data["method"] == method)]
            x, y = part[["average_gap", "excess"]].mean()
            look = {"marker": markers[method], "color": colors[method]}
            for model in part.itertuples() if len(part) > 1 else ():
                ax.plot([x, model.average_gap], [y, model.excess], color=colors[method], lw=0.5)
                ax.scatter(model.average_gap, model.excess, s=6, lw=0, **look)
            look = {"fc": colors[method], "ec": "white", "marker": markers[method], "lw": 0.6}
            if (name, method) in hollow:
                look |= {"fc": "white", "ec": colors[method], "lw": 1}
            ax.scatter(x, y, s=42, zorder=3, **look)
            ax.scatter([], [], s=42, label=method, marker=markers[method], color=colors[method])
            means += [f"{s.title(method)} {x:.1f} and {y:+.1f}"] if len(part) else []
        alt += f" {s.title(name)}: {'; '.join(means)}."
        ax.axhline(0, color=colors["retrain"], lw=0.9, zorder=1)
        faint = {"fontsize": 5.8, "color": "#606060", "transform": ax.transAxes, "ha": "right"}
        ax.text(0.99, 0.985, "less robust than Retrain ↑", va="top", **faint)
        ax.text(0.99, 0.015, "more robust than Retrain ↓", va="bottom", **faint)
        low, high = ax.dataLim.intervaly
        low, high = min(low, 0) - 0.2 * (high - low), max(high, 0) + 0.2 * (high - low)
        ax.set(title=s.title(name), xlabel="Average gap to Retrain (points)", xlim=(0, None))
        ax.set(
            ylabel=f"Right images lost under {title}\nminus Retrain's (points)", ylim=(low, high)
        )
    text = "A method as good as retraining lies at 0 on both axes; averaged over ε > 0; "
    text += "hollow: a method of which a model is damaged or did not unlearn; " if hollow else ""
    text += style.about(s, over_seeds(data, ID[:3], "excess"), "small: a model, large: the mean")
    return style.finish(fig, s, data, text, alt)


def _dots(ax: Axes, s: Study, data: pd.DataFrame, methods: list[str]) -> None:
    part, colors = data[data["method"].isin(methods)], style.palette(s)
    if part.empty:
        return style.note(ax, "not measured")
    scopes, measure = arranged(SCOPES, part["scope"]), part["measure"].iloc[0]
    shapes = dict(zip(dict.fromkeys([*SCOPES, *scopes]), cycle("o^svDPX<>ph*"), strict=False))
    kind = {"hue": "method", "hue_order": arranged(s.colors, part["method"]), "palette": colors}
    kind |= {"style": "scope", "style_order": scopes, "markers": shapes}
    shift = {scope: 0.72 * ((i + 0.5) / len(scopes) - 0.5) for i, scope in enumerate(scopes)}
    y = part["method"].map(methods.index) + part["scope"].map(shift)
    ax.hlines(y, part["low"], part["high"], part["method"].map(colors), lw=0.8)
    sns.scatterplot(part, x="mean", y=y, ax=ax, s=9 if style.is_narrow() else 17, **kind)
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
    ax.set_ylabel("")
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
