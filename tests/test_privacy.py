"""Membership inference against distributions whose answer is known."""

import math

import numpy as np
import pytest
import torch

from unlearnkit.errors import UserError
from unlearnkit.privacy import mia_efficacy, true_class_confidence


def uniform(low, high, count, seed):
    return np.random.default_rng(seed).uniform(low, high, count)


def test_separable_members_and_others():
    retain, test = uniform(0.9, 1.0, 200, 0), uniform(0.0, 0.1, 200, 1)
    assert mia_efficacy(retain, test, uniform(0.0, 0.1, 50, 2), seed=0) == 100
    assert mia_efficacy(retain, test, uniform(0.9, 1.0, 50, 2), seed=0) == 0
    half = np.concatenate([uniform(0.9, 1.0, 30, 3), uniform(0.0, 0.1, 10, 4)])
    assert mia_efficacy(retain, test, half, seed=0) == 25


def test_identical_distributions_give_about_half():
    scores = [
        mia_efficacy(*(uniform(0, 1, 300, 10 * s + k) for k in range(3)), seed=s) for s in range(8)
    ]
    assert 35 < np.mean(scores) < 65


@pytest.mark.parametrize(("members", "others"), [(300, 20), (20, 300)])
def test_learns_from_equal_numbers(monkeypatch, members, others):
    import sklearn.svm

    seen = {}

    class Spy(sklearn.svm.SVC):
        def fit(self, features, targets):
            seen.update(targets=targets, features=features[:, 0], options=self.get_params())
            return super().fit(features, targets)

    monkeypatch.setattr(sklearn.svm, "SVC", Spy)
    retain, test = uniform(0.5, 1, members, 0), uniform(0, 0.5, others, 1)
    mia_efficacy(retain, test, test, seed=0)
    assert np.bincount(seen["targets"]).tolist() == [20, 20]
    assert set(seen["features"][seen["targets"] == 1]) <= set(retain)
    assert set(seen["features"][seen["targets"] == 0]) <= set(test)
    assert (seen["options"]["C"], seen["options"]["gamma"]) == (3, "auto")


def test_the_seed_chooses_the_subsample():
    many, few = uniform(0.2, 1, 400, 0), uniform(0, 0.8, 40, 1)
    forget = uniform(0, 1, 500, 2)
    for retain, test in ((many, few), (few, many)):
        scores = [mia_efficacy(retain, test, forget, seed=seed) for seed in (0, 0, 1, 2, 3)]
        assert scores[0] == scores[1]
        assert len(set(scores)) > 1


def test_confidence_is_the_true_class_probability():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    labels = torch.tensor([1, 0])
    found = true_class_confidence(logits, labels)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.tensor([0.75, 0.5], dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one image"), ([0.5, float("nan")], "finite"), ([1.5], r"in \[0, 1\]")],
)
def test_errors(values, message):
    with pytest.raises(UserError, match=message):
        mia_efficacy([0.9, 0.8], [0.1, 0.2], values, seed=0)
