"""Membership tests: against closed forms, and the command that makes the models."""

from unittest import mock

import numpy as np
import pytest
from helpers_report import invented, model
from helpers_study import VIT, tiny_values, vit_lab, write_profile

from unlearnkit import files, results
from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.membership import accuracy, auc, interval, klom, lira, margins, tpr_at
from unlearnkit.metrics import predictions
from unlearnkit.report import NothingToDraw, figures
from unlearnkit.report.membership import AGAIN, finding, numbers, panel, splits, table
from unlearnkit.study.lira import panel_of
from unlearnkit.study.prune import unneeded

SET = VIT | {"methods": ["retrain", "cf"], "lira": {"models": 3, "forget_seed": 5}}


def drawn(*shifts, models=32, images=400):
    """Return margins of models of one kind for each shift; images differ far more than models."""
    generator = np.random.default_rng(0)
    level = generator.normal(0, 50, images)
    return [level + shift + generator.normal(size=(models, images)) for shift in shifts]


def test_a_margin_is_the_logit_of_the_probability_also_where_that_rounds_to_1():
    p = np.array([0.9, 0.05, 0.05])
    assert margins(np.log(np.stack([p, p])), [0, 2]) == pytest.approx(
        [np.log(0.9 / 0.1), np.log(0.05 / 0.95)]
    )
    assert margins([[1000.0, 0.0]], [0]) == pytest.approx(1000.0)


def test_models_of_one_kind_cannot_be_told_apart():
    same = drawn(0, 0)
    scores = lira(*same)
    assert auc(*scores) == pytest.approx(0.5, abs=0.01)
    assert accuracy(*scores) == pytest.approx(0.5, abs=0.01)
    assert tpr_at(0.01, *scores) == pytest.approx(0.01, abs=0.005)
    assert klom(*same).mean() == pytest.approx(2 / 32, rel=0.2)
    low, high = interval(auc, *scores, seed=0, draws=200)
    assert low < 0.5 < high and high - low < 0.05


def test_what_all_images_of_a_model_share_does_not_move_the_auc_but_the_far_left():
    generator, found = np.random.default_rng(1), []
    for _ in range(20):
        sides = [side + generator.normal(0, 1, (32, 1)) for side in drawn(0, 0, images=100)]
        scores = lira(*sides)
        found.append((auc(*scores), tpr_at(0.01, *scores)))
    mean_auc, mean_tpr = np.mean(found, axis=0)
    assert mean_auc == pytest.approx(0.5, abs=0.015)
    assert 0.01 < mean_tpr < 0.04, "more than 1 %, as the docstring says"


def test_models_far_apart_are_always_told_apart_whatever_the_direction():
    for shift in (-30, 30):
        scores = lira(*drawn(shift, 0))
        assert auc(*scores) == tpr_at(0.01, *scores) == accuracy(*scores) == 1
        assert interval(auc, *scores, seed=0, draws=20) == (1, 1)


def test_a_shift_of_one_standard_deviation_gives_the_gaussian_attackers_scores():
    moved, still = drawn(1, 0, models=400)
    assert klom(moved, still).mean() == pytest.approx(0.5, abs=0.02)
    scores = lira(moved[:100], still[:100])
    assert auc(*scores) == pytest.approx(0.760, abs=0.02)  # Φ(1 / √2)
    assert tpr_at(0.01, *scores) == pytest.approx(0.092, abs=0.02)  # Φ(1 − 2.326)
    assert accuracy(*scores) == pytest.approx(0.691, abs=0.02)  # Φ(1 / 2)
    # One threshold for all images sees nothing: they differ by far more than the models do.
    assert auc(moved, still) == pytest.approx(0.5, abs=0.02)


def test_a_target_is_never_among_the_models_it_is_judged_by():
    unlearned, retrained = drawn(0, 0, models=4, images=1)
    unlearned[2] += 1e6
    scores, _ = lira(unlearned, retrained)
    assert scores[2, 0] < -1e6 or scores[2, 0] > 1e6, "far from all that it is compared with"


def test_ties_and_the_curve():
    positives, negatives = np.array([1.0, 1.0, 3.0]), np.array([0.0, 1.0])
    assert auc(positives, negatives) == pytest.approx((0.5 + 0.5 + 1 + 1 + 1 + 1) / 6)
    assert tpr_at(np.array([0.0, 0.5, 1.0]), positives, negatives) == pytest.approx([1 / 3, 1, 1])


