"""The study's tables, and any table as CSV, Markdown and LaTeX.

A cell measured over seeds is a `stats.Spread`: it reads as ``mean ± std`` and is a number to
``float``. In headers ↓ and ↑ say what is better, (→ Retrain) that the retrained model's value is
the one to match.
"""

import re
from collections.abc import Callable, Mapping, Sequence
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
MATH = r"\pm \rightarrow \downarrow \uparrow \varepsilon \rho \sigma \times \leq \geq - \infty < >"
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "{}&%$#_"} | {"–": "--", "ℓ": r"$\ell$"}
LATEX |= {sign: f"${word}$" for sign, word in zip("±→↓↑ερσ×≤≥−∞<>", MATH.split(), strict=True)}


def wide(
    s: Study,
    long: pd.DataFrame,
    keys: list[str],
    columns: Mapping[Any, tuple[str, int]],
    caption: str = "",
) -> pd.DataFrame:
    """Lay `long` (ID, metric, value) out: a row for each of `keys`, a `Spread` for each metric.

    `columns`: metric -> header and digits; one that `long` lacks has no column. Rows come in the
    study's order; the last column counts their seeds.
    """
    titles = {"forget": frames.forget_title, "quantity": QUANTITIES.get}
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
    headers += [header for header, _ in columns.values()]
    return s.table(rows, [*headers, "Seeds"], caption)


def table1(s: Study) -> pd.DataFrame:
    """Table 1: accuracies and MIA-efficacy (%) of the original and the retrained models."""
    quality = s.rows("quality", progress=1.0, method=["original", "retrain"], scope="all")
    columns = {name: (name, 2) for name in ("UA", "RA", "TA", "FA")}
    columns |= {"TA_forgotten": ("TA forgotten class", 2), "MIA": ("MIA", 2)}
    text = "Original and retrained models: accuracies and MIA-efficacy in %, mean ± std over seeds."
    return wide(s, quality, ["architecture", "forget", "method"], columns, text)


def table2(s: Study) -> pd.DataFrame:
    """Table 2: every unlearning method, all layers: quality (%), average gap, time and memory."""
    quality = s.rows("quality", progress=1.0, scope="all")
    cost = s.rows("cost", scope="all")
    for name in ("training_memory", "peak_memory"):
        cost = cost.assign(**{name: cost[name].astype(float) / MEBIBYTE})
    columns = {name: (f"{name} (→ Retrain)", 2) for name in ("UA", "RA", "TA")}
    columns |= {
        "TA_forgotten": ("TA forgotten class (→ Retrain)", 2),
        "MIA": ("MIA (→ Retrain)", 2),
        "average_gap": ("Avg. gap ↓", 2),
        "seconds": ("RTE (s) ↓", 1),
        "training_memory": ("Memory (MiB) ↓", 1),
        "peak_memory": ("Measured peak (MiB)", 0),
    }
    columns |= {m["name"]: (m["title"], m["digits"]) for m in s.measures}
    parts = (part.melt(ID, var_name="metric") for part in (cost, frames.average_gap(quality)))
    text = (
        "Unlearning: UA, RA, TA, MIA-efficacy in %, average gap to Retrain in percentage points, "
        "run time of the algorithm alone, training memory counted, and the measured peak of the "
        "whole process; mean ± std over seeds."
    )
    keys = ["architecture", "forget", "method"]
    return wide(s, pd.concat([quality, *parts]), keys, columns, text)


def table3(
    s: Study,
    attacks: Sequence[str] | None = None,
    *,
    quantities: Sequence[str] = tuple(QUANTITIES),
    access: str = "white-box",
) -> pd.DataFrame:
    """Table 3: accuracy (%), its drop and the excess over Retrain at each ε, on the test images.

    `attacks`: names of measured ones, all of them if left out; each of the `quantities` gets a row
    for a method; `access`: ``white-box`` or ``transfer`` (images made on the original model). A
    `UserError` names an attack that was not measured, or an unknown quantity.
    """
    robust = s.rows(
        "robust", images="test", access=access, class_index=-1, scope="all", progress=1.0
    )
    measured = arranged(s.order["attack"], robust["attack"])
    for kind, asked, known in (
        ("quantity", quantities, QUANTITIES),
        ("measured attack", attacks or (), measured),
    ):
        if wrong := [name for name in asked if name not in known]:
            raise unknown(kind, wrong[0], known)
    robust = frames.excess(robust[robust["attack"].isin(attacks or measured)])
    robust = robust.assign(metric=robust["epsilon"])
    long = robust.melt([*ID, "attack", "metric"], list(quantities), "quantity", "value")
    levels = sorted(long["metric"].unique())
    columns = {e: (f"ε = {255 * e:.4g}/255" if e else "Clean", 2) for e in levels}
    how = "" if access == "white-box" else f" ({access} from the original model)"
    text = (
        f"Accuracy under attack{how} in % of the attacked test images, drop from clean accuracy "
        "on them, and drop in excess of Retrain's, in percentage points; ε in pixel units; "
        "mean ± std over seeds."
    )
    keys = ["architecture", "forget", "attack", "quantity", "method"]
    return wide(s, long, keys, columns, text)


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
    where = "averaged over ε" if epsilon is None else f"at ε = {255 * epsilon:.4g}/255"
    text = (
        f"Unlearning restricted to layer groups: average gap and drop under "
        f"{s.title(attack or s.attack)} ({where}) in percentage points, fairness-gap ({reading}) "
        "over layers, cost and its ratio to the same method over all layers; mean ± std over seeds."
    )
    keys = ["architecture", "forget", "method", "scope"]
    return wide(s, table.melt(ID, var_name="metric"), keys, columns, text)


