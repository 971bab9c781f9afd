"""Closed forms of the measures, and proof that measuring leaves the model as it was."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import differing, state_of
from torch import nn

from unlearnkit import measures
from unlearnkit.errors import UserError
from unlearnkit.metrics import accuracy, mia_efficacy, predictions, true_class_confidence
from unlearnkit.names import ID
from unlearnkit.plugins import Registry
from unlearnkit.report.frames import average_gap, excess


def identity(method, *, scope="all", seed=0, progress=1.0, architecture="resnet50"):
    return dict(zip(ID, (architecture, "random:0.1", method, scope, seed, progress), strict=True))


def test_predictions_match_a_plain_pass_and_restore_modes():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    model.extend([nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)])
    model[1].eval()
    modes, state = [module.training for module in model.modules()], state_of(model)
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    found = predictions(model, images, batch_size=3)
    assert [module.training for module in model.modules()] == modes
    assert not differing(model, state)
    assert found.dtype == torch.float32 and not found.is_inference() and not found.requires_grad
    assert torch.allclose(found, predictions(model, images.float() / 255), atol=1e-5)
    assert torch.allclose(found, model.eval()(images.float() / 255), atol=1e-5)


def test_accuracy_is_a_percentage_and_confidence_the_true_classs_probability():
    assert accuracy(torch.tensor([True, False, True, True])) == 75.0
    assert math.isnan(accuracy(torch.zeros(0, dtype=torch.bool)))
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    found = true_class_confidence(logits, torch.tensor([1, 0]))
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx([0.75, 0.5], abs=1e-7)


def uniform(low, high, count, seed):
    return np.random.default_rng(seed).uniform(low, high, count)


def test_members_are_told_from_others_as_far_as_they_differ():
    retain, test = uniform(0.9, 1.0, 200, 0), uniform(0.0, 0.1, 200, 1)
    low, high = uniform(0.0, 0.1, 10, 2), uniform(0.9, 1.0, 30, 3)
    assert mia_efficacy(retain, test, low, seed=0) == 100
    assert mia_efficacy(retain, test, high, seed=0) == 0
    assert mia_efficacy(retain, test, np.concatenate([high, low]), seed=0) == 25
    alike = [[uniform(0, 1, 200, 10 * seed + k) for k in range(3)] for seed in range(8)]
    assert 35 < np.mean([mia_efficacy(*sides, seed=0) for sides in alike]) < 65


@pytest.mark.parametrize(("members", "others"), [(300, 20), (20, 300)])
def test_learns_from_equal_numbers_that_the_seed_draws(monkeypatch, members, others):
    import sklearn.svm

    seen = []

    class Spy(sklearn.svm.SVC):
        def fit(self, features, targets):
            seen.append((features[:, 0], targets))
            assert (self.C, self.gamma) == (3, "auto")
            return super().fit(features, targets)

    monkeypatch.setattr(sklearn.svm, "SVC", Spy)
    retain, test = uniform(0.2, 1, members, 0), uniform(0, 0.8, others, 1)
    for seed in (0, 0, 1):
        mia_efficacy(retain, test, test, seed=seed)
    for features, targets in seen:
        assert np.bincount(targets).tolist() == [20, 20]
        assert set(features[targets == 1]) <= set(retain)
        assert set(features[targets == 0]) <= set(test)
    first, again, other = (set(features) for features, _ in seen)
    assert first == again != other


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [1.5], [[0.5]]])
def test_confidences_that_are_none(values):
    with pytest.raises(UserError, match=r"forget confidences .* must be finite numbers in \[0, 1"):
        mia_efficacy([0.9, 0.8], [0.1, 0.2], values, seed=0)


def test_a_measure_of_ones_own(monkeypatch, build, toy, split):
    monkeypatch.setattr(measures, "MEASURES", Registry("measure"))

    @measures.measure("draw", title="Draw (%)", digits=2)
    def draw(model, data, split, *, seed, batch_size):
        assert not model.training
        return torch.tensor(seed + batch_size / len(data.test_images))

    measures.measure("nothing")(lambda *_, **__: math.nan)
    chosen = measures.MEASURES["draw"]
    assert (chosen.title, chosen.digits, chosen.version) == ("Draw (%)", 2, 1)
    how = {"seed": 3, "batch_size": 15}
    model = build("small_vit").train()
    assert measures.scalar(model, toy, split, name="draw", **how) == {"name": "draw", "value": 3.5}
    assert model.training
    with pytest.raises(UserError, match="measure nothing gave nan; it must return a finite"):
        measures.scalar(model, toy, split, name="nothing", **how)
    with pytest.raises(UserError, match="unknown measure 'drew'; known: draw, nothing"):
        measures.scalar(model, toy, split, name="drew", **how)
    for taken in ("UA", "average_gap", "seconds"):
        with pytest.raises(UserError, match=f"cannot be called {taken}"):
            measures.measure(taken)


def quality_rows(who, ua, ra, ta, mia):
    values = {"UA": ua, "RA": ra, "TA": ta, "MIA": mia, "FA": 100 - ua}
    return [{**who, "metric": name, "value": value} for name, value in values.items()]


def test_average_gap_closed_form():
    known = [  # who, their UA, RA, TA and MIA, and the gap
        (identity("retrain"), (5, 100, 94, 12), 0),
        (identity("retrain", seed=1), (7, 100, 94, 12), 0),
        (identity("cf"), (1, 98, 95, 20), (4 + 2 + 1 + 8) / 4),
        (identity("cf", seed=1), (1, 98, 95, 20), (6 + 2 + 1 + 8) / 4),
        (identity("cf", scope="last"), (5, 100, 94, 12), 0),
        (identity("cf", architecture="small_vit"), (1, 98, 95, 20), None),
        (identity("retrain", scope="last"), (0, 0, 0, 0), (5 + 100 + 94 + 12) / 4),
        (identity("original", progress=0.5), (9, 96, 90, 12), (4 + 4 + 4 + 0) / 4),
    ]
    rows = [row for who, values, _ in known for row in quality_rows(who, *values)]
    # A missing metric is not skipped.
    rows += quality_rows(identity("ga"), 5, 100, 94, 12)[:3]
    found = average_gap(pd.DataFrame(rows))
    assert list(found.columns) == [*ID, "average_gap"] and len(found) == 9
    gaps = found.astype(object).where(found.notna(), None).set_index(ID)["average_gap"].to_dict()
    assert gaps.pop(tuple(identity("ga").values())) is None
    assert gaps == {tuple(who.values()): gap for who, _, gap in known}


def robust_rows(who, accuracies, class_index=-1, access="white-box"):
    setting = {"attack": "pgd", "images": "test", "access": access, "class_index": class_index}
    return [
        {**who, **setting, "epsilon": epsilon, "accuracy": value}
        for epsilon, value in accuracies.items()
    ]


def test_drop_and_excess_closed_form():
    rows = [
        *robust_rows(identity("cf"), {0.02: 30, 0.0: 90, 0.01: 50}),
        *robust_rows(identity("cf"), {0.0: 80, 0.01: 10}, class_index=3),
        *robust_rows(identity("cf"), {0.0: 70, 0.01: 60}, access="transfer"),
        *robust_rows(identity("cf", seed=1), {0.0: 88, 0.01: 50}),
        *robust_rows(identity("retrain"), {0.0: 94, 0.01: 60, 0.02: 35}),
        *robust_rows(identity("retrain"), {0.0: 90, 0.01: 40}, class_index=3),
        *robust_rows(identity("retrain", scope="last"), {0.0: 1, 0.01: 1}),
    ]
    frame = pd.DataFrame(rows, index=range(100, 100 + len(rows)))
    found = excess(frame)
    assert found.index.equals(frame.index) and found[frame.columns].equals(frame)
    assert "drop" not in frame
    assert excess(frame[frame["epsilon"] > 0])["drop"].isna().all(), "clean accuracy is a row, too"
    assert found["drop"].tolist()[:9] == [60, 0, 40, 0, 70, 0, 10, 0, 38]
    assert found["excess"].tolist()[:5] == [60 - 59, 0, 40 - 34, 0, 70 - 50]
    assert found["excess"].isna().tolist()[5:9] == [True] * 4
    assert found["excess"].tolist()[9:14] == [0] * 5
