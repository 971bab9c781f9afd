"""Mean and spread over seeds, and rank correlation."""

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
    from scipy.stats import rankdata

    table = np.array([np.asarray(column, float) for column in (x, y, *given)])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] < 3:
        return NAN
    # Means of the same numbers in another order differ by rounding: they are ties.
    ranks = rankdata(np.round(table, 9), axis=1)
    a, b, *controls = ranks - ranks.mean(axis=1, keepdims=True)
    while controls:
        z = controls.pop()
        square = (z * z).sum()
        if square > 1e-9:  # neither constant nor explained by another control
            a, b, *controls = (side - (side * z).sum() / square * z for side in (a, b, *controls))
    norm = np.sqrt((a * a).sum() * (b * b).sum())  # 0 but for rounding where a side is constant
    return float(np.clip((a * b).sum() / norm, -1, 1)) if norm > 1e-6 else NAN


def holm(p: Sequence[float]) -> np.ndarray:
    """Return the p-values as Holm (1979) corrects them for their number; NaN stay, uncounted."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)[: np.isfinite(values).sum()]
    corrected = np.full(len(values), NAN)
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
