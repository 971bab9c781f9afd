"""Table 5: the claims C1 to C5 judged, each row by a rule that is fixed beforehand.

All models of one seed descend from one original and are no independent evidence: the unit is the
seed. Every statistic is computed within each seed. A row's value is the mean over seeds, its
interval Student's t, 95 %, over the seeds' values, cut to what the statistic can be (a correlation
ρ to [−1, 1], points to [−100, 100], a ratio to [0, ∞)). Seeds that agree exactly give an interval
of no width.

A row asks for a side of a bound. *supported*: the whole interval lies on that side; *not
supported*: on the other; *undecided*: else, and always with fewer than three seeds. Nothing is
corrected for the number of rows. A claim rests on its key rows, and is supported where all of them
are; the others say more.

C1 : Spearman's ρ of mean fairness-gap and test accuracy over the original's checkpoints, below 0;
    and the finished original's gap relative to that at its first checkpoint, below 1. Progress 0
    counts nowhere: the outputs of an untrained network do not depend on the class in a way that
    says anything about fairness.
C2 : over all models of a seed (methods, layer groups, checkpoints, forget sets), ρ of mean
    fairness-gap and drop, above 0: as it is, with test accuracy held fixed, and with the drop
    relative to clean accuracy, because a model can lose at most what it has. C2 rests on the
    second: the first may say only that both go with accuracy. With several architectures also
    pooled after ranking within each.
C3 : drop in excess of Retrain's, mean over ε > 0, above 0, for each approximate method (all layers)
    and for the mean of the study's methods; for that mean also with each model's drop taken
    relative to its own clean accuracy, for the same reason as in C2.
C4 : ρ over approximate methods of average gap and size of the excess drop, within ±0.9: else the
    clean metrics would stand in for robustness, whichever way they point. A weak rule, since noise
    brings ρ nearer to 0, too. And C2's second row: else accuracy would stand in for the
    fairness-gap.
C5 : the study's methods on a group of layers against the same on all layers, paired by method and
    seed, mean over methods: average gap and drop less than 1 point higher (a margin set by us),
    seconds and memory in a ratio below 1. The fairness-gap's ratio, below 1.1, is for information,
    and the first layers for contrast.

C3, C4's first row and C5 are about random forget sets, where the study has one.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unlearnkit.report.judging import CHANGE, SEEDS, VERDICTS, Rule, judge
from unlearnkit.report.stats import interval, mean_std, spearman
from unlearnkit.report.tables import frames
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    TITLES,
    architecture_title,
    arranged,
    attack_title,
    caption,
    forget_title,
    method_title,
    rows,
    summaries,
)
from unlearnkit.results import ID, READINGS

__all__ = ["VERDICTS", "by_reading", "excess_by_epsilon", "models_of", "table5"]

COLUMNS = ("Claim", "Key", "Architecture", "Measured", "Value", "Low", "High", "Seeds", "Verdict")
EXACT = ("original", "retrain")
STUDY_METHODS = ("cf", "bs", "rl", "scrub", "salun")
MODEL = ["architecture", "forget", "method", "seed"]

FALLS = Rule("below", 0.0, (-1.0, 1.0))
RISES = Rule("above", 0.0, (-1.0, 1.0))
NO_STAND_IN = Rule("within", 0.9, (-1.0, 1.0))
HIGHER = Rule("above", 0.0, (-100.0, 100.0))
WITHIN_MARGIN = Rule("below", 1.0, (-100.0, 100.0))
LESS = Rule("below", 1.0, (0.0, np.inf))
HARDLY_MORE = Rule("below", 1.1, (0.0, np.inf))
LAYERS = {
    "average_gap": ("average gap, difference to all layers (points)", WITHIN_MARGIN),
    "drop": ("drop under {attack}, difference to all layers (points)", WITHIN_MARGIN),
    "gap_mean": ("mean fairness-gap, ratio to all layers (for information)", HARDLY_MORE),
    "relative_seconds": ("seconds, ratio to all layers", LESS),
    "relative_memory": ("training memory, ratio to all layers", LESS),
}


class Row(NamedTuple):
    """One measurement of a claim: its value for each seed, and the rule that judges them."""

    claim: str
    architecture: str
    measured: str
    values: Iterable[float]
    rule: Rule
    key: bool = False


def table5(s: Any, *, reading: str = "std", attack: str | None = None) -> pd.DataFrame:
    """Table 5: what was measured on each claim, its interval over seeds, and the verdict.

    Parameters
    ----------
    s : Study
    reading : str
        Which σ the fairness-gap is of.
    attack : str, optional
        The drop is under this attack, white-box, test images, mean over ε > 0; by default the one
        the study reports.

    Returns
    -------
    DataFrame
        Claim, Key ("yes" or "no"), Architecture, Measured, Value, Low, High (95 %), Seeds, Verdict
        (one of `VERDICTS`), What would change it. What the study did not measure has no row.
    """
    attack = attack or s.profile["report"]["attack"]
    models = _models(s, reading, attack)
    finished = summaries(s, reading=reading, attack=attack)
    finished = finished[(finished["progress"] == 1) & ~finished["method"].isin(EXACT)]
    excess = _excess(s, attack)
    found = [
        *_c1(models),
        *_c2(models, attack),
        *_c3(excess, attack),
        *_c4(models, finished, excess),
        *_c5(finished, attack),
    ]
    judged = [
        {
            "Claim": row.claim,
            "Key": "yes" if row.key else "no",
            "Architecture": row.architecture,
            "Measured": row.measured,
            **judge(row.values, row.rule),
        }
        for row in found
    ]
    table = pd.DataFrame(judged, columns=[*COLUMNS, CHANGE])
    text = (
        "The claims, judged: each statistic is computed within each seed; mean and 95 % Student t "
        f"interval over seeds. Fewer than {SEEDS} seeds decide nothing. A claim rests on its key "
        "rows."
    )
    table.attrs["caption"] = caption(s, text)
    return table


def by_reading(s: Any, *, attack: str | None = None) -> pd.DataFrame:
    """Return the key rows of C1 and C2 under every reading of σ that the study has.

    Parameters
    ----------
    s : Study
    attack : str, optional
        As for `table5`.

    Returns
    -------
    DataFrame
        Claim, Architecture, Measured, Reading, Value, Low, High (95 %), Seeds, Verdict.
    """
    attack = attack or s.profile["report"]["attack"]
    judged = []
    for reading in READINGS:
        models = _models(s, reading, attack)
        for row in (*_c1(models), *_c2(models, attack)):
            if row.key:
                names = (row.claim, row.architecture, row.measured)
                verdict = judge(row.values, row.rule)
                judged.append((*names, reading, *(verdict[name] for name in COLUMNS[4:])))
    first = dict.fromkeys(row[:3] for row in judged)
    ordered = [row for names in first for row in judged if row[:3] == names]
    table = pd.DataFrame(ordered, columns=["Claim", *COLUMNS[2:4], "Reading", *COLUMNS[4:]])
    text = "What C1 and C2 rest on, under each reading of σ; rule and interval as in Table 5."
    table.attrs["caption"] = caption(s, text)
    return table


def excess_by_epsilon(s: Any, *, attack: str | None = None) -> pd.DataFrame:
    """Return the drop in excess of Retrain's at each ε > 0, finished models over all layers.

    Parameters
    ----------
    attack : str, optional
        White-box, on test images; by default the one the study reports.

    Returns
    -------
    DataFrame
        architecture, forget, method (the approximate ones), epsilon (pixels in [0, 1]), excess
        (`Spread` over seeds, percentage points), low, high (95 % Student t), and the value of each
        seed as ``seed 0``, ...
    """
    found = _excess(s, attack or s.profile["report"]["attack"])
    keys = ["architecture", "forget", "method", "epsilon"]
    table = []
    for key, part in found.groupby(keys, sort=False):
        low, high = interval(part["excess"])
        names = dict(zip(keys, key, strict=True))
        seeds = {f"seed {k}": v for k, v in zip(part["seed"], part["excess"], strict=True)}
        table.append(
            {**names, "excess": mean_std(part["excess"]), "low": low, "high": high, **seeds}
        )
    if not table:
        return pd.DataFrame(columns=[*keys, "excess", "low", "high"]).astype({"epsilon": float})
    return pd.DataFrame(table)


# --- what the claims are judged on --------------------------------------------------------------


def models_of(s: Any, *, reading: str = "std", attack: str = "pgd") -> pd.DataFrame:
    """Return `summaries`, one row for each model and checkpoint.

    The original does not depend on the forget set and is counted once for a seed and checkpoint.
    """
    table = summaries(s, reading=reading, attack=attack)
    # The first forget set's row stays: over all classes, as at the checkpoints.
    first = next(
        (name for frame in ("quality", "gap", "robust") for name in rows(s, frame)["forget"]), ""
    )
    table = table.sort_values("forget", key=lambda names: names != first, kind="stable")
    one = ["architecture", "method", "scope", "seed", "progress"]
    again = (table["method"] == "original") & table.duplicated(one)
    return table[~again].reset_index(drop=True)


def _attacked(s: Any, attack: str) -> pd.DataFrame:
    return rows(s, "robust", attack=attack, images="test", access="white-box", class_index=-1)


def _models(s: Any, reading: str, attack: str) -> pd.DataFrame:
    """Return every trained model once, with its drop relative to its clean accuracy too."""
    models = models_of(s, reading=reading, attack=attack)
    clean = _attacked(s, attack)
    clean = clean.loc[clean["epsilon"] == 0, [*ID, "accuracy"]]
    models = models.merge(clean.rename(columns={"accuracy": "clean"}), how="left", on=ID)
    models["relative_drop"] = models["drop"] / models["clean"].astype(float).replace(0.0, np.nan)
    return models[models["progress"] > 0]


def _excess(s: Any, attack: str) -> pd.DataFrame:
    """Return `MODEL` + epsilon (> 0) and excess of finished approximate models, all layers.

    `relative` is the excess of drops in percent of each model's own clean accuracy, NaN where that
    is 0.
    """
    robust = _attacked(s, attack)
    robust = robust[(robust["scope"] == "all") & (robust["progress"] == 1)]
    if robust.empty:
        return pd.DataFrame(columns=[*MODEL, "epsilon", "excess", "relative"])
    clean = robust.loc[robust["epsilon"] == 0].set_index(MODEL)["accuracy"].replace(0.0, np.nan)
    own = clean.reindex(pd.MultiIndex.from_frame(robust[MODEL])).to_numpy()
    shares = robust.assign(accuracy=100 * robust["accuracy"] / own)
    found = frames.excess(robust).assign(relative=frames.excess(shares)["excess"])
    found = found[(found["epsilon"] > 0) & ~found["method"].isin(EXACT)]
    return found.dropna(subset=["excess"])[[*MODEL, "epsilon", "excess", "relative"]]


def _architectures(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in arranged(ARCHITECTURES, frame["architecture"]):
        yield architecture_title(name), frame[frame["architecture"] == name]


def _places(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield architecture, the forget set's name if it has to be said, and their rows."""
    sets = list(dict.fromkeys(frame["forget"]))
    sets = [name for name in sets if str(name).startswith("random:")] or sets
    for architecture, part in _architectures(frame[frame["forget"].isin(sets)]):
        for name, group in part.groupby("forget", sort=False):
            yield architecture, f", {forget_title(name)}" if len(sets) > 1 else "", group


