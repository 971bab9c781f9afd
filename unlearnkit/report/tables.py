"""The study's tables.

A cell measured over seeds is a `stats.Spread`: it reads as ``mean ± std`` and is a number to
``float``. In headers ↓ and ↑ say what is better, (→ Retrain) that the retrained model's value is
the one to match.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearnkit.names import ID
from unlearnkit.report import frames
from unlearnkit.report.stats import mean_std
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import arranged

MEBIBYTE = 2**20
QUANTITIES = {
    "accuracy": "Robust accuracy ↑",
    "drop": "Drop ↓",
    "excess": "Excess over Retrain (→ 0)",
}


def wide(
    s: Study,
    long: pd.DataFrame,
    keys: list[str],
    columns: Mapping[Any, tuple[str, int]],
    caption: str = "",
    aside: Sequence[str] = (),
) -> pd.DataFrame:
    """Lay `long` (ID, metric, value) out: a row for each of `keys`, a `Spread` for each metric.

    `columns`: metric -> header and digits; one that `long` lacks has no column. Rows come in the
    study's order; the last column counts their seeds. `aside`: as in `Study.table`.
    """
    titles = {"quantity": QUANTITIES.get}
    columns = {name: columns[name] for name in columns if name in set(long["metric"])}
    for key in keys:
        known = arranged(s.order.get(key, QUANTITIES), long[key])
        long = long.assign(**{key: pd.Categorical(long[key], known)})
    rows = []
    for names, part in long.groupby(keys, observed=True):
        values = dict(list(part.groupby("metric")["value"]))
        cells = [mean_std(values.get(name, ()), digits) for name, (_, digits) in columns.items()]
        shown = [titles.get(k, s.title)(name) for k, name in zip(keys, names, strict=True)]
        rows.append((*shown, *cells, part["seed"].nunique()))
    headers = ["Forget set" if key == "forget" else key.capitalize() for key in keys]
    shown = [header for header, _ in columns.values()]
    by = [headers[keys.index(key)] for key in ("architecture", "forget", "attack") if key in keys]
    return s.table(rows, [*headers, *shown, "Seeds"], caption, by, aside)


def table1(s: Study) -> pd.DataFrame:
    """Table 1: accuracies and MIA-efficacy (%) of the original and the retrained models."""
    quality = s.rows("quality", progress=1.0, method=["original", "retrain"], scope="all")
    columns = {name: (name, 1) for name in ("UA", "RA", "TA", "FA")}
    columns |= {"TA_forgotten": ("TA forgotten class", 1), "MIA": ("MIA", 1)}
    text = "Original and retrained models: accuracies and MIA-efficacy in %, mean ± std over seeds."
    return wide(s, quality, ["architecture", "forget", "method"], columns, text, ["FA"])


def table2(s: Study) -> pd.DataFrame:
    """Table 2: every unlearning method, all layers: quality (%), average gap, time and memory."""
    quality = s.rows("quality", progress=1.0, scope="all")
    cost = s.rows("cost", scope="all")
    for name in ("training_memory", "peak_memory"):
        cost = cost.assign(**{name: cost[name].astype(float) / MEBIBYTE})
    columns = {name: (f"{name} (→ Retrain)", 1) for name in ("UA", "RA", "TA")}
    columns |= {
        "TA_forgotten": ("TA forgotten class (→ Retrain)", 1),
        "MIA": ("MIA (→ Retrain)", 1),
        "average_gap": ("Avg. gap ↓", 1),
        "seconds": ("RTE (s) ↓", 1),
        "training_memory": ("Memory (MiB) ↓", 1),
        "peak_memory": ("Measured peak (MiB)", 0),
    }
    columns |= {m["name"]: (m["title"], m["digits"]) for m in s.measures}
    parts = (part.melt(ID, var_name="metric") for part in (cost, frames.average_gap(quality)))
    text = (
        "Unlearning: UA, RA, TA, MIA-efficacy in %, average gap to Retrain in percentage points, "
        "run time of the algorithm alone, and training memory, counted; mean ± std over seeds."
    )
    keys, aside = ["architecture", "forget", "method"], ["Measured peak (MiB)"]
    if (frames.marks(s)["mark"] != "").any():
        text += " Mark, of all its models or of so many: damaged if RA is more than "
        text += f"{frames.DAMAGED:g} points below Retrain's; did not unlearn if UA went less than "
        text += f"{100 * frames.UNLEARNED:g} % of the way from Original's to Retrain's."
    return marked(s, wide(s, pd.concat([quality, *parts]), keys, columns, text, aside))


def marked(s: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Add the column Mark to a table by architecture, method and, if it has it, forget set."""
    found = frames.marks(s).query("scope == 'all' and mark != ''")
    if "Forget set" not in table:
        found = found[found["forget"] == s.first_forget]
    titles = {"Architecture": s.title, "Forget set": s.title, "Method": s.title}
    keys = [header for header in titles if header in table]
    names = [found[key.split()[0].lower()].map(titles[key]) for key in keys]
    counts = dict(list(found["mark"].groupby([name.rename(None) for name in names])))
    said = []
    for *row, seeds in table[[*keys, "Seeds"]].itertuples(index=False, name=None):
        each = counts[tuple(row)].value_counts().items() if tuple(row) in counts else ()
        parts = (mark if n == seeds else f"{mark} ({n} of {seeds})" for mark, n in each)
        said.append(", ".join(parts))
    table.insert(len(table.columns) - 1, "Mark", said)
    return table


