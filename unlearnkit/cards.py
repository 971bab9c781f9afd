"""Cards of models, in Markdown and HTML."""

import html
from collections.abc import Mapping, Sequence

import pandas as pd

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: auto; padding: 1rem }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: .9rem }}
td, th {{ padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
</style>
<h1>{title}</h1>
{body}</html>
"""
Sections = Mapping[str, tuple[str, pd.DataFrame]]  # heading: what it says, and the table


def shown(value: object) -> str:
    """Return a number with four digits that count, a dash for none, anything else as text."""
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.4g}"
    return str(value)


def table(frame: pd.DataFrame) -> str:
    """Return a frame as a Markdown table, numbers to the right."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    rows = [list(frame), ["---:" if right else ":---" for right in numeric]]
    rows += [map(shown, row) for row in frame.itertuples(index=False)]
    lines = [" | ".join(str(cell).replace("|", r"\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def markdown(title: str, facts: Sequence[str], sections: Sections) -> str:
    """Return a card in Markdown."""
    text = "".join(f"- {fact}\n" for fact in facts)
    for heading, (words, frame) in sections.items():
        text += f"\n## {heading}\n\n{words}\n\n{table(frame)}"
    return f"# {title}\n\n{text}"


def page(title: str, facts: Sequence[str], sections: Sections) -> str:
    """Return a card as a page of HTML that needs no other file."""
    body = f"<ul>{''.join(f'<li>{html.escape(fact)}' for fact in facts)}</ul>\n"
    for heading, (words, frame) in sections.items():
        drawn = frame.map(shown).to_html(index=False, border=0)
        body += f"<h2>{heading}</h2>\n<p>{html.escape(words)}</p>\n{drawn}\n"
    return PAGE.format(title=html.escape(title), body=body)
