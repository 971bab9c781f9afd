"""What is said of the claims: the words for invented studies whose answer is known."""

import pytest
from helpers_report import invented
from test_claims import RANKS, SEEDS, along_training, crowd, model, restricted, unlearned

from unlearnkit.report.findings import CLAIMS, finding, summary


@pytest.mark.parametrize(
    ("last", "words", "verdict"),
    [
        ((0.5, 0.6, 0.7), "the gap falls as accuracy rises, ρ = -1.00", "supported"),
        ((2.0, 2.1, 2.2), "the gap rises as accuracy rises, ρ = 0.50", "contradicted"),
    ],
)
def test_c1_says_which_way_the_gap_goes(last, words, verdict):
    said = finding(invented(along_training(lambda seed: (0.01, 1.0, 0.9, last[seed]))), "C1")
    assert f"is **{verdict}**" in said and words in said and "n = 3" in said


@pytest.mark.parametrize(("sign", "way"), [(1, "larger"), (-1, "smaller")])
def test_c2_says_which_way_the_drop_goes(sign, way):
    said = finding(invented(crowd(RANKS, 5 * RANKS[::sign])), "C2")
    assert f"a larger gap goes with a {way} drop, ρ = {sign:.2f} [{sign:.2f}, {sign:.2f}]" in said


@pytest.mark.parametrize(
    ("excess", "words", "bracket", "excluded"),
    [
        ((9, 9.9, 10.8), "11.0 points fewer of the right", "[8.5, 13.5]", "below 8.52"),
        ((-9, -9.9, -10.8), "11.0 points more of the right", "[8.5, 13.5]", "below 8.52"),
        ((-9, 0, 9), "0.0 points more of the right", "[-24.8, 24.8]", "below -24.8"),
        ((5, 0, -1), "1.5 points fewer of the right", "[-7.4, 10.4]", "above 10.4"),
    ],
)
def test_c3_says_a_size_its_interval_and_what_is_excluded(excess, words, bracket, excluded):
    said = finding(invented(unlearned({"cf": excess})), "C3")
    assert words in said and f"(mean of CF) {bracket}" in said
    assert f"({excluded} excluded)" in said


def test_c3_says_how_far_a_wrong_answer_is_and_the_summary_takes_a_row_that_decides():
    models = [model("retrain", seed, distances=[2.0, 3.0]) for seed in SEEDS]
    models += [model("cf", seed, distances=[1.0, 2.0]) for seed in SEEDS]
    (line,) = (line for line in summary(invented(models)) if "C3" in line)
    assert "**undecided**" in line and "stay right" in line and "lies" not in line
    said = finding(invented(models), "C3")
    assert "the nearest wrong answer lies 1.00/255 nearer than Retrain's (mean of CF)" in said


def test_c5_is_a_sentence_for_each_share():
    said = finding(invented(restricted()), "C5")
    assert "intermediate and last layers keep 97 % of the improvement" in said
    assert "with intermediate and last layers 3.4 points fewer images stay right" in said
    assert "take 60 % of the seconds" in said and "take 40 % of the training memory" in said


def test_one_seed_no_retrain_and_marked_models_are_told():
    one = finding(invented([model("retrain", 0), model("cf", 0, losses=(20.0, 30.0))]), "C3")
    assert "(one seed), undecided" in one and "[" not in one
    alone = invented([model("cf", seed) for seed in SEEDS])
    assert finding(alone, "C3") == f"**C3**, {CLAIMS['C3']}. The study has no numbers for it."
    assert summary(invented([])) == []
    bad = {"quality": {"UA": 50.0, "RA": 20.0, "TA": 90.0, "MIA": 10.0}}
    models = unlearned({"cf": (1, 2, 3)})
    models += [model("retrain", seed, architecture="resnet50") for seed in SEEDS]
    models += [model("cf", seed, architecture="resnet50", **bad) for seed in SEEDS]
    assert "* ResNet-50: no method is free of marked models." in finding(invented(models), "C3")
