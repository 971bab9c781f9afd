"""A figure's files: picture, the numbers drawn, and where they come from."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from unlearnkit.files import write_atomic
from unlearnkit.report.figures.style import context
from unlearnkit.report.tables.saving import write_provenance

DPI = 200
# What matplotlib would stamp in on its own: versions and the time, and no two files were equal.
NO_STAMP = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def save_figure(
    fig: Figure, frame: pd.DataFrame, name: str, folder: Path, provenance: dict[str, Any]
) -> list[Path]:
    """Write ``name.png`` (200 dpi), ``.pdf``, ``.csv`` (`frame`) and ``.json`` (`provenance`).

    The same figure gives the same bytes. Files are written beside their place and renamed.

    Returns
    -------
    list of Path
        The files written.
    """
    folder = Path(folder)
    contents: dict[str, bytes | str] = {}
    with context():
        for suffix, metadata in NO_STAMP.items():
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
            contents[suffix] = buffer.getvalue()
    contents["csv"] = frame.to_csv(index=False, lineterminator="\n")
    for suffix, content in contents.items():
        write_atomic(folder / f"{name}.{suffix}", content)
    write_provenance(folder / f"{name}.json", provenance)
    return [folder / f"{name}.{suffix}" for suffix in (*contents, "json")]
