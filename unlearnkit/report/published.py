"""Figure 1 beside the publication: which of the things seen in its curves are seen in ours."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.report.judging import SEEDS
from unlearnkit.report.stats import interval, spearman
from unlearnkit.report.tables.frames import architecture_title, caption, method_title, rows

PUBLISHED = Path(__file__).parent / "paper_fairness_gap.csv"
LAYERS = {"resnet50": 57, "small_vit": 9}  # as many as the published networks have
LARGE = ("salun", "scrub")  # the two that the published panel (b) leaves out
# First layer index of each group, by number of layers: ResNet-50's stages, SmallViT's blocks.
GROUPS = {
    57: ((1, ""), (2, "stage 1"), (13, "stage 2"), (27, "stage 3"), (47, "stage 4")),
    9: ((1, "block 1"), (3, "2"), (5, "3"), (7, "4"), (9, "norm")),
}
COLUMNS = ("Architecture", "Observation", "Published", "Ours", "Holds", "Why", "Seeds")
# ResNet-50's `downsample` containers, each with the BatchNorm inside that gives the same output
CONTAINERS = {"resnet50": ((5, 6), (16, 17), (30, 31), (50, 51))}
LARGE_ON = "resnet50"  # where the publication draws a panel without the two large ones
APART = 1.5  # values read off as 0.02 and 0.03 cannot be told apart more finely
SAME = 1.1
AGREEMENT = 0.7  # two random orders of seven agree so well less than once in twenty
FACTOR = 2.0
TINY = 1e-12  # a gap of zero must have a logarithm, too


@dataclass(frozen=True)
class Curves:
    """Fairness-gaps of the methods that both the study and the publication have.

    Attributes
    ----------
    ours : DataFrame, index (seed, layer_index), a column for each method
    paper, error : DataFrame, index layer_index, the same columns
        Published values and their reading error; NaN where a curve hides behind another.
    """

    architecture: str
    ours: pd.DataFrame
    paper: pd.DataFrame
    error: pd.DataFrame


def read_published() -> pd.DataFrame:
    """Return the values read off the published Figure 1, which is of CIFAR-10.

    Returns
    -------
    DataFrame
        architecture, method, layer_index (from 1), fairness_gap and reading_error, of the points
        that are seen; a curve that hides behind another has no row.
    """
    return pd.read_csv(PUBLISHED)


def curves(s: Any, architecture: str, forget: str | None, reading: str) -> Curves | None:
    """Return both sides' curves of an architecture, or None if they cannot be compared.

    That is: not the same number of layers, or no method in common.
    """
    gap = rows(s, "gap", architecture=architecture, scope="all", progress=1.0, reading=reading)
    gap = gap[gap["forget"] == _shown(s, forget)]
    published = read_published()
    published = published[published["architecture"] == architecture]
    layers = LAYERS.get(architecture)
    common = [name for name in published["method"].unique() if name in set(gap["method"])]
    if not common or gap["layer_index"].max() != layers:
        return None
    ours = gap.pivot_table(index=["seed", "layer_index"], columns="method", values="gap")
    paper, error = (
        published.pivot(index="layer_index", columns="method", values=value)
        .reindex(index=range(1, layers + 1), columns=common)
        .pipe(_filled, architecture)
        for value in ("fairness_gap", "reading_error")
    )
    return Curves(architecture, ours[common].clip(lower=TINY), paper, error)


def _shown(s: Any, forget: str | None) -> str:
    first = (name for frame in ("quality", "gap", "robust") for name in rows(s, frame)["forget"])
    return next(first, "") if forget is None else forget


def _filled(frame: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """Give a container and its BatchNorm each other's value where only one of them is seen."""
    for pair in CONTAINERS.get(architecture, ()):
        for here, there in (pair, pair[::-1]):
            frame.loc[here] = frame.loc[here].fillna(frame.loc[there])
    return frame


def observations(s: Any, forget: str | None = None, reading: str = "std") -> pd.DataFrame:
    """Hold our curves against what is seen in the published figure.

    Parameters
    ----------
    s : Study
    forget : str, optional
        A forget set of the study; its first if left out.
    reading : str
        How σ is pooled, one of `unlearnkit.fairness.READINGS`.

    Returns
    -------
    DataFrame
        Columns Architecture, Observation, Published, Ours, Holds (yes, no, undecided), Why, Seeds.
        A row is left out where the publication or the study lacks what it needs.

    Notes
    -----
    Every observation has a margin in each seed, above 0 if the seed agrees with it:

    * order of two neighbours at the last layer: the difference of their gaps; where the published
      ones are equal within the reading error, log 1.1 − |log of their ratio|;
    * the whole order there: Spearman's ρ with the published one − 0.7;
    * where the curves part, which is the first layer from which the methods' largest / smallest
      gap stays above 1.5: a tenth of the layers (rounded, and half a layer more) − the distance
      between our layer and the published one;
    * size, mean gap over ResNet-50's last stage as a multiple of Retrain's, over the layers where
      both published curves are seen: log 2 − |log(ours / published)|.

    An observation holds if the margin is above 0 in every seed, or its 95 % t interval over seeds
    is. It does not hold if they are below 0. Otherwise, and with fewer than three seeds, it is
    undecided.
    """
    found = []
    for architecture in LAYERS:
        both = curves(s, architecture, forget, reading)
        if both is not None:
            found += [*_order(both), *_parting(both), *_sizes(both)]
    table = pd.DataFrame(found, columns=list(COLUMNS))
    table.attrs["caption"] = caption(
        s,
        "What is seen in the published figure, and in ours (mean over seeds; where curves part: "
        "every layer that occurs among them). In brackets: of "
        "published values, which are read off the figure, the range of the reading error; of ours, "
        "the 95 % t interval over seeds. Undecided: fewer than three seeds, or seeds that "
        "disagree.",
    )
    return table


