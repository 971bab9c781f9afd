"""Verdicts on the claims: invented studies whose statistics are known in closed form."""

import helpers_report
import numpy as np
import pytest
from helpers_report import changed, invented
from scipy import stats as scipy_stats

from unlearnkit.report import claims, figures
from unlearnkit.report.claims import judge
from unlearnkit.report.tables import latex, markdown

SEEDS = (0, 1, 2)
LOSSES = (10.0, 20.0)  # of accuracy, at each ε > 0
UP, DOWN, WITHIN = ("above", 0.0), ("below", 1.0), ("within", 0.9)


def model(method, seed, accuracy=90.0, gap=1.0, losses=LOSSES, distance=0.0, **rest):
    """Return one model; `distance` becomes its average gap."""
    return helpers_report.model(
        method,
        seed,
        quality={"UA": 4 * distance, "RA": 100.0, "TA": accuracy, "MIA": 10.0},
        gap={"std": [gap, gap], "variance": [100 - gap] * 2},
        robust={"pgd": {step: accuracy - loss for step, loss in enumerate((0.0, *losses))}},
        **{"seconds": 10.0, "memory": 100.0} | rest,
    )


def table5(models, **options):
    return claims.table5(invented(models), **options)


def row(table, claim, *words):
    texts = zip(table["Claim"], table["Measured"], strict=True)
    fits = [name == claim and all(word in text for word in words) for name, text in texts]
    assert sum(fits) == 1, table.loc[table["Claim"] == claim, "Measured"].tolist()
    return table[fits].iloc[0]


def students(values):
    error = scipy_stats.sem(np.asarray(values))
    return scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), error)


def ends(found):
    return found["Low"], found["High"]


@pytest.mark.parametrize(
    ("values", "rule", "verdict"),
    [
        ([10, 11, 12], UP, "supported"),
        ([-10, -11, -12], UP, "not supported"),
        ([-1, 0, 1], UP, "undecided"),
        ([0, 0, 0], UP, "undecided"),
        ([10, 10.01], UP, "undecided"),
        ([], UP, "undecided"),
        ([10, 11, np.nan, np.inf], UP, "undecided"),
        ([0.5, 0.6, 0.7], DOWN, "supported"),
        ([1.5, 1.6, 1.7], DOWN, "not supported"),
        ([-1, -1, -1], DOWN, "supported"),
        ([-0.1, 0, 0.1], WITHIN, "supported"),
        ([-0.5, -0.6, -0.7], WITHIN, "supported"),
        ([-1.5, -1.6, -1.7], WITHIN, "not supported"),
        ([1.5, 1.6, 1.7], WITHIN, "not supported"),
        ([-0.7, -0.8, -0.9], WITHIN, "undecided"),
    ],
)
def test_the_rule_needs_three_seeds_and_a_whole_interval(values, rule, verdict):
    found = judge(values, *rule)
    assert found["Verdict"] == verdict
    finite = [value for value in values if np.isfinite(value)]
    assert found["Seeds"] == len(finite)
    assert ("seeds that give a number" in found["What would change it"]) == (len(finite) < 3)
    if len(finite) > 2 and np.ptp(finite):
        assert ends(found) == pytest.approx(students(finite))
        cut = ends(judge(values, *rule, least=np.mean(finite)))
        assert cut == pytest.approx((np.mean(finite), students(finite)[1]))
    assert np.isnan(found["Low"]) == (len(finite) < 2)


def test_what_would_change_a_verdict_is_made_of_the_rule_and_the_interval():
    end = f"its end is {students([10, 11, 12])[0] - 2.5:.3g} above"
    nearer = end.replace("its", "its nearer")
    for values, side, wanted in (
        ([10, 11, 12], "above", f"an interval that reaches 2.5: {end}"),
        ([10, 11, 12], "below", f"an interval wholly below 2.5: {nearer}"),
        ([1, 2, 6], "above", "an interval that leaves 2.5 outside; more seeds may give one"),
    ):
        assert judge(values, side, 2.5)["What would change it"] == wanted


def along_training(gaps):
    times = ((0.0, 10.0), (0.25, 50.0), (0.5, 70.0), (1.0, 90.0))
    return [
        model("original", seed, progress=at, accuracy=accuracy, gap=gap, losses=(5.0, 5.0))
        for seed in SEEDS
        for (at, accuracy), gap in zip(times, gaps(seed), strict=True)
    ]


