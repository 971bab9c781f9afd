"""Table 5: the claims C1 to C5 judged, each row by a rule that is fixed beforehand.

All models of one seed descend from one original, so the unit is the seed: every statistic is
computed within each, and over methods only where a seed has all of them. Nothing is corrected for
the number of rows. A claim is supported where all its key rows are; the others say more.

C1 : ρ of mean fairness-gap and test accuracy over the original's checkpoints, the untrained network
    aside, below 0; and the gap at the end relative to that at the first of them, below 1.
C2 : over all models, ρ of mean fairness-gap and drop, above 0; also with test accuracy held fixed,
    as both may go with it alone, and with the drop relative to clean accuracy, the most a model can
    lose; with several architectures also pooled after ranking within each.
C3 : drop in excess of Retrain's, mean over ε > 0, above 0, for each approximate method over all
    layers and for the mean of the study's methods, in points and relative to clean accuracy.
C4 : ρ over methods of average gap and size of the excess drop, within ±0.9: else clean metrics
    would stand in for robustness. Weak, since noise brings ρ nearer to 0, too. And C2's key row.
C5 : the study's methods on a group of layers against themselves on all, mean over methods: average
    gap and drop less than 1 point higher (a margin set by us), seconds and memory less.

C3, C4's first row and C5 are about random forget sets, where the study has one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.names import ID, READINGS
from unlearnkit.report.frames import ATTACKED, excess, forget_title, summaries
from unlearnkit.report.stats import interval, mean_std, spearman
from unlearnkit.report.study import Study

VERDICTS = ("supported", "not supported", "undecided")
SEEDS = 3  # the fewest that can decide
COLUMNS = ["Claim", "Key", "Architecture", "Measured", "Value", "Low", "High", "Seeds", "Verdict"]
COLUMNS += ["What would change it"]
MODEL = ["architecture", "forget", "method", "seed"]
EXACT = ["original", "retrain"]
STUDY_METHODS = ["cf", "bs", "rl", "scrub", "salun"]
# A statistic's interval, cut to what it can be (the last two), has to lie wholly "below", "above"
# or "within" ± a bound.
FALLS, RISES = (("below", 0.0, -1.0, 1.0), ("above", 0.0, -1.0, 1.0))
NO_STAND_IN = ("within", 0.9, -1.0, 1.0)
HIGHER = ("above", 0.0, -100.0, 100.0)
WITHIN_MARGIN = ("below", 1.0, -100.0, 100.0)
LESS, SIMILAR = (("below", 1.0, 0.0, np.inf), ("below", 1.1, 0.0, np.inf))
LAYERWISE = {
    "average_gap": ("average gap, difference to all layers (points)", np.subtract, WITHIN_MARGIN),
    "drop": ("{drop}, difference to all layers (points)", np.subtract, WITHIN_MARGIN),
    "gap_mean": ("mean fairness-gap, ratio to all layers (for information)", np.divide, SIMILAR),
    "seconds": ("seconds, ratio to all layers", np.divide, LESS),
    "training_memory": ("training memory, ratio to all layers", np.divide, LESS),
}


def judge(
    values: Iterable[float], side: str, bound: float, least: float = -np.inf, most: float = np.inf
) -> dict[str, Any]:
    """Judge a statistic by its values, one a seed; what is not finite is left out.

    Returns Value (mean), Low, High (95 % Student t, cut to [`least`, `most`]; NaN for fewer than
    two seeds), Seeds, Verdict, and what would change it. *supported*: the whole interval lies on
    the `side` of the `bound` ("below", "above", "within" ±); *not supported*: on the other;
    *undecided*: else, and always with fewer than `SEEDS` seeds.
    """
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    low, high = np.clip(interval(array), least, most).tolist()
    numbers = (mean_std(array).mean, low, high, len(array))
    limit = f"{bound:g}"
    if side == "within":  # how far the interval's points are from 0
        near, far = sorted([abs(low), abs(high)])
        low, high = 0.0 if low <= 0 <= high else near, far
        side, limit = "below", f"±{limit}"
    below, verdict = high < bound, "undecided"
    end = f"{bound - high:.3g} below" if below else f"{low - bound:.3g} above"
    if len(array) < SEEDS:
        change = f"at least {SEEDS} seeds that give a number; {len(array)} so far"
    elif low <= bound <= high:
        change = f"an interval that leaves {limit} outside; more seeds may give one"
    elif below == (side == "below"):
        verdict, change = "supported", f"an interval that reaches {limit}: its end is {end}"
    else:
        verdict = "not supported"
        change = f"an interval wholly {side} {limit}: its nearer end is {end}"
    return dict(zip(COLUMNS[4:], (*numbers, verdict, change), strict=True))


def table5(s: Study, *, reading: str = "std", attack: str | None = None) -> pd.DataFrame:
    """Table 5: what was measured on each claim, its interval over seeds, and the verdict.

    Claim, Key ("yes" or "no"), Architecture, Measured, and what `judge` returns. The fairness-gap
    is of this `reading` of σ; the drop is under `attack` (if None, the study's), white-box, on test
    images, mean over ε > 0. What the study did not measure has no row.
    """
    attack = attack or s.attack
    drop = f"drop under {s.title(attack)}"
    models, hurt = models_of(s, reading=reading, attack=attack), _excess(s, attack)
    models = models.join(_clean(s, attack), on=ID)
    models["relative_drop"] = models["drop"] / models["clean"]
    models = models[models["progress"] > 0]
    finished = models[(models["progress"] == 1) & ~models["method"].isin(EXACT)]
    found = [*_c1(s, models), *_c2(s, models, drop), *_c3(s, hurt, drop)]
    found += [*_c4(s, models, finished, hurt), *_c5(s, finished, drop)]
    return s.table(
        [(*names, *judge(values, *rule).values()) for *names, values, rule in found],
        COLUMNS,
        "The claims, judged: each statistic is computed within each seed; mean and 95 % Student t "
        f"interval over seeds. Fewer than {SEEDS} seeds decide nothing. A claim rests on its key "
        "rows.",
    )


def by_reading(s: Study, *, attack: str | None = None) -> pd.DataFrame:
    """Return Table 5's key rows of C1 and C2 under every reading of σ that the study has."""
    names = ["Claim", "Architecture", "Measured"]
    tables = [table5(s, reading=name, attack=attack).assign(Reading=name) for name in READINGS]
    table = pd.concat(tables).query("Key == 'yes' and Claim in ['C1', 'C2']")
    table = table.sort_values(names, key=lambda name: pd.factorize(name)[0], ignore_index=True)
    text = "What C1 and C2 rest on, under each reading of σ; rule and interval as in Table 5."
    return s.table(table, [*names, "Reading", *COLUMNS[4:9]], text)


def excess_by_epsilon(s: Study, *, attack: str | None = None) -> pd.DataFrame:
    """Return the drop in excess of Retrain's at each ε > 0, finished models over all layers.

    Columns architecture, forget, method, epsilon (in [0, 1]), excess (`Spread` over seeds, points),
    low, high (95 % Student t), and each seed's value as ``seed 0``, ...
    """
    hurt, keys = _excess(s, attack or s.attack), ["architecture", "forget", "method", "epsilon"]
    seeds = hurt.pivot(index=keys, columns="seed", values="excess").add_prefix("seed ")
    values = seeds.to_numpy(dtype=float)
    ends = np.array([interval(row) for row in values]).reshape(-1, 2)
    over = {"excess": [mean_std(row) for row in values], "low": ends[:, 0], "high": ends[:, 1]}
    return pd.DataFrame(over, seeds.index).join(seeds).reset_index()


def models_of(s: Study, *, reading: str = "std", attack: str = "pgd") -> pd.DataFrame:
    """Return `summaries`, one row for each model and checkpoint.

    The original does not depend on the forget set and is counted once for a seed and checkpoint.
    """
    table = summaries(s, reading=reading, attack=attack)
    # The first forget set's row stays: over all classes, as at the checkpoints.
    table = table.sort_values("forget", key=lambda name: name != s.first_forget, kind="stable")
    again = table.duplicated([name for name in ID if name != "forget"])
    return table[~(again & (table["method"] == "original"))].reset_index(drop=True)


def _clean(s: Study, attack: str) -> pd.Series:
    """Return the accuracy (%) on the images to be attacked, by `ID`; NaN for 0."""
    robust = s.rows("robust", attack=attack, epsilon=0.0, **ATTACKED)
    return robust.set_index(ID)["accuracy"].replace(0.0, np.nan).rename("clean")


def _excess(s: Study, attack: str) -> pd.DataFrame:
    """Return `excess` at ε > 0, approximate methods, all layers; `relative`: in % of clean."""
    robust = s.rows("robust", attack=attack, scope="all", progress=1.0, **ATTACKED)
    clean = robust.join(_clean(s, attack), on=ID)["clean"]
    shares = excess(robust.assign(accuracy=100 * robust["accuracy"] / clean))
    found = excess(robust).assign(relative=shares["excess"]).dropna(subset=["excess"])
    return found[(found["epsilon"] > 0) & ~found["method"].isin(EXACT)]


def _architectures(s: Study, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    parts = dict(list(frame.groupby("architecture")))
    yield from ((s.title(name), parts[name]) for name in s.architectures if name in parts)


def _places(s: Study, frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield architecture, the forget set's name if it has to be said, and their rows."""
    sets = list(frame["forget"].unique())
    sets = [name for name in sets if name.startswith("random:")] or sets
    for architecture, part in _architectures(s, frame[frame["forget"].isin(sets)]):
        for name, group in part.groupby("forget", sort=False):
            yield architecture, f", {forget_title(name)}" if len(sets) > 1 else "", group


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the seeds that have every method of `frame`."""
    return frame.groupby("seed").filter(lambda seed: len(seed) == frame["method"].nunique())


def _rho(frame: pd.DataFrame, *columns: str) -> list[float]:
    """Return Spearman's ρ of two columns within each seed, a third held fixed."""
    return [spearman(*(part[name] for name in columns)) for _, part in frame.groupby("seed")]


def _c1(s: Study, models: pd.DataFrame) -> Iterator[tuple]:
    original = models[models["method"] == "original"].dropna(subset=["gap_mean"])
    for name, part in _architectures(s, original):
        wide = part.pivot(index="seed", columns="progress", values="gap_mean")
        if wide.shape[1] > 1:
            text = "ρ of mean fairness-gap and test accuracy over the original's checkpoints"
            yield "C1", "yes", name, text, _rho(part, "gap_mean", "accuracy"), FALLS
        if wide.shape[1] > 1 and 1.0 in wide:
            first = wide.columns[0]
            text = f"mean fairness-gap of the finished original, ratio to progress {first:g}"
            yield "C1", "no", name, text, wide[1.0] / wide[first], LESS


def _c2(s: Study, models: pd.DataFrame, drop: str) -> Iterator[tuple]:
    columns = ["gap_mean", "drop", "accuracy", "relative_drop"]
    models = models.dropna(subset=columns[:2])
    parts = list(_architectures(s, models))
    if len(parts) > 1:
        whole = models.dropna(subset=columns).round(9)  # ties differ by rounding
        ranks = whole.groupby(["seed", "architecture"])[columns].rank(pct=True)
        parts.append(("all, ranked within each", whole[["seed"]].join(ranks)))
    asked = {
        "": ("no", "drop"),
        ", test accuracy held fixed": ("yes", "drop", "accuracy"),
        ", relative to clean accuracy": ("no", "relative_drop"),
    }
    for name, part in parts:
        for words, (key, *others) in asked.items():
            text = f"ρ of mean fairness-gap and {drop}{words}"
            yield "C2", key, name, text, _rho(part, "gap_mean", *others), RISES


def _c3(s: Study, hurt: pd.DataFrame, drop: str) -> Iterator[tuple]:
    text = f"{drop} in excess of Retrain's"
    for name, words, part in _places(s, hurt):
        means = part.groupby(["seed", "method"])[["excess", "relative"]].mean().unstack()
        methods = [method for method in s.methods if method in means["excess"]]
        ours = [method for method in methods if method in STUDY_METHODS]
        for method in methods:
            key = "yes" if ours == [method] else "no"
            said = f"{s.title(method)}: {text} (points){words}"
            yield "C3", key, name, said, means["excess"][method], HIGHER
        for column, unit in (("excess", "points"), ("relative", "% of its clean accuracy")):
            if len(ours) > 1:
                said = f"{', '.join(map(s.title, ours))} in the mean: {text} ({unit}){words}"
                mean = means[column][ours].mean(axis=1, skipna=False)
                yield "C3", "yes", name, said, mean, HIGHER


def _c4(
    s: Study, models: pd.DataFrame, finished: pd.DataFrame, hurt: pd.DataFrame
) -> Iterator[tuple]:
    size = hurt.groupby(MODEL)["excess"].mean().abs()
    whole = finished[finished["scope"] == "all"].join(size, on=MODEL)
    for name, words, part in _places(s, whole.dropna(subset=["average_gap", "excess"])):
        text = f"ρ over methods of average gap and size of the excess drop{words}"
        yield "C4", "yes", name, text, _rho(_complete(part), "average_gap", "excess"), NO_STAND_IN
    for name, part in _architectures(s, models.dropna(subset=["gap_mean", "drop"])):
        text = "ρ of mean fairness-gap and drop, test accuracy held fixed (as in C2)"
        yield "C4", "yes", name, text, _rho(part, "gap_mean", "drop", "accuracy"), RISES


def _c5(s: Study, finished: pd.DataFrame, drop: str) -> Iterator[tuple]:
    ours = finished[finished["method"].isin(STUDY_METHODS)]
    whole = ours[ours["scope"] == "all"]
    pairs = ours[ours["scope"] != "all"].merge(whole, on=MODEL, suffixes=("", "_all"))
    for column, (_, compare, _) in LAYERWISE.items():
        pairs[column] = compare(pairs[column], pairs[f"{column}_all"])
    pairs = pairs.replace([np.inf, -np.inf], np.nan)
    for name, words, part in _places(s, pairs):
        for scope, note in (("intermediate", ""), ("last", ""), ("first", " (for contrast)")):
            for column, (text, _, rule) in LAYERWISE.items():
                measured = part[part["scope"] == scope].dropna(subset=[column])
                mean = _complete(measured).groupby("seed")[column].mean()
                key = "no" if note or column == "gap_mean" else "yes"
                said = f"{scope} layers{note}: {text.format(drop=drop)}{words}"
                if len(measured):
                    yield "C5", key, name, said, mean, rule
