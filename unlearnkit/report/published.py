"""The published Figure 1 beside ours: what is seen in its curves, and which σ is nearest to it.

An observation has a margin in each seed, above 0 if the seed agrees. Of two neighbours in the order
at the last layer: the difference of their gaps, or, where the published ones are equal within the
reading error, log 1.1 − |log of their ratio|; of the whole order: Spearman's ρ with the published
one − 0.7. Of where the curves part, the layer from which the methods' largest / smallest gap stays
above 1.5: a tenth of the layers (rounded, and half a layer more) − the distance of the two. Of the
size, mean gap over ResNet-50's last stage as a multiple of Retrain's, where both published curves
are seen: log 2 − |log(ours / published)|.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd

from unlearnkit.report.claims import SEEDS, VERDICTS, judge
from unlearnkit.report.stats import interval, spearman
from unlearnkit.report.study import Study
from unlearnkit.report.tables import wide

DATASET = ("cifar10", "CIFAR-10")  # how names of the publication's begin
LAYERS = {"resnet50": 57, "small_vit": 9}  # as many as the published networks have
LARGE = ("salun", "scrub")  # the two that the published panel (b) leaves out
LARGE_ON = "resnet50"  # where there is that panel
# First layer index of each group, by number of layers: ResNet-50's stages, SmallViT's blocks.
GROUPS = {
    57: ((1, ""), (2, "stage 1"), (13, "stage 2"), (27, "stage 3"), (47, "stage 4")),
    9: ((1, "block 1"), (3, "2"), (5, "3"), (7, "4"), (9, "norm")),
}
# ResNet-50's `downsample` containers, each with the BatchNorm inside that gives the same output
CONTAINERS = {"resnet50": ([5, 6], [16, 17], [30, 31], [50, 51])}
APART = 1.5  # values read off as 0.02 and 0.03 cannot be told apart more finely
SAME = 1.1
AGREEMENT = 0.7  # two random orders of seven agree so well less than once in twenty
FACTOR = 2.0
TINY = 1e-12  # a gap of zero must have a logarithm, too
CANDIDATES = ("std", "variance", "channel_std")  # what the publication may have meant
HOLDS = dict(zip(VERDICTS, ("yes", "no", "undecided"), strict=False))
Curves = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def read_published() -> pd.DataFrame:
    """Return the values read off the published Figure 1, which is of CIFAR-10.

    Columns architecture, method, layer_index (from 1), fairness_gap and reading_error; a point that
    hides behind another curve has no row.
    """
    return pd.read_csv(Path(__file__).parent / "paper_fairness_gap.csv")


def curves(s: Study, architecture: str, reading: str) -> Curves | None:
    """Return ours, theirs and its reading error, a column for each method that both have.

    Ours, of the first forget set, by seed and layer_index; theirs by layer_index, NaN where a curve
    hides behind another. None for another number of layers, or no method in common.
    """
    place = {"architecture": architecture, "forget": s.first_forget, "scope": "all"}
    gap = s.rows("gap", reading=reading, progress=1.0, **place)
    published = read_published().query("architecture == @architecture")
    common = [name for name in published["method"].unique() if name in set(gap["method"])]
    if not common or gap["layer_index"].max() != LAYERS[architecture]:
        return None
    ours = gap.pivot(index=["seed", "layer_index"], columns="method", values="gap")
    paper = published.pivot(index="layer_index", columns="method")
    paper = paper.reindex(range(1, LAYERS[architecture] + 1))
    for pair in CONTAINERS.get(architecture, ()):  # where only one is seen it is the other, too
        paper.loc[pair] = paper.loc[pair].ffill().bfill()
    ours = ours[common].clip(lower=TINY)
    return ours, paper["fairness_gap"][common], paper["reading_error"][common]


def observations(s: Study, reading: str = "std") -> pd.DataFrame:
    """Hold our curves against what is seen in theirs.

    Architecture, Observation, Published, Ours, Holds, Why, Seeds. *yes*: the 95 % t
    interval of the margin lies above 0; *no*: below; *undecided*: else, and with fewer than three
    seeds: the standard of `claims.judge`. What the publication or the study lacks has no row.
    """
    found = []
    for architecture in LAYERS:
        if both := curves(s, architecture, reading):
            for *words, margin in (*_order(s, both), *_parting(s, both), *_sizes(s, both)):
                if len(margin):
                    found.append((s.title(architecture), *words, *_holds(margin), len(margin)))
    return s.table(
        found,
        ["Architecture", "Observation", "Published", "Ours", "Holds", "Why", "Seeds"],
        "What is seen in the published figure, and in ours (mean over seeds; where curves part: "
        "every layer that occurs among them). In brackets: of published values, which are read off "
        "the figure, the range of the reading error; of ours, the 95 % t interval over seeds. "
        "Undecided: fewer than three seeds, or seeds that disagree.",
        ["Architecture"],
    )


def _order(s: Study, both: Curves) -> Iterator[tuple]:
    """Yield each two neighbours at the last layer, and the whole order."""
    last = both[1].index[-1]
    paper, error = both[1].loc[last].dropna(), both[2].loc[last]
    paper = paper.sort_values(ascending=False, kind="stable")
    ours = both[0].xs(last, level="layer_index")[list(paper.index)]
    order = "".join(map(s.title, paper.index[:1]))
    for a, b in pairwise(paper.index):
        pair = ours[[a, b]].dropna()
        mean, apart = pair.mean(), np.log(pair[a] / pair[b]).abs()
        tied = paper[a] - paper[b] <= error[a] + error[b]
        margin = np.log(SAME) - apart if tied else pair[a] - pair[b]
        sign = "=" if tied else ">"
        mine = "=" if tied and (margin > 0).all() else "<" if mean[a] < mean[b] else ">"
        order += f" {sign} {s.title(b)}"
        theirs = f"{paper[a]:.3g} {sign} {paper[b]:.3g}"
        words = f"Last layer: {s.title(a)} {sign} {s.title(b)}"
        yield words, theirs, f"{mean[a]:.3g} {mine} {mean[b]:.3g}", margin
    rho = [spearman(seed, paper) for _, seed in ours.dropna().iterrows()]
    rho = pd.Series(rho, dtype=float).dropna()
    mine = f"ρ = {_ranged(rho.mean(), *np.clip(interval(rho), -1, 1))}"
    yield "Last layer: whole order", order, mine, rho - AGREEMENT


def _parting(s: Study, both: Curves) -> Iterator[tuple]:
    """Yield where the curves part: of all methods and, on ResNet-50, without the large two."""
    ours, paper, _ = both
    layers, large = len(paper), [name for name in LARGE if name in ours]
    panels = {"all methods": list(ours)}
    if layers == LAYERS[LARGE_ON] and large:
        panels[f"without {', '.join(map(s.title, large))}"] = [m for m in ours if m not in LARGE]
    for words, chosen in panels.items():
        whole = ours[chosen].dropna()
        if len(chosen) < 2 or whole.empty:
            continue
        published = _parts_at(paper[chosen])
        parts = whole.groupby("seed").apply(lambda gap: _parts_at(gap.droplevel("seed")))
        said = {at: f"layer {at}" for at in range(layers + 1)} | {layers + 1: "never"}
        mine = ", ".join(said[at] for at in sorted(set(parts)))
        margin = round(layers / 10) + 0.5 - (parts - published).abs()
        yield f"Curves part for good: {words}", said[published], mine, margin


def _parts_at(gap: pd.DataFrame) -> int:
    """Return from which layer on largest / smallest is above `APART`; one past the last if none."""
    ratio = gap.max(axis=1) / gap.min(axis=1)
    together = ratio.index[~(ratio > APART + 1e-9)]  # 0.03 / 0.02 must not be above 1.5
    return int(together.max()) + 1 if len(together) else int(ratio.index.min())


def _sizes(s: Study, both: Curves) -> Iterator[tuple]:
    """Yield how many times Retrain's gap the large two have over ResNet-50's last stage."""
    ours, paper, error = both
    layers, first = len(paper), GROUPS[len(paper)][-1][0]
    known = layers == LAYERS[LARGE_ON] and "retrain" in ours
    for method in [name for name in LARGE if known and name in ours]:
        pair = [method, "retrain"]
        theirs = paper.loc[first:, pair].dropna()
        at = ours.index.get_level_values("layer_index").isin(theirs.index)
        mine = ours.loc[at, pair].dropna().groupby(level="seed").sum()
        (a, b), (off_a, off_b) = theirs.sum(), error.loc[theirs.index, pair].sum()
        ratio = np.log(mine[method] / mine["retrain"])
        yield (
            f"Layers {first} to {layers}: {s.title(method)} / Retrain",
            _ranged(a / b, (a - off_a) / (b + off_b), (a + off_a) / (b - off_b)),
            _ranged(*np.exp([ratio.mean(), *interval(ratio)])),
            np.log(FACTOR) - (ratio - np.log(a / b)).abs(),
        )


def _holds(margin: pd.Series) -> tuple[str, str]:
    """Return whether an observation holds, and why, from its margin in each seed."""
    if len(margin) < SEEDS:
        return "undecided", f"fewer than {SEEDS} seeds"
    holds = HOLDS[judge(margin, "above", 0.0)["Verdict"]]
    agree = f"{(margin > 0).sum()} of {len(margin)} seeds agree"
    return holds, agree if holds == "undecided" else "interval over seeds"


def _ranged(center: float, low: float, high: float) -> str:
    return f"{center:.3g}" if np.isnan(low) else f"{center:.3g} [{low:.3g}, {high:.3g}]"


def readings(s: Study) -> pd.DataFrame:
    """Compare the candidate readings of σ with the published curves of Original and Retrain.

    A row for each architecture, method and reading that both have, our gaps averaged over seeds
    first: medians over layers of our gap, the published, ours / published (size) and its distance
    from 1, |log10|, in decades; ρ of the two curves (shape; NaN below three layers).
    """
    found = []
    for architecture in LAYERS:
        # Of what no approximate algorithm has touched
        for method, name in product(("original", "retrain"), CANDIDATES):
            both = curves(s, architecture, name)
            if both and method in both[0]:
                ours, paper, _ = both
                seeds = ours[method].dropna().groupby(level="layer_index")
                at = pd.DataFrame({"ours": seeds.mean(), "paper": paper[method]}).dropna()
                ratio = at["ours"] / at["paper"]
                numbers = (at["ours"].median(), at["paper"].median(), ratio.median())
                numbers += (np.log10(ratio).abs().median(), spearman(at["ours"], at["paper"]))
                names = (s.title(architecture), s.title(method), name)
                shown = (float(f"{number:.3g}") for number in numbers)
                found.append((*names, *shown, len(at), int(seeds.size().max())))
    columns = ["Architecture", "Method", "Reading", "Ours, median", "Published, median"]
    columns += ["Ours / published", "Distance (decades)", "ρ over layers", "Layers", "Seeds"]
    return s.table(
        found,
        columns,
        "Fairness-gap under each reading of σ beside the published curves of Original and Retrain: "
        "medians over the layers that both have, mean over seeds first; distance: median of the "
        "absolute log10(ours / published); ρ: Spearman's, of the two curves over layers.",
        ["Architecture"],
    )


def nearest(table: pd.DataFrame) -> pd.DataFrame:
    """Return, of each architecture and method, which of the `readings` has the least distance."""
    keys = ["Architecture", "Method"]
    distance = table["Distance (decades)"]
    near = table[distance == distance.groupby([table[key] for key in keys]).transform("min")]
    return near.groupby(keys, sort=False)["Reading"].agg(", ".join).reset_index()


def outliers(s: Study) -> pd.DataFrame:
    """Return how much of the fairness-gap is left without the images that are furthest off.

    Architecture, Method, as `Spread` over seeds the last layer's gap under 'std' and under
    'trimmed_std', the second in % of the first, the % of layers where that is < 50; and Seeds.
    """
    gap = s.rows("gap", scope="all", progress=1.0, forget=s.first_forget)
    index = ["architecture", "method", "seed", "layer_index"]
    both = gap.pivot(index=index, columns="reading", values="gap")
    both = both.reindex(columns=["std", "trimmed_std"]).dropna().reset_index()
    both["left"] = 100 * both["trimmed_std"] / both["std"]
    models = both.groupby(index[:-1])
    low = models["left"].agg(lambda left: 100 * (left < 50).mean())
    table = models.last().assign(low=low)
    columns = {
        "std": ("Last-layer gap", 3),
        "trimmed_std": ("Last-layer gap, trimmed", 3),
        "left": ("Trimmed / all (%)", 1),
        "low": ("Layers below 50 % (%)", 0),
    }
    long = table.reset_index().melt(index[:-1], list(columns), "metric", "value")
    return wide(
        s,
        long,
        ["architecture", "method"],
        columns,
        f"Fairness-gap at the last normalisation layer, forget set {s.title(s.first_forget)}, of "
        "all images and trimmed: without the 1 % of each class (at least one image, chosen at each "
        "layer) that are furthest from its mean. Mean ± std over seeds.",
    )