def contents(table: pd.DataFrame, name: str) -> dict[str, str]:
    """Return a table's files by their ending: csv (numbers), md and tex (display)."""
    csv = numeric(table).to_csv(index=False, lineterminator="\n")
    return {"csv": csv, "md": markdown(table), "tex": latex(table, name)}


def numeric(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with mean, std and n columns for a `Spread`, and headers without arrows."""
    columns: dict[str, list] = {}
    for header in table:
        name, values = re.sub(r"\s*(\(→[^)]*\)|[↓↑])", "", str(header)), list(table[header])
        if any(isinstance(value, Spread) for value in values):
            for field in ("mean", "std", "n"):
                columns[f"{name} {field}"] = [getattr(value, field) for value in values]
        else:
            columns[name] = values
    return pd.DataFrame(columns)


def markdown_text(text: str) -> str:
    """Return `text` on one line, without what would be a tag, a link, code or a column's end."""
    return re.sub(r"[\\|`]|<(?=[A-Za-z/!?])|](?=[(\[:])", r"\\\g<0>", " ".join(text.splitlines()))


def markdown(table: pd.DataFrame) -> str:
    """Return `table` as a Markdown pipe table, numbers to the right, caption below."""
    head, *rows = _shown(table, markdown_text)
    rule = ["---:" if kind == "r" else ":---" for kind in _kinds(table)]
    text = "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))
    caption = table.attrs.get("caption")
    return text + f"\n{markdown_text(caption)}\n" if caption else text


def latex_text(text: str) -> str:
    """Return `text` on one line, with everything LaTeX would stumble over replaced."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.splitlines()))


def latex(table: pd.DataFrame, name: str) -> str:
    """Return `table` in LaTeX (booktabs; longtable beyond a page), labelled ``tab:name``."""
    title = rf"\caption{{{latex_text(table.attrs.get('caption', name))}}}\label{{tab:{name}}}"
    rows, body = _shown(table, latex_text), []
    head, *lines = [" & ".join(row) + r" \\" for row in rows]
    for line, (first, *_), (above, *_) in zip(lines, rows[1:], rows, strict=False):
        if body and first != above:
            body.append(r"\midrule")
        body.append(line)
    kinds = _kinds(table)  # columns of long text share the page
    kinds = kinds.replace("p", rf"p{{{0.5 / max(kinds.count('p'), 1):.2f}\linewidth}}")
    top, packages = [r"\toprule", head, r"\midrule"], "booktabs"
    if len(table) > LONG_TABLE:
        packages += ",longtable"
        start = [rf"\begin{{longtable}}{{{kinds}}}", title + r"\\", *top, r"\endhead"]
        end = [r"\bottomrule", r"\end{longtable}"]
    else:
        start = [r"\begin{table}", r"\centering", title, rf"\begin{{tabular}}{{{kinds}}}", *top]
        end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([f"% needs \\usepackage{{{packages}}}", *start, *body, *end]) + "\n"


def _shown(table: pd.DataFrame, escaped: Callable[[str], str]) -> list[list[str]]:
    """Return headers and rows as displayed: floats with three digits, a dash for a missing one."""
    return [
        [
            escaped(MISSING if pd.isna(v) else f"{v:.3f}" if isinstance(v, float) else str(v))
            for v in row
        ]
        for row in [list(table), *table.itertuples(index=False)]
    ]


def _kinds(table: pd.DataFrame) -> str:
    """Return a letter for each column: r numbers, l text, p text that needs several lines."""
    kinds = ""
    for header in table:
        if not all(isinstance(value, str) for value in table[header]):
            kinds += "r"
        else:
            kinds += "p" if any(len(value) > LONG_TEXT for value in table[header]) else "l"
    return kinds
