"""What one look at some models shows, in sentences made from the numbers.

For notebooks that train on the reader's machine. A table of models has a row for each, by title,
Original and Retrain among them. Its columns are UA, RA, TA and MIA (%), average_gap and drop
(percentage points), fairness_gap (mean over layers), seconds, and needs_retain ("yes", "no").
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from unlearnkit.names import GAP_METRICS
from unlearnkit.report.frames import ATTACKED, DAMAGED, summaries
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import where

FORGOT = 0.5  # share of the way from Original's UA to Retrain's
SHOWN = {
    "average_gap": "Average gap ↓",
    "excess": "Excess drop (→ 0)",
    "fairness_gap": "Fairness-gap",
    "seconds": "Seconds ↓",
    "needs_retain": "Needs the retain set",
}


def models(s: Study, architecture: str) -> pd.DataFrame:
    """Return the table of a study's finished models over all layers, the mean over seeds."""
    from unlearnkit.methods import METHODS  # here, since it loads torch

    of = {"architecture": architecture, "forget": s.first_forget, "scope": "all", "progress": 1.0}
    quality = s.rows("quality", metric=GAP_METRICS, **of)
    table = quality.pivot_table("value", "method", "metric")
    rows = where(summaries(s), **of).rename(columns={"gap_mean": "fairness_gap"})
    columns = ["average_gap", "drop", "fairness_gap", "seconds"]
    table = table.join(rows.groupby("method")[columns].mean())
    table = table.loc[[method for method in s.methods if method in table.index]]
    needs = [METHODS[name].needs_retain if name in METHODS else "" for name in table.index]
    table = table.assign(needs_retain=needs).rename(index=s.title)
    return table.rename_axis(index=None, columns=None)


def resolution(s: Study) -> str:
    """Say what one image more or less changes: smaller differences mean nothing."""
    forget = 100 / s.splits["forget"].min()
    attacked = 100 / s.rows("robust", attack=s.attack, **ATTACKED)["n"].min()
    text = f"One image is {forget:.1f} points of UA and MIA, and {attacked:.1f} points under attack"
    return f"{text}, so smaller differences say nothing."


def each(s: Study, say: Callable[[pd.DataFrame], str]) -> str:
    """Return what `say` says of each architecture's table, in Markdown."""
    said = {s.title(name): say(models(s, name)) for name in s.architectures}
    return "\n\n".join(
        f"**{name}.** {text}" if len(said) > 1 else text for name, text in said.items()
    )


def forgetting(table: pd.DataFrame) -> str:
    """Say who forgot, and how near to Retrain that came."""
    start, exact, others = _parts(table)
    text = _all(table, "UA", "gets", "%", "of the forget set wrong")
    if exact["UA"] <= start["UA"]:
        text += "Retrain gets no more wrong than Original, so UA tells nothing here. "
    elif idle := list(others.index[~_forgot(table)]):
        text += f"{listed(idle)} went less than half of the way from Original to Retrain. "
    if len(others) == 1:
        (name,), (one,) = others.index, others.to_dict("records")
        text += f"On test images {name} is right {_points(one['TA'] - start['TA'])} often than "
        return text + f"Original, and Retrain {_points(exact['TA'] - start['TA'])} often."
    gap = others["average_gap"]
    return text + (
        f"Nearest to Retrain, on average over UA, RA, TA and MIA, is {gap.idxmin()} "
        f"({gap.min():.1f} points). Furthest from it is {gap.idxmax()} ({gap.max():.1f} points)."
    )


def robustness(table: pd.DataFrame) -> str:
    """Say who loses most under attack, and whether that is Retrain itself."""
    start, exact, others = _parts(table)
    text = "Under attack " + _all(table, "drop", "loses", "points", "of accuracy")
    more = [name for name, drop in others["drop"].items() if drop > exact["drop"]]
    who = listed(more) if more else "No method"
    text += f"{who} lose{'s' * (len(more) < 2)} more than Retrain. "
    if exact["drop"] > start["drop"] and exact["drop"] >= table["drop"].max():
        return text + "Retrain itself loses most."
    return text + f"{table['drop'].idxmax()} loses most, {table['drop'].idxmin()} least."