def test_c1_asks_for_a_falling_gap_and_the_untrained_network_does_not_count():
    last = (0.5, 0.6, 0.7)
    models = along_training(lambda seed: (0.01, 1.0, 0.9, last[seed]))
    table = table5(models)
    rho, ratio = row(table, "C1", "test accuracy"), row(table, "C1", "ratio to progress 0.25")
    assert (rho["Value"], *ends(rho), rho["Seeds"]) == (-1, -1, -1, 3)
    assert ratio["Value"] == pytest.approx(0.6) and ends(ratio) == pytest.approx(students(last))
    assert rho["Verdict"] == ratio["Verdict"] == "supported"
    found = figures.conjectures_statistics(invented(models)).set_index(["conjecture", "given"])
    assert found.loc[("C1", ""), "n"] == found.loc[("C2", ""), "n"] == 9
    assert found.loc[("C1", ""), "rho"] < -0.9
    table = table5(along_training(lambda seed: (9.0, 1.0, 1.5, 2.0 + 0.1 * seed)))
    assert set(table[table["Claim"] == "C1"]["Verdict"]) == {"not supported"}


PLACES = [("original", 0.5, "all")]
PLACES += [(name, 1.0, "all") for name in ("original", "cf", "bs", "rl", "scrub")]
PLACES += [(name, 1.0, "last") for name in ("cf", "rl")]
RANKS = np.arange(1.0, 9.0)
MIXED = [80.0, 83.0, 81.0, 87.0, 82.0, 86.0, 84.0, 85.0]  # accuracies in no order


def crowd(gaps, drops, accuracies=MIXED, **place):
    return [
        model(method, seed, progress=at, scope=scope, gap=g, losses=(d, d), accuracy=a, **place)
        for seed in SEEDS
        for (method, at, scope), g, d, a in zip(PLACES, gaps, drops, accuracies, strict=True)
    ]


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "not supported")])
def test_c2_follows_the_order_of_gap_and_drop_of_all_but_the_untrained_network(sign, verdict):
    untrained = [model("original", s, progress=0.0, gap=99.0, losses=(0.0, 0.0)) for s in SEEDS]
    table = table5([*untrained, *crowd(RANKS, 5 * RANKS[::sign])])
    found = table[table["Claim"] == "C2"]
    assert len(found) == 3 and set(found["Verdict"]) == {verdict}
    assert found["Value"].to_numpy() == pytest.approx(sign)
    again, fixed = (row(table, claim, "test accuracy held fixed") for claim in ("C4", "C2"))
    assert again[claims.COLUMNS[4:]].equals(fixed[claims.COLUMNS[4:]])


def test_c1_and_c2_are_judged_under_every_reading():
    early = {"progress": 0.25, "gap": 0.5, "accuracy": 50.0, "losses": (2.5, 2.5)}
    models = []
    for name in ("resnet50", "small_vit"):
        models += crowd(RANKS, 5 * RANKS, architecture=name)
        models += [model("original", seed, architecture=name, **early) for seed in SEEDS]
    judged, table = table5(models), claims.by_reading(invented(models))
    keys = list(dict.fromkeys(zip(table["Claim"], table["Architecture"], strict=True)))
    places = ("ResNet50", "SmallViT", "all, ranked within each")
    assert keys == [("C1", a) for a in places[:2]] + [("C2", a) for a in places]
    assert list(table["Reading"]) == ["std", "variance"] * len(keys)
    judged = judged[(judged["Key"] == "yes") & judged["Claim"].isin(["C1", "C2"])]
    std, turned = (table[table["Reading"] == name] for name in ("std", "variance"))
    for name in ("Measured", "Value", "Low", "High", "Seeds", "Verdict"):
        assert std[name].tolist() == judged[name].tolist(), name
    assert turned["Value"].tolist() == pytest.approx([-value for value in std["Value"]])
    assert std["Verdict"].tolist() == ["not supported"] * 2 + ["supported"] * 3
    assert turned["Verdict"].tolist() == ["supported"] * 2 + ["not supported"] * 3


