"""Statistics against closed forms and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from unlearnkit.report.stats import (
    Spread,
    interval,
    mean_std,
    over_seeds,
    partial_spearman,
    spearman,
)


def test_mean_std_by_hand_and_as_text():
    spread = mean_std([1.0, 2.0, np.nan, 6.0])
    assert (spread.mean, spread.std, spread.n) == (3.0, pytest.approx(np.sqrt(7)), 3)
    assert str(spread) == "3.00 ± 2.65"
    assert str(mean_std([0.1236], digits=3)) == "0.124"
    assert str(mean_std([])) == str(mean_std([np.nan])) == "–"
    assert float(spread) == 3.0
    assert pd.Series([spread]).map(float).item() == 3.0


def test_a_table_of_spreads_shows_them():
    table = pd.DataFrame({"UA": [Spread(5.0, 0.25, 2)]})
    assert "5.00 ± 0.25" in table.to_html() and "5.00 ± 0.25" in repr(table)


def test_interval_is_students():
    low, high = interval([1.0, 3.0])
    assert (low, high) == pytest.approx((2 - 12.7062047, 2 + 12.7062047))
    assert np.isnan(interval([1.0])).all()
    assert np.isnan(interval([])).all()


def test_over_seeds():
    frame = pd.DataFrame({"m": list("aab"), "v": [1.0, 3.0, 5.0]})
    table = over_seeds(frame, ["m"], "v").set_index("m")
    assert list(table.loc["a"]) == [2.0, 1.0, 3.0, pytest.approx(np.sqrt(2)), 2]
    assert table.loc["b", "n"] == 1 and np.isnan(table.loc["b", "std"])


def test_spearman_known_values():
    # 1 − 6 Σd² / n(n² − 1) with Σd² = 4
    found = spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert found.rho == pytest.approx(0.8) and found.n == 5
    up = spearman(np.arange(12), np.exp(np.arange(12)))
    assert (up.rho, up.low, up.high) == pytest.approx((1, 1, 1))
    assert up.p == pytest.approx(1 / 2001)
    assert spearman(np.arange(12), -np.arange(12.0)).rho == pytest.approx(-1)


def test_spearman_handles_ties_as_scipy_does():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, 40), rng.integers(0, 4, 40)
    assert spearman(x, y).rho == pytest.approx(scipy_stats.spearmanr(x, y).statistic)


def test_permutation_p_is_exact_for_few_points():
    # Of the 24 orders of four points the two monotone ones are as extreme as ρ = 1.
    found = spearman([1, 2, 3, 4], [1, 2, 3, 4], permutations=20000)
    assert found.p == pytest.approx(2 / 24, abs=0.01)


def test_p_is_uniform_without_association():
    rng = np.random.default_rng(0)
    p = [spearman(*rng.normal(size=(2, 15)), resamples=2, permutations=99).p for _ in range(200)]
    assert 0.4 < np.mean(p) < 0.6
    assert np.mean(np.array(p) <= 0.1) < 0.17


def test_bootstrap_interval_covers_and_narrows():
    rng = np.random.default_rng(1)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400)
    few, many = spearman(x[:25], y[:25]), spearman(x, y)
    assert few.low < few.rho < few.high and many.low < many.rho < many.high
    assert many.high - many.low < (few.high - few.low) / 2
    # Gaussian with Pearson r = 1/√2: Spearman's ρ is 6/π · asin(r/2).
    assert many.low < 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2) < many.high


def test_seed_decides():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20))
    assert spearman(x, y, seed=5) == spearman(x, y, seed=5)
    assert spearman(x, y, seed=5).low != spearman(x, y, seed=6).low


@pytest.mark.parametrize(
    ("x", "y", "n"),
    [
        ([1, 1, 1, 1], [1, 2, 3, 4], 4),
        ([1, 2], [1, 2], 2),
        ([], [], 0),
        ([1, np.nan, 3, np.inf], [1, 2, 3, 4], 2),
    ],
)
def test_undefined_is_nan_and_said(x, y, n):
    found = spearman(x, y)
    assert np.isnan([found.rho, found.low, found.high, found.p]).all()
    assert found.n == n and str(found) == f"ρ undefined (n = {n})"


def test_text_of_a_correlation():
    assert str(spearman(np.arange(12), np.arange(12))) == (
        "ρ = +1.00 [+1.00, +1.00], p < 0.001, n = 12"
    )


def test_partial_spearman_closed_form():
    rng = np.random.default_rng(4)
    z = rng.normal(size=60)
    x, y = z + rng.normal(size=60), z - rng.normal(size=60)
    xy, xz, yz = (scipy_stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = partial_spearman(x, y, z)
    assert found.rho == pytest.approx(wanted)
    assert found.low < found.rho < found.high
    assert abs(found.rho) < abs(xy) and found.p > 0.05 and spearman(x, y).p < 0.01


def test_partial_spearman_edges():
    x, y = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
    assert partial_spearman(x, y, [7] * 5).rho == pytest.approx(spearman(x, y).rho)
    assert np.isnan(partial_spearman(x, y, x).rho)
    assert partial_spearman(x, y, [3, 1, 2, 9, np.nan]).n == 4
