"""The verdicts as a forest plot."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from unlearnkit.report.claims import table5
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.study import NothingToDraw, Study

# Verdict -> marker, its edge and its face
LOOKS = {
    "supported": ("o", "#007A5A", "#007A5A"),
    "contradicted": ("X", "#D55E00", "#D55E00"),
    "undecided": ("o", "#707070", "white"),
    "described": ("D", "#707070", "white"),
}
BLANK = {"fc": "white", "ec": "none", "pad": 0.4}
PITCH = 0.15  # inches from row to row
TEXT = 2.15  # inches for the words on what was measured, beside the panels


@style.drawing
def forest(s: Study, table: pd.DataFrame | None = None) -> KitFigure:
    """Draw statistics with their intervals against the bounds they are judged by.

    `table` has the columns Claim, Architecture, Measured, Unit, Value, Low, High, Bound and
    Verdict, a row for each statistic; by default the key rows of `claims.table5`. A panel for each
    unit, in the table's order; what has no Value is left out. Data: `table`.
    """
    if table is None:
        table = table5(s).query("Key == 'yes'")
    data = table.dropna(subset=["Value"])
    if data.empty:
        raise NothingToDraw("no statistic to judge")
    units = [(unit, _laid(part)) for unit, part in data.groupby("Unit", sort=False)]
    heights = [part["y"].max() + 1.2 for _, part in units]
    inches = PITCH * sum(heights) + 0.34 * len(units) + 0.45
    fig, axes = style.panels(len(units), 1, inches, height_ratios=heights)
    names = 0.055 * data["Architecture"].str.len().max() + 0.1
    for ax, (unit, part) in zip(axes[:, 0], units, strict=True):
        _panel(ax, unit, part, names)
    many = data.groupby(["Claim", "Verdict"], sort=False).size()
    counted = "; ".join(f"{claim} {verdict}: {count}" for (claim, verdict), count in many.items())
    alt = f"Forest plot of {len(data)} statistics by claim and verdict. {counted}."
    text = "Marker: mean over seeds, bar: 95 % interval, grey line: the bound it is judged by "
    text += "(Table 5)."
    return style.finish(fig, s, table, text, alt)


def _laid(part: pd.DataFrame) -> pd.DataFrame:
    """Add `y`, the row's place, and `head`, the place of the words on what was measured."""
    at, laid = 0.0, []
    for (claim, measured), group in part.groupby(["Claim", "Measured"], sort=False):
        text = f"{claim}  {measured}"
        words = textwrap.fill(text, 66 if style.is_narrow() else 48, subsequent_indent="      ")
        lines = 0.85 * (words.count("\n") + 1)
        if style.is_narrow():
            y, head = at + lines + np.arange(len(group)), at + (lines - 1) / 2
            at = y[-1] + 1.3
        else:
            middle = max(len(group), lines) / 2 - 0.5
            y, head = at + middle + np.arange(len(group)) - (len(group) - 1) / 2, at + middle
            at += max(len(group), lines) + 0.35
        laid.append(group.assign(y=y, head=head, words=words))
    return pd.concat(laid)


def _panel(ax: Axes, unit: str, part: pd.DataFrame, names: float) -> None:
    left = -72 * (names if style.is_narrow() else names + TEXT)
    small = {"fontsize": 5.8, "va": "center", "annotation_clip": False}
    for _, group in part.groupby(["Claim", "Measured"], sort=False):
        words, place = group["words"].iloc[0], (0, group["head"].iloc[0])
        beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        ax.annotate(words, place, (left, 0), bbox=BLANK, **beside, **small)
    for row in part.itertuples():
        marker, edge, face = LOOKS[row.Verdict]
        ax.hlines(row.y, row.Low, row.High, edge, lw=1.1)
        ax.plot(row.Value, row.y, marker, mec=edge, mfc=face, mew=0.9, ms=4)
        if row.Verdict != "described":
            ax.vlines(row.Bound, row.y - 0.6, row.y + 0.6, style.FAINT, lw=0.9, zorder=1)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        ax.annotate(row.Verdict, (1, row.y), (4, 0), color=edge, **place, **small)
    ax.set_yticks(part["y"], part["Architecture"], fontsize=6)
    ax.set(title=unit, ylim=(part["y"].max() + 0.6, -0.6))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