def test_c2_the_relative_drop_is_another_question():
    # The drop rises with the gap only because there is more accuracy to lose.
    accuracies = 10 * RANKS
    table = table5(crowd(RANKS, accuracies * (0.5 - 0.02 * RANKS), accuracies))
    assert table[table["Claim"] == "C2"]["Value"].iloc[0] == pytest.approx(1)
    relative = row(table, "C2", "relative to clean accuracy")
    assert (relative["Value"], relative["Verdict"]) == (pytest.approx(-1), "not supported")
    fixed = row(table, "C2", "test accuracy held fixed")
    assert (fixed["Seeds"], fixed["Verdict"]) == (0, "undecided"), "accuracy explains all of it"


def test_c2_pools_after_ranking_within_each_architecture():
    def pooled(models):
        table = table5(models)
        return table.loc[table["Architecture"].str.startswith("all"), "Value"].tolist()

    # Alone each architecture is perfectly ordered; as they are, the two together are not.
    models = crowd(RANKS, 5 * RANKS)
    models += crowd(RANKS + 100, 1 + 0.1 * RANKS, architecture="resnet50")
    assert len(pooled(models)) == 3 and pooled(models)[0] == pytest.approx(1)
    as_they_are = figures.conjectures_statistics(invented(models)).set_index("models")
    assert as_they_are.loc["across", "rho"] < 0.5
    tied = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    rounded = tied + 1e-12 * np.arange(8)
    with_ties, with_rounding = (
        pooled(crowd(RANKS, drops) + crowd(RANKS, drops, architecture="resnet50"))
        for drops in (tied, rounded)
    )
    assert with_ties == with_rounding


EXCESSES = {"cf": (4, 5, 6), "bs": (-1, 0, 1), "rl": (-4, -5, -6), "ga": (10, 11, 12)}
NOTHING = {"accuracy": 0.0, "losses": (0.0, 0.0)}


def unlearned(excesses=EXCESSES, distances=None, retrain=None, **place):
    """Return Retrain, and methods with these excesses (more at the first ε) and average gaps."""
    models = [model("retrain", seed, **(retrain or {}).get(seed, {}), **place) for seed in SEEDS]
    for method, values in excesses.items():
        for seed in SEEDS:
            losses = (LOSSES[0] + values[seed] + 1, LOSSES[1] + values[seed] - 1)
            distance = (distances or {}).get(method, 0.0)
            models.append(model(method, seed, losses=losses, distance=distance, **place))
    return models


def test_c3_is_students_t_over_the_seeds_excess():
    table = table5(unlearned())
    for method, verdict in (("CF", "supported"), ("BS", "undecided"), ("RL", "not supported")):
        found = row(table, "C3", f"{method}: drop under PGD in excess")
        assert ends(found) == pytest.approx(students(EXCESSES[method.lower()]))
        assert (found["Verdict"], found["Seeds"], found["Key"]) == (verdict, 3, "no")
    whole = row(table, "C3", "CF, BS, RL in the mean:", "(points)")
    means = np.mean([EXCESSES[name] for name in ("cf", "bs", "rl")], axis=0)
    assert whole["Value"] == pytest.approx(means.mean())
    assert ends(whole) == pytest.approx(students(means))
    alone = table5(unlearned({"cf": (4, 5, 6), "ga": (0, 0, 0)}))
    assert [row(alone, "C3", name)["Key"] for name in ("CF: ", "GA: ")] == ["yes", "no"]


def test_c3_relative_to_clean_accuracy_is_not_fooled_by_a_low_one():
    def mean(models, unit):
        return row(table5(models), "C3", "CF, RL in the mean:", unit)

    models = unlearned({"cf": (0, 1, 2), "rl": (0, 1, 2)})
    relative, plain = mean(models, "% of its clean accuracy"), mean(models, "(points)")
    assert relative["Value"] == pytest.approx(100 * plain["Value"] / 90)
    # Half the clean accuracy and half the drop: as vulnerable, though the drop is smaller.
    half = {"accuracy": 45.0, "losses": (LOSSES[0] / 2, LOSSES[1] / 2)}
    models = [model(method, seed, **half) for seed in SEEDS for method in ("cf", "rl")]
    models += [model("retrain", seed) for seed in SEEDS]
    assert mean(models, "(points)")["Verdict"] == "not supported"
    assert mean(models, "% of its clean accuracy")["Value"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("without", "seeds"), [([1], 2), (SEEDS, 0)])
