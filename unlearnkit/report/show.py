"""What a notebook shows: tables and figures with the sentence that they say, details folded."""

import re
from html import escape
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.report.captions import sentence
from unlearnkit.report.display import even, markdown_text, pipes, unbroken
from unlearnkit.report.findings import CLAIMS, caveat, finding
from unlearnkit.report.publish import TABLES, publish
from unlearnkit.report.study import Study

PARTS = {"architecture": "Architecture", "forget": "Forget set"}
OPEN = 12  # rows of a table that are not folded


def show(study: Study, name: str, **only: str) -> None:
    """Publish a table or figure and display it, in a notebook, with its sentence below.

    Of a table the first part is open, and of the study's first forget set and its attack what
    `OPEN` rows hold. The rest is folded. `only`: column -> the one value whose rows are displayed.
    Of one claim the sentence is its finding, and without rows that is all. `name` may be a claim,
    too, "C1" to "C5": its finding. A `UserError` refuses an unknown name or column.
    """
    if name in CLAIMS:
        return _display(finding(study, name))
    shown = all_ = publish(study, name)
    said = f"*{markdown_text(sentence(study, name))}*"
    if name == "table5_verdicts" and "Claim" in only:
        claim = only["Claim"]
        said = finding(study, claim, brief=True) or finding(study, claim)
    if name not in TABLES:
        return _display(said, shown)
    for header, value in only.items() if len(shown) else ():
        if header not in shown:
            raise unknown(f"column of {name}", header, shown)
        if value not in (known := set(all_[header])) and value not in (*CLAIMS, "yes"):
            raise unknown(f"{header} of {name}", value, known)
        shown = shown[shown[header] == value].drop(columns=header)
    if shown.empty:
        return _display(said)
    usual = {"Forget set": study.title(study.first_forget), "Attack": study.title(study.attack)}
    open_, rest = [], []
    for title, common, text in pipes(shown):
        rows = sum(block.count("\n|") - 1 for block in [*open_, f"\n{text}"])
        fits = rows <= OPEN or not open_
        if fits and all(common.get(header, value) == value for header, value in usual.items()):
            open_.append(f"**{title}**\n\n{text}" if title else text)
        else:
            rest.append(_details(", ".join(common.values()), text))
    return _display("\n\n".join([*open_, *rest, said]))


def recap(study: Study, *names: str) -> None:
    """Display what tables, figures and claims say, a line each, and what limits it."""
    said = (
        finding(study, name, brief=True) if name in CLAIMS else markdown_text(sentence(study, name))
        for name in names
    )
    _display("\n".join(f"* {line}" for line in [*filter(None, said), caveat(study)]))


def fold(study: Study, summary: str, table: pd.DataFrame, *, open: bool = False) -> None:
    """Display any frame under its `summary`, folded unless `open`.

    Names become titles, and rows come in the study's order. A table of `publish` keeps its parts.
    """

    def titled(name: Any) -> Any:
        return study.title(name) if isinstance(name, str) else name

    table = table.reset_index() if any(table.index.names) else table
    keys = [key for key in study.order if key in table and set(table[key]) <= set(study.order[key])]
    if keys:
        table = table.sort_values(keys, key=lambda names: names.map(study.order[names.name].index))
    table = table if "by" in table.attrs else table.apply(even)  # of a published one, it is done
    table = table.rename(columns=PARTS).map(titled)
    table.columns = [
        re.sub("^[a-z](?=[a-z])", lambda a: a[0].upper(), titled(str(h))) for h in table
    ]
    table.attrs.setdefault("by", [header for header in PARTS.values() if header in table])
    blocks = (f"**{title}**\n\n{text}" if title else text for title, _, text in pipes(table))
    _display(_details(summary, "\n\n".join(blocks), " open" * open))


def _details(summary: str, text: str, state: str = "") -> str:
    return f"<details{state}><summary>{escape(summary)}</summary>\n\n{text}\n\n</details>"


def _display(text: str, picture: Any = None) -> None:
    from IPython.display import Markdown, display  # which reading results does not need

    if picture is not None:
        display(picture)
    display(Markdown(unbroken(text)))
