"""The study's four tables, from tidy frames to CSV, Markdown and LaTeX.

A cell measured over seeds is a `stats.Spread`: it reads as ``mean ± std`` and is a number to
``float``. In headers ↓ and ↑ say what is better, (→ Retrain) that the retrained model's value is
the one to match.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.report.stats import mean_std
from unlearnkit.report.tables import frames
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    ATTACKS,
    QUANTITIES,
    TITLES,
    architecture_title,
    arranged,
    attack_title,
    caption,
    forget_title,
    method_title,
    rows,
    study_methods,
    summaries,
)
from unlearnkit.report.tables.saving import markdown, save_table, write_provenance
from unlearnkit.results import ID, SCOPES

__all__ = [
    "TITLES",
    "markdown",
    "method_title",
    "save_table",
    "summaries",
    "table1",
    "table2",
    "table3",
    "table4",
    "write_provenance",
]

MEBIBYTE = 2**20


def _long(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Stack the value `columns` of a frame with one row a model into metric and value."""
    return frame.melt(ID, [c for c in columns if c in frame], "metric", "value")


def _wide(
    s: Any, long: pd.DataFrame, keys: list[str], columns: Mapping[str, tuple[str, int]]
) -> pd.DataFrame:
    """Lay `long` (ID, metric, value) out: one row for each of `keys`, one `Spread` a metric."""
    known = {
        "architecture": list(ARCHITECTURES),
        "forget": rows(s, "quality")["forget"].unique(),
        "method": study_methods(s),
        "scope": list(SCOPES),
        "attack": list(ATTACKS),
        "quantity": list(QUANTITIES),
    }
    titles = {
        "architecture": architecture_title,
        "forget": forget_title,
        "method": method_title,
        "attack": attack_title,
        "quantity": QUANTITIES.get,
    }
    rank = {k: {v: i for i, v in enumerate(arranged(known.get(k, ()), long[k]))} for k in keys}
    values = {key: group for key, group in long.groupby([*keys, "metric"], sort=False)["value"]}
    seeds = long.groupby(keys, sort=False)["seed"].nunique()
    ordered = sorted(
        seeds.index, key=lambda key: [rank[k][v] for k, v in zip(keys, key, strict=True)]
    )
    table = []
    for key in ordered:
        cells = {
            header: mean_std(values.get((*key, metric), ()), digits)
            for metric, (header, digits) in columns.items()
        }
        names = {_header(k): titles.get(k, str)(v) for k, v in zip(keys, key, strict=True)}
        table.append({**names, **cells, "Seeds": int(seeds[key])})
    headers = [*map(_header, keys), *(header for header, _ in columns.values()), "Seeds"]
    return pd.DataFrame(table, columns=headers)


def _header(key: str) -> str:
    return {"forget": "Forget set"}.get(key, key.capitalize())


def _quality(s: Any, **equal: Any) -> tuple[pd.DataFrame, dict[str, tuple[str, int]]]:
    """Return the finished models' quality, and a forgotten class's column if there is one."""
    quality = rows(s, "quality", progress=1.0, **equal)
    forgotten = {"TA_forgotten": ("TA forgotten class (→ Retrain)", 2)}
    return quality, forgotten if (quality["metric"] == "TA_forgotten").any() else {}


def table1(s: Any) -> pd.DataFrame:
    """Table 1: accuracies and MIA-efficacy (%) of the original and the retrained models."""
    quality, forgotten = _quality(s, method=["original", "retrain"], scope="all")
    columns = {name: (name, 2) for name in ("UA", "RA", "TA", "FA")}
    columns |= {"TA_forgotten": ("TA forgotten class", 2)} if forgotten else {}
    table = _wide(s, quality, ["architecture", "forget", "method"], columns | {"MIA": ("MIA", 2)})
    text = "Original and retrained models: accuracies and MIA-efficacy in %, mean ± std over seeds."
    table.attrs["caption"] = caption(s, text)
    return table


