"""The study's tables and figures by name: drawn, and saved with their data and provenance."""

from collections.abc import Callable
from functools import partial
from typing import Any

from unlearnkit.errors import unknown
from unlearnkit.report import claims, figures, tables
from unlearnkit.report.published import observations, outliers, readings


def _attack(study: Any) -> str:
    return study.profile["report"]["attack"]


def _with_attack(draw: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda study: draw(study, attack=_attack(study))


TABLES: dict[str, Callable[[Any], Any]] = {
    "table1_models": tables.table1,
    "table2_unlearning": tables.table2,
    "table3_robustness": tables.table3,
    "table4_layerwise": _with_attack(tables.table4),
    "table_observations": observations,
    "table_readings": readings,
    "table_outliers": outliers,
    "table5_verdicts": claims.table5,
    "table5_by_reading": claims.by_reading,
}
FIGURES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "fig1_fairness_gap": (figures.fairness_gap, figures.fairness_gap_data),
    "fig1_fairness_gap_trimmed": (
        partial(figures.fairness_gap, reading="trimmed_std", published=False),
        partial(figures.fairness_gap_data, reading="trimmed_std", published=False),
    ),
    "fig2_robustness": (_with_attack(figures.robustness), _with_attack(figures.robustness_data)),
    "fig3_conjectures": (_with_attack(figures.conjectures), _with_attack(figures.conjectures_data)),
    "fig4_layerwise": (_with_attack(figures.layerwise), _with_attack(figures.layerwise_data)),
}
NAMES = [*TABLES, *FIGURES]


def publish(study: Any, name: str) -> Any:
    """Draw table or figure `name` of a study, save it in `study.output`, and return it.

    A table goes out as CSV, Markdown and LaTeX, a figure as PNG, PDF and the CSV it is drawn from,
    each with a JSON file that says where its numbers come from.

    Raises
    ------
    UserError
        For an unknown name, or if the folder cannot be written to.
    """
    if name in TABLES:
        table = TABLES[name](study)
        tables.save_table(table, name, study.output, study.provenance)
        return table
    if name not in FIGURES:
        raise unknown("table or figure", name, NAMES)
    draw, data = FIGURES[name]
    figure = draw(study)
    figures.save_figure(figure, data(study), name, study.output, study.provenance)
    return figure
