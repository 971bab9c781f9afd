"""Any table as CSV, with all numbers, and, slimmer and in parts, as Markdown and LaTeX."""

import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from unlearnkit.report.stats import MISSING, Spread, mean_std

LONG_TABLE = 45  # one row more and a LaTeX table no longer fits a page
LONG_TEXT = 40  # longer text gets a column that breaks it into lines
NARROW = 12  # letters of a header before it is broken
PAGE, LETTER, APART = 506, 4.3, 6  # points: 7 inches, a letter at footnotesize, between columns
MATH = r"\pm \rightarrow \downarrow \uparrow \varepsilon \rho \sigma \times \leq \geq - \infty < >"
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "{}&%$#_"} | {
    "–": "--",
    "ℓ": r"$\ell$",
    "\u00a0": "~",
}
LATEX |= {sign: f"${word}$" for sign, word in zip("±→↓↑ερσ×≤≥−∞<>", MATH.split(), strict=True)}


def contents(table: pd.DataFrame, name: str) -> dict[str, str]:
    """Return a table's files by their ending: csv (all numbers), md and tex (display)."""
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


def parts(table: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield what the rows of a part have in common, by header, and the part as it is displayed.

    A part is one value of each column that ``attrs["by"]`` names; the seeds are told once where
    all rows have as many. Columns without a value, and those of ``attrs["aside"]``, are left to the
    CSV. Low and High go into the column before them, as ``value [low, high]``.
    """
    by = [header for header in table.attrs.get("by", ()) if header in table]
    for names, part in table.groupby(by, sort=False) if by else [((), table)]:
        common = dict(zip(by, names, strict=True))
        if by and "Seeds" in part and part["Seeds"].nunique() == 1:
            common["Seeds"] = f"n = {part['Seeds'].iloc[0]}"
        shown = part.drop(columns=[*common, *table.attrs.get("aside", ())], errors="ignore")
        if "Low" in shown:
            at = shown.columns.get_loc("Low")
            units = shown.get("Unit", [""] * len(shown))
            ranged = map(_ranged, *(shown.iloc[:, at + i] for i in (-1, 0, 1)), units)
            shown.insert(at - 1, f"{shown.columns[at - 1]} [95 % interval]", list(ranged))
            shown = shown.drop(columns=shown.columns[at : at + 3])
        if "p (Holm)" in shown:
            shown["p (Holm)"] = [
                p if pd.isna(p) or p >= 0.001 else "< 0.001" for p in shown["p (Holm)"]
            ]
        empty = shown.map(_cell).isin([MISSING, ""]).all() & (len(shown) > 0)
        yield common, shown.loc[:, ~empty.to_numpy(bool)]


def markdown_text(text: str) -> str:
    """Return `text` on one line, without what would be a tag, a link, code or a column's end."""
    return re.sub(r"[\\|`]|<(?=[A-Za-z/!?])|](?=[(\[:])", r"\\\g<0>", " ".join(text.splitlines()))


def markdown(table: pd.DataFrame) -> str:
    """Return `table` as Markdown pipe tables, one a part, numbers to the right, caption below."""
    blocks = [f"**{name}**\n\n{text}" if name else text for name, _, text in pipes(table)]
    caption = table.attrs.get("caption")
    return "\n\n".join([*blocks, *([markdown_text(caption)] if caption else [])]) + "\n"


def pipes(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield of each of the `parts` its title, what its rows have in common, and a pipe table."""
    for common, part in parts(table):
        rows = _shown(part, markdown_text)
        rows.insert(1, ["---:" if kind == "r" else ":---" for kind in _kinds(part)])
        text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        yield markdown_text(unbroken(", ".join(common.values()))), common, text


def even(column: pd.Series) -> pd.Series:
    """Give the floats of a column as many decimals as one of them needs, three at most."""
    if column.dtype.kind != "f":
        return column
    digits = next((d for d in range(3) if column.round(d).equals(column)), 3)
    return column.map(lambda value: mean_std([value], digits))


def unbroken(text: str) -> str:
    """Return `text` with a no-break space at ± and before a unit, and a minus for a hyphen."""
    units = r"(?<=\d) (?=[%±]|points?\b|seeds?\b)|(?<=±) | (?=[↓↑])"
    return minus(re.sub(units, "\u00a0", text))


def minus(text: str) -> str:
    """Return `text` with a minus for the hyphen before a number."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", text)


def latex_text(text: str) -> str:
    """Return `text` on one line, with everything LaTeX would stumble over replaced."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.splitlines()))


def latex(table: pd.DataFrame, name: str) -> str:
    """Return `table` in LaTeX (booktabs; longtable beyond a page), 7 inches wide at most.

    A table for each part, labelled ``tab:name``, ``tab:name-2``, ...
    """
    found, caption = [], table.attrs.get("caption", name)
    for number, (common, part) in enumerate(parts(table), start=1):
        words = latex_text(
            unbroken(". ".join([", ".join(common.values()), caption] if common else [caption]))
        )
        label = f"{name}-{number}" if number > 1 else name
        found += _latex(part, rf"\caption{{{words}}}\label{{tab:{label}}}")
    long = ",longtable" if r"\begin{longtable}" in "\n".join(found) else ""
    return "\n".join([f"% needs \\usepackage{{booktabs{long}}}", *found]) + "\n"


def _latex(table: pd.DataFrame, title: str) -> list[str]:
    """Return the lines of one table; columns of long text share what the others leave."""
    plain, (head, *rows), kinds = _shown(table, str), _shown(table, latex_text), _kinds(table)
    width, stacked = PAGE, []
    for at, kind in enumerate(kinds):
        lines = textwrap.wrap(plain[0][at], NARROW, break_long_words=False)
        width -= APART
        if kind != "p":
            width -= LETTER * max(map(len, [*lines, *(row[at] for row in plain[1:])]))
        lines = r"\\".join(map(latex_text, lines))
        stacked.append(rf"\shortstack[{kind}]{{{lines}}}" if r"\\" in lines else lines)
    share = width / PAGE / max(kinds.count("p"), 1)
    kinds, body = kinds.replace("p", rf"p{{{share:.2f}\textwidth}}"), []
    new = [row[0] != above[0] for row, above in zip(rows, [head, *rows], strict=False)]
    apart = sum(new) == len({row[0] for row in rows}) < len(rows)  # groups by the first column
    for at, row in enumerate(rows):
        body += [r"\midrule"] * (apart and at > 0 and new[at])
        body.append(" & ".join(row) + r" \\")
    top = [r"\toprule", " & ".join(stacked) + r" \\", r"\midrule"]
    small = r"\footnotesize\setlength{\tabcolsep}{3pt}"
    if len(table) > LONG_TABLE:
        start = ["{" + small, rf"\begin{{longtable}}{{{kinds}}}", title + r"\\", *top, r"\endhead"]
        return [*start, *body, r"\bottomrule", r"\end{longtable}", "}"]
    start = [r"\begin{table}", r"\centering" + small, title, rf"\begin{{tabular}}{{{kinds}}}", *top]
    return [*start, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def _ranged(value: Any, low: float, high: float, unit: str) -> str:
    form = ".1f" if unit == "points" else ".2f"
    text = f"{value:{form}}" if isinstance(value, float) and pd.notna(value) else _cell(value)
    return text if pd.isna(low) else f"{text} [{low:{form}}, {high:{form}}]"


def _cell(value: Any) -> str:
    """Return what a cell shows: a float as it is if short, else with three digits."""
    if pd.isna(value):
        return MISSING
    if isinstance(value, float):
        return f"{value:g}" if value == round(value, 1) else f"{value:.3f}"
    return str(value)


def _shown(table: pd.DataFrame, escaped: Callable[[str], str]) -> list[list[str]]:
    """Return headers and rows as displayed."""
    rows = [list(table), *table.itertuples(index=False)]
    return [[escaped(unbroken(_cell(value))) for value in row] for row in rows]


def _kinds(table: pd.DataFrame) -> str:
    """Return a letter for each column: r numbers, l text, p text that needs several lines."""
    kinds = ""
    for header in table:
        if not all(isinstance(value, str) for value in table[header]):
            kinds += "r"
        else:
            kinds += "p" if any(len(value) > LONG_TEXT for value in table[header]) else "l"
    return kinds
