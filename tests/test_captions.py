"""The sentences under tables and figures say what invented numbers say."""

from helpers_report import few, invented, model

from unlearnkit.report.captions import NOTHING, SENTENCES, sentence
from unlearnkit.report.publish import FIGURES, TABLES


def study(seeds=(0, 1, 2), methods=("original", "retrain", "cf", "rl"), ra=99.0):
    at = {"original": (0.0, 99.0, 80.0), "retrain": (20.0, 99.0, 78.0)}
    at |= {"cf": (18.0, 99.0, 78.0), "rl": (10.0, ra, 78.0)}
    hurt = {"original": 30.0, "retrain": 40.0, "cf": 45.0, "rl": 55.0}
    return invented(
        [
            model(
                name,
                seed,
                quality=dict(zip(("UA", "RA", "TA"), at[name], strict=True)) | {"MIA": 10.0},
                robust={"pgd": {0: 80.0, 2: 80.0 - hurt[name] + seed}},
            )
            for seed in seeds
            for name in methods
        ]
    )


def test_every_table_and_figure_has_a_sentence():
    assert set(SENTENCES) == {*TABLES, *FIGURES}
    for s in invented(few()), invented(few(methods=("original",))):
        for name in SENTENCES:
            assert sentence(s, name).endswith(".") and "nan" not in sentence(s, name), name


def test_a_sentence_names_method_size_and_seeds():
    assert "CF is the method closest to Retrain" in sentence(study(), "table2_unlearning")
    assert "(0.5 points, 95 % interval 0.5 to 0.5)" in sentence(study(), "table2_unlearning")
    said = sentence(study(), "table3_robustness")
    assert "RL is the method with the largest excess" in said and "(15.0 points" in said
    assert said.endswith("Means over 3 seeds.")
    said = sentence(study(seeds=(0,)), "table3_robustness")
    assert said.endswith("One seed alone, so no interval.") and "95 %" not in said


def test_a_damaged_method_is_left_out_and_named():
    said = sentence(study(ra=90.0), "fig2_robustness")
    assert "CF is the method" in said and "Left out as damaged or not unlearned: RL." in said


def test_without_retrain_nothing_is_compared_with_it():
    s = study(methods=("original", "cf"))
    assert "no Retrain" in sentence(s, "table1_models")
    assert sentence(s, "fig2_robustness").startswith("There is no Retrain")
    assert sentence(s, "table2_unlearning") == NOTHING