def test_scores_may_be_lists_and_what_is_none_is_named():
    assert auc([1, 2], [[0, 1]]) == 7 / 8 and tpr_at(0.5, [1, 2], [0, 1]) == 1
    for call, message in (
        (lambda: margins([[1.0, 0.0]], [2]), "labels from 0 to 1, not 2"),
        (lambda: margins([[1.0, 0.0]], [-1]), "labels from 0 to 1, not -1"),
        (lambda: margins([[1.0, 0.0]], [0, 1]), r"\(1, 2\) and \(2,\)"),
        (lambda: margins([[1.0]], [0]), "two classes or more"),
        (lambda: tpr_at(1.5, [1], [0]), r"rates in \[0, 1\], not 1.5"),
        (lambda: interval(auc, [[1, 2]], [[1, 2, 3]], seed=0), "of one shape"),
    ):
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (drawn(0, 0, models=2), r"3 models or more.* \(2, 400\) and"),
        ((*drawn(0, images=3), *drawn(0, images=4)), "of the same images"),
        ((np.full((3, 2), np.nan), np.zeros((3, 2))), "finite margins"),
        ((np.zeros((3, 2)), np.zeros((4, 2))), "3 unlearned and 4 retrained"),
    ],
)
def test_what_cannot_be_compared(sides, message):
    with pytest.raises(UserError, match=message):
        lira(*sides)


def test_all_models_forget_the_same_images_and_none_is_made_in_vain(tmp_path):
    lab = vit_lab(tmp_path, **SET)
    panel = panel_of(lab)
    splits = {panel.split(cell.forget, cell.seed).hash for cell in panel.cells}
    assert splits == {lab.split("random:0.2", 5).hash}
    seeds = [(cell.method, cell.seed) for cell in panel.cells]
    wanted = [(name, seed) for name in ("original", "retrain", "cf") for seed in range(3)]
    assert seeds == [*wanted, *(("retrain", seed) for seed in (3, 4, 5))]
    with pytest.raises(UserError, match=r"has no \[lira\] table"):
        panel_of(vit_lab(tmp_path))


def test_the_command_keeps_the_margins_of_all_models_and_goes_on_from_what_is_there(
    tmp_path, capsys
):
    path = str(write_profile(tmp_path, tiny_values(**SET)))
    with (
        mock.patch.dict("os.environ", {"UNLEARNKIT_STORE": str(tmp_path / "artifacts")}),
        mock.patch.object(files, "project_folder", lambda: tmp_path),
        mock.patch("unlearnkit.study.compute.cpu_count", return_value=1),
    ):
        command = ["lira", "--profile", path, "--workers", "1"]
        assert main([*command, "--accept"]) == 0
        said = capsys.readouterr().out
        assert "[15/15]" in said and "[16" not in said, "3 originals and 12 others, no more"
        assert main(command) == 0
        assert "12 identical" in capsys.readouterr().out
    found = results.read(tmp_path / "results/tiny/membership")
    values = [{s["stage"]: s["value"] for s in record.stages} for record in found.records]
    assert [list(value)[1:] for value in values] == 12 * [["quality", "margins"]]
    panel = panel_of(vit_lab(tmp_path, **SET))
    split = panel.split("random:0.2", 0)
    for value in values:
        said = {name: len(sizes) for name, sizes in value["margins"]["margins"].items()}
        assert said == {"forget": len(split.forget), "validation": len(split.validation)}
    panel.store.folder = tmp_path / "artifacts"
    index, cell = split.forget, found.records[-1].cell
    logits = predictions(panel.model(cell), panel.data.train_images[index])
    again = margins(logits.numpy(), panel.data.train_labels[index].numpy())
    assert values[-1]["margins"]["margins"]["forget"] == pytest.approx(again, rel=1e-3)
    lab = vit_lab(tmp_path, **SET)
    lab.store.folder = panel.store.folder
    assert unneeded(lab.store, [lab]) == {}