def fairness(table: pd.DataFrame) -> str:
    """Say whose fairness-gap is largest, and whether that one also loses most under attack."""
    gap, largest, weakest = table["fairness_gap"], *table[["fairness_gap", "drop"]].idxmax()
    text = f"Averaged over layers, the gap lies between {gap.min():.3g} ({gap.idxmin()}) and "
    text += f"{gap.max():.3g} ({largest}). "
    if "Retrain" not in (largest, gap.idxmin()):
        text += f"Retrain's is {gap['Retrain']:.3g}. "
    if largest == weakest:
        return text + f"{largest} also loses most under attack."
    return text + f"Most is lost under attack by {weakest}."


def neighbours(features: Mapping[str, ArrayLike], labels: ArrayLike, forget: ArrayLike) -> str:
    """Say how many forget images have a nearest neighbour of their own class.

    `features`: a model's title -> [N, D]; `labels` [N]; `forget` [N], a bool mask.
    """
    labels, forget, shares = np.asarray(labels), np.asarray(forget), []
    for name, found in features.items():
        apart = cdist(found, found)
        np.fill_diagonal(apart, np.inf)
        share = (labels[apart.argmin(1)] == labels)[forget].mean()
        shares.append(f"{100 * share:.0f} % in {name}")
    return f"Of the forget images, {listed(shares)} have a nearest image of their own class."


def choice(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a method is chosen by, a row for each, the nearest to Retrain first."""
    excess = table["drop"] - table.loc["Retrain", "drop"]
    rows = table.assign(excess=excess).drop(index="Original").sort_values("average_gap")
    return rows[list(SHOWN)].rename(columns=SHOWN)


def advice(table: pd.DataFrame) -> str:
    """Say which method to take: of those that forgot and kept the retain set, by each measure."""
    _, exact, others = _parts(table)
    sound = others[_forgot(table) & (others["RA"] >= exact["RA"] - DAMAGED)]
    if sound.empty:
        return "No method both forgot and kept the retain set, so retrain, or try other rates."
    best = sound["average_gap"].idxmin()
    one = sound.loc[best]
    text = f"{listed(sound.index)} forgot, and kept the retain set. Of these, **{best}** is "
    text += f"nearest to Retrain, {one['average_gap']:.1f} points away on average. It loses "
    text += f"{_points(one['drop'] - exact['drop'])} under attack than Retrain, and takes "
    text += f"{one['seconds']:.1f} seconds where Retrain takes {exact['seconds']:.1f}. "
    least, free = sound["drop"].idxmin(), sound[sound["needs_retain"] == "no"]
    text += f"{'It also' if least == best else f'**{least}**'} loses least of them under attack. "
    if free.empty:
        return text + "All of them need the retain set."
    if best in free.index:
        return text + "It does without the retain set."
    return text + f"Without the retain set, take **{free['average_gap'].idxmin()}**."


def _parts(table: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.DataFrame]:
    return table.loc["Original"], table.loc["Retrain"], table.drop(index=["Original", "Retrain"])


def _forgot(table: pd.DataFrame) -> pd.Series:
    """Return for each method whether its UA went most of the way; all if there is no way to go."""
    start, exact, others = _parts(table)
    return others["UA"] - start["UA"] >= FORGOT * (exact["UA"] - start["UA"])


def _all(table: pd.DataFrame, column: str, verb: str, unit: str, what: str) -> str:
    start, exact, others = (part[column] for part in _parts(table))
    text = f"Original {verb} {start:.1f} {unit} {what}, Retrain {exact:.1f} {unit} and "
    if len(others) == 1:
        return f"{text}{others.index[0]} {others.iloc[0]:.1f} {unit}. "
    text += f"the others between {others.min():.1f} ({others.idxmin()}) and "
    return f"{text}{others.max():.1f} {unit} ({others.idxmax()}). "


def _points(difference: float) -> str:
    return f"{abs(difference):.1f} points {'more' if difference > 0 else 'less'}"


def listed(names: Iterable[str]) -> str:
    """Return ``A, B and C``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
