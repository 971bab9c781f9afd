"""The readings of σ: which is nearest to the published Figure 1, and how few images carry it."""

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.figures.fairness import LAYERS
from unlearnkit.figures.style import default_forget
from unlearnkit.observations import Curves, curves
from unlearnkit.stats import MISSING, mean_std, spearman
from unlearnkit.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    caption,
    method_title,
    rows,
    study_methods,
)

CANDIDATES = ("std", "variance", "channel_std")  # what the publication may have meant
REFERENCES = ("original", "retrain")  # what no approximate algorithm has touched
COLUMNS = ("Architecture", "Method", "Reading", "Ours, median", "Published, median")
COLUMNS += ("Ours / published", "Distance (decades)", "ρ over layers", "Layers", "Seeds")


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

    In size: the smallest distance; in shape: the largest ρ. Equally near ones are all named.
    """
    found = []
    for names, part in table.groupby(["Architecture", "Method"], sort=False):
        size = part["Distance (decades)"] == part["Distance (decades)"].min()
        shape = part["ρ over layers"] == part["ρ over layers"].max()
        best = (", ".join(part.loc[which, "Reading"]) or MISSING for which in (size, shape))
        found.append((*names, *best))
    return pd.DataFrame(found, columns=["Architecture", "Method", "In size", "In shape"])


def concentration(s: Any, forget: str | None = None) -> pd.DataFrame:
    """Return how much of each fairness-gap is made by 1 % of the images.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.

    Returns
    -------
    DataFrame
        Architecture, Method, and as `Spread` over seeds: the last layer's gap under 'std', under
        'trimmed_std' (without the 1 % of each class's images that are furthest from its mean),
        their ratio in %, and the part of all layers (%) in which it is below a half.
    """
    gap = rows(s, "gap", scope="all", progress=1.0)
    gap = gap[gap["forget"] == default_forget(s, forget)]
    wide = gap.pivot_table(
        index=["architecture", "method", "seed", "layer_index"], columns="reading", values="gap"
    ).reindex(columns=["std", "trimmed_std"])
    wide["ratio"] = 100 * wide["trimmed_std"] / wide["std"]
    numbers = (
        "Last layer: gap",
        "without 1 % of the images",
        "left of it (%)",
        "layers with less than half left (%)",
    )
    found = []
    for architecture in arranged(ARCHITECTURES, gap["architecture"]):
        ours = wide.loc[architecture]
        last = ours.xs(ours.index.get_level_values("layer_index").max(), level="layer_index")
        below = (ours["ratio"] < 50).astype(float).where(ours["ratio"].notna())
        few = 100 * below.groupby(level=["method", "seed"]).mean()
        for method in arranged(study_methods(s), last.index.get_level_values("method")):
            at = last.loc[method]
            values = (at["std"], at["trimmed_std"], at["ratio"], few.loc[method])
            spreads = map(mean_std, values, (2, 2, 1, 0))
            names = (architecture_title(architecture), method_title(method))
            found.append((*names, *spreads, len(at)))
    table = pd.DataFrame(found, columns=["Architecture", "Method", *numbers, "Seeds"])
    table.attrs["caption"] = caption(
        s,
        "How much of the fairness-gap a few images make: at the last normalisation layer, over all "
        "test images and without the 1 % of each class that are furthest from its mean; mean ± std "
        "over seeds.",
    )
    return table


def _row(both: Curves, method: str, reading: str) -> list[tuple]:
    seeds = both.ours[method].dropna().groupby(level="layer_index")
    at = pd.DataFrame({"ours": seeds.mean(), "paper": both.paper[method]}).dropna()
    if at.empty:
        return []
    ratio = at["ours"] / at["paper"]
    rho = spearman(at["ours"], at["paper"], resamples=1, permutations=1).rho
    sizes = (at["ours"].median(), at["paper"].median(), ratio.median())
    numbers = (*sizes, np.log10(ratio).abs().median(), rho)
    names = (architecture_title(both.architecture), method_title(method), reading)
    shown = (float(f"{number:.3g}") for number in numbers)
    return [(*names, *shown, len(at), int(seeds.size().max()))]
