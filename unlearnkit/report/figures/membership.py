"""How well LiRA tells unlearned from retrained models, and what the SVC says of them."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from unlearnkit.membership import tpr_at
from unlearnkit.report.figures import style
from unlearnkit.report.figures.style import KitFigure
from unlearnkit.report.membership import AGAIN, FPR, SPLITS, panel, ratios, splits, title
from unlearnkit.report.study import Study

LOWEST = 0.001  # false positives: few models and images say nothing of less


@style.drawing
def roc(s: Study, found: pd.DataFrame) -> KitFigure:
    """Draw LiRA's ROC curves on logarithmic axes, and its TPR beside what the SVC sees.

    `found` are `membership.numbers` of the study. Data: a row for each method and false positive
    rate, with fpr and tpr in [0, 1]; of `AGAIN`, the mean over `splits`, whose range is a band.
    """
    p, rates = panel(s), np.geomspace(LOWEST, 1, 200)
    curves = {name: tpr_at(rates, *ratios(p.forgotten, name)) for name in p.compared}
    chance = [tpr_at(rates, *ratios(half.forgotten, AGAIN)) for half in splits(p)]
    curves[AGAIN] = np.mean(chance, axis=0)
    parts = [pd.DataFrame({"method": n, "fpr": rates, "tpr": tpr}) for n, tpr in curves.items()]
    colors = style.palette(s) | {AGAIN: style.palette(s)["retrain"]}
    shapes = style.markers(s) | {AGAIN: style.markers(s)["retrain"]}
    dashes = dict(zip(curves, cycle(style.DASHES[1:]), strict=False))
    down, across = (2, 1) if style.is_narrow() else (1, 2)
    fig, ((left, *_), *_) = style.panels(down, across, 0.55 + 2.3 * down)
    right = fig.axes[1]
    for name, tpr in curves.items():
        row, look = found.loc[name], {"color": colors[name], "mew": 0}
        (line,) = left.plot(100 * rates, 100 * tpr, lw=1.0, label=title(s, name), **look)
        line.set_dashes(dashes[name] or (None, None))
        left.plot(100 * FPR, 100 * row["tpr"], marker=shapes[name], **look)
        x, y = (row[[what, f"{what}_low", f"{what}_high"]].to_numpy() for what in ("away", "tpr"))
        y = np.maximum(100 * y, 100 * LOWEST)  # the axis is logarithmic
        bars = {"xerr": np.abs(x[1:, None] - x[0]), "yerr": np.abs(y[1:, None] - y[0])}
        right.errorbar(x[0], y[0], marker=shapes[name], lw=0.7, ms=4.5, **bars, **look)
    low, high = np.maximum(100 * LOWEST, 100 * np.quantile(chance, [0, 1], axis=0))
    left.fill_between(100 * rates, low, high, color=colors[AGAIN], alpha=0.2, lw=0)
    left.plot(100 * rates, 100 * rates, color=style.FAINT, lw=0.7, ls=":")
    right.axvline(0, color=style.FAINT, lw=0.7)
    right.axhline(100 * FPR, color=style.FAINT, lw=0.7, ls=":")
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        getattr(axis.axes, f"set_{axis.axis_name}lim")(100 * LOWEST, 115)
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    left.set(title="LiRA's ROC", xlabel="False positive rate (%)", ylabel="True positive rate (%)")
    right.set(title="Where the two disagree", xlabel="SVC's score minus Retrain's (points)")
    right.set_ylabel(f"LiRA's TPR at {100 * FPR:g} % FPR (%)")
    names = [title(s, name) for name in found.index]
    alt = "ROC curves and a scatter plot. LiRA's TPR at 1 % FPR (%): "
    alt += f"{style.listed(names, 100 * found['tpr'])}. The SVC's score minus Retrain's (points): "
    alt += f"{style.listed(names, found['away'])}."
    text = (
        f"{len(p.svc['retrain'])} models of each kind, {p.forgotten['retrain'].shape[1]} forgotten "
        "images. Dotted: chance. Marker: at 1 % FPR; bar: 95 % interval. Retrain, again, band "
        f"and bar: range of {SPLITS} random splits of all retrained models into two halves."
    )
    return style.finish(fig, s, pd.concat(parts, ignore_index=True), text, alt)
