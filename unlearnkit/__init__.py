"""Companion to "Fairness and Robustness in Machine Unlearning" (Tran & Woo, 2025).

For a model and images of your own: `load_data`, `split`, `unlearn`, `measure`, `compare` and
`normalised`. They are those of `unlearnkit.api`, which is loaded when one of them is asked for.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["compare", "load_data", "measure", "normalised", "split", "unlearn"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unlearnkit import api

    return getattr(api, name)
