"""Statistics against closed forms and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from unlearnkit.report.stats import Spread, interval, mean_std, spearman


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
    "columns",
    [
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([10 / 3, 10 - 20 / 3, 10 / 3], [1, 2, 3]),
        ([1, 2], [1, 2]),
        ([], []),
        ([1, np.nan, 3, np.inf], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4]),
    ],
)
def test_undefined_is_nan(columns):
    assert np.isnan(spearman(*columns))


def test_held_fixed_closed_form():
    rng = np.random.default_rng(4)
    z = rng.normal(size=60)
    x, y = z + rng.normal(size=60), z - rng.normal(size=60)
    xy, xz, yz = (scipy_stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert abs(wanted) < abs(xy) and spearman(x, y, z) == pytest.approx(wanted)
    assert spearman(x, y, [7] * 60) == pytest.approx(xy)
    assert spearman([*x, 9], [*y, 9], [*z, np.nan]) == pytest.approx(wanted), "a pair left out"
