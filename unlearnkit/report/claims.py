"""Table 5: the claims C1 to C5 judged, each row by a written rule.

All models of one seed descend from one original, so the unit is the seed: every statistic is
computed within each, and over methods only where a seed has all of them. An interval is a 95 %
Student t interval over seeds. A claim rests on its key rows; the others are shown beside them.

C1 : ρ of mean fairness-gap and test accuracy over the original's checkpoints, the untrained network
    aside, is below 0. Beside it: the gap at the end relative to that at the first of them.
C2 : over all models of the first forget set, checkpoints included, ρ of mean fairness-gap and drop
    is above 0 with clean accuracy on the attacked images held fixed. Beside it: without that.
C3 : finished models over all layers, mean over the study's methods, against Retrain of the seed at
    matched clean accuracy: the minimal distance of images that both get right is smaller, and fewer
    of the images right when clean stay right. Beside it: each method, robust accuracy, drop, and
    images made on the original (an attacker who holds the old weights).
C4 : ρ over methods, marked ones too, of average gap and size of the excess of right images lost:
    described, not judged.
C5 : the study's methods on intermediate and last layers (both at once where that was run, else each
    alone): more than 90 % of the all-layer improvement in average gap is kept (a margin set by us),
    less than 1 point of the images that stay right is lost, seconds and memory are less.

A model that is damaged or did not unlearn (`frames.marks`) says nothing of a method at work: if one
of a method's models is marked, the method is left out of the means of C3 and C5, in all seeds.
C3 to C5 are about random forget sets, where the study has one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.names import ID
from unlearnkit.report.frames import (
    EXACT,
    beside_retrain,
    marks,
    nearer,
    summaries,
)
from unlearnkit.report.stats import holm, interval, mean_std, spearman
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import made_once, where

VERDICTS = ("supported", "contradicted", "undecided", "described")
SEEDS = 3  # the fewest that can decide
COLUMNS = ["Claim", "Key", "Architecture", "Measured", "Unit", "Value", "Low", "High", "Bound"]
COLUMNS += ["Seeds", "p (Holm)", "Verdict", "Excluded"]
MODEL = ["architecture", "forget", "method", "seed"]
STUDY_METHODS = ["cf", "bs", "rl", "scrub", "salun"]
# A statistic's interval, cut to what it can be (the last two), has to lie wholly on this side of
# this bound.
FALLS, RISES, DESCRIBED = ((side, 0.0, -1.0, 1.0) for side in ("below", "above", ""))
NEARER = ("below", 0.0)
LOWER, HIGHER = ((side, 0.0, -100.0, 100.0) for side in ("below", "above"))
LESS, SIMILAR = (("below", bound, 0.0, np.inf) for bound in (1.0, 1.1))
# C3: what is compared with Retrain's, in which unit, and which side is more vulnerable
COMPARED = {
    "nearer": ("minimal distance, median over images both get right", "1/255", NEARER),
    "kept": ("images right when clean that stay right under {attack}", "points", LOWER),
    "robust": ("robust accuracy under {attack}", "points", LOWER),
    "drop": ("drop under {attack}", "points", HIGHER),
}
KEPT = ("above", -1.0, -100.0, 100.0)
LAYERWISE = {
    "share": ("share kept of the all-layer improvement", "share", ("above", 0.9)),
    "kept": ("images that stay right under {attack}, against all layers", "points", KEPT),
    "gap_mean": ("mean fairness-gap, against all layers", "ratio", SIMILAR),
    "seconds": ("seconds, against all layers", "ratio", LESS),
    "training_memory": ("training memory, against all layers", "ratio", LESS),
}


def judge(
    values: Iterable[float], side: str, bound: float, least: float = -np.inf, most: float = np.inf
) -> dict[str, Any]:
    """Judge a statistic by its values, one a seed; what is not finite is left out.

    Returns Value (mean), Low, High (95 % Student t, cut to [`least`, `most`]; NaN for fewer than
    two seeds), Bound, Seeds, p (of a two-sided t test against the bound), Verdict, and what of the
    claim's direction the interval excludes. *supported*: the whole interval lies on the `side` of
    the `bound` ("below", "above"); *contradicted*: on the other; *undecided*: else, and always with
    fewer than `SEEDS` seeds; *described*: without a side.
    """
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    low, high = np.clip(interval(array), least, most).tolist()
    found = {"Value": mean_std(array).mean, "Low": low, "High": high, "Bound": bound}
    found |= {"Seeds": len(array), "p": np.nan, "Verdict": "undecided", "Excluded": ""}
    if not side:
        return found | {"Bound": np.nan, "Verdict": "described"}
    if len(array) < SEEDS:
        return found
    found["p"] = _p_value(array - bound)
    if low > bound or high < bound:
        found["Verdict"] = VERDICTS[(low > bound) != (side == "above")]
    up = (side == "above") != (found["Verdict"] == "supported")
    end, limit = (high, most) if up else (low, least)
    found["Excluded"] = f"{'above' if up else 'below'} {end:.3g}" if end != limit else ""
    return found


def _p_value(array: np.ndarray) -> float:
    from scipy.stats import t

    error = array.std(ddof=1) / np.sqrt(len(array))
    if error < 1e-12:
        return float(abs(array.mean()) < 1e-12)
    return float(2 * t.sf(abs(array.mean()) / error, len(array) - 1))


@made_once
def table5(s: Study, *, reading: str = "std", attack: str | None = None) -> pd.DataFrame:
    """Table 5: what was measured on each claim, its interval over seeds, and the verdict.

    Claim, Key ("yes" or "no"), Architecture, Measured, Unit, and what `judge` returns, p as Holm
    corrects it for the number of key rows. The fairness-gap is of this `reading` of σ; the attack
    is `attack` (if None, the study's), mean over ε > 0. What was not measured has no row.
    """
    attack = attack or s.attack
    models = models_of(s, reading=reading, attack=attack)
    models = models[models["progress"] > 0]
    found = [*_c1(s, models), *_c2(s, models, attack), *_c3(s, attack)]
    found += [*_c4(s, attack), *_c5(s, attack)]
    rows = [dict(zip(COLUMNS[:5], names, strict=True)) | judge(*rest) for *names, rest in found]
    table = pd.DataFrame(rows, columns=[*COLUMNS[:10], "p", *COLUMNS[11:]])
    table["p (Holm)"] = holm(table["p"].where(table["Key"] == "yes"))
    return s.table(
        table,
        COLUMNS,
        "The claims, judged: each statistic is computed within each seed; mean and 95 % Student t "
        f"interval over seeds. Fewer than {SEEDS} seeds decide nothing. A claim rests on its key "
        "rows; p is corrected for their number (Holm). Excluded: what the interval rules out.",
        ["Claim"],
    )


def models_of(s: Study, **how: str) -> pd.DataFrame:
    """Return `summaries` of the first forget set; `how` are its options."""
    return where(summaries(s, **how), forget=s.first_forget).reset_index(drop=True)


def architectures(s: Study, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    parts = dict(list(frame.groupby("architecture")))
    yield from ((s.title(name), parts[name]) for name in s.architectures if name in parts)


def places(s: Study, frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield architecture, the forget set's name if it has to be said, and their rows."""
    sets = list(frame["forget"].unique())
    sets = [name for name in sets if name.startswith("random:")] or sets
    for architecture, part in architectures(s, frame[frame["forget"].isin(sets)]):
        for name, group in part.groupby("forget", sort=False):
            yield architecture, f", {s.title(name)}" if len(sets) > 1 else "", group


def rho(frame: pd.DataFrame, *columns: str) -> list[float]:
    """Return Spearman's ρ of two columns within each seed, others held fixed."""
    return [spearman(*(part[name] for name in columns)) for _, part in frame.groupby("seed")]


def mean_over(frame: pd.DataFrame, column: str, unmarked: bool = True) -> pd.Series:
    """Return the mean over the study's methods in each seed that has them all.

    With `unmarked`, methods of which a model is marked are left out.
    """
    part = frame[frame["method"].isin(STUDY_METHODS)].dropna(subset=[column])
    if unmarked:
        part = part[~part["method"].isin(part.loc[part["mark"] != "", "method"])]
    return _complete(part).groupby("seed")[column].mean()


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the seeds that have every method of `frame`."""
    return frame.groupby("seed").filter(lambda seed: len(seed) == frame["method"].nunique())


def _c1(s: Study, models: pd.DataFrame) -> Iterator[tuple]:
    original = models[models["method"] == "original"].dropna(subset=["gap_mean"])
    for name, part in architectures(s, original):
        wide = part.pivot(index="seed", columns="progress", values="gap_mean")
        if wide.shape[1] > 1:
            text = "mean fairness-gap and test accuracy over the original's checkpoints"
            yield "C1", "yes", name, text, "ρ", (rho(part, "gap_mean", "accuracy"), *FALLS)
        if wide.shape[1] > 1 and 1.0 in wide:
            first = wide.columns[0]
            text = f"mean fairness-gap of the finished original, against progress {first:g}"
            yield "C1", "no", name, text, "ratio", (wide[1.0] / wide[first], *LESS)


def _c2(s: Study, models: pd.DataFrame, attack: str) -> Iterator[tuple]:
    models = models.dropna(subset=["gap_mean", "drop"])
    for name, part in architectures(s, models):
        text = f"mean fairness-gap and drop under {s.title(attack)}"
        fixed = f"{text}, clean accuracy on the attacked images held fixed"
        yield "C2", "yes", name, fixed, "ρ", (rho(part, "gap_mean", "drop", "clean"), *RISES)
        yield "C2", "no", name, text, "ρ", (rho(part, "gap_mean", "drop"), *RISES)


def compared(s: Study, attack: str, access: str = "white-box") -> pd.DataFrame:
    """Return finished approximate models over all layers beside Retrain, and their marks.

    MODEL, average_gap, mark, and `COMPARED`, each minus Retrain's of the same seed.
    """
    table = where(summaries(s, attack=attack, access=access), scope="all", progress=1.0)
    names = ["kept", "robust", "drop"]
    table = beside_retrain(table, ["architecture", "forget", "seed"], names)
    for name in names:
        table[name] -= table[f"{name}_retrain"]
    table = table[~table["method"].isin(EXACT)].merge(nearer(s), how="left", on=ID)
    table = table.merge(marks(s), how="left", on=ID).fillna({"mark": ""})
    return table.astype(dict.fromkeys(COMPARED, float))


def _c3(s: Study, attack: str) -> Iterator[tuple]:
    for access in ("white-box", "transfer"):
        for name, words, part in places(s, compared(s, attack, access)):
            said = words + (", images made on the original" if access == "transfer" else "")
            methods = [method for method in s.methods if method in set(part["method"])]
            for column, (text, unit, rule) in COMPARED.items():
                if access == "transfer" and column != "kept":
                    continue
                text = f"{text.format(attack=s.title(attack))}{said}, minus Retrain's"
                key = "yes" if column in ("nearer", "kept") and access == "white-box" else "no"
                values, known = mean_over(part, column), part.dropna(subset=[column])
                if len(values):
                    clear = known.groupby("method")["mark"].agg(lambda marks: (marks == "").all())
                    ours = [m for m in methods if m in STUDY_METHODS and clear.get(m)]
                    mean = f"{', '.join(map(s.title, ours))}: {text}"
                    yield "C3", key, name, mean, unit, (values, *rule)
                for method in methods if key == "yes" else ():
                    own = known[known["method"] == method]
                    mark = ", ".join(sorted(set(own["mark"]) - {""}))
                    label = f"{s.title(method)}{f' ({mark})' if mark else ''} alone: {text}"
                    if len(own):
                        yield "C3", "no", name, label, unit, (own[column], *rule)


def _c4(s: Study, attack: str) -> Iterator[tuple]:
    table = compared(s, attack).dropna(subset=["average_gap", "kept"])
    table = table.assign(size=table["kept"].abs())
    for name, words, part in places(s, table):
        text = f"over methods, average gap and size of the excess of right images lost{words}"
        values = rho(_complete(part), "average_gap", "size")
        yield "C4", "yes", name, text, "ρ", (values, *DESCRIBED)


def _c5(s: Study, attack: str) -> Iterator[tuple]:
    table = where(summaries(s, attack=attack), progress=1.0)
    start = where(table, method="original").set_index(["architecture", "forget", "seed"])
    whole = table[table["scope"] == "all"]
    pairs = table[(table["scope"] != "all") & table["method"].isin(STUDY_METHODS)]
    needed = ["average_gap", "kept", "gap_mean", "seconds", "training_memory"]
    pairs = pairs.merge(whole[[*MODEL, *needed]], on=MODEL, suffixes=("", "_all"))
    far = pairs.join(start["average_gap"].rename("start"), on=start.index.names)["start"]
    pairs["share"] = (far - pairs["average_gap"]) / (far - pairs["average_gap_all"])
    pairs["kept"] -= pairs["kept_all"]
    for name in ("gap_mean", "seconds", "training_memory"):
        pairs[name] /= pairs[f"{name}_all"]
    pairs = pairs.replace([np.inf, -np.inf], np.nan)
    marked = marks(s).query("scope == 'all'").groupby(MODEL[:3])["mark"].max()  # "" if none is
    pairs = pairs.join(marked, on=MODEL[:3]).fillna({"mark": ""})
    both = "intermediate+last"
    enough = [both] if both in set(pairs["scope"]) else ["intermediate", "last"]
    for name, words, part in places(s, pairs):
        for scope in dict.fromkeys([*enough, "intermediate", "last", "first"]):
            for column, (text, unit, rule) in LAYERWISE.items():
                values = mean_over(part[part["scope"] == scope], column)
                key = "yes" if scope in enough and column != "gap_mean" else "no"
                title = f"{scope.replace('+', ' and ')} layers"
                said = f"{title}: {text.format(attack=s.title(attack))}{words}"
                if len(values):
                    yield "C5", key, name, said, unit, (values, *rule)
