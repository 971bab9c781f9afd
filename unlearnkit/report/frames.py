"""The study's frames cut and summed up: what tables, figures and claims are drawn from."""

import re
from collections.abc import Sequence

import pandas as pd

from unlearnkit.names import GAP_METRICS, ID
from unlearnkit.report.study import Study

ATTACKED = {"images": "test", "access": "white-box", "class_index": -1}


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
    """Return one row for each model and checkpoint with its scalar measures, NaN if not measured.

    ID + accuracy (test, %), average_gap (percentage points), gap_mean, gap_max, gap_last (over
    layers, σ of this `reading`), drop (percentage points), seconds, training_memory (bytes), and
    relative_seconds and relative_memory (to the same run over all layers). The drop is the
    white-box one on test images, under `attack` (the study's own if None), at `epsilon` (in
    [0, 1]; if None, the mean over every ε > 0 at which all models were attacked).
    """
    robust = excess(s.rows("robust", attack=attack or s.attack, **ATTACKED))
    robust = robust[robust["epsilon"] > 0]
    models = robust.groupby("epsilon")["drop"].transform("size")
    at = models == models.max() if epsilon is None else (robust["epsilon"] - epsilon).abs() < 1e-9
    table = s.rows("quality", metric="TA").rename(columns={"value": "accuracy"})
    gap = s.rows("gap", reading=reading).sort_values("layer_index")
    layers = gap.groupby(ID, sort=False)["gap"]
    for part in (
        average_gap(s.quality),
        layers.agg(gap_mean="mean", gap_max="max", gap_last="last").reset_index(),
        robust[at].groupby(ID, sort=False)["drop"].mean().reset_index(),
        s.cost[[*ID, "seconds", "training_memory"]],
    ):
        table = table.merge(part, how="outer", on=ID)
    table = table.drop(columns="metric")
    table = table.astype({name: float for name in table if name not in ID})
    key = ["architecture", "forget", "method", "seed", "progress"]
    for name, column in (("seconds", "seconds"), ("memory", "training_memory")):
        whole = table[column].where(table["scope"] == "all")
        whole = whole.groupby([table[k] for k in key]).transform("first")
        table[f"relative_{name}"] = table[column] / whole
    return table


def average_gap(quality: pd.DataFrame) -> pd.DataFrame:
    """Return how far each model is from the retrained one: mean over UA, RA, TA, MIA of |Δ|.

    `quality` has the columns `ID`, metric and value (percent). One row for each ID, `average_gap`
    in percentage points; NaN where the reference (see `beside_retrain`) or a metric is missing.
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
    under the same attack and ε. Either is NaN where the row it refers to is missing.
    """
    setting = ["attack", "images", "access", "class_index"]
    clean = robust.loc[robust["epsilon"] == 0, [*ID, *setting, "accuracy"]]
    clean = clean.rename(columns={"accuracy": "clean"})
    frame = robust.merge(clean, on=[*ID, *setting], how="left", validate="many_to_one")
    frame["drop"] = frame.pop("clean") - frame["accuracy"]
    frame = beside_retrain(frame, ["architecture", "forget", "seed", "epsilon", *setting], ["drop"])
    frame["excess"] = frame["drop"] - frame.pop("drop_retrain")
    return frame.set_index(robust.index)


def beside_retrain(frame: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Add the finished retrained model's `values`, matched on `keys`, as columns `.._retrain`.

    That is the one over all layers; `keys` are architecture, forget set, seed and what else tells
    rows apart.
    """
    exact = (frame["method"] == "retrain") & (frame["scope"] == "all") & (frame["progress"] == 1)
    reference = frame.loc[exact, [*keys, *values]]
    reference = reference.rename(columns={name: f"{name}_retrain" for name in values})
    return frame.merge(reference, on=keys, how="left", validate="many_to_one")
