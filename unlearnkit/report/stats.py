"""Mean and spread over seeds, and rank correlations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MISSING = "–"
NAN = float("nan")


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


def mean_std(values: Sequence[float], digits: int = 2) -> Spread:
    """Return the `Spread` of `values`; NaN are left out, and the std of a single value is NaN."""
    array = np.asarray(values, dtype=float)
    array = array[~np.isnan(array)]
    mean = float(array.mean()) if len(array) else NAN
    std = float(array.std(ddof=1)) if len(array) > 1 else NAN
    return Spread(mean, std, len(array), digits)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % Student t interval of the mean; (NaN, NaN) for fewer than two values."""
    from scipy.stats import t

    spread = mean_std(values)
    if spread.n < 2:
        return NAN, NAN
    half = float(t.ppf(0.975, spread.n - 1) * spread.std / np.sqrt(spread.n))
    return spread.mean - half, spread.mean + half


def spearman(x: Sequence[float], y: Sequence[float], *given: Sequence[float]) -> float:
    """Return Spearman's ρ of `x` and `y`, with the ranks of what is `given` held fixed.

    With one: (ρ_xy − ρ_xz ρ_yz) / √((1 − ρ_xz²)(1 − ρ_yz²)), from the residuals of the ranks. Pairs
    with a value that is not finite are left out; what agrees to nine decimals is tied. NaN for
    fewer than three pairs, if a side is constant, or if `given` explains it wholly.
    """
    table = _finite(x, y, *given)
    return float(_cosine(*_parts(table))) if table.shape[1] > 2 else NAN


def correlation(
    x: Sequence[float],
    y: Sequence[float],
    *given: Sequence[float],
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, float]:
    """Return rho (`spearman`), its 95 % percentile interval low and high, two-sided p, and n pairs.

    Bootstrap samples of the pairs; shuffles of the ranks of `x` (of what `given` leaves of them),
    p = (1 + those at least as extreme) / (1 + all). Both treat the pairs as exchangeable: models of
    one seed share their starting point, so the interval is too narrow where few seeds give many.
    """
    table, rho = _finite(x, y, *given), spearman(x, y, *given)
    n = table.shape[1]
    if np.isnan(rho):
        return dict.fromkeys(("rho", "low", "high", "p"), NAN) | {"n": n}
    rng = np.random.default_rng(seed)
    drawn = _cosine(*_parts(table[:, rng.integers(0, n, (resamples, n))]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).tolist()
    a, b = _parts(table)
    shuffled = rng.permuted(np.tile(a, (resamples, 1)), axis=1)
    extreme = np.abs(_cosine(shuffled, b)) >= abs(rho) - 1e-12
    p = (1 + int(extreme.sum())) / (1 + resamples)
    return {"rho": rho, "low": low, "high": high, "p": p, "n": n}


def holm(p: Sequence[float]) -> np.ndarray:
    """Return the p-values as Holm (1979) corrects them for their number; NaN stay, uncounted."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)[: np.isfinite(values).sum()]
    corrected = np.full(len(values), NAN)
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _finite(*columns: Sequence[float]) -> np.ndarray:
    table = np.array([np.asarray(column, float) for column in columns])
    return table[:, np.isfinite(table).all(axis=0)]


def _parts(table: np.ndarray) -> list[np.ndarray]:
    """Return the centred ranks, along the last axis, of two sides, less what others explain."""
    from scipy.stats import rankdata

    # Means of the same numbers in another order differ by rounding: they are ties.
    ranks = rankdata(np.round(table, 9), axis=-1)
    sides = list(ranks - ranks.mean(axis=-1, keepdims=True))
    while len(sides) > 2:
        control = sides.pop()
        square = (control * control).sum(-1, keepdims=True)
        square[square < 1e-9] = 1.0  # constant, or explained by another control
        sides = [x - (x * control).sum(-1, keepdims=True) / square * control for x in sides]
    return sides


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of centred rows; NaN where one is constant but for rounding."""
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    known = norm > 1e-6
    return np.where(known, np.clip((a * b).sum(-1) / np.where(known, norm, 1.0), -1, 1), NAN)
