"""Verdicts on the claims: invented studies whose statistics are known in closed form."""

import helpers_report
import numpy as np
import pytest
from helpers_report import invented
from scipy import stats as scipy_stats

from unlearnkit.report import claims, frames
from unlearnkit.report.claims import judge
from unlearnkit.report.display import latex, markdown
from unlearnkit.report.sensitivity import sensitivity
from unlearnkit.report.stats import holm

SEEDS = (0, 1, 2)
LOSSES = (10.0, 20.0)  # of accuracy, at each ε > 0
UP, DOWN = ("above", 0.0), ("below", 1.0)


def model(method, seed, accuracy=90.0, gap=1.0, losses=LOSSES, distance=0.0, **rest):
    """Return one model; `distance` becomes its average gap, to a Retrain that UA makes."""
    given = {"quality": {"UA": 50 + 4 * distance, "RA": 100.0, "TA": accuracy, "MIA": 10.0}} | rest
    return helpers_report.model(
        method,
        seed,
        gap={"std": [gap, gap], "variance": [100 - gap] * 2},
        robust={"pgd": {step: accuracy - loss for step, loss in enumerate((0.0, *losses))}},
        **{"seconds": 10.0, "memory": 100.0} | given,
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
        ([-10, -11, -12], UP, "contradicted"),
        ([-1, 0, 1], UP, "undecided"),
        ([0, 0, 0], UP, "undecided"),
        ([10, 10.01], UP, "undecided"),
        ([], UP, "undecided"),
        ([10, 11, np.nan, np.inf], UP, "undecided"),
        ([0.5, 0.6, 0.7], DOWN, "supported"),
        ([1.5, 1.6, 1.7], DOWN, "contradicted"),
        ([-1, -1, -1], DOWN, "supported"),
        ([10, 11, 12], claims.DESCRIBED[:2], "described"),
    ],
)
def test_the_rule_needs_three_seeds_and_a_whole_interval(values, rule, verdict):
    found = judge(values, *rule)
    assert found["Verdict"] == verdict
    finite = [value for value in values if np.isfinite(value)]
    assert found["Seeds"] == len(finite)
    decidable = len(finite) > 2 and rule[0]
    assert np.isfinite(found["p"]) == bool(found["Excluded"]) == bool(decidable)
    if decidable and np.ptp(finite):
        wanted = scipy_stats.ttest_1samp(finite, rule[1]).pvalue
        assert found["p"] == pytest.approx(wanted)
        assert (wanted < 0.05) == (verdict != "undecided")
    if len(finite) > 2 and np.ptp(finite):
        assert ends(found) == pytest.approx(students(finite))
        cut = ends(judge(values, *rule, least=np.mean(finite)))
        assert cut == pytest.approx((np.mean(finite), students(finite)[1]))
    assert np.isnan(found["Low"]) == (len(finite) < 2)


def test_what_an_interval_excludes_is_told_from_the_claims_side():
    low, high = students([10, 11, 12])
    for side, bound, wanted in (
        ("above", 2.5, f"below {low:.3g}"),  # supported
        ("above", 20, f"above {high:.3g}"),  # contradicted
        ("above", 11, f"above {high:.3g}"),  # undecided
        ("below", 20, f"above {high:.3g}"),
        ("below", 11, f"below {low:.3g}"),
    ):
        assert judge([10, 11, 12], side, bound)["Excluded"] == wanted
    assert judge([10, 11, 12], "below", 11, least=low)["Excluded"] == "", "it can be no less"


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
    rho, ratio = row(table, "C1", "test accuracy"), row(table, "C1", "against progress 0.25")
    assert (rho["Value"], *ends(rho), rho["Seeds"]) == (-1, -1, -1, 3)
    assert ratio["Value"] == pytest.approx(0.6) and ends(ratio) == pytest.approx(students(last))
    assert rho["Verdict"] == ratio["Verdict"] == "supported"
    table = table5(along_training(lambda seed: (9.0, 1.0, 1.5, 2.0 + 0.1 * seed)))
    assert set(table[table["Claim"] == "C1"]["Verdict"]) == {"contradicted"}


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


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "contradicted")])
def test_c2_follows_the_order_of_gap_and_drop_of_all_but_the_untrained_network(sign, verdict):
    untrained = [model("original", s, progress=0.0, gap=99.0, losses=(0.0, 0.0)) for s in SEEDS]
    table = table5([*untrained, *crowd(RANKS, 5 * RANKS[::sign])])
    found = table[table["Claim"] == "C2"]
    assert len(found) == 2 and set(found["Verdict"]) == {verdict}
    assert found["Value"].to_numpy() == pytest.approx(sign)
    assert list(found["Key"]) == ["yes", "no"] and "held fixed" in found["Measured"].iloc[0]