def study_of(models=12, images=40):
    """Return an invented panel: CF changes margins unseen by the SVC, SCRUB the reverse."""
    kinds = {
        "original": (9, 0),
        "retrain": (0, 20),
        "cf": (4, 20),
        "scrub": (0, 60),
        AGAIN: (0, 20),
    }
    made, drawn_ = [], drawn(*(shift for shift, _ in kinds.values()), models=models, images=images)
    for (name, (_, svc)), found in zip(kinds.items(), drawn_, strict=True):
        for seed in range(models):
            method, at = ("retrain", seed + models) if name == AGAIN else (name, seed)
            one = model(method, at, quality={"MIA": svc + seed % 3})
            values = {"forget": found[seed].tolist(), "validation": found[seed, ::-1].tolist()}
            one[0].stages.append({"stage": "margins", "key": name, "value": {"margins": values}})
            made.append(one)
    study = invented(made, profile="quick-lira")
    study.profile["lira"] = {"models": models, "forget_seed": 0}
    return study


def test_the_report_says_where_the_two_attacks_disagree():
    s = study_of()
    found = numbers(s, draws=50)
    assert list(found.index) == ["original", "cf", "scrub", AGAIN]
    assert list(found["away"][:3]) == [-20, 0, 40] and abs(found["away"][AGAIN]) < 0.5
    assert found.loc["cf", "auc_margin"] == pytest.approx(0.52, abs=0.03), "images differ by more"
    assert found.loc["cf", "auc"] > 0.95 and found.loc["cf", "tpr"] > 0.8
    for name in ("scrub", AGAIN):
        row = found.loc[name]
        assert row["auc"] == pytest.approx(0.5, abs=0.1) and row["klom"] < 0.4
        assert row["auc_low"] < 0.5 < row["auc_high"]
    shown = table(s, found)
    assert list(shown["Method"]) == [
        "Retrain",
        "Original",
        "CF",
        "SCRUB",
        "Retrain, again (range of 20 splits)",
    ]
    assert list(shown["SVC − Retrain's (points)"])[3] == "+40.0 [+40.0, +40.0]"
    said = finding(s, found)
    assert said.startswith("**LiRA's AUC on forgotten images is above the range of chance for CF. ")
    assert "At 1 % false alarms LiRA is not shown to find SCRUB.**" in said
    assert "SCRUB: LiRA has AUC 0.5" in said and "is not shown to find it (" in said
    assert "The SVC finds it 40.0 points more forgotten than Retrain." in said
    assert "The SVC sees no more difference to Retrain than chance makes." in said
    assert " and 1.00 on images that nobody trained on, and at 1 % false alarms finds 9" in said


def test_chance_is_what_splits_of_the_retrained_models_reach_and_each_split_takes_all():
    s = study_of()
    p, found = panel(s), numbers(s, draws=2)
    halves = splits(p)
    every = np.sort(np.concatenate([p.forgotten["retrain"], p.forgotten[AGAIN]]), axis=0)
    for half in halves:
        both = np.concatenate([half.forgotten["retrain"], half.forgotten[AGAIN]])
        assert (np.sort(both, axis=0) == every).all()
    aucs = [auc(*lira(half.forgotten[AGAIN], half.forgotten["retrain"])) for half in halves]
    row = found.loc[AGAIN, ["auc_low", "auc", "auc_high"]]
    assert len(set(aucs)) == 20 and list(row) == pytest.approx(
        [min(aucs), np.mean(aucs), max(aucs)]
    )


def test_a_seed_that_is_not_whole_does_not_count():
    s = study_of()
    gone = [r for r in s.results.records if (r.cell.method, r.cell.seed) != ("cf", 4)]
    s.results.records[:] = gone
    assert panel(s).forgotten["retrain"].shape == (11, 40)
    s.results.records[:] = [r for r in gone if r.cell.method != "cf"]
    s.methods.remove("cf")
    assert panel(s).compared == ["original", "scrub", AGAIN]
    s.results.records.clear()
    with pytest.raises(NothingToDraw, match="0 seeds are whole"):
        panel(s)


@pytest.mark.parametrize("column", [False, True])
def test_the_figure_shows_every_method_and_says_so_in_words(column):
    s = study_of()
    found = numbers(s, draws=20)
    fig = figures.roc(s, found, column=column)
    left, right = fig.axes
    assert left.get_xscale() == left.get_yscale() == "log"
    assert set(fig.data["method"]) == {"original", "cf", "scrub", AGAIN}
    grown = fig.data.groupby("method")["tpr"].apply(lambda tpr: (tpr.diff().dropna() >= 0).all())
    assert grown.all(), "a ROC curve never falls"
    assert {line.get_label() for line in left.lines} >= {"CF", "SCRUB", "Retrain, again"}
    assert "CF" in fig.alt and len(right.containers) == 4
