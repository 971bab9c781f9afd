"""The study's tables, and any table as CSV, Markdown and LaTeX.

A cell measured over seeds is a `stats.Spread`: it reads as ``mean ± std`` and is a number to
``float``. In headers ↓ and ↑ say what is better, (→ Retrain) that the retrained model's value is
the one to match.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.names import ID
from unlearnkit.report import frames
from unlearnkit.report.stats import MISSING, Spread, mean_std
from unlearnkit.report.study import Study, arranged

MEBIBYTE = 2**20
QUANTITIES = {
    "accuracy": "Robust accuracy ↑",
    "drop": "Drop ↓",
    "excess": "Excess over Retrain (→ 0)",
}
LONG_TABLE = 45  # one row more and a LaTeX table no longer fits a page
LONG_TEXT = 40  # longer text gets a column that breaks it into lines
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "ε": r"$\varepsilon$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": r"$-$",
    "–": "--",
    "∞": r"$\infty$",
    "<": r"$<$",
    ">": r"$>$",
}


def wide(
    s: Study, long: pd.DataFrame, keys: list[str], columns: Mapping[Any, tuple[str, int]]
) -> pd.DataFrame:
    """Lay `long` (ID, metric, value) out: a row for each of `keys`, a `Spread` for each metric.

    `columns`: metric -> header and digits. Rows come in the study's order; the last column counts
    their seeds.
    """
    titles = {"forget": frames.forget_title, "quantity": QUANTITIES.get}
    for key in keys:
        known = arranged(s.order.get(key, QUANTITIES), long[key])
        long = long.assign(**{key: pd.Categorical(long[key], known)})
    headers = [{"forget": "Forget set"}.get(key, key.capitalize()) for key in keys]
    rows = []
    for names, part in long.groupby(keys, observed=True):
        values = dict(list(part.groupby("metric")["value"]))
        cells = [mean_std(values.get(name, ()), digits) for name, (_, digits) in columns.items()]
        shown = [titles.get(k, s.title)(name) for k, name in zip(keys, names, strict=True)]
        rows.append((*shown, *cells, part["seed"].nunique()))
    return pd.DataFrame(
        rows, columns=[*headers, *(header for header, _ in columns.values()), "Seeds"]
    )


def table1(s: Study) -> pd.DataFrame:
    """Table 1: accuracies and MIA-efficacy (%) of the original and the retrained models."""
    quality = s.rows("quality", progress=1.0, method=["original", "retrain"], scope="all")
    columns = {name: (name, 2) for name in ("UA", "RA", "TA", "FA")}
    columns |= _forgotten(quality, "TA forgotten class") | {"MIA": ("MIA", 2)}
    table = wide(s, quality, ["architecture", "forget", "method"], columns)
    text = "Original and retrained models: accuracies and MIA-efficacy in %, mean ± std over seeds."
    table.attrs["caption"] = s.caption(text)
    return table


def table2(s: Study) -> pd.DataFrame:
    """Table 2: every unlearning method, all layers: quality (%), average gap, time and memory."""
    quality = s.rows("quality", progress=1.0, scope="all")
    cost = s.rows("cost", scope="all")
    for name in ("training_memory", "peak_memory"):
        cost = cost.assign(**{name: cost[name].astype(float) / MEBIBYTE})
    columns = {name: (f"{name} (→ Retrain)", 2) for name in ("UA", "RA", "TA")}
    columns |= _forgotten(quality, "TA forgotten class (→ Retrain)")
    columns |= {
        "MIA": ("MIA (→ Retrain)", 2),
        "average_gap": ("Avg. gap ↓", 2),
        "seconds": ("RTE (s) ↓", 1),
        "training_memory": ("Memory (MiB) ↓", 1),
        "peak_memory": ("Measured peak (MiB)", 0),
    }
    columns |= {m["name"]: (m["title"], m["digits"]) for m in s.measures}
    long = pd.concat([quality, *(_long(part) for part in (cost, frames.average_gap(quality)))])
    table = wide(s, long, ["architecture", "forget", "method"], columns)
    text = (
        "Unlearning: UA, RA, TA, MIA-efficacy in %, average gap to Retrain in percentage points, "
        "run time of the algorithm alone, training memory counted, and the measured peak of the "
        "whole process; mean ± std over seeds."
    )
    table.attrs["caption"] = s.caption(text)
    return table


def _forgotten(quality: pd.DataFrame, header: str) -> dict[str, tuple[str, int]]:
    """Return the column of a forgotten class, if there is one."""
    return {"TA_forgotten": (header, 2)} if "TA_forgotten" in set(quality["metric"]) else {}


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    """Stack what a frame with one row a model has beside ID into metric and value."""
    return frame.melt(ID, var_name="metric")


def table3(
    s: Study,
    attacks: Sequence[str] | None = None,
    *,
    quantities: Sequence[str] = tuple(QUANTITIES),
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
    equal = {"images": "test", "access": access, "class_index": -1, "scope": "all", "progress": 1.0}
    robust = s.rows("robust", **equal)
    measured = arranged(s.order["attack"], robust["attack"])
    if wrong := [name for name in attacks or () if name not in measured]:
        raise unknown("measured attack", wrong[0], measured)
    robust = frames.excess(robust[robust["attack"].isin(attacks or measured)])
    robust = robust.assign(metric=robust["epsilon"])
    long = robust.melt([*ID, "attack", "metric"], list(quantities), "quantity", "value")
    levels = sorted(long["metric"].unique())
    columns = {e: (f"ε = {255 * e:.4g}/255" if e else "Clean", 2) for e in levels}
    table = wide(s, long, ["architecture", "forget", "attack", "quantity", "method"], columns)
    how = "" if access == "white-box" else f" ({access} from the original model)"
    text = (
        f"Accuracy under attack{how} in % of the attacked test images, drop from clean accuracy "
        "on them, and drop in excess of Retrain's, in percentage points; ε in pixel units; "
        "mean ± std over seeds."
    )
    table.attrs["caption"] = s.caption(text)
    return table


def table4(
    s: Study, *, reading: str = "std", attack: str | None = None, epsilon: float | None = None
) -> pd.DataFrame:
    """Table 4: every method restricted to a group of layers. Parameters as in `summaries`."""
    table = frames.summaries(s, reading=reading, attack=attack, epsilon=epsilon)
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
    result = wide(s, _long(table), ["architecture", "forget", "method", "scope"], columns)
    where = "averaged over ε" if epsilon is None else f"at ε = {255 * epsilon:.4g}/255"
    text = (
        f"Unlearning restricted to layer groups: average gap and drop under "
        f"{s.title(attack or s.attack)} ({where}) in percentage points, fairness-gap ({reading}) "
        "over layers, cost and its ratio to the same method over all layers; mean ± std over seeds."
    )
    result.attrs["caption"] = s.caption(text)
    return result


def contents(table: pd.DataFrame, name: str) -> dict[str, str]:
    """Return a table's files by their ending: csv (numbers), md and tex (display)."""
    csv = numeric(table).to_csv(index=False, lineterminator="\n")
    return {"csv": csv, "md": markdown(table), "tex": latex(table, name)}


