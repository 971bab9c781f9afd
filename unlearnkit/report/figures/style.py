"""One look for all figures: a method has the same colour, marker and line everywhere.

The colours are Okabe and Ito's, told apart also by readers with a colour vision deficiency
(jfly.uni-koeln.de/color); the line styles and markers differ as well, for print in grey.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from unlearnkit.report.tables.frames import arranged, caption, forget_title, method_title, rows

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "unlearnkit",
    "text.usetex": False,
}
WIDTH = 7.0  # inches: the text width of a two-column page
INK = "#444444"
FAINT = "#9a9a9a"


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one method."""

    color: str
    marker: str
    line: Any


LOOKS = {
    "original": Look("#000000", "o", "-"),
    "retrain": Look("#0072B2", "s", "-"),
    "cf": Look("#56B4E9", "^", (0, (5, 1.5))),
    "bs": Look("#009E73", "v", (0, (4, 1.2, 1, 1.2))),
    "rl": Look("#E69F00", "D", (0, (1.2, 1))),
    "scrub": Look("#D55E00", "P", (0, (3, 1))),
    "salun": Look("#CC79A7", "X", (0, (6, 1.2, 1, 1.2, 1, 1.2))),
    "ga": Look("#7A5C00", "<", (0, (8, 2))),
}
SPARE = (
    Look("#332288", ">", (0, (2, 2))),
    Look("#999933", "p", (0, (7, 1, 2, 1))),
    Look("#882255", "h", (0, (1, 2))),
    Look("#666666", "*", (0, (10, 2, 2, 2))),
)
SCOPE_MARKERS = {"all": "o", "first": "^", "intermediate": "s", "last": "v"}
SPARE_MARKERS = ("D", "p", "h", "P", "X", "*")


def context() -> AbstractContextManager[None]:
    """Return a context with matplotlib's defaults and the kit's look, whatever the caller set."""
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    return matplotlib.rc_context({**defaults, **RC})


class KitFigure(Figure):
    """A figure that pyplot does not know: a notebook shows it once, where it is returned."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with context():
            self.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run `draw` under the kit's rcParams, the caller's left alone, and settle the layout."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with context():
            fig = draw(*args, **kwargs)
            # Each drawing would lay the figure out a little differently: settle it once.
            fig.draw_without_rendering()
            fig.set_layout_engine("none")
            return fig

    return wrapper


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return the look of each of the study's methods; new ones take the spare looks in turn."""
    new = [method for method in methods if method not in LOOKS]
    return {m: LOOKS.get(m) or SPARE[new.index(m) % len(SPARE)] for m in methods}


def scope_markers(scopes: Iterable[str]) -> dict[str, str]:
    """Return a marker for each scope."""
    names = arranged(SCOPE_MARKERS, scopes)
    new = [name for name in names if name not in SCOPE_MARKERS]
    spare = {name: SPARE_MARKERS[i % len(SPARE_MARKERS)] for i, name in enumerate(new)}
    return {name: (SCOPE_MARKERS | spare)[name] for name in names}


def default_forget(s: Any, forget: str | None) -> str:
    """Return `forget`, or else the study's first forget set."""
    if forget is not None:
        return forget
    for name in ("quality", "gap", "robust"):
        if len(frame := rows(s, name)):
            return str(frame["forget"].iloc[0])
    return ""


def panel_title(ax: Axes, index: int, text: str, size: float | None = None) -> None:
    """Title a panel ``(a) text``."""
    ax.set_title(f"({'abcdefghijklmnopqrstuvwxyz'[index % 26]}) {text}", fontsize=size)


def note(ax: Axes, text: str) -> None:
    """Say in an otherwise empty panel why it is empty."""
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.text(
        0.5,
        0.5,
        "\n".join(textwrap.wrap(text, 28)),
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=INK,
        style="italic",
    )


def footer(fig: Figure, s: Any, text: str, width: int = 158) -> None:
    """Put what the reader needs to know (n, interval, units) in small print below the panels."""
    whole = re.sub(r" ([=<>]) ", "\u00a0\\1\u00a0", caption(s, text))
    lines = textwrap.wrap(whole, width)
    fig.supxlabel("\n".join(lines), x=0.008, ha="left", fontsize=5.8, color=INK)


def forget_words(forget: str) -> str:
    """Return ``forget set: 10 % random``."""
    return f"forget set: {forget_title(forget)}"


def seeds_words(counts: Iterable[float], what: str = "line: mean, band: minimum to maximum") -> str:
    """Return how many seeds the means are over, and what the interval is."""
    numbers = sorted({int(count) for count in counts})
    if not numbers:
        return "no data"
    if numbers == [1]:
        return "one seed, no interval"
    shown = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{what} over {shown} seeds"


def method_handles(methods: Sequence[str], look: Mapping[str, Look], lines: bool) -> list[Line2D]:
    """Return a legend entry for each method; without `lines`, its marker alone."""
    return [
        Line2D(
            [],
            [],
            color=look[m].color,
            marker=look[m].marker,
            linestyle=look[m].line if lines else "none",
            label=method_title(m),
        )
        for m in methods
    ]


def legend_above(fig: Figure, handles: Sequence[Artist], most: int = 10) -> Legend:
    """Put one legend above all panels, at most `most` entries in a row."""
    lines = -(-len(handles) // most)
    return fig.legend(
        handles=handles,
        loc="outside upper center",
        ncols=-(-len(handles) // max(lines, 1)) or 1,
        handlelength=2.6,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def wide_range(values: Iterable[float], factor: float = 10.0) -> bool:
    """Say whether the largest of the positive `values` is more than `factor` times the median."""
    positive = sorted(value for value in values if value > 0)
    return bool(positive) and positive[-1] > factor * positive[len(positive) // 2]


def log_axis(axis: Axis, values: Iterable[float]) -> None:
    """Make `axis` logarithmic, with plain numbers at ticks close enough for the range."""
    positive = [value for value in values if value > 0]
    ratio = max(positive) / min(positive)
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    subs = (
        (1, 1.5, 2, 3, 5, 7)
        if ratio < 12
        else (1, 2, 5)
        if ratio < 30
        else (1, 3)
        if ratio < 300
        else (1,)
    )
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