def _rho(frame: pd.DataFrame, x: str, y: str, given: str | None = None) -> list[float]:
    """Return Spearman's ρ within each seed."""
    seeds = (part for _, part in frame.groupby("seed"))
    return [spearman(part[x], part[y], part[given] if given else None) for part in seeds]


# --- the claims ---------------------------------------------------------------------------------


def _c1(models: pd.DataFrame) -> Iterator[Row]:
    original = models[models["method"] == "original"].dropna(subset=["gap_mean"])
    for name, part in _architectures(original):
        wide = part.pivot(index="seed", columns="progress", values="gap_mean")
        if wide.shape[1] < 2:
            continue
        text = "ρ of mean fairness-gap and test accuracy over the original's checkpoints"
        yield Row("C1", name, text, _rho(part, "gap_mean", "accuracy"), FALLS, key=True)
        if 1.0 in wide:
            first = wide.columns.min()
            text = f"mean fairness-gap of the finished original, ratio to progress {first:g}"
            yield Row("C1", name, text, wide[1.0] / wide[first], LESS)


def _c2(models: pd.DataFrame, attack: str) -> Iterator[Row]:
    columns = ["gap_mean", "drop", "accuracy", "relative_drop"]
    models = models.dropna(subset=["gap_mean", "drop"])
    parts = list(_architectures(models))
    if len(parts) > 1:
        whole = models.dropna(subset=columns)
        ranks = whole.groupby(["seed", "architecture"])[columns].rank(pct=True)
        parts.append(("all, ranked within each", whole[["seed"]].join(ranks)))
    drop = f"ρ of mean fairness-gap and drop under {attack_title(attack)}"
    for name, part in parts:
        yield Row("C2", name, drop, _rho(part, "gap_mean", "drop"), RISES)
        fixed = _rho(part, "gap_mean", "drop", "accuracy")
        yield Row("C2", name, f"{drop}, test accuracy held fixed", fixed, RISES, key=True)
        relative = _rho(part, "gap_mean", "relative_drop")
        yield Row("C2", name, f"{drop}, relative to clean accuracy", relative, RISES)