def table2(s: Any) -> pd.DataFrame:
    """Table 2: every unlearning method, all layers: quality (%), average gap, time and memory."""
    quality, forgotten = _quality(s, scope="all")
    cost = rows(s, "cost", scope="all", progress=1.0)
    for name in ("training_memory", "peak_memory"):
        cost = cost.assign(**{name: cost[name].astype(float) / MEBIBYTE})
    parts = [quality, _long(cost, ["seconds", "training_memory", "peak_memory"])]
    if len(quality):
        parts.append(_long(frames.average_gap(quality), ["average_gap"]))
    columns = {name: (f"{name} (→ Retrain)", 2) for name in ("UA", "RA", "TA")}
    columns |= forgotten | {
        "MIA": ("MIA (→ Retrain)", 2),
        "average_gap": ("Avg. gap ↓", 2),
        "seconds": ("RTE (s) ↓", 1),
        "training_memory": ("Memory (MiB) ↓", 1),
        "peak_memory": ("Measured peak (MiB)", 0),
    }
    long = pd.concat([part for part in parts if len(part)] or parts)
    table = _wide(s, long, ["architecture", "forget", "method"], columns)
    text = (
        "Unlearning: UA, RA, TA, MIA-efficacy in %, average gap to Retrain in percentage points, "
        "run time of the algorithm alone, training memory counted, and the measured peak of the "
        "whole process; mean ± std over seeds."
    )
    table.attrs["caption"] = caption(s, text)
    return table


def table3(
    s: Any,
    attacks: Sequence[str] | None = None,
    *,
    quantities: Sequence[str] = ("accuracy", "drop", "excess"),
    access: str = "white-box",
) -> pd.DataFrame:
    """Table 3: accuracy (%), its drop and the excess over Retrain at each ε, on the test images.

    Parameters
    ----------
    attacks : sequence of str, optional
        Names of measured attacks; all of them if left out.
    quantities : sequence of str
        Among accuracy, drop, excess; each gets a row for a method.
    access : str
        ``white-box`` or ``transfer`` (images made on the original model).

    Raises
    ------
    UserError
        If an attack was not measured, or a quantity is unknown.
    """
    if wrong := [name for name in quantities if name not in QUANTITIES]:
        raise unknown("quantity", wrong[0], QUANTITIES)
    robust = rows(
        s, "robust", images="test", access=access, class_index=-1, scope="all", progress=1.0
    )
    measured = arranged(ATTACKS, robust["attack"])
    if wrong := [name for name in attacks or () if name not in measured]:
        raise unknown("measured attack", wrong[0], measured)
    if len(robust):
        robust = frames.excess(robust)
        robust = robust[robust["attack"].isin(list(attacks or measured))]
    present = [name for name in quantities if name in robust]
    long = robust.melt([*ID, "attack", "epsilon"], present, "quantity", "value")
    long = long.assign(metric=long["epsilon"])
    levels = sorted(set(long["metric"]))
    columns = {e: (f"ε = {255 * e:.4g}/255" if e else "Clean", 2) for e in levels}
    table = _wide(s, long, ["architecture", "forget", "attack", "quantity", "method"], columns)
    how = "" if access == "white-box" else f" ({access} from the original model)"
    text = (
        f"Accuracy under attack{how} in % of the attacked test images, drop from clean accuracy "
        "on them, and drop in excess of Retrain's, in percentage points; ε in pixel units; "
        "mean ± std over seeds."
    )
    table.attrs["caption"] = caption(s, text)
    return table


def table4(
    s: Any, *, reading: str = "std", attack: str = "pgd", epsilon: float | None = None
) -> pd.DataFrame:
    """Table 4: every method restricted to a group of layers. Parameters as in `summaries`."""
    table = summaries(s, reading=reading, attack=attack, epsilon=epsilon)
    table = table[table["progress"] == 1.0]
    table = table.assign(training_memory=table["training_memory"] / MEBIBYTE)
    columns = {
        "accuracy": ("TA (→ Retrain)", 2),
        "average_gap": ("Avg. gap ↓", 2),
        "gap_mean": ("Fairness-gap mean", 3),
        "gap_max": ("Fairness-gap max", 3),
        "gap_last": ("Fairness-gap last", 3),
        "drop": ("Drop ↓", 2),
        "seconds": ("RTE (s) ↓", 1),
        "relative_seconds": ("RTE / all ↓", 2),
        "training_memory": ("Memory (MiB) ↓", 1),
        "relative_memory": ("Memory / all ↓", 2),
    }
    long = _long(table, columns)
    result = _wide(s, long, ["architecture", "forget", "method", "scope"], columns)
    where = "averaged over ε" if epsilon is None else f"at ε = {255 * epsilon:.4g}/255"
    text = (
        f"Unlearning restricted to layer groups: average gap and drop under {attack_title(attack)} "
        f"({where}) in percentage points, fairness-gap ({reading}) over layers, cost and its ratio "
        "to the same method over all layers; mean ± std over seeds."
    )
    result.attrs["caption"] = caption(s, text)
    return result
