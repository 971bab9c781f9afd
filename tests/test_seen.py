"""What is said of models on the reader's machine: it follows the numbers."""

import pandas as pd
import pytest
import torch
from helpers_report import invented, realistic

from unlearnkit.report import seen


def table(**methods):
    """Invented models: title -> UA, drop, RA, average gap, whether the retain set is needed."""
    rows = {"Original": (0, 20, 100, 5, ""), "Retrain": (10, 25, 99, 0, "yes"), **methods}
    columns = ["UA", "drop", "RA", "average_gap", "needs_retain"]
    frame = pd.DataFrame.from_dict(rows, "index", columns=columns)
    return frame.assign(TA=frame["RA"] - 5, MIA=0.0, fairness_gap=frame["drop"] / 100, seconds=1.0)


FINE, IDLE, BROKEN = (9, 30, 98, 2.0, "yes"), (1, 21, 100, 3.0, "yes"), (40, 5, 60, 9.0, "no")


def test_forgetting_names_who_did_not_and_how_near_the_others_came():
    text = seen.forgetting(table(A=FINE, B=IDLE))
    assert text.startswith("Original gets 0.0 % of the forget set wrong, Retrain 10.0 %")
    assert "and the others between 1.0 (B) and 9.0 % (A). " in text
    assert "B went less than half" in text and "is A (2.0 points)" in text
    text = seen.forgetting(table(A=FINE))
    assert "less than half" not in text and "A is right 2.0 points less often than" in text
    idle = table(A=FINE)
    idle.loc["Retrain", "UA"] = 0
    assert "UA tells nothing here" in seen.forgetting(idle)


@pytest.mark.parametrize(
    "drop, said",
    [(30, "A loses more than Retrain. A loses most"), (10, "Retrain itself loses most")],
)
def test_robustness_says_who_is_least_robust(drop, said):
    assert said in seen.robustness(table(A=(9, drop, 98, 2.0, "yes")))


def test_the_gap_is_held_against_the_loss_under_attack():
    frame = table(A=FINE, B=IDLE)
    assert "A also loses most" in seen.fairness(frame)
    frame.loc["B", "fairness_gap"] = 1.0
    assert "Most is lost under attack by A." in seen.fairness(frame)


def test_advice_leaves_out_what_did_not_forget_or_is_damaged():
    frame = table(A=FINE, B=IDLE, C=BROKEN)
    text = seen.advice(frame)
    assert text.startswith("A forgot") and "5.0 points more under attack" in text
    assert "All of them need the retain set." in text
    free = seen.advice(table(A=FINE, D=(8, 26, 98, 2.5, "no")))
    assert "**D** loses least of them under attack. Without the retain set, take **D**." in free
    assert seen.advice(table(B=IDLE, C=BROKEN)).startswith("No method both")
    assert list(seen.choice(frame).index) == ["Retrain", "A", "B", "C"]
    assert seen.choice(frame).loc["C", "Excess drop (→ 0)"] == -20


def test_neighbours_counts_the_forget_images_alone():
    near, labels = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 0])
    forget = torch.tensor([True, False, True, False])
    text = seen.neighbours({"Original": near, "Retrain": near[[0, 2, 1, 3]]}, labels, forget)
    assert "images, 50 % in Original and 0 % in Retrain have" in text


def test_the_tables_of_a_study_have_its_finished_models():
    study = invented(realistic())
    architecture = study.architectures[0]
    frame = seen.models(study, architecture)
    assert list(frame.index[:2]) == ["Original", "Retrain"]
    assert frame.loc["Retrain", "average_gap"] == 0 and not frame.isna().any().any()
    assert seen.each(study, seen.advice).count("**") >= 2
    assert seen.resolution(study).startswith("One image is ")
