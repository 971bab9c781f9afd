"""Which reading of σ is nearest to the published curves of Figure 1."""

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.fairness import READINGS
from unlearnkit.figures.fairness import LAYERS
from unlearnkit.observations import Curves, curves
from unlearnkit.stats import MISSING, spearman
from unlearnkit.tables.frames import architecture_title, caption, method_title

REFERENCES = ("original", "retrain")  # what no approximate algorithm has touched
COLUMNS = ("Architecture", "Method", "Reading", "Ours, median", "Published, median")
COLUMNS += ("Ours / published", "Distance (decades)", "ρ over layers", "Layers", "Seeds")


def readings(s: Any, forget: str | None = None) -> pd.DataFrame:
    """Compare the readings of σ with the published curves of Original and Retrain.

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
        pairs = {name: curves(s, architecture, forget, name) for name in READINGS}
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
