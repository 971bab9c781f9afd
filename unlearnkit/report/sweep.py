"""A sweep's table: reading what `unlearnkit.study.sweep` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit.results import GAP_METRICS

COLUMNS = ["architecture", "method", "lr", "UA", "RA", "TA", "MIA", "average_gap", "chosen"]


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a sweep's table with four decimals, the rates left as they are."""
    return table.round(dict.fromkeys([*GAP_METRICS, "average_gap"], 4))


def read_sweep(folder: Path) -> pd.DataFrame:
    """Return what `write_sweep` wrote to `folder`, with no rows if there is nothing."""
    files = sorted((folder / "sweeps").glob("*.csv"))
    parts = [pd.read_csv(path) for path in files]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def disagreements(hyperparameters: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """Return a line for each rate in `hyperparameters` that is not the sweep's choice.

    `hyperparameters`: architecture -> method -> its values, as study.json has them.
    """
    lines = []
    for row in table[table["chosen"]].itertuples():
        rate = hyperparameters[row.architecture][row.method]["lr"]
        if rate != row.lr:
            lines.append(f"[method.{row.method}] {row.architecture}.lr = {row.lr:g}, not {rate:g}")
    return lines
