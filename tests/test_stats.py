"""Statistics against closed forms and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from unlearnkit.report.stats import Spread, correlation, interval, mean_std, spearman


def test_mean_std_by_hand_and_as_text():
    spread = mean_std([1.0, 2.0, np.nan, 6.0])
    assert (spread.mean, spread.std, spread.n) == (3.0, pytest.approx(np.sqrt(7)), 3)
    texts = map(str, (spread, mean_std([0.1236], 3), mean_std([]), mean_std([np.nan])))
    assert list(texts) == ["3.00 ± 2.65", "0.124", "–", "–"]
    assert pd.Series([spread]).map(float).item() == 3.0
    table = pd.DataFrame({"UA": [Spread(5.0, 0.25, 2)]})
    assert "5.00 ± 0.25" in table.to_html() and "5.00 ± 0.25" in repr(table)


def test_interval_is_students():
    values = [1.0, 3.0, 4.5]
    wanted = scipy_stats.t.interval(0.95, 2, np.mean(values), scipy_stats.sem(values))
    assert interval(values) == pytest.approx(wanted)
    assert interval([1.0, 3.0]) == pytest.approx((2 - 12.7062047, 2 + 12.7062047))
    assert np.isnan([interval([1.0]), interval([])]).all()


def test_spearman_known_values():
    # 1 − 6 Σd² / n(n² − 1) with Σd² = 4
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    x, y = np.random.default_rng(3).integers(0, 4, (2, 40))
    assert spearman(x, y) == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    thirds = [10 / 3, 20 / 3, 10 - 20 / 3, 1.0]
    assert thirds[0] != thirds[2], "1/3 of 10 in two ways is tied"
    wanted = scipy_stats.spearmanr([2, 3, 2, 1], [1, 2, 3, 4]).statistic
    assert spearman(thirds, [1, 2, 3, 4]) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("columns", "n"),
    [
        (([1, 1, 1, 1], [1, 2, 3, 4]), 4),
        (([10 / 3, 10 - 20 / 3, 10 / 3], [1, 2, 3]), 3),
        (([1, 2], [1, 2]), 2),
        (([], []), 0),
        (([1, np.nan, 3, np.inf], [1, 2, 3, 4]), 2),
        (([1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4]), 4),
    ],
)
def test_undefined_is_nan(columns, n):
    found = correlation(*columns)
    assert found.pop("n") == n and np.isnan([spearman(*columns), *found.values()]).all()


def test_held_fixed_closed_form():
    rng = np.random.default_rng(4)
    z = rng.normal(size=60)
    x, y = z + rng.normal(size=60), z - rng.normal(size=60)
    xy, xz, yz = (scipy_stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    found = correlation(x, y, z)
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert found["rho"] == spearman(x, y, z) == pytest.approx(wanted)
    assert found["low"] < found["rho"] < found["high"]
    assert abs(wanted) < abs(xy) and found["p"] > 0.05 and correlation(x, y)["p"] < 0.01
    assert spearman(x, y, [7] * 60) == pytest.approx(xy)
    assert correlation(x, y, [*z[:-1], np.nan])["n"] == 59


def test_permutation_p_is_exact_for_few_points_and_uniform_without_association():
    # Of the 24 orders of four points the two monotone ones are as extreme as ρ = 1.
    found = correlation([1, 2, 3, 4], [1, 2, 3, 4], resamples=20000)
    assert found["p"] == pytest.approx(2 / 24, abs=0.01)
    found = correlation(np.arange(12), np.exp(np.arange(12)))
    assert list(found.values()) == pytest.approx([1, 1, 1, 1 / 2001, 12])
    rng = np.random.default_rng(0)
    p = np.array([correlation(*rng.normal(size=(2, 15)), resamples=99)["p"] for _ in range(200)])
    assert 0.4 < p.mean() < 0.6 and (p <= 0.1).mean() < 0.17


def test_bootstrap_interval_is_scipys_and_narrows():
    x, y = np.random.default_rng(1).normal(size=(2, 400))
    few, many = correlation(x[:25], (x + y)[:25]), correlation(x, x + y)
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 2
    # Gaussian with Pearson r = 1/√2: Spearman's ρ is 6/π · asin(r/2).
    assert many["low"] < 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2) < many["high"]
    wanted = scipy_stats.bootstrap(
        (x, x + y),
        lambda a, b: scipy_stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert (many["low"], many["high"]) == pytest.approx(wanted, abs=0.02)
    assert few == correlation(x[:25], (x + y)[:25], seed=0)
    assert few["low"] != correlation(x[:25], (x + y)[:25], seed=6)["low"]
