"""The study's frames cut and summed up: what tables, figures and claims are drawn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unlearnkit.names import GAP_METRICS, ID
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import made_once, where

ATTACKED = {"images": "test", "access": "white-box", "class_index": -1}
EXACT = ["original", "retrain"]
# A model is damaged if its retain accuracy is more than so many points below Retrain's; it did not
# unlearn if UA went less than this share of the way from Original's to Retrain's.
DAMAGED, UNLEARNED = 5.0, 0.1
GAPS = ("gap_mean", "gap_median", "gap_log", "gap_last", "gap_relative")  # over layers
SMALLEST = 1e-12  # a fairness-gap of zero must have a logarithm, too


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `by` + mean, low, high (minimum and maximum), std and n of `value` in each group."""
    grouped = frame.groupby(list(by), sort=False, observed=True)[value]
    return grouped.agg(mean="mean", low="min", high="max", std="std", n="count").reset_index()


@made_once
def summaries(
    s: Study,
    *,
    reading: str = "std",
    attack: str | None = None,
    access: str = "white-box",
) -> pd.DataFrame:
    """Return one row for each model and checkpoint with its scalar measures, NaN if not measured.

    ID + accuracy (test, %), RA (%), average_gap (percentage points); of the fairness-gap over
    layers, σ of this `reading`: gap_mean, gap_median, gap_log (mean logarithm), gap_max, gap_last,
    and gap_relative, the mean in shares of mean σ; clean and robust (accuracy on the attacked test
    images, %), drop (percentage points) and kept (robust in % of clean); distance (median minimal
    distance of images right when clean, 1/255); seconds, training_memory (bytes), and
    relative_seconds and relative_memory (to the same run over all layers). The attack is `attack`
    (the study's own if None), with this `access`; its numbers are means over every ε > 0 at which
    all models were attacked.
    """
    robust = s.rows("robust", attack=attack or s.attack, **{**ATTACKED, "access": access})
    robust = excess(robust).rename(columns={"accuracy": "robust"})
    robust = robust[robust["epsilon"] > 0]
    models = robust.groupby("epsilon")["drop"].transform("size")
    robust = robust[models == models.max()].groupby(ID, sort=False)
    table = s.rows("quality", metric="TA").rename(columns={"value": "accuracy"})
    retain = s.rows("quality", metric="RA").rename(columns={"value": "RA"})
    gap = s.rows("gap", reading=reading).sort_values("layer_index")
    gap = gap.assign(log=np.log(gap["gap"].astype(float).clip(lower=SMALLEST)))
    of = {name: ("gap", name.removeprefix("gap_")) for name in GAPS[:2]}
    of |= {"gap_max": ("gap", "max"), "gap_last": ("gap", "last"), "gap_log": ("log", "mean")}
    right = s.distance[s.distance["distance"] > 0].groupby(ID, sort=False)["distance"]
    for part in (
        retain.drop(columns="metric"),
        average_gap(s.quality),
        gap.groupby(ID, sort=False).agg(**of, gap_relative=("relative", "mean")).reset_index(),
        robust[["clean", "robust", "drop"]].mean().reset_index(),
        (255 * right.median()).reset_index(),
        s.cost[[*ID, "seconds", "training_memory"]],
    ):
        table = table.merge(part, how="outer", on=ID)
    table = table.drop(columns="metric")
    table = table.astype({name: float for name in table if name not in ID})
    table["kept"] = 100 * table["robust"] / table["clean"].replace(0.0, np.nan)
    key = ["architecture", "forget", "method", "seed", "progress"]
    for name, column in (("seconds", "seconds"), ("memory", "training_memory")):
        whole = table[column].where(table["scope"] == "all")
        whole = whole.groupby([table[k] for k in key]).transform("first")
        table[f"relative_{name}"] = table[column] / whole
    return table


def restricted(s: Study) -> pd.DataFrame:
    """Return the rows of `summaries` over which means can be compared between groups of layers.

    These are finished, approximate models of the study's first forget set. Their method was run,
    with their seed, under every scope that the architecture has. Without a Retrain there are none.
    """
    table = where(summaries(s), progress=1.0, forget=s.first_forget)
    table = table[~table["method"].isin(EXACT)].dropna(subset=["average_gap"])
    scopes, own = (
        table.groupby(["architecture", *keys])["scope"].transform("nunique")
        for keys in ([], ["method", "seed"])
    )
    return table[own == scopes]


@made_once
def marks(s: Study) -> pd.DataFrame:
    """Return ID and mark of each unlearned model: "damaged", "did not unlearn", or "".

    The first by RA, the second by UA, as `DAMAGED` and `UNLEARNED` say; "" without a Retrain.
    """
    rows = s.quality[(s.quality["progress"] == 1) & s.quality["metric"].isin(["UA", "RA"])]
    wide = rows.pivot(index=ID, columns="metric", values="value").reindex(columns=["UA", "RA"])
    keys = ["architecture", "forget", "seed"]
    wide = beside_retrain(wide.astype(float).reset_index(), keys, ["UA", "RA"])
    start = wide[wide["method"] == "original"].set_index(keys)["UA"].rename("UA_original")
    wide = wide[~wide["method"].isin(EXACT) | (wide["scope"] != "all")].join(start, on=keys)
    way = wide["UA_retrain"] - wide["UA_original"]
    idle = wide["UA"] - wide["UA_original"] < UNLEARNED * way.where(way > 0)
    wide["mark"] = idle.map({True: "did not unlearn", False: ""})
    wide.loc[wide["RA"] < wide["RA_retrain"] - DAMAGED, "mark"] = "damaged"
    return wide[[*ID, "mark"]]


def nearer(s: Study) -> pd.DataFrame:
    """Return ID and the excess of minimal distance: it minus Retrain's, image by image (1/255).

    Of the images that both models get right when clean: nearer, the median, and the quarters
    nearest and furthest.
    """
    keys = ["architecture", "forget", "seed", "image"]
    paired = beside_retrain(s.distance, keys, ["distance"])
    paired = paired[(paired["distance"] > 0) & (paired["distance_retrain"] > 0)]
    difference = (paired["distance"] - paired["distance_retrain"]).fillna(0.0)  # inf − inf
    by_model = (255 * difference.astype(float)).groupby([paired[name] for name in ID], sort=False)
    parts = {"nearer": 0.5, "nearest": 0.25, "furthest": 0.75}
    found = {name: by_model.quantile(share) for name, share in parts.items()}
    return pd.DataFrame(found).reset_index()


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
    """Return the robustness frame with the columns `clean` (%), `drop` and `excess` (points).

    `drop` is clean − robust accuracy of the same model on the same images (same attack, access
    and class; clean is the row at ε = 0). `excess` is the drop minus that of the retrained model
    under the same attack and ε. Either is NaN where the row it refers to is missing.
    """
    setting = ["attack", "images", "access", "class_index"]
    clean = robust.loc[robust["epsilon"] == 0, [*ID, *setting, "accuracy"]]
    clean = clean.rename(columns={"accuracy": "clean"})
    frame = robust.merge(clean, on=[*ID, *setting], how="left", validate="many_to_one")
    frame["drop"] = frame["clean"] - frame["accuracy"]
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
