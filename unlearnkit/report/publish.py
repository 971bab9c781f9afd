"""The study's tables and figures by name: drawn, and kept in files beside its results."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.files import write_atomic
from unlearnkit.report import claims, display, interventions, published, tables
from unlearnkit.report.sensitivity import sensitivity
from unlearnkit.report.study import NothingToDraw, Study


def _figure(name: str, **options: Any) -> Callable[..., Any]:
    """Return a function of `report.figures`, which are loaded when one is first drawn."""

    def draw(s: Study, **more: Any) -> Any:
        return getattr(import_module("unlearnkit.report.figures"), name)(s, **options, **more)

    return draw


TABLES: dict[str, Callable[[Study], pd.DataFrame]] = {
    "table1_models": tables.table1,
    "table2_unlearning": tables.table2,
    "table3_robustness": tables.table3,
    "table3_transfer": lambda s: tables.table3(s, access="transfer"),
    "table4_layerwise": tables.table4,
    "table_observations": published.observations,
    "table_readings": published.readings,
    "table_outliers": published.outliers,
    "table_interventions": interventions.interventions,
    "table5_verdicts": claims.table5,
    "table5_sensitivity": sensitivity,
}
FIGURES: dict[str, Callable[..., Any]] = {
    "fig1_fairness_gap": _figure("fairness_gap"),
    "fig1_fairness_gap_trimmed": _figure("fairness_gap", reading="trimmed_std", published=False),
    "fig2_robustness": _figure("robustness"),
    "fig2_transfer": _figure("robustness", access="transfer"),
    "fig3_conjectures": _figure("conjectures"),
    "fig4_layerwise": _figure("layerwise"),
    "fig5_verdicts": _figure("forest"),
    "fig6_sigma": _figure("sigma_by_class"),
    "fig7_tradeoff": _figure("tradeoff"),
}
LIBRARIES = ("fonttools", "matplotlib", "numpy", "pandas", "pillow", "scipy", "seaborn")
PACKAGE = Path(__file__).parents[1]
# What draws, as it was when this was imported
CODE = [sys.version, *map(metadata.version, LIBRARIES)]
CODE += [path.read_text() for end in ("py", "csv") for path in sorted(PACKAGE.rglob(f"*.{end}"))]


def publish(study: Study, name: str) -> Any:
    """Draw table or figure `name` of a study, keep it in `study.output`, and return it.

    A table goes out as CSV, Markdown and LaTeX; a figure as PNG and PDF, both 7 inches wide and, as
    NAME_column, 3.3, and the CSV it is drawn from; provenance.json beside them says where the
    numbers come from. What is there already stays untouched, and files that the same code made of
    the same numbers here are not made again. A study that has no numbers for it gives a warning and
    an empty table, or None for a figure, and what was drawn of it before is removed. A `UserError`
    refuses an unknown name, or a folder that cannot be written to.
    """
    shown, lacking = _kept(study, name)
    if lacking:
        warnings.warn(f"{name} is not drawn: {lacking}", stacklevel=2)
    return shown


def publish_all(study: Study, report: Callable[[str], None] = lambda line: None) -> list[str]:
    """Publish every table and figure that the study has numbers for; return their names.

    `report` gets a line for each: its name, or why it is not drawn.
    """
    names = []
    for name in (*TABLES, *FIGURES):
        lacking = "" if _is_made(study, name) else _kept(study, name)[1]
        report(f"{name} is not drawn: {lacking}" if lacking else name)
        names += [] if lacking else [name]
    return names


def _is_made(study: Study, name: str) -> bool:
    ours = (TABLES | FIGURES)[name].__module__.startswith("unlearnkit.")
    return ours and _mark(study, name).exists()


def _mark(study: Study, name: str) -> Path:
    """Return what is there if this code made the files of `name`, as they are, of `study`."""
    drawn = hashlib.sha256("\0".join([study.digest, *CODE, name]).encode())
    stems = (name, f"{name}_column", "provenance")
    there = [path for stem in stems for path in study.output.glob(f"{stem}.*") if path.is_file()]
    for path in sorted(there):
        drawn.update(path.name.encode() + path.read_bytes())
    return study.output.parent / ".drawn" / drawn.hexdigest()[:20]


def _kept(study: Study, name: str) -> tuple[Any, str]:
    """Return a table or figure and why it has no numbers; write what of its files is new."""
    shown, lacking, files = None, "", {}
    if name in TABLES:
        shown = TABLES[name](study)
        files = {f"{name}.{end}": text for end, text in display.contents(shown, name).items()}
        lacking = "the study has no numbers for it" if shown.empty else ""
    elif name in FIGURES:
        try:
            shown = FIGURES[name](study)
            if _is_made(study, name):
                return shown, ""
            for fig, stem in (shown, name), (FIGURES[name](study, column=True), f"{name}_column"):
                files |= {f"{stem}.{kind}": fig.picture(kind) for kind in ("png", "pdf")}
            files[f"{name}.csv"] = shown.data.to_csv(index=False, lineterminator="\n")
        except NothingToDraw as reason:
            lacking = str(reason)
    else:
        raise unknown("table or figure", name, (*TABLES, *FIGURES))
    if lacking:
        for stem in (name, f"{name}_column"):
            for path in study.output.glob(f"{stem}.*"):
                path.unlink()
        return shown, lacking
    origin = json.dumps(study.provenance, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for file, content in (files | {"provenance.json": origin}).items():
        path = study.output / file
        data = content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    write_atomic(_mark(study, name), "")
    return shown, ""