def test_c2_is_within_one_forget_set_and_holds_clean_accuracy_fixed():
    # The drop rises with the gap only because there is more accuracy to lose.
    accuracies = 10 * RANKS
    models = crowd(RANKS, 0.5 * accuracies, accuracies)
    models += crowd(RANKS, 5 * RANKS[::-1], forget="class:3")
    table = table5(models)
    found = table[table["Claim"] == "C2"].set_index("Key")
    assert found.loc["no", "Value"] == pytest.approx(1)
    assert (found.loc["yes", "Seeds"], found.loc["yes", "Verdict"]) == (0, "undecided")


def test_sensitivity_begins_with_table_5_and_changes_one_choice_at_a_time():
    early = {"progress": 0.25, "gap": 0.5, "accuracy": 50.0, "losses": (2.5, 2.5)}
    models = crowd(RANKS, 5 * RANKS) + [model("original", seed, **early) for seed in SEEDS]
    models += [model("retrain", seed) for seed in SEEDS]
    s = invented(models)
    judged, table = claims.table5(s), sensitivity(s)
    for claim in ("C1", "C2"):
        first = table[table["Claim"] == claim].iloc[0]
        same = ["Value", "Low", "High", "Seeds", "Verdict"]
        assert (first["Choice"], first["Taken"]) == ("reading", "std")
        assert first[same].equals(judged.query("Claim == @claim and Key == 'yes'").iloc[0][same])
    of = table[table["Claim"] == "C2"].set_index(["Choice", "Taken"])["Value"]
    assert of["reading", "variance"] == pytest.approx(-of["reading", "std"])
    assert of["aggregator", "median"] == pytest.approx(of["aggregator", "log"])
    assert {"none", "accuracy", "clean and RA"} == set(of["control"].index)
    taken = table[table["Claim"] == "C3"]["Choice"]
    assert list(dict.fromkeys(taken)) == ["measure", "models"], "nothing was carried over"


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


def kept(excess, accuracy=90.0):
    """Return how many points fewer of the right images stay right with such an excess drop."""
    return -100 * np.asarray(excess) / accuracy


def test_c3_is_students_t_over_the_seeds_at_matched_clean_accuracy():
    table = table5(unlearned())
    for method, verdict in (("CF", "supported"), ("BS", "undecided"), ("RL", "contradicted")):
        found = row(table, "C3", f"{method} alone: images right when clean")
        assert ends(found) == pytest.approx(students(kept(EXCESSES[method.lower()])))
        assert (found["Verdict"], found["Seeds"], found["Key"]) == (verdict, 3, "no")
    means = np.mean([EXCESSES[name] for name in ("cf", "bs", "rl")], axis=0)
    whole = row(table, "C3", "CF, BS, RL: images right when clean")
    assert ends(whole) == pytest.approx(students(kept(means))) and whole["Key"] == "yes"
    drop = row(table, "C3", "CF, BS, RL: drop under PGD")
    assert ends(drop) == pytest.approx(students(means)) and drop["Key"] == "no"
    # Half the clean accuracy and half the drop: as vulnerable, though the drop is smaller.
    half = {"accuracy": 45.0, "losses": (LOSSES[0] / 2, LOSSES[1] / 2)}
    models = [model(method, seed, **half) for seed in SEEDS for method in ("cf", "rl")]
    table = table5(models + [model("retrain", seed) for seed in SEEDS])
    assert row(table, "C3", "CF, RL: drop")["Verdict"] == "contradicted"
    assert row(table, "C3", "CF, RL: images")["Value"] == pytest.approx(0, abs=1e-9)


