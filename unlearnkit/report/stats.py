"""Mean and spread over seeds, and rank correlations with an interval and a p value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

MISSING = "–"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (ddof 1) over `n` seeds; reads as ``mean ± std``.

    `float(spread)` is the mean, so a column of them is numeric again after ``.map(float)``.
    """

    mean: float
    std: float
    n: int
    digits: int = 2

    def __str__(self) -> str:
        if not self.n:
            return MISSING
        mean = f"{self.mean:.{self.digits}f}"
        return mean if self.n == 1 else f"{mean} ± {self.std:.{self.digits}f}"

    __repr__ = __str__

    def __float__(self) -> float:
        return float(self.mean)


@dataclass(frozen=True)
class Correlation:
    """Rank correlation `rho`, its interval [`low`, `high`], permutation `p`, and `n` pairs."""

    rho: float
    low: float
    high: float
    p: float
    n: int

    def __str__(self) -> str:
        if np.isnan(self.rho):
            return f"ρ undefined (n = {self.n})"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"ρ = {self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}], {p}, n = {self.n}"


def mean_std(values: Sequence[float], digits: int = 2) -> Spread:
    """Return mean and sample standard deviation of `values`; NaN are left out, n counts the rest.

    The standard deviation of a single value is NaN, and it is then not displayed.
    """
    array = np.asarray(values, dtype=float)
    array = array[~np.isnan(array)]
    mean = float(array.mean()) if len(array) else float("nan")
    std = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
    return Spread(mean, std, len(array), digits)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Student t interval of the mean; (NaN, NaN) for fewer than two values."""
    spread = mean_std(values)
    if spread.n < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + level / 2, spread.n - 1) * spread.std / np.sqrt(spread.n)
    return spread.mean - float(half), spread.mean + float(half)


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return `by` + mean, low, high (minimum and maximum), std and n of `value` in each group."""
    grouped = frame.groupby(list(by), sort=False, observed=True)[value]
    return grouped.agg(mean="mean", low="min", high="max", std="std", n="count").reset_index()


def _ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks along the last axis, centred."""
    ranks = stats.rankdata(values, axis=-1)
    return ranks - ranks.mean(axis=-1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of centred rows; NaN where one of them is constant."""
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.where(norm > 1e-9, (a * b).sum(-1) / norm, np.nan)
    return np.clip(rho, -1.0, 1.0)


def _without(ranks: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Remove what `control` explains linearly of `ranks` (both centred along the last axis)."""
    square = (control * control).sum(-1, keepdims=True)
    slope = (ranks * control).sum(-1, keepdims=True) / np.where(square > 1e-9, square, 1.0)
    residual = ranks - slope * control
    # What is left of an exactly explained row is rounding; it must count as constant.
    explained = (residual**2).sum(-1, keepdims=True) <= 1e-12 * (ranks**2).sum(-1, keepdims=True)
    return np.where(explained, 0.0, residual)


def _correlate(
    columns: Sequence[Sequence[float]],
    parts: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    seed: int,
    resamples: int,
    permutations: int,
) -> Correlation:
    """Correlate the two `parts` of the columns, with bootstrap interval and permutation p."""
    table = np.asarray([np.asarray(column, dtype=float) for column in columns])
    table = table[:, np.isfinite(table).all(axis=0)]
    n, nan = table.shape[1], float("nan")
    if n < 3:
        return Correlation(nan, nan, nan, nan, n)
    a, b = parts(table[:, None])
    rho = float(_cosine(a, b)[0])
    if np.isnan(rho):
        return Correlation(nan, nan, nan, nan, n)
    rng = np.random.default_rng(seed)
    drawn = _cosine(*parts(table[:, rng.integers(0, n, (resamples, n))]))
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (nan, nan)
    shuffled = rng.permuted(np.repeat(a, permutations, axis=0), axis=1)
    extreme = np.abs(_cosine(shuffled, b)) >= abs(rho) - 1e-12
    p = (1 + int(extreme.sum())) / (1 + permutations)
    return Correlation(rho, float(low), float(high), p, n)


def spearman(
    x: Sequence[float],
    y: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 2000,
    permutations: int = 2000,
) -> Correlation:
    """Return Spearman's ρ of `x` and `y`.

    Parameters
    ----------
    x, y : [n] each
        Pairs with a value that is not finite are left out. Ties get their average rank.
    seed : int
        Of the bootstrap and the permutations.
    resamples, permutations : int
        Bootstrap samples of the pairs for the 95 % percentile interval; shuffles for the
        two-sided p value, (1 + number at least as extreme) / (1 + permutations).

    Returns
    -------
    Correlation
        All NaN if a side is constant or there are fewer than three pairs.

    Notes
    -----
    Both treat the pairs as exchangeable. Models of one seed share their starting point, so the
    interval is too narrow where many points come from few seeds.
    """
    return _correlate([x, y], lambda t: (_ranks(t[0]), _ranks(t[1])), seed, resamples, permutations)


def partial_spearman(
    x: Sequence[float],
    y: Sequence[float],
    z: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 2000,
    permutations: int = 2000,
) -> Correlation:
    """Return the rank correlation of `x` and `y` with the ranks of `z` held fixed.

    (ρ_xy − ρ_xz ρ_yz) / √((1 − ρ_xz²)(1 − ρ_yz²)), computed from the residuals of the ranks; the
    permutations shuffle the residuals of `x`. Equal to `spearman` if `z` is constant; NaN if `z`
    explains `x` or `y` wholly. Parameters and returns as in `spearman`.
    """

    def parts(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, control = (_ranks(column) for column in table)
        return _without(a, control), _without(b, control)

    return _correlate([x, y, z], parts, seed, resamples, permutations)
