"""One look for all figures."""

import io
import textwrap
from collections.abc import Callable, Collection, Iterable
from functools import partial, wraps
from itertools import cycle
from string import ascii_lowercase
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unlearnkit.names import SCOPES
from unlearnkit.report.claims import EXACT
from unlearnkit.report.display import unbroken
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import arranged

WIDTH, COLUMN = 7.0, 3.3  # inches: the text of a two-column page, and one of its columns
FAINT = "#9a9a9a"
RC = matplotlib.rcParamsDefault | sns.axes_style("ticks") | sns.plotting_context("paper", 0.75)
RC |= {
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # the name of a class or data set may hold $ and \
}
del RC["backend"]
look = partial(matplotlib.rc_context, RC)  # a context or decorator: this look, whatever is set
# A method's own colour is one of Okabe and Ito's (jfly.uni-koeln.de/color); these go with them.
SPARE = ("#332288", "#999933", "#882255", "#666666")
MARKERS = "os^vDPX<>ph*"
DASHES = ("", "", (5, 1.5), (4, 1.2, 1, 1.2), (1.2, 1), (3, 1), (6, 1.2, 1, 1.2, 1, 1.2), (8, 2))
STAMPS = {"png": ["Software"], "pdf": ["CreationDate", "Creator", "Producer"]}
ALT = {"png": "Description", "pdf": "Subject"}  # what a file calls it


class KitFigure(Figure):
    """A figure with the frame it shows, unknown to pyplot: a notebook shows it once.

    `alt` says in words what is seen: in a notebook's output, and in the files' own metadata.
    """

    data: pd.DataFrame
    alt = ""

    def picture(self, ending: str) -> bytes:
        """Return the figure as png (200 dpi) or pdf, without a stamp of versions and dates.

        A png without photographs has 256 colours: a third of the size, and nobody sees it.
        """
        buffer, about = io.BytesIO(), dict.fromkeys(STAMPS[ending]) | {ALT[ending]: self.alt}
        with look():
            self.savefig(buffer, format=ending, metadata=about)
        if ending == "png" and not any(ax.images for ax in self.axes):
            drawn = Image.open(buffer)
            few = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            told = PngInfo()
            told.add_itxt(ALT["png"], self.alt)
            few.save(buffer := io.BytesIO(), "png", dpi=drawn.info["dpi"], pnginfo=told)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Return the file's own pixels, the width and height to show them at, and the alt text."""
        width, height = (round(100 * inches) for inches in self.get_size_inches())
        return self.picture("png"), {"width": width, "height": height, "alt": self.alt}


def drawing(draw: Callable[..., KitFigure]) -> Callable[..., KitFigure]:
    """Decorate a function that draws: in this look and, with `column=True`, 3.3 inches wide."""

    @wraps(draw)
    def drawn(*args: Any, column: bool = False, **options: Any) -> KitFigure:
        size = {"figure.figsize": (COLUMN if column else WIDTH, 1)}
        with look(), matplotlib.rc_context(size | ({"axes.titlesize": 6.4} if column else {})):
            return draw(*args, **options)

    return drawn


def width() -> float:
    """Return how wide the figure being drawn is to be, in inches."""
    return matplotlib.rcParams["figure.figsize"][0]


def is_narrow() -> bool:
    """Say whether the figure being drawn is for a column."""
    return width() < WIDTH


def panels(rows: int, columns: int, height: float, **grid: Any) -> tuple[KitFigure, np.ndarray]:
    """Return a figure, `height` in inches, and its axes [rows, columns]."""
    fig = KitFigure(figsize=(width(), height))
    return fig, fig.subplots(rows, columns, squeeze=False, **grid)


def palette(s: Study) -> dict[str, str]:
    """Return the colour of each method of the study, the same in every figure."""
    spare = cycle(SPARE)
    return {name: s.colors.get(name) or next(spare) for name in arranged(s.colors, s.methods)}


def markers(s: Study) -> dict[str, str]:
    """Return the marker of each method of the study, the same in every figure."""
    return dict(zip(palette(s), cycle(MARKERS), strict=False))


