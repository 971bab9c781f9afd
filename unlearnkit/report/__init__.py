"""Tables, figures and verdicts, drawn from stored results alone."""

from importlib import import_module
from typing import Any

from unlearnkit.report.publish import publish, publish_all
from unlearnkit.report.study import NothingToDraw, Study, load_study, read_study, stored

__all__ = ["NothingToDraw", "Study", "load_study", "publish", "publish_all", "read_study", "stored"]


def __getattr__(name: str) -> Any:
    """Import `figures` when it is first used: what draws takes a second to load."""
    if name == "figures":
        return import_module("unlearnkit.report.figures")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
