"""The study's frames cut and summed up: what tables, figures and claims are drawn from."""

import re
from collections.abc import Sequence

import pandas as pd

from unlearnkit.names import GAP_METRICS, ID
from unlearnkit.report.study import Study, arranged

__all__ = ["arranged", "average_gap", "excess", "forget_title", "over_seeds", "summaries"]


def forget_title(forget: str) -> str:
    """Return ``10 % random`` for ``random:0.1`` and ``class 3`` for ``class:3``."""
    kind, _, value = str(forget).partition(":")
    if kind == "random" and re.fullmatch(r"\d*\.?\d+", value):
        return f"{100 * float(value):g} % random"
    return f"{kind} {value}".strip()


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `by` + mean, low, high (minimum and maximum), std and n of `value` in each group."""
    grouped = frame.groupby(list(by), sort=False, observed=True)[value]
    return grouped.agg(mean="mean", low="min", high="max", std="std", n="count").reset_index()


def summaries(
    s: Study, *, reading: str = "std", attack: str | None = None, epsilon: float | None = None
) -> pd.DataFrame:
    """Return one row for each model and checkpoint with its scalar measures.

    Parameters
    ----------
    reading : str
        Which σ the fairness-gap is of, one of `unlearnkit.names.READINGS`.
    attack, epsilon : str, float
        The drop is the white-box one on test images, under the study's own attack if None, at
        `epsilon` (in [0, 1]); if None, the mean over every ε > 0 at which all models were attacked.

    Returns
    -------
    DataFrame
        ID + accuracy (test, %), average_gap (percentage points), gap_mean, gap_max, gap_last (over
        layers), drop (percentage points), seconds, training_memory (bytes), and relative_seconds
        and relative_memory (to the same run over all layers); NaN where not measured.
    """
    table = s.rows("quality", metric="TA").rename(columns={"value": "accuracy"})
    gap = s.rows("gap", reading=reading).sort_values("layer_index")
    layers = gap.groupby(ID, sort=False)["gap"]
    for part in (
        average_gap(s.quality),
        layers.agg(gap_mean="mean", gap_max="max", gap_last="last").reset_index(),
        _drops(s, attack or s.attack, epsilon),
        s.cost[[*ID, "seconds", "training_memory"]],
    ):
        table = table.merge(part, how="outer", on=ID)
    table = table.drop(columns="metric")
    table = table.astype({name: float for name in table if name not in ID})
    key = ["architecture", "forget", "method", "seed", "progress"]
    whole = table[table["scope"] == "all"].set_index(key)
    for name, column in (("seconds", "seconds"), ("memory", "training_memory")):
        reference = table[key].merge(whole[column], how="left", left_on=key, right_index=True)
        table[f"relative_{name}"] = table[column].to_numpy() / reference[column].to_numpy()
    return table


def _drops(s: Study, attack: str, epsilon: float | None) -> pd.DataFrame:
    """Return ID + drop: at `epsilon`, or averaged over the ε that all models share."""
    robust = s.rows("robust", attack=attack, images="test", access="white-box", class_index=-1)
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
        One row for each ID with the column `average_gap` in percentage points. The reference is
        'retrain' of the same architecture, forget set and seed, with scope 'all' and progress 1;
        where it or one of the four metrics is missing, the gap is NaN.
    """
    rows = quality[quality["metric"].isin(GAP_METRICS)]
    wide = rows.pivot(index=ID, columns="metric", values="value").reindex(columns=GAP_METRICS)
    wide = wide.reset_index()
    paired = beside_retrain(wide, ["architecture", "forget", "seed"], GAP_METRICS)
    distances = [(paired[name] - paired[f"{name}_retrain"]).abs() for name in GAP_METRICS]
    gap = pd.concat(distances, axis=1).mean(axis=1, skipna=False)
    return wide[ID].assign(average_gap=gap.to_numpy())


def excess(robust: pd.DataFrame) -> pd.DataFrame:
    """Return the robustness frame with the columns `drop` and `excess`, in percentage points.

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
    keys = ["architecture", "forget", "seed", "epsilon", *setting]
    frame = beside_retrain(frame, keys, ["drop"])
    frame["excess"] = frame["drop"] - frame.pop("drop_retrain")
    return frame.set_index(robust.index)


def beside_retrain(frame: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Add the retrained model's `values`, matched on `keys`, as columns ending in `_retrain`."""
    exact = (frame["method"] == "retrain") & (frame["scope"] == "all") & (frame["progress"] == 1)
    reference = frame.loc[exact, [*keys, *values]]
    reference = reference.rename(columns={name: f"{name}_retrain" for name in values})
    return frame.merge(reference, on=keys, how="left", validate="many_to_one")
