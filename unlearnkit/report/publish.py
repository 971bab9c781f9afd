"""The study's tables and figures by name: drawn, and kept in files beside its results."""

import json
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.files import write_atomic
from unlearnkit.report import claims, published, tables
from unlearnkit.report.study import NothingToDraw, Study


def _figure(name: str, **options: Any) -> Callable[[Study], tuple[Any, pd.DataFrame]]:
    """Return a function that draws a figure and gives its numbers, and imports what draws."""

    def draw(study: Study) -> tuple[Any, pd.DataFrame]:
        from unlearnkit.report import figures

        figure = getattr(figures, name)(study, **options)
        return figure, getattr(figures, f"{name}_data")(study, **options)

    return draw


TABLES: dict[str, Callable[[Study], pd.DataFrame]] = {
    "table1_models": tables.table1,
    "table2_unlearning": tables.table2,
    "table3_robustness": tables.table3,
    "table4_layerwise": tables.table4,
    "table_observations": published.observations,
    "table_readings": published.readings,
    "table_outliers": published.outliers,
    "table5_verdicts": claims.table5,
    "table5_by_reading": claims.by_reading,
}
FIGURES: dict[str, Callable[[Study], tuple[Any, pd.DataFrame]]] = {
    "fig1_fairness_gap": _figure("fairness_gap"),
    "fig1_fairness_gap_trimmed": _figure("fairness_gap", reading="trimmed_std", published=False),
    "fig2_robustness": _figure("robustness"),
    "fig3_conjectures": _figure("conjectures"),
    "fig4_layerwise": _figure("layerwise"),
}


def publish(study: Study, name: str) -> Any:
    """Draw table or figure `name` of a study, keep it in `study.output`, and return it.

    A table goes out as CSV, Markdown and LaTeX, a figure as PNG, PDF and the CSV it is drawn from;
    provenance.json beside them says where the numbers come from. What is there already stays
    untouched. A study that has no numbers for it gives a warning and an empty table, or None for a
    figure, and what was drawn of it before is removed.

    Raises
    ------
    UserError
        For an unknown name, or if the folder cannot be written to.
    """
    shown, contents, lacking = _drawn(study, name)
    _keep(study, name, contents)
    if lacking:
        warnings.warn(f"{name} is not drawn: {lacking}", stacklevel=2)
    return shown


def publish_all(study: Study, report: Callable[[str], None] = lambda line: None) -> list[str]:
    """Publish every table and figure that the study has numbers for; return their names.

    `report` gets a line for each: its name, or why it is not drawn.
    """
    names = []
    for name in (*TABLES, *FIGURES):
        _, contents, lacking = _drawn(study, name)
        _keep(study, name, contents)
        report(f"{name} is not drawn: {lacking}" if lacking else name)
        names += [] if lacking else [name]
    return names


def _drawn(study: Study, name: str) -> tuple[Any, dict[str, str | bytes], str]:
    """Return a table or figure, the contents of its files by their ending, and why it has none."""
    if name in TABLES:
        table = TABLES[name](study)
        if table.empty:
            return table, {}, "the study has no numbers for it"
        return table, tables.contents(table, name), ""
    if name not in FIGURES:
        raise unknown("table or figure", name, (*TABLES, *FIGURES))
    from unlearnkit.report.figures.style import picture

    try:
        figure, frame = FIGURES[name](study)
    except NothingToDraw as reason:
        return None, {}, str(reason)
    contents = {ending: picture(figure, ending) for ending in ("png", "pdf")}
    return figure, contents | {"csv": frame.to_csv(index=False, lineterminator="\n")}, ""


def _keep(study: Study, name: str, contents: dict[str, str | bytes]) -> None:
    """Write what is new of `contents`; without any, remove what was drawn earlier."""
    if not contents:
        for path in study.output.glob(f"{name}.*"):
            path.unlink()
        return
    origin = json.dumps(study.provenance, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    files = {f"{name}.{ending}": content for ending, content in contents.items()}
    for file, content in (files | {"provenance.json": origin}).items():
        path = study.output / file
        data = content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
