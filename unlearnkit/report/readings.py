"""The readings of σ: which is nearest to the published Figure 1, and what outlying images make."""

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.report.published import LAYERS, Curves, _shown, curves
from unlearnkit.report.stats import MISSING, mean_std, spearman
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    caption,
    forget_title,
    method_title,
    rows,
    study_methods,
)

CANDIDATES = ("std", "variance", "channel_std")  # what the publication may have meant
REFERENCES = ("original", "retrain")  # what no approximate algorithm has touched
COLUMNS = ("Architecture", "Method", "Reading", "Ours, median", "Published, median")
COLUMNS += ("Ours / published", "Distance (decades)", "ρ over layers", "Layers", "Seeds")

OUTLIERS = ("Architecture", "Method", "Last-layer gap", "Last-layer gap, trimmed")
OUTLIERS += ("Trimmed / all (%)", "Layers below 50 % (%)", "Seeds")


def readings(s: Any, forget: str | None = None) -> pd.DataFrame:
    """Compare the candidate readings of σ with the published curves of Original and Retrain.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.

    Returns
    -------
    DataFrame
        A row for each architecture, method and reading, over the layers that both have, our gaps
        averaged over seeds first: median gap of ours and of the published, median of ours /
        published (size), median distance |log10(ours / published)| in decades, and Spearman's ρ
        of the two curves over the layers (shape; NaN for fewer than three). Architectures and
        methods that the publication or the study lacks have no row.
    """
    found = []
    for architecture in LAYERS:
        pairs = {name: curves(s, architecture, forget, name) for name in CANDIDATES}
        for method in REFERENCES:
            for name, both in pairs.items():
                if both is not None and method in both.ours:
                    found += _row(both, method, name)
    table = pd.DataFrame(found, columns=list(COLUMNS))
    table.attrs["caption"] = caption(
        s,
        "Fairness-gap under each reading of σ beside the published curves of Original and Retrain: "
        "medians over the layers that both have, mean over seeds first; distance: median of the "
        "absolute log10(ours / published); ρ: Spearman's, of the two curves over layers.",
    )
    return table


def nearest(table: pd.DataFrame) -> pd.DataFrame:
    """Return which reading in a table of `readings` is nearest to the published curve.

    In size: the smallest distance; in shape: the largest ρ, if it is above 0. Equally near ones are
    all named.
    """
    found = []
    for names, part in table.groupby(["Architecture", "Method"], sort=False):
        size = part["Distance (decades)"] == part["Distance (decades)"].min()
        rho = part["ρ over layers"]
        shape = (rho == rho.max()) & (rho > 0)
        best = (", ".join(part.loc[which, "Reading"]) or MISSING for which in (size, shape))
        found.append((*names, *best))
    return pd.DataFrame(found, columns=["Architecture", "Method", "In size", "In shape"])


def outliers(s: Any, forget: str | None = None) -> pd.DataFrame:
    """Return how much of the fairness-gap is left without the images that are furthest off.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.

    Returns
    -------
    DataFrame
        Architecture, Method, Seeds, and as `Spread` over seeds: the last layer's gap under 'std'
        and under 'trimmed_std', the second in percent of the first, and the part of all layers (%)
        in which that is below 50. Models without the trimmed reading have no row.
    """
    forget = _shown(s, forget)
    gap = rows(s, "gap", scope="all", progress=1.0, forget=forget)
    index = ["architecture", "method", "seed", "layer_index"]
    both = gap.set_index([*index, "reading"])["gap"].astype(float).unstack("reading")
    both = both.reindex(columns=["std", "trimmed_std"]).dropna()
    both["left"] = 100 * both["trimmed_std"] / both["std"]
    found = []
    for architecture in arranged(ARCHITECTURES, both.index.get_level_values("architecture")):
        layers = both.loc[architecture]
        last = layers.xs(layers.index.get_level_values("layer_index").max(), level="layer_index")
        low = 100 * (layers["left"] < 50).groupby(level=["method", "seed"]).mean()
        for method in arranged(study_methods(s), last.index.get_level_values("method")):
            seeds = last.loc[method]
            columns = (seeds["std"], seeds["trimmed_std"], seeds["left"], low.loc[method])
            spreads = map(mean_std, columns, (3, 3, 1, 0))
            names = (architecture_title(architecture), method_title(method))
            found.append((*names, *spreads, len(seeds)))
    table = pd.DataFrame(found, columns=list(OUTLIERS))
    table.attrs["caption"] = caption(
        s,
        f"Fairness-gap at the last normalisation layer, forget set {forget_title(forget)}, of all "
        "images and trimmed: without the 1 % of each class (at least one image, chosen at each "
        "layer) that are furthest from its mean. Mean ± std over seeds.",
    )
    return table


def _row(both: Curves, method: str, reading: str) -> list[tuple]:
    seeds = both.ours[method].dropna().groupby(level="layer_index")
    at = pd.DataFrame({"ours": seeds.mean(), "paper": both.paper[method]}).dropna()
    if at.empty:
        return []
    ratio = at["ours"] / at["paper"]
    rho = spearman(at["ours"], at["paper"])
    sizes = (at["ours"].median(), at["paper"].median(), ratio.median())
    numbers = (*sizes, np.log10(ratio).abs().median(), rho)
    names = (architecture_title(both.architecture), method_title(method), reading)
    shown = (float(f"{number:.3g}") for number in numbers)
    return [(*names, *shown, len(at), int(seeds.size().max()))]
