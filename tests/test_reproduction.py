"""The reproduction report: cell by cell, against results made by hand."""

from copy import deepcopy
from dataclasses import replace

import pytest
from helpers_study import CF, made_results

from unlearnkit.results import Results
from unlearnkit.study.reproduction import Comparison, compare, reproduction

TOLERANCE = {"points": 2.0, "ratio": 0.1}
ATTACKED = {
    "epsilons": [0.0, 4.0],
    "sets": {"test": {"n": [20, 30], "right": [[20, 30], [10, 15]]}},
}
VALUES = {
    "unlearn": {"log": {"hit_ratio": 0.5}, "memory": {"total": 7}, "parameters": 3},
    "quality": {"UA": 10.0, "TA": 90.0},
    "fairness": {
        "layers": ["one", "two"],
        "std": [[1.0, 4.0], [0.0, 0.5]],
        "variance": [[1.0, 16.0], [0.0, 0.25]],
        "channel_std": [[1.0, 4.0], [0.0, 0.5]],
    },
    "measure__own": {"name": "own", "value": 40.0},
    "robustness__pgd": ATTACKED,
    "transfer__pgd": deepcopy(ATTACKED),
    "distance": {"distances": [3.0, None, 1.0]},
    "margins": {"margins": {"forget": [1.0, 2.0]}},
}
NAN = float("nan")


def moved(path, value):
    """Return VALUES with `value` at `path`."""
    values = deepcopy(VALUES)
    *outer, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    place = values
    for step in outer:
        place = place[step]
    place[last] = value
    return values


def verdict(ours, theirs=VALUES, **tolerance):
    how = TOLERANCE | tolerance
    (compared,) = compare(made_results(**ours), made_results(**theirs), **how)
    assert compared.cell == CF.name
    return compared


@pytest.mark.parametrize(
    ("path", "value", "distance"),
    [
        # |difference| / tolerance, by hand; points 2, ratio 0.1
        ("quality/UA", 8.0, 1.0),
        ("quality/TA", 80.0, 5.0),
        # 1 of 50 images is 2 points, and 5 of them 10
        ("robustness__pgd/sets/test/right/1", [11, 15], 1.0),
        ("robustness__pgd/sets/test/right/1", [10, 20], 5.0),
        ("transfer__pgd/sets/test/right/0", [20, 28], 2.0),
        # images of one class for those of another: the accuracy is the same
        ("robustness__pgd/sets/test/right/1", [5, 20], 0.0),
        # a row's largest value is 4: 0.2 is 5 %, 0.8 is 20 %
        ("fairness/std/0", [1.2, 4.0], 0.5),
        ("fairness/std/0", [1.0, 4.8], 2.0),
        ("measure__own/value", 48.0, 2.0),
        ("unlearn/log/hit_ratio", 0.6, 2.0),
        ("unlearn/memory/total", 8, 0.0),
        # medians: 3 and, of images that were not broken, 255; 1.5 and 1.65
        ("distance/distances", [None, None, 1.0], 840.0),
        ("margins/margins/forget", [1.0, 2.3], 1.0),
    ],
)
def test_distance_from_the_committed_value(path, value, distance):
    found = verdict(moved(path, value))
    if distance <= 1:
        assert found == Comparison(CF.name, "within tolerance")
    else:
        assert found.verdict == "different"
        assert found.worst.startswith(f"{path.split('/')[0].replace('__', '/')} ")
        assert found.worst.endswith(f": {distance:.1f} x the tolerance")


def test_tolerances_are_asked_for_separately_and_the_worst_is_named():
    ours = moved("quality/UA", 13.0)
    assert verdict(ours).verdict == verdict(ours, ratio=9.0).verdict == "different"
    assert verdict(ours, points=3.0).verdict == "within tolerance"
    ours = moved("fairness/std/0", [1.0, 4.8])
    assert verdict(ours, points=99.0).verdict == "different"
    assert verdict(ours, ratio=0.21).verdict == "within tolerance"
    ours["quality"] = {"UA": 13.0, "TA": 80.0}
    assert verdict(ours).worst == "quality TA: 5.0 x the tolerance"


@pytest.mark.parametrize(
    "ours",
    [
        moved("unlearn/log/hit_ratio", NAN),
        moved("quality/UA", NAN),
        moved("fairness/std/0", [NAN, 4.0]),
        moved("fairness/std/0", [1.0, NAN]),
        moved("fairness/std/0", [1.0]),
        moved("unlearn/log", {"other": 0.5}),
        moved("quality", {"UA": 10.0}),
        moved("robustness__pgd/sets", {"forget": ATTACKED["sets"]["test"]}),
    ],
)
def test_what_is_missing_or_no_number_is_different(ours):
    """Results written by other code under the same key."""
    assert verdict(ours).verdict == verdict(VALUES, ours).verdict == "different"


def test_other_settings():
    theirs = deepcopy(made_results(**VALUES))
    theirs.records[0].stages[1]["key"] = "another key"
    different = [Comparison(CF.name, "different", "other settings")]
    assert compare(made_results(**VALUES), theirs, **TOLERANCE) == different
    fewer = made_results(**{name: VALUES[name] for name in ("unlearn", "quality")})
    assert compare(made_results(**VALUES), fewer, **TOLERANCE) == different


def test_the_report_counts_and_names_what_differs():
    def results(numbers):
        """Return results whose machine does not count, a cell for each seed."""
        cells = {seed: made_results(quality={"UA": ua}).records[0] for seed, ua in numbers.items()}
        records = [replace(r, cell=replace(CF, seed=seed)) for seed, r in cells.items()]
        report = {"tolerance_points": 3.0, "tolerance_ratio": 0.1}
        return Results({"settings": {"report": report}}, {"date": str(numbers)}, records)

    ours = results({0: 10.0, 1: 12.0, 2: 10.0} | {n: 90.0 for n in range(11, 23)})
    lines = reproduction(ours, results({n: 10.0 for n in (0, 1, 3, *range(11, 23))})).splitlines()
    assert lines[0] == (
        "Reproduction: 16 cells: 1 identical, 1 within tolerance, 12 different, "
        "1 not committed, 1 not computed"
    )
    assert lines[1] == "  (tolerance: 3 percent points of accuracies, 10 % of spreads)"
    name = replace(CF, seed=11).name
    assert lines[2] == f"  different: {name}  quality UA: 26.7 x the tolerance"
    assert len(lines) == 2 + 10 + 1 and lines[-1].strip() == "... and 2 more"
