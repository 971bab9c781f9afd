"""A verdict by rule: does the interval over seeds lie on the side of a bound that a claim needs?"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unlearnkit.report.stats import interval, mean_std

VERDICTS = ("supported", "not supported", "undecided")
SEEDS = 3  # the fewest that can decide
CHANGE = "What would change it"


@dataclass(frozen=True)
class Rule:
    """What a claim asks for: an interval wholly `side` ("below", "above") of `bound`.

    "within": wholly between −`bound` and `bound`. `span` is the range of the statistic, to which
    the interval is cut.
    """

    side: str
    bound: float
    span: tuple[float, float] = (-np.inf, np.inf)


def judge(values: Iterable[float], rule: Rule) -> dict[str, Any]:
    """Judge one statistic.

    Parameters
    ----------
    values : [n]
        One for each seed; what is not finite is left out.

    Returns
    -------
    dict
        Value (mean), Low, High (95 % Student t interval; NaN for fewer than two seeds), Seeds,
        Verdict (one of `VERDICTS`) and what would change it.
    """
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    low, high = (float(end) for end in np.clip(interval(array), *rule.span))
    ends, sign = (low, high), ""
    if rule.side == "within":  # how far the interval's points are from 0
        sizes = sorted(map(abs, ends))
        ends = (0.0 if low <= 0 <= high else sizes[0]), sizes[1]
        rule, sign = replace(rule, side="below"), "±"
    verdict, change = _decide(*ends, len(array), rule, sign)
    numbers = {"Value": mean_std(array).mean, "Low": low, "High": high, "Seeds": len(array)}
    return {**numbers, "Verdict": verdict, CHANGE: change}


def _decide(low: float, high: float, n: int, rule: Rule, sign: str) -> tuple[str, str]:
    bound = f"{sign}{rule.bound:g}"
    if n < SEEDS:
        return "undecided", f"at least {SEEDS} seeds that give a number; {n} so far"
    if low <= rule.bound <= high:
        return "undecided", f"an interval that leaves {bound} outside; more seeds may give one"
    if high < rule.bound:
        found, distance = "below", rule.bound - high
    else:
        found, distance = "above", low - rule.bound
    if found == rule.side:
        return "supported", f"an interval that reaches {bound}: its end is {distance:.3g} {found}"
    needed = f"an interval wholly {rule.side} {bound}"
    return "not supported", f"{needed}: its nearer end is {distance:.3g} {found}"
