"""A table's CSV, Markdown and LaTeX files, and the sidecar that says where they come from."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit.files import write_atomic
from unlearnkit.report.stats import MISSING, Spread

# One row more and a LaTeX table no longer fits a page.
LONG_TABLE = 45
# Longer text gets a column that breaks it into lines.
LONG_TEXT = 40
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


def write_provenance(path: Path, provenance: dict) -> None:
    """Write the JSON sidecar, keys sorted."""
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    write_atomic(path, text + "\n")


def latex_escape(text: str) -> str:
    """Return `text` with everything LaTeX would stumble over replaced."""
    return "".join(LATEX.get(character, character) for character in text)


def shown(value: Any) -> str:
    """Return what a table displays: plain floats with three digits, a dash where there is none."""
    if not isinstance(value, float):
        return str(value)
    return MISSING if math.isnan(value) else f"{value:.3f}"


def numeric(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with each `Spread` column as plain mean, std and n columns.

    The arrows that give the direction are left out of the headers, too.
    """
    columns: dict[str, list] = {}
    for header in table:
        name = re.sub(r"\s*(\(→[^)]*\)|[↓↑])", "", str(header))
        values = list(table[header])
        if not any(isinstance(value, Spread) for value in values):
            columns[name] = values
            continue
        for field in ("mean", "std", "n"):
            columns[f"{name} {field}"] = [getattr(value, field) for value in values]
    return pd.DataFrame(columns)


def markdown(table: pd.DataFrame) -> str:
    """Return `table` as a Markdown pipe table, numbers to the right, caption below."""
    lines = [list(map(str, table)), ["---:" if right else ":---" for right in _right(table)]]
    lines += [[shown(value) for value in row] for row in table.itertuples(index=False)]
    text = "".join(
        "| " + " | ".join(c.replace("|", r"\|") for c in line) + " |\n" for line in lines
    )
    return text + f"\n{table.attrs['caption']}\n" if table.attrs.get("caption") else text


def latex(table: pd.DataFrame, name: str) -> str:
    """Return `table` in LaTeX (booktabs; longtable beyond a page), labelled ``tab:name``."""
    long = len(table) > LONG_TABLE
    alignment = _alignment(table)
    head = " & ".join(latex_escape(str(header)) for header in table) + r" \\"
    body, before = [], None
    for row in table.itertuples(index=False):
        if before is not None and row[0] != before:
            body.append(r"\midrule")
        before = row[0]
        body.append(" & ".join(latex_escape(shown(value)) for value in row) + r" \\")
    title = rf"\caption{{{latex_escape(table.attrs.get('caption', name))}}}\label{{tab:{name}}}"
    top = [r"\toprule", head, r"\midrule"]
    if long:
        lines = [
            "% needs \\usepackage{booktabs,longtable}",
            rf"\begin{{longtable}}{{{alignment}}}",
            title + r"\\",
            *top,
            r"\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}",
        ]
    else:
        lines = [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            title,
            rf"\begin{{tabular}}{{{alignment}}}",
            *top,
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _right(table: pd.DataFrame) -> list[bool]:
    return [not all(isinstance(value, str) for value in table[header]) for header in table]


def _alignment(table: pd.DataFrame) -> str:
    """Return LaTeX's column types: numbers to the right, long text in lines that share the page."""
    long = [
        not right and any(len(value) > LONG_TEXT for value in table[header])
        for header, right in zip(table, _right(table), strict=True)
    ]
    share = 0.5 / max(sum(long), 1)
    paragraph = rf"p{{{share:.2f}\linewidth}}"
    return "".join(
        paragraph if wide else "r" if right else "l"
        for wide, right in zip(long, _right(table), strict=True)
    )


def save_table(
    table: pd.DataFrame, name: str, folder: Path, provenance: dict[str, Any]
) -> list[Path]:
    """Write ``name.csv`` (numbers), ``.md``, ``.tex`` (display) and ``.json`` (provenance).

    Parameters
    ----------
    table : DataFrame
        Of one of the table functions; ``table.attrs["caption"]`` is used if there.
    name : str
        Letters, digits, ``-`` and ``_``; also the LaTeX label.
    folder : Path
        Made if it does not exist.
    provenance : dict
        Profile, seeds, keys, versions: whatever tells how to get the same numbers.

    Returns
    -------
    list of Path
        The files written.
    """
    contents = {
        "csv": numeric(table).to_csv(index=False, lineterminator="\n"),
        "md": markdown(table),
        "tex": latex(table, name),
    }
    for suffix, text in contents.items():
        write_atomic(Path(folder) / f"{name}.{suffix}", text)
    write_provenance(Path(folder) / f"{name}.json", provenance)
    return [Path(folder) / f"{name}.{suffix}" for suffix in (*contents, "json")]