def lines(s: Study, data: pd.DataFrame) -> dict[str, Any]:
    """Return `sns.lineplot`'s arguments for a line a method, the exact ones strong."""
    colors = palette(s)
    return {
        **dict.fromkeys(("hue", "style", "size"), "method"),
        "hue_order": arranged(colors, data["method"]),
        "palette": colors,
        "markers": markers(s),
        "dashes": dict(zip(colors, cycle(DASHES), strict=False)),
        "sizes": {method: 1.5 if method in EXACT else 0.7 for method in colors},
        "errorbar": None,
        "mew": 0,
    }


def finish(
    fig: KitFigure,
    s: Study,
    data: pd.DataFrame,
    text: str,
    alt: str = "",
    unnamed: Collection[str] = (),
) -> KitFigure:
    """Letter the panels, put one legend above, small print below, and settle the layout.

    The legend holds what the panels label, but for the names that are `unnamed`. The alt text is
    what `alt` says of the data, the panels' titles and the small print.
    """
    titled = [ax for ax in fig.axes if ax.get_title("left")]
    for letter, ax in zip(ascii_lowercase, titled, strict=False):
        ax.set_title(f"({letter}) {ax.get_title('left')}")
    entries = {}
    for ax in fig.axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            if name not in ("method", "scope", *unnamed):
                entries.setdefault(
                    f"{name.replace('+', ' and ')} layers" if name in SCOPES else s.title(name),
                    handle,
                )
        if ax.get_legend():
            ax.get_legend().remove()
        if not ax.has_data():
            ax.set_axis_off()
    titles = "; ".join(", ".join(ax.get_title("left").splitlines()) for ax in titled)
    fig.data = data
    fig.alt = unbroken(" ".join(f"{alt} Panels: {titles}. {s.caption(text)}".split()))
    return settle(fig, s.caption(text), entries)


def settle(fig: KitFigure, text: str, entries: dict[str, Any] | None = None) -> KitFigure:
    """Put the legend's `entries` above and small print below, and fix the layout."""
    above = {"loc": "outside upper center", "columnspacing": 1.2}
    above |= {"handlelength": 1.9 if is_narrow() else 2.6}
    for rows in range(1, len(entries or ()) + 1):
        columns = -(-len(entries) // rows)
        legend = fig.legend(entries.values(), entries.keys(), ncols=columns, **above)
        if legend.get_window_extent().width < fig.bbox.width:
            break
        legend.remove()
    text = text.replace(" %", "\N{NO-BREAK SPACE}%")
    small = textwrap.fill(text, int(21.4 * width()), break_on_hyphens=False)
    fig.supxlabel(small, x=0.06 / width(), ha="left", fontsize=5.8)
    fig.draw_without_rendering()  # each drawing would lay it out a little differently
    fig.set_layout_engine("none")
    return fig


def listed(names: Iterable[str], values: Iterable[float]) -> str:
    """Return ``CF 8.8, BS 13.8``: names and numbers of three digits for an alt text."""
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values, strict=True))


def note(ax: Axes, text: str) -> None:
    """Say in a panel without data why it is empty."""
    ax.text(0.5, 0.5, textwrap.fill(text, 28), transform=ax.transAxes, ha="center", va="center")


def about(s: Study, data: pd.DataFrame, what: str) -> str:
    """Return the forget set of the means in `data`, over how many seeds, `what` is their range."""
    few, many = data.loc[data["n"] > 0, "n"].agg(["min", "max"])
    seeds = f"{what} over {few if few == many else f'{few} to {many}'} seeds"
    if many == 1:
        seeds = "one seed, no range"
    return f"forget set: {s.title(data['forget'].iloc[0])}; {seeds}."


def log_if_wide(axis: Axis, values: pd.Series, factor: float = 3.0) -> bool:
    """Make `axis` logarithmic if the largest of the positive `values` > `factor` × their median.

    Its ticks are plain numbers. Return whether it is.
    """
    positive = values[values > 0]
    if not positive.max() > factor * positive.median():
        return False
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    span = positive.max() / positive.min()
    steps = {1000: (1,), 30: (1, 3), 5: (1, 2, 5), 0: (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)}
    axis.set_major_locator(LogLocator(subs=next(steps[least] for least in steps if span > least)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    return True