def _order(both: Curves) -> list[tuple]:
    """Return a row for each two neighbours at the last layer, and one for the whole order."""
    last = both.paper.index[-1]
    paper, error = both.paper.loc[last].dropna(), both.error.loc[last]
    paper = paper.sort_values(ascending=False, kind="stable")
    ours = both.ours.xs(last, level="layer_index")[list(paper.index)]
    found, order = [], "".join(map(method_title, paper.index[:1]))
    for a, b in pairwise(paper.index):
        pair = ours[[a, b]].dropna()
        mean, apart = pair.mean(), np.log(pair[a] / pair[b]).abs()
        tied = paper[a] - paper[b] <= error[a] + error[b]
        margin = np.log(SAME) - apart if tied else pair[a] - pair[b]
        sign = "=" if tied else ">"
        mine = "=" if tied and (margin > 0).all() else "<" if mean[a] < mean[b] else ">"
        order += f" {sign} {method_title(b)}"
        found += _row(
            both,
            f"Last layer: {method_title(a)} {sign} {method_title(b)}",
            f"{paper[a]:.3g} {sign} {paper[b]:.3g}",
            f"{mean[a]:.3g} {mine} {mean[b]:.3g}",
            margin,
        )
    rho = pd.Series(
        [spearman(seed, paper) for _, seed in ours.dropna().iterrows()],
        dtype=float,
    ).dropna()
    mine = f"ρ = {_ranged(rho.mean(), *np.clip(interval(rho), -1, 1))}"
    return found + _row(both, "Last layer: whole order", order, mine, rho - AGREEMENT)


def _parting(both: Curves) -> list[tuple]:
    """Return where the curves part: of all methods and, on ResNet-50, without the large two."""
    found, methods, layers = [], list(both.ours), len(both.paper)
    panels = [("all methods", methods)]
    if both.architecture == LARGE_ON and set(LARGE) & set(methods):
        names = ", ".join(map(method_title, LARGE))
        panels.append((f"without {names}", [name for name in methods if name not in LARGE]))
    for words, chosen in panels:
        whole = both.ours[chosen].dropna()
        if len(chosen) < 2 or whole.empty:
            continue
        published = _parts_at(_ratio(both.paper[chosen]))
        ours = _ratio(whole).unstack("layer_index").apply(_parts_at, axis=1)
        margin = round(layers / 10) + 0.5 - (ours - published).abs()
        theirs, mine = (
            ", ".join("never" if at > layers else f"layer {at}" for at in sorted(places))
            for places in ({published}, set(ours))
        )
        found += _row(both, f"Curves part for good: {words}", theirs, mine, margin)
    return found


def _ratio(gap: pd.DataFrame) -> pd.Series:
    return gap.max(axis=1) / gap.min(axis=1)


def _parts_at(ratio: pd.Series) -> int:
    """Return the first layer from which `ratio` stays above `APART`; one past the last if none."""
    together = ratio.index[~(ratio > APART + 1e-9)]  # 0.03 / 0.02 must not be above 1.5
    return int(together.max()) + 1 if len(together) else int(ratio.index.min())


def _sizes(both: Curves) -> list[tuple]:
    """Return how many times Retrain's gap the large two have over ResNet-50's last stage."""
    if both.architecture != LARGE_ON or "retrain" not in both.ours:
        return []
    layers, found = len(both.paper), []
    first = GROUPS[layers][-1][0]
    for method in [name for name in LARGE if name in both.ours]:
        pair = [method, "retrain"]
        paper = both.paper.loc[first:, pair].dropna()
        at = both.ours.index.get_level_values("layer_index").isin(paper.index)
        ours = both.ours.loc[at, pair].dropna().groupby(level="seed").sum()
        if paper.empty or ours.empty:
            continue
        (a, b), (off_a, off_b) = paper.sum(), both.error.loc[paper.index, pair].sum()
        ratio = np.log(ours[method] / ours["retrain"])
        found += _row(
            both,
            f"Layers {first} to {layers}: {method_title(method)} / Retrain",
            _ranged(a / b, (a - off_a) / (b + off_b), (a + off_a) / (b - off_b)),
            _ranged(*np.exp([ratio.mean(), *interval(ratio)])),
            np.log(FACTOR) - (ratio - np.log(a / b)).abs(),
        )
    return found


def _row(both: Curves, what: str, published: str, ours: str, margin: pd.Series) -> list[tuple]:
    if margin.empty:
        return []
    title = architecture_title(both.architecture)
    return [(title, what, published, ours, *_decide(margin), len(margin))]


def _decide(margin: pd.Series) -> tuple[str, str]:
    """Return whether an observation holds, and why, from its margin in each seed."""
    if len(margin) < SEEDS:
        return "undecided", f"fewer than {SEEDS} seeds"
    low, high = interval(margin)
    for holds, every, clear in (
        ("yes", (margin > 0).all(), low > 0),
        ("no", (margin < 0).all(), high < 0),
    ):
        if every or clear:
            return holds, "every seed" if every else "interval over seeds"
    return "undecided", f"{(margin > 0).sum()} of {len(margin)} seeds agree"


def _ranged(center: float, low: float, high: float) -> str:
    return f"{center:.3g}" if np.isnan(low) else f"{center:.3g} [{low:.3g}, {high:.3g}]"