def test_c3_pairs_minimal_distances_by_image_where_both_are_right():
    theirs, ours = [1.0, 2.0, 0.0, 4.0, None], [0.5, 1.0, 9.0, 0.0, None]
    models = [model("retrain", seed, distances=theirs) for seed in SEEDS]
    models += [model("cf", seed, distances=ours) for seed in SEEDS]
    found = row(table5(models), "C3", "CF: minimal distance")
    # −0.5, −1, and 0 where neither was broken; the wrong ones of either side do not count.
    assert found["Value"] == pytest.approx(-0.5) and found["Verdict"] == "supported"
    assert (found["Key"], found["Unit"]) == ("yes", "1/255")


def test_marked_models_are_named_and_left_out_of_the_means():
    def quality(ua, ra=100.0):
        return {"UA": ua, "RA": ra, "TA": 90.0, "MIA": 10.0}

    models = [model("retrain", seed, quality=quality(10.0)) for seed in SEEDS]
    models += [model("original", seed, quality=quality(0.0)) for seed in SEEDS]
    for method, ua, ra in (("cf", 5.0, 95.0), ("bs", 0.9, 100.0), ("rl", 5.0, 94.9)):
        for seed in SEEDS:
            worse = quality(ua, ra) if seed == 1 else quality(5.0)
            models.append(model(method, seed, quality=worse, losses=(30.0, 30.0)))
    found = frames.marks(invented(models)).query("mark != ''")
    assert set(zip(found["method"], found["seed"], found["mark"], strict=True)) == {
        ("bs", 1, "did not unlearn"),
        ("rl", 1, "damaged"),
    }
    table = table5(models)
    assert row(table, "C3", "CF: images")["Seeds"] == 3
    assert row(table, "C3", "BS (did not unlearn) alone: images")["Seeds"] == 3
    table = sensitivity(invented(models)).query("Claim == 'C3' and Choice == 'models'")
    assert table["Taken"].str.contains("marked models too").all() and len(table) == 3
    none = table5([m for m in models if m[0].cell.method != "cf"])
    assert none.query("Claim == 'C3' and Key == 'yes'").empty


def test_c3_by_images_made_on_the_original_stands_beside():
    models = unlearned({"cf": (0, 0, 0)})
    for record, _ in models:
        loss = 40.0 if record.cell.method == "cf" else 0.0
        value = {"epsilons": [0.0, 1.0, 2.0]}
        value["sets"] = {"test": {"n": [100], "right": [[90.0], [90 - loss], [90 - loss]]}}
        record.stages.append({"stage": "transfer/pgd", "key": record.cell.name, "value": value})
    found = row(table5(models), "C3", "images made on the original")
    assert found["Value"] == pytest.approx(kept(40.0)) and found["Key"] == "no"
    assert "attacker" in set(sensitivity(invented(models))["Choice"])


def test_c3_names_the_forget_set_where_there_are_several_and_leaves_classes_out():
    one_set = unlearned() + unlearned(forget="class:3")
    assert row(table5(one_set), "C3", "CF alone: ")["Measured"].endswith("PGD, minus Retrain's")
    both = table5(one_set + unlearned(forget="random:0.5"))
    assert row(both, "C3", "CF alone: ", "50 % random")["Seeds"] == 3
    alone = table5(unlearned(forget="class:3"))
    assert row(alone, "C3", "CF alone: ")["Verdict"] == "supported"


@pytest.mark.parametrize(("sizes", "rho"), [((1, -2, 3, -4), 1.0), ((2, -4, 1, -3), 0.0)])
def test_c4_describes_whether_clean_metrics_go_with_robustness(sizes, rho):
    excesses = {name: (size,) * 3 for name, size in zip(EXCESSES, sizes, strict=True)}
    distances = {name: float(rank) for rank, name in enumerate(EXCESSES, 1)}
    found = row(table5(unlearned(excesses, distances)), "C4", "average gap")
    assert (found["Value"], found["Verdict"]) == (pytest.approx(rho), "described")


def restricted(scope="intermediate+last"):
    models = [model("retrain", seed) for seed in SEEDS]
    models += [model("original", seed, distance=-12.0) for seed in SEEDS]
    for seed in SEEDS:
        for method, more in (("cf", 0.1), ("bs", 0.3)):
            step = 0.1 * seed
            part = {"losses": (LOSSES[0] + 3 + step, LOSSES[1] + 3 + step), "gap": 2.0}
            part |= {"distance": -2.0 - more - step, "seconds": 5.0 + seed, "memory": 40.0}
            models.append(model(method, seed, distance=-2.0))
            models.append(model(method, seed, scope=scope, **part))
    return models