def test_a_model_without_clean_accuracy_has_no_relative_drop(without, seeds):
    table = table5(unlearned(retrain=dict.fromkeys(without, NOTHING)))
    assert row(table, "C3", "CF, BS, RL in the mean:", "(points)")["Seeds"] == 3
    assert row(table, "C3", "CF, BS, RL in the mean:", "(% of its")["Seeds"] == seeds


def test_c3_names_the_forget_set_where_there_are_several_and_leaves_classes_out():
    one_set = unlearned() + unlearned(forget="class:3")
    assert row(table5(one_set), "C3", "CF: ")["Measured"].endswith("(points)")
    both = table5(one_set + unlearned(forget="random:0.5"))
    assert row(both, "C3", "CF: ", "50 % random")["Seeds"] == 3
    assert row(table5(unlearned(forget="class:3")), "C3", "CF: ")["Verdict"] == "supported"


def test_excess_by_epsilon_shows_every_seed():
    table = claims.excess_by_epsilon(invented(unlearned()))
    assert set(table["method"]) == set(EXCESSES)
    cf = table[table["method"] == "cf"]
    assert cf["epsilon"].tolist() == pytest.approx([1 / 255, 2 / 255])
    seeds = cf[["seed 0", "seed 1", "seed 2"]].to_numpy()
    assert seeds == pytest.approx(np.array([[5, 6, 7], [3, 4, 5]]))
    assert [str(spread) for spread in cf["excess"]] == ["6.00 ± 1.00", "4.00 ± 1.00"]
    assert (cf["low"].iloc[0], cf["high"].iloc[0]) == pytest.approx(students([5, 6, 7]))
    empty = claims.excess_by_epsilon(invented([model("cf", 0)]))
    assert empty.empty and {"method", "epsilon", "excess"} <= set(empty)


@pytest.mark.parametrize(
    ("sizes", "rho", "verdict"),
    [
        ((1, -2, 3, -4), 1.0, "not supported"),
        ((4, -3, 2, -1), -1.0, "not supported"),
        ((2, -4, 1, -3), 0.0, "supported"),
    ],
)
def test_c4_asks_whether_clean_metrics_stand_in_for_robustness(sizes, rho, verdict):
    excesses = {name: (size,) * 3 for name, size in zip(EXCESSES, sizes, strict=True)}
    distances = {name: float(rank) for rank, name in enumerate(EXCESSES, 1)}
    found = row(table5(unlearned(excesses, distances)), "C4", "average gap")
    assert (found["Value"], found["Verdict"]) == (pytest.approx(rho), verdict)


def restricted():
    models = [model("retrain", seed) for seed in SEEDS]
    models += [model("retrain", seed, scope="last", distance=50.0) for seed in SEEDS]
    for seed in SEEDS:
        for method, more in (("cf", 0.1), ("bs", 0.3)):
            step = 0.1 * seed
            last = {"losses": (LOSSES[0] + 3 + step, LOSSES[1] + 3 + step), "gap": 2.0}
            last |= {"distance": 2.0 + more + step, "seconds": 5.0 + seed, "memory": 40.0}
            models.append(model(method, seed, distance=2.0))
            models.append(model(method, seed, scope="last", **last))
    return models


def test_c5_pairs_methods_and_averages_them_before_the_interval():
    table = table5(restricted())
    assert (table["Claim"] == "C5").sum() == 5
    for words, value, key, verdict in (
        ("average gap", 0.3, "yes", "supported"),
        ("drop under PGD", 3.1, "yes", "not supported"),
        ("mean fairness-gap", 2, "no", "not supported"),
        ("seconds", 0.6, "yes", "supported"),
        ("training memory", 0.4, "yes", "supported"),
    ):
        found = row(table, "C5", f"last layers: {words}")
        assert found["Value"] == pytest.approx(value)
        assert (found["Key"], found["Verdict"]) == (key, verdict)
    gap, seconds = (row(table, "C5", f"last layers: {name}") for name in ("average gap", "seconds"))
    assert ends(gap) == pytest.approx(students([0.2, 0.3, 0.4]))
    assert ends(seconds) == pytest.approx(students([0.5, 0.6, 0.7]))