def numeric(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with each `Spread` column as plain mean, std and n columns.

    The arrows that give the direction are left out of the headers, too.
    """
    columns: dict[str, list] = {}
    for header in table:
        name = re.sub(r"\s*(\(→[^)]*\)|[↓↑])", "", str(header))
        if any(isinstance(value, Spread) for value in table[header]):
            for field in ("mean", "std", "n"):
                columns[f"{name} {field}"] = [getattr(value, field) for value in table[header]]
        else:
            columns[name] = list(table[header])
    return pd.DataFrame(columns)


def markdown_text(text: str) -> str:
    """Return `text` on one line, without what would be a tag, a link, code or a column's end."""
    return re.sub(r"[\\|`]|<(?=[A-Za-z/!?])|](?=[(\[:])", r"\\\g<0>", " ".join(text.splitlines()))


def markdown(table: pd.DataFrame) -> str:
    """Return `table` as a Markdown pipe table, numbers to the right, caption below."""
    rows = [list(table), *table.itertuples(index=False)]
    head, *lines = ["| " + " | ".join(markdown_text(_shown(v)) for v in row) + " |" for row in rows]
    rule = " | ".join("---:" if right else ":---" for right in _right(table))
    text = "\n".join([head, f"| {rule} |", *lines]) + "\n"
    caption = table.attrs.get("caption")
    return text + f"\n{markdown_text(caption)}\n" if caption else text


def latex_text(text: str) -> str:
    """Return `text` on one line, with everything LaTeX would stumble over replaced."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.splitlines()))


def latex(table: pd.DataFrame, name: str) -> str:
    """Return `table` in LaTeX (booktabs; longtable beyond a page), labelled ``tab:name``."""
    head, *lines = [
        " & ".join(latex_text(_shown(value)) for value in row) + r" \\"
        for row in [list(table), *table.itertuples(index=False)]
    ]
    first = list(table.iloc[:, 0])
    body = []
    for index, line in enumerate(lines):
        if index and first[index] != first[index - 1]:
            body.append(r"\midrule")
        body.append(line)
    title = rf"\caption{{{latex_text(table.attrs.get('caption', name))}}}\label{{tab:{name}}}"
    if len(table) > LONG_TABLE:
        kind, above, below, packages = "longtable", [title + r"\\"], [r"\endhead"], ",longtable"
    else:
        kind, above, below, packages = "tabular", [], [], ""
    top = [*above, r"\toprule", head, r"\midrule", *below]
    text = [rf"\begin{{{kind}}}{{{_alignment(table)}}}", *top, *body, r"\bottomrule"]
    text.append(rf"\end{{{kind}}}")
    if kind == "tabular":
        text = [r"\begin{table}", r"\centering", title, *text, r"\end{table}"]
    return "\n".join([f"% needs \\usepackage{{booktabs{packages}}}", *text]) + "\n"


def _shown(value: Any) -> str:
    """Return what a table displays: plain floats with three digits, a dash where there is none."""
    if not isinstance(value, float):
        return str(value)
    return MISSING if math.isnan(value) else f"{value:.3f}"


def _right(table: pd.DataFrame) -> list[bool]:
    return [not all(isinstance(value, str) for value in table[header]) for header in table]


def _alignment(table: pd.DataFrame) -> str:
    """Return LaTeX's column types: numbers to the right, long text in lines that share the page."""
    kinds = ["r" if right else "l" for right in _right(table)]
    for index, header in enumerate(table):
        if kinds[index] == "l" and any(len(value) > LONG_TEXT for value in table[header]):
            kinds[index] = "p"
    paragraph = rf"p{{{0.5 / max(kinds.count('p'), 1):.2f}\linewidth}}"
    return "".join(kinds).replace("p", paragraph)