def test_c5_is_the_share_of_the_improvement_that_is_kept():
    table = table5(restricted())
    found = table[table["Claim"] == "C5"].set_index("Unit")
    assert len(found) == 5 and found["Measured"].str.startswith("intermediate and last").all()
    # Original's average gap is 12, all layers' 2, these layers' 2.2 to 2.4
    share = found.loc["share"]
    assert ends(share) == pytest.approx(students([0.98, 0.97, 0.96]))
    assert (share["Verdict"], share["Key"]) == ("supported", "yes")
    points = found.loc["points"]
    assert ends(points) == pytest.approx(students(kept([3.0, 3.1, 3.2])))
    assert (points["Verdict"], points["Key"]) == ("contradicted", "yes")
    assert found.loc["ratio", "Value"].tolist() == pytest.approx([2, 0.6, 0.4])
    assert found.loc["ratio", "Key"].tolist() == ["no", "yes", "yes"]
    last = [one for one in restricted("last") if one[0].cell.scope == "last"]
    both = table5(restricted() + last)
    assert set(both.query("Claim == 'C5' and Key == 'yes'")["Measured"].str[:12]) == {
        "intermediate"
    }
    alone = table5(restricted("last")).query("Claim == 'C5'")
    assert list(alone["Key"]) == ["yes", "yes", "no", "yes", "yes"], "both at once was not run"


def test_p_is_holms_over_the_key_rows():
    table = table5(everything())
    key = table["Key"] == "yes"
    assert table.loc[~key, "p (Holm)"].isna().all()
    known = table.loc[key, "p (Holm)"].dropna()
    assert (known <= 1).all() and len(known) > 3
    assert holm([0.01, np.nan, 0.04, 0.03]).tolist() == pytest.approx(
        [0.03, np.nan, 0.06, 0.06], nan_ok=True
    )


@pytest.mark.parametrize(
    ("models", "gone", "claim", "words"),
    [
        (unlearned(), ("cf", 0, "all"), "C3", ("CF, BS, RL: images",)),
        (unlearned(distances={"cf": 1, "bs": 2}), ("rl", 1, "all"), "C4", ("average gap",)),
        (restricted(), ("bs", 2, "intermediate+last"), "C5", ("share kept",)),
        (restricted(), ("bs", 2, "all"), "C5", ("layers: images",)),
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
    return models + unlearned(some) + restricted()[2 * len(SEEDS) :]


def sound(table):
    """Check what every table of verdicts has to keep to."""
    assert set(table["Verdict"]) <= set(claims.VERDICTS)
    assert table.loc[table["Seeds"] < 3, "Verdict"].isin(["undecided", "described"]).all()
    decided = table[table["Verdict"].isin(["supported", "contradicted"])]
    assert (decided["Low"] <= decided["High"]).all()
    assert "nan" not in markdown(table)
    latex(table, "t").encode("ascii")
    return table


def test_every_claim_has_its_key_rows():
    table = sound(table5(everything()))
    key = table[table["Key"] == "yes"]
    for rows in (table, key):
        assert list(dict.fromkeys(rows["Claim"])) == ["C1", "C2", "C3", "C4", "C5"]
    assert {"undecided", "supported"} <= set(table["Verdict"])
    other = set(sound(table5(everything(), attack="fgsm"))["Claim"])
    assert other == {"C1", "C5"}, "not measured"


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
        lambda cell: cell.scope != "all",
        lambda cell: cell.seed == 0 or cell.method != "cf",
        lambda cell: cell.method == "ga",
        lambda cell: cell.seed < 2,
    ],
)
def test_a_study_that_lacks_models_is_judged_on_the_rest(keep):
    models = [m for m in everything() if keep(m[0].cell)]
    assert sound(table5(models)).empty == (not models)
    sensitivity(invented(models))


@pytest.mark.parametrize(
    "names", [["quality"], ["gap"], ["robust"], ["cost"], ["quality", "gap", "robust", "cost"]]
)
def test_a_study_that_lacks_measurements_is_judged_on_the_rest(names):
    s = invented(everything())
    vars(s).update({name: getattr(s, name).iloc[:0] for name in names})
    judged = set(sound(claims.table5(s))["Claim"])
    assert ("C3" in judged) == ("robust" not in names)
    assert ("C1" in judged) == ("gap" not in names)
