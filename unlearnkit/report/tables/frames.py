"""Display names and order, and the tidy frames cut and summed up for tables and figures."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.report.tidy import COLUMNS
from unlearnkit.results import GAP_METRICS, ID, READINGS

# The published figure's legend order; a method that is not here follows, upper-cased.
TITLES = {
    "original": "Original",
    "retrain": "Retrain",
    "cf": "CF",
    "bs": "BS",
    "rl": "RL",
    "scrub": "SCRUB",
    "salun": "SalUn",
    "ga": "GA",
}
ARCHITECTURES = {"resnet50": "ResNet50", "small_vit": "SmallViT"}
ATTACKS = {
    "noise": "Gaussian noise",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "autoattack": "AutoAttack (torchattacks)",
}
QUANTITIES = {
    "accuracy": "Robust accuracy ↑",
    "drop": "Drop ↓",
    "excess": "Excess over Retrain (→ 0)",
}


def method_title(method: str) -> str:
    """Return the display name of a method."""
    if method in TITLES:
        return TITLES[method]
    from unlearnkit.methods import METHODS

    known = METHODS.get(method)
    return known.title if known else method.upper()


def architecture_title(architecture: str) -> str:
    """Return the display name of an architecture."""
    return ARCHITECTURES.get(architecture, architecture)


def attack_title(attack: str) -> str:
    """Return the display name of an attack."""
    if attack in ATTACKS:
        return ATTACKS[attack]
    from unlearnkit.attacks import ATTACKS as KNOWN

    return KNOWN[attack].title if attack in KNOWN else attack


def forget_title(forget: str) -> str:
    """Return ``10 % random`` for ``random:0.1`` and ``class 3`` for ``class:3``."""
    kind, _, value = str(forget).partition(":")
    if kind == "random" and re.fullmatch(r"\d*\.?\d+", value):
        return f"{100 * float(value):g} % random"
    return f"{kind} {value}".strip()


def arranged(known: Iterable[str], values: Iterable[str]) -> list[str]:
    """Return the distinct `values`: those `known` first, in that order, then as they appear."""
    found = list(dict.fromkeys(values))
    first = [name for name in known if name in found]
    return first + [name for name in found if name not in first]


def study_methods(s: Any) -> list[str]:
    """Return every method of the study, in display order."""
    return arranged(
        TITLES, [m for name in ("quality", "gap", "robust") for m in rows(s, name).method]
    )


def rows(s: Any, name: str, **equal: Any) -> pd.DataFrame:
    """Return the rows of frame `name` where each column of `equal` is (or is one of) the value."""
    if "reading" in equal:
        check_reading(equal["reading"])
    frame = getattr(s, name, None)
    if frame is None or frame.empty:
        return pd.DataFrame(columns=COLUMNS[name])
    for column, value in equal.items():
        frame = frame[frame[column].isin(value if isinstance(value, list) else [value])]
    return frame


def check_reading(reading: str) -> str:
    """Return `reading`, if it is one of `READINGS`; raise a `UserError` that names them if not."""
    if reading not in READINGS:
        raise unknown("reading of σ", reading, READINGS)
    return reading


def caption(s: Any, text: str) -> str:
    """Return `text`, followed by profile and data set."""
    return f"{text} Profile {s.profile_name}, data set {s.dataset}."


def summaries(
    s: Any, *, reading: str = "std", attack: str = "pgd", epsilon: float | None = None
) -> pd.DataFrame:
    """Return one row for each model and checkpoint with its scalar measures.

    Parameters
    ----------
    reading : str
        Which σ the fairness-gap is of.
    attack, epsilon : str, float
        The drop is the white-box one on test images at `epsilon`; if None, the mean over every
        ε > 0 at which all models were attacked.

    Returns
    -------
    DataFrame
        ID + accuracy (test, %), average_gap (percentage points), gap_mean, gap_max, gap_last (over
        layers), drop (percentage points), seconds, training_memory (bytes), and relative_seconds
        and relative_memory (to the same run over all layers); NaN where not measured.
    """
    quality = rows(s, "quality")
    parts = [quality[quality["metric"] == "TA"].rename(columns={"value": "accuracy"})]
    parts[0] = parts[0][[*ID, "accuracy"]]
    gaps = average_gap(quality) if len(quality) else quality.assign(average_gap=[])
    parts.append(gaps[[*ID, "average_gap"]])
    gap = rows(s, "gap", reading=reading).sort_values("layer_index")
    layers = gap.groupby(ID, sort=False)["gap"]
    parts.append(layers.agg(gap_mean="mean", gap_max="max", gap_last="last").reset_index())
    parts.append(_drops(s, attack, epsilon))
    parts.append(rows(s, "cost")[[*ID, "seconds", "training_memory"]])
    table = parts[0]
    for part in parts[1:]:
        table = table.merge(part, how="outer", on=ID)
    table = table.astype({name: float for name in table if name not in ID})
    key = ["architecture", "forget", "method", "seed", "progress"]
    whole = table[table["scope"] == "all"].set_index(key)
    for name, column in (("seconds", "seconds"), ("memory", "training_memory")):
        reference = table[key].merge(whole[column], how="left", left_on=key, right_index=True)
        table[f"relative_{name}"] = table[column].to_numpy() / reference[column].to_numpy()
    return table


def _drops(s: Any, attack: str, epsilon: float | None) -> pd.DataFrame:
    """Return ID + drop: at `epsilon`, or averaged over the ε that all models share."""
    robust = rows(s, "robust", attack=attack, images="test", access="white-box", class_index=-1)
    if robust.empty:
        return pd.DataFrame(columns=[*ID, "drop"])
    robust = excess(robust)
    robust = robust[robust["epsilon"] > 0]
    if epsilon is None:
        models = robust.groupby("epsilon")["drop"].size()
        robust = robust[robust["epsilon"].isin(models[models == models.max()].index)]
    else:
        robust = robust[(robust["epsilon"] - epsilon).abs() < 1e-9]
    return robust.groupby(ID, sort=False)["drop"].mean().reset_index()


def average_gap(quality: pd.DataFrame) -> pd.DataFrame:
    """Return how far each model is from the retrained one: mean over UA, RA, TA, MIA of |Δ|.

    Parameters
    ----------
    quality : DataFrame
        Columns `ID`, metric, value (percent).

    Returns
    -------
    DataFrame
        One row for each ID with the column `average_gap` in percent points. The reference is
        'retrain' of the same architecture, forget set and seed, with scope 'all' and progress 1;
        where it or one of the four metrics is missing, the gap is NaN.
    """
    rows = quality[quality["metric"].isin(GAP_METRICS)]
    wide = rows.pivot(index=ID, columns="metric", values="value").reindex(columns=GAP_METRICS)
    wide = wide.reset_index()
    paired = _beside_retrain(wide, ["architecture", "forget", "seed"], GAP_METRICS)
    distances = [(paired[name] - paired[f"{name}_retrain"]).abs() for name in GAP_METRICS]
    gap = pd.concat(distances, axis=1).mean(axis=1, skipna=False)
    return wide[ID].assign(average_gap=gap.to_numpy())


def excess(robust: pd.DataFrame) -> pd.DataFrame:
    """Return the robustness frame with the columns `drop` and `excess`, in percent points.

    `drop` is clean − robust accuracy of the same model on the same images (same attack, access
    and class; clean is the row at ε = 0). `excess` is the drop minus that of the retrained model
    of the same architecture, forget set and seed under the same attack and ε. Either is NaN
    where the row it refers to is missing.
    """
    setting = ["attack", "images", "access", "class_index"]
    clean = robust.loc[robust["epsilon"] == 0, [*ID, *setting, "accuracy"]]
    clean = clean.rename(columns={"accuracy": "clean"})
    frame = robust.merge(clean, on=[*ID, *setting], how="left", validate="many_to_one")
    frame["drop"] = frame.pop("clean") - frame["accuracy"]
    frame = _beside_retrain(
        frame, ["architecture", "forget", "seed", "epsilon", *setting], ["drop"]
    )
    frame["excess"] = frame["drop"] - frame.pop("drop_retrain")
    return frame.set_index(robust.index)


def _beside_retrain(frame: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Add the retrained model's `values`, matched on `keys`, as columns ending in `_retrain`."""
    exact = (frame["method"] == "retrain") & (frame["scope"] == "all") & (frame["progress"] == 1)
    reference = frame.loc[exact, [*keys, *values]]
    reference = reference.rename(columns={name: f"{name}_retrain" for name in values})
    return frame.merge(reference, on=keys, how="left", validate="many_to_one")