def _c3(excess: pd.DataFrame, attack: str) -> Iterator[Row]:
    drop = f"drop under {attack_title(attack)} in excess of Retrain's"
    for name, words, part in _places(excess):
        means = part.groupby(["method", "seed"])[["excess", "relative"]].mean()
        methods = arranged(TITLES, part["method"])
        ours = [method for method in methods if method in STUDY_METHODS]
        for method in methods:
            text = f"{method_title(method)}: {drop} (points){words}"
            alone = ours == [method]
            yield Row("C3", name, text, means.loc[method, "excess"], HIGHER, key=alone)
        if len(ours) < 2:
            continue
        titles = ", ".join(map(method_title, ours))
        for column, unit in (("excess", "points"), ("relative", "% of its clean accuracy")):
            # A seed that lacks a method would be the mean of others.
            mean = means.loc[ours, column].unstack("method").mean(axis=1, skipna=False)
            text = f"{titles} in the mean: {drop} ({unit}){words}"
            yield Row("C3", name, text, mean, HIGHER, key=True)


def _c4(models: pd.DataFrame, finished: pd.DataFrame, excess: pd.DataFrame) -> Iterator[Row]:
    whole = finished.loc[finished["scope"] == "all", [*MODEL, "average_gap"]]
    if len(excess):
        size = excess.groupby(MODEL, sort=False)["excess"].mean().abs().reset_index()
        both = whole.merge(size, on=MODEL).dropna(subset=["average_gap"])
        for name, words, part in _places(both):
            text = f"ρ over methods of average gap and size of the excess drop{words}"
            rho = _rho(part, "average_gap", "excess")
            yield Row("C4", name, text, rho, NO_STAND_IN, key=True)
    for name, part in _architectures(models.dropna(subset=["gap_mean", "drop"])):
        text = "ρ of mean fairness-gap and drop, test accuracy held fixed (as in C2)"
        yield Row("C4", name, text, _rho(part, "gap_mean", "drop", "accuracy"), RISES, key=True)


def _c5(finished: pd.DataFrame, attack: str) -> Iterator[Row]:
    ours = finished[finished["method"].isin(STUDY_METHODS)]
    whole = ours.loc[ours["scope"] == "all", [*MODEL, "average_gap", "drop", "gap_mean"]]
    pairs = ours[ours["scope"] != "all"].merge(whole, on=MODEL, suffixes=("", "_all"))
    for column in ("average_gap", "drop"):
        pairs[column] -= pairs[f"{column}_all"]
    pairs["gap_mean"] /= pairs["gap_mean_all"]
    pairs[list(LAYERS)] = pairs[list(LAYERS)].replace([np.inf, -np.inf], np.nan)
    for name, words, part in _places(pairs):
        for scope in ("intermediate", "last", "first"):
            for column, (text, rule) in LAYERS.items():
                measured = part[part["scope"] == scope].dropna(subset=[column])
                if len(measured):
                    said = f"{scope} layers{' (for contrast)' if scope == 'first' else ''}: "
                    said += text.format(attack=attack_title(attack)) + words
                    key = scope != "first" and column != "gap_mean"
                    yield Row("C5", name, said, measured.groupby("seed")[column].mean(), rule, key)