def table3(s: Study, access: str = "white-box") -> pd.DataFrame:
    """Table 3: accuracy (%), its drop and the excess over Retrain at each ε, on the test images.

    `access`: ``white-box`` or ``transfer`` (images made on the original model).
    """
    robust = s.rows(
        "robust", images="test", access=access, class_index=-1, scope="all", progress=1.0
    )
    robust = frames.excess(robust).assign(metric=robust["epsilon"])
    long = robust.melt([*ID, "attack", "metric"], list(QUANTITIES), "quantity", "value")
    levels = sorted(long["metric"].unique())
    columns = {e: (f"ε = {255 * e:.4g}/255" if e else "Clean", 1) for e in levels}
    how = "" if access == "white-box" else f" ({access} from the original model)"
    text = (
        f"Accuracy under attack{how} in % of the attacked test images, drop from clean accuracy "
        "on them, and drop in excess of Retrain's, in percentage points; ε in pixel units; "
        "mean ± std over seeds."
    )
    keys = ["architecture", "forget", "attack", "quantity", "method"]
    return wide(s, long, keys, columns, text)


def table4(s: Study) -> pd.DataFrame:
    """Table 4: every method restricted to a group of layers."""
    table = frames.summaries(s)
    table = table[table["progress"] == 1.0]
    table = table.assign(training_memory=table["training_memory"] / MEBIBYTE)
    columns = {
        "accuracy": ("TA (→ Retrain)", 1),
        "average_gap": ("Avg. gap ↓", 1),
        "gap_mean": ("Fairness-gap mean", 3),
        "gap_max": ("Fairness-gap max", 3),
        "gap_last": ("Fairness-gap last", 3),
        "drop": ("Drop ↓", 1),
        "seconds": ("RTE (s) ↓", 1),
        "relative_seconds": ("RTE / all ↓", 2),
        "training_memory": ("Memory (MiB) ↓", 1),
        "relative_memory": ("Memory / all ↓", 2),
    }
    text = (
        f"Unlearning restricted to layer groups: average gap and drop under {s.title(s.attack)} "
        "(averaged over ε) in percentage points, fairness-gap (std) over layers, cost and its "
        "ratio to the same method over all layers; mean ± std over seeds."
    )
    keys = ["architecture", "forget", "method", "scope"]
    aside = ["Fairness-gap max", "Fairness-gap last"]
    aside += ["RTE (s) ↓", "Memory (MiB) ↓"]  # of all layers they are in Table 2
    return wide(s, table.melt(ID, var_name="metric"), keys, columns, text, aside)
