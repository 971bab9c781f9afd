"""One look for all figures, and the files they are kept in."""

import io
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from unlearnkit.errors import UserError
from unlearnkit.files import write_atomic
from unlearnkit.report.study import Study
from unlearnkit.results import SCOPES

WIDTH = 7.0  # inches: the text width of a two-column page
FAINT = "#9a9a9a"
RC = matplotlib.rcParamsDefault | sns.axes_style("ticks") | sns.plotting_context("paper", 0.75)
RC |= {
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.linewidth": 0.6,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name of a class or data set may hold $ and \
}
del RC["backend"]
# The methods' own colours are Okabe and Ito's (jfly.uni-koeln.de/color); these go with them.
SPARE = ("#332288", "#999933", "#882255", "#666666")
MARKERS = "os^vDPX<>ph*"
DASHES = ("", "", (5, 1.5), (4, 1.2, 1, 1.2), (1.2, 1), (3, 1), (6, 1.2, 1, 1.2, 1, 1.2), (8, 2))


class NothingToDraw(UserError):
    """A study lacks all that a figure shows."""


class KitFigure(Figure):
    """A figure that pyplot does not know: a notebook shows it once, where it is returned."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the file's own pixels, and the width and height to show them at."""
        width, height = (round(110 * inches) for inches in self.get_size_inches())
        return picture(self, "png"), {"width": width, "height": height}


def look() -> AbstractContextManager[None]:
    """Return the kit's look, whatever the caller's rcParams, as a context or decorator."""
    return matplotlib.rc_context(RC)


def picture(fig: Figure, suffix: str) -> bytes:
    """Return the figure as PNG (200 dpi) or PDF, without the versions and dates of a stamp."""
    stamps = {"png": ["Software"], "pdf": ["CreationDate", "Creator", "Producer"]}
    buffer = io.BytesIO()
    with look():
        fig.savefig(buffer, format=suffix, metadata=dict.fromkeys(stamps[suffix]))
    return buffer.getvalue()


def save_figure(fig: Figure, frame: pd.DataFrame, name: str, folder: Path) -> list[Path]:
    """Write ``name.png`` (200 dpi), ``.pdf`` and ``.csv`` (`frame`), and return their paths.

    The same figure gives the same bytes. Files are written beside their place and renamed.
    """
    contents: dict[str, bytes | str] = {suffix: picture(fig, suffix) for suffix in ("png", "pdf")}
    contents["csv"] = frame.to_csv(index=False, lineterminator="\n")
    for suffix, content in contents.items():
        write_atomic(Path(folder) / f"{name}.{suffix}", content)
    return [Path(folder) / f"{name}.{suffix}" for suffix in contents]


def by_method(s: Study) -> dict[str, Any]:
    """Return seaborn's arguments that draw a method of the study alike in every figure."""
    spare = cycle(SPARE)
    return {
        "hue": "method",
        "style": "method",
        "palette": {method: color or next(spare) for method, color in s.colors.items()},
        "markers": dict(zip(s.colors, cycle(MARKERS), strict=False)),
        "dashes": dict(zip(s.colors, cycle(DASHES), strict=False)),
        "legend": False,
    }


def by_scope(frame: pd.DataFrame) -> dict[str, str]:
    """Return the marker of each scope in `frame`."""
    markers = dict(zip(dict.fromkeys([*SCOPES, *frame["scope"]]), cycle(MARKERS), strict=False))
    return {scope: marker for scope, marker in markers.items() if scope in set(frame["scope"])}


def method_handles(s: Study, frame: pd.DataFrame) -> list[Line2D]:
    """Return a legend entry for each method in `frame`, in the study's order."""
    kinds = by_method(s)
    return [
        Line2D(
            [],
            [],
            label=s.title(method),
            color=kinds["palette"][method],
            marker=kinds["markers"][method],
            dashes=kinds["dashes"][method],
        )
        for method in s.methods
        if method in set(frame["method"])
    ]


def finish(fig: Figure, s: Study, handles: Sequence[Artist], text: str) -> Figure:
    """Letter the panels, put a legend above and small print below, settle the layout once."""
    for letter, ax in zip(
        ascii_lowercase, (ax for ax in fig.axes if ax.get_title("left")), strict=False
    ):
        ax.set_title(f"({letter}) {ax.get_title('left')}")
    for ax in fig.axes:
        if not ax.has_data():
            ax.set_axis_off()
    columns = -(-len(handles) // -(-len(handles) // 10))
    fig.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2)
    lines = textwrap.wrap(s.caption(text), 160, break_on_hyphens=False)
    fig.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=5.8)
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    return fig


def note(ax: Axes, text: str) -> None:
    """Say in a panel without data why it is empty."""
    ax.text(0.5, 0.5, textwrap.fill(text, 28), transform=ax.transAxes, ha="center", va="center")


def seeds_words(frame: pd.DataFrame, what: str) -> str:
    """Return how many seeds the means of a frame are over, and `what` their interval is."""
    few, many = frame.loc[frame["n"] > 0, "n"].agg(["min", "max"])
    if many == 1:
        return "one seed, no interval."
    return f"{what} over {few if few == many else f'{few} to {many}'} seeds."


def wide(values: Iterable[float], factor: float = 10.0) -> bool:
    """Say whether the largest of the positive `values` is more than `factor` times the median."""
    positive = sorted(value for value in values if value > 0)
    return bool(positive) and positive[-1] > factor * positive[len(positive) // 2]


def log_axis(axis: Axis, values: Iterable[float]) -> None:
    """Make `axis` logarithmic, with plain numbers at ticks close enough for the range."""
    positive = [value for value in values if value > 0]
    ratio = max(positive) / min(positive)
    tiers = {12: (1, 1.5, 2, 3, 5, 7), 30: (1, 2, 5), 300: (1, 3)}
    subs = next((subs for limit, subs in tiers.items() if ratio < limit), (1,))
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
