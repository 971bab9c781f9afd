"""The sentences under tables and figures say what invented numbers say."""

import pytest
from helpers_report import changed, few, invented, model

from unlearnkit.errors import UserError
from unlearnkit.report import fold, recap, show
from unlearnkit.report.captions import NOTHING, SENTENCES, sentence
from unlearnkit.report.frames import marks
from unlearnkit.report.publish import FIGURES, TABLES


def study(
    seeds=(0, 1, 2),
    methods=("original", "retrain", "cf", "rl"),
    ra=99.0,
):
    """Return a study in which CF loses 5 points more than Retrain, and RL 15."""
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
    said = sentence(study(), "table2_unlearning")
    assert "CF comes closest to Retrain of the 2 methods without a mark" in said
    assert "average gap 0.5 [0.5, 0.5] points" in said
    assert said.endswith("Means over 3 seeds, with the 95 % interval in brackets.")
    said = sentence(study(seeds=(0,)), "table2_unlearning")
    assert said.endswith("One seed, so no interval.") and "[" not in said
    said = sentence(study(), "table1_models")
    assert "Original gets 80.0 [80.0, 80.0] % of the test images right and Retrain 78.0" in said


def test_what_is_judged_ends_in_its_verdict_and_what_stands_beside_it_in_n():
    said = sentence(study(), "fig2_robustness")
    assert "12.5 points fewer of the right images stay right under attack than Retrain's" in said
    assert "[12.5, 12.5], n = 3, supported, p < 0.001 after Holm (below 12.5 excl" in said
    said = sentence(study(seeds=(0,)), "fig2_robustness")
    assert said.endswith("Retrain's (mean of CF, RL) (one seed), undecided.")
    said = sentence(study(), "table3_robustness")
    assert said == "SmallViT: CF, RL lose 10.0 points more than Retrain [10.0, 10.0], n = 3."
    assert sentence(study(), "fig2_transfer") == NOTHING
    assert "C3 has 1 supported" in sentence(study(), "table5_verdicts")


def test_a_damaged_method_is_left_out_and_named():
    said = sentence(study(ra=90.0), "table2_unlearning")
    assert (
        "CF is the only method without a mark" in said and "Damaged, or not unlearned: RL." in said
    )
    assert sentence(study(ra=90.0), "table3_robustness").startswith(
        "SmallViT: CF loses 5.0 points more"
    )
    left = sentence(study(ra=90.0, methods=("original", "retrain", "rl")), "fig2_robustness")
    assert left == "No method is free of marked models."


def test_without_retrain_nothing_is_compared_with_it():
    s = study(methods=("original", "cf"))
    assert "no Retrain" in sentence(s, "table1_models")
    assert sentence(s, "table2_unlearning") == sentence(s, "fig2_robustness") == NOTHING


def test_a_class_is_compared_within_each_seed():
    s = invented([model("retrain", seed, gap={"std": [1.0]}) for seed in (0, 1)])
    s.sigma = s.sigma.assign(sigma=0.0)
    assert sentence(s, "fig6_sigma") == NOTHING
    s.sigma = s.sigma.assign(sigma=[0.0, 1.0, 30.0, 10.0])  # ratios 0 and 2, 1.5 and 0.5
    said = sentence(s, "fig6_sigma")
    assert "class 1 has 1.250 times the mean σ and class 0 0.750 times" in said


def test_a_notebook_shows_sentence_and_parts_and_folds_the_rest(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARNKIT_OUTPUT", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda output: shown.append(output.data))
    s = invented(
        few(forgets=("random:0.1", "class:<b>"), seeds=(0,)), folder=tmp_path / "results/quick"
    )
    show(s, "table1_models")
    show(s, "table5_verdicts", Claim="C1")
    recap(s, "table1_models", "C3")
    fold(s, "Marks & more", marks(s).groupby(["method", "forget"])["mark"].max())
    table, verdicts, said, folded = shown
    assert table.startswith("**SmallViT, 10\u00a0% random, n = 1**")
    assert "<details><summary>SmallViT, class &lt;b&gt;, n = 1</summary>" in table
    assert table.endswith(f"*{sentence(s, 'table1_models')}*".replace(" %", "\u00a0%"))
    assert "**C1**, a well-trained" in verdicts and "Of the key rows" not in verdicts
    assert "| Claim" not in verdicts and "mean fairness-gap and test accuracy" in verdicts
    assert len(said.splitlines()) == 3 and "**C3**" in said and "caveat" in said
    assert folded.startswith("<details><summary>Marks &amp; more</summary>")
    assert "| CF |" in folded and folded.index("| CF |") < folded.index("| SalUn |")
    assert "random:" not in folded and "cf" not in folded
    show(invented(few(scopes=("all",))), "table5_verdicts", Claim="C5", Key="yes")
    assert shown[-1].startswith("**C5**") and shown[-1].endswith("has no numbers for it.")
    for refused, call in (
        ("table or figure 'C9'", lambda: recap(s, "C9")),
        ("column of table1_models 'Sead'", lambda: show(s, "table1_models", Sead="0")),
        ("Method of table1_models 'Retr'", lambda: show(s, "table1_models", Method="Retr")),
    ):
        with pytest.raises(UserError, match=f"unknown {refused}"):
            call()


def test_restricted_layers_are_compared_with_all_layers_of_the_same_seeds():
    def one(scope, seed, points, cost):
        quality = {"UA": points, "RA": 90.0, "TA": 80.0, "MIA": 10.0}
        method = "cf" if points else "retrain"
        how = {"scope": scope, "quality": quality, "memory": 1e8 * cost, "seconds": 10 * cost}
        return model(method, seed, **how)

    exact = [one("all", seed, 0.0, 9) for seed in (0, 1)]
    whole = [one("all", 0, 4.0, 1), one("all", 1, 40.0, 1)]  # seed 1 has no other layers
    some = [one("last", 0, 8.0, 0.25), one("intermediate+last", 0, 6.0, 0.75)]
    other = changed(one("all", 0, 99.0, 1), method="ga")  # nor has GA
    said = sentence(invented([*exact, *whole, *some, other]), "fig4_layerwise")
    assert "mean of CF: all" in said
    assert sentence(invented([*whole, *some]), "fig4_layerwise") == NOTHING, "without Retrain"
    assert "all layers 1.0, intermediate and last layers 1.5 (75 % of the memory" in said
    assert "last layers 2.0 (25 % of the memory, 25 % of the time)." in said
    assert said.endswith("One seed, so no interval.")
