"""Computing a study: profiles, stages, the store, workers, sweeps."""

from importlib import import_module
from typing import Any

_PUBLIC = {"load_profile": "profile", "load_data": "lab", "run_study": "run"}
__all__ = ["load_data", "load_profile", "run_study"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a worker process watches its parent before it loads torch.
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