@pytest.mark.parametrize(
    ("models", "gone", "claim", "words"),
    [
        (unlearned(), ("cf", 0, "all"), "C3", ("CF, BS, RL in the mean:", "(points)")),
        (unlearned(), ("cf", 0, "all"), "C3", ("CF, BS, RL in the mean:", "(% of its")),
        (unlearned(distances={"cf": 1, "bs": 2}), ("rl", 1, "all"), "C4", ("average gap",)),
        (restricted(), ("bs", 2, "last"), "C5", ("last layers: average gap",)),
        (restricted(), ("bs", 2, "all"), "C5", ("last layers: drop",)),
    ],
)
def test_a_seed_that_lacks_a_method_counts_in_no_statistic_over_methods(models, gone, claim, words):
    cells = [(one, one[0].cell) for one in models]
    part = [one for one, cell in cells if (cell.method, cell.seed, cell.scope) != gone]
    complete = [one for one, cell in cells if cell.seed != gone[1]]
    whole, found, wanted = (row(table5(m), claim, *words) for m in (models, part, complete))
    assert (whole["Seeds"], found["Seeds"], found["Value"]) == (3, 2, wanted["Value"])


def everything():
    some = {"rl": EXCESSES["rl"], "scrub": EXCESSES["cf"], "ga": EXCESSES["ga"]}
    models = along_training(lambda seed: (0.01, 1.0, 0.9, 0.5 + 0.1 * seed))
    return models + unlearned(some) + restricted()[len(SEEDS) :]


def sound(table):
    """Check what every table of verdicts has to keep to."""
    assert set(table["Verdict"]) <= set(claims.VERDICTS)
    assert table.loc[table["Seeds"] < 3, "Verdict"].eq("undecided").all()
    decided = table[table["Verdict"] != "undecided"]
    assert (decided["Low"] <= decided["High"]).all()
    assert table["What would change it"].str.len().gt(10).all()
    assert "nan" not in markdown(table)
    latex(table, "t").encode("ascii")
    return table


def test_the_vocabulary_and_every_claim():
    assert claims.VERDICTS == ("supported", "not supported", "undecided")
    table = sound(table5(everything()))
    key = table[table["Key"] == "yes"]
    for rows in (table, key):
        assert list(dict.fromkeys(rows["Claim"])) == ["C1", "C2", "C3", "C4", "C5"]
    assert not key["Measured"].str.contains(r"\(for ").any(), "information and contrast"
    assert {"undecided", "supported"} <= set(table["Verdict"])
    assert [table[name].dtype.kind for name in claims.COLUMNS[4:8]] == ["f", "f", "f", "i"]
    assert set(sound(table5(everything(), attack="fgsm"))["Claim"]) == {"C1", "C5"}, "not measured"


@pytest.mark.parametrize(
    "keep",
    [
        lambda cell: False,
        lambda cell: cell.method != "retrain",
        lambda cell: cell.method != "original",
        lambda cell: cell.method in ("original", "retrain"),
        lambda cell: cell.progress in (0, 1),
        lambda cell: cell.progress == 0.25,
        lambda cell: cell.scope == "all",
        lambda cell: cell.scope == "last",
        lambda cell: cell.seed == 0 or cell.method != "cf",
        lambda cell: cell.method == "ga",
        lambda cell: cell.seed < 2,
    ],
)
def test_a_study_that_lacks_models_is_judged_on_the_rest(keep):
    models = [m for m in everything() if keep(m[0].cell)]
    assert sound(table5(models)).empty == (not models) == claims.by_reading(invented(models)).empty


@pytest.mark.parametrize(
    "names", [["quality"], ["gap"], ["robust"], ["cost"], ["quality", "gap", "robust", "cost"]]
)
def test_a_study_that_lacks_measurements_is_judged_on_the_rest(names):
    s = invented(everything())
    vars(s).update({name: getattr(s, name).iloc[:0].astype(object) for name in names})
    judged = set(sound(claims.table5(s))["Claim"])
    assert ("C3" in judged) == ("robust" not in names)
    assert ("C1" in judged) == ("gap" not in names)
    assert len(claims.excess_by_epsilon(s)) == (0 if "robust" in names else 10)


def test_models_counts_the_original_once_for_all_forget_sets():
    both = [changed(m, forget=f) for f in ("class:3", "random:0.1") for m in restricted()]
    both += [model("original", s, forget=f) for f in ("class:3", "random:0.1") for s in SEEDS]
    table = claims.models_of(invented(both))
    assert table["method"].value_counts()[["retrain", "original"]].tolist() == [12, 3]
    original = table[table["method"] == "original"]
    assert set(original["forget"]) == {"class:3"}, "the study's first"
