"""The smallest perturbation that makes a model wrong: against closed form, PGD, and limits."""

import math

import torch
from helpers_study import VIT, run_all
from test_attacks import linear_toy, toy_net
from torch import nn

from unlearnkit.attacks import robust_curve
from unlearnkit.distance import minimal_distances
from unlearnkit.report.tidy import frame
from unlearnkit.study.run import collect


def test_it_is_that_of_the_margin_on_a_linear_model_and_0_where_it_is_wrong():
    model, images, labels = linear_toy()
    score = (images / 255).flatten(1) @ model.weight.detach() + model.bias.detach()
    margin = score * (2 * labels - 1) / model.weight.detach().abs().sum()
    found = minimal_distances(model, images, labels, steps=100, batch_size=32)
    assert found.dtype == torch.float32
    assert (found[margin < 0] == 0).all()
    assert (found >= margin.clamp(min=0) - 1e-5).all()  # nothing nearer can be wrong
    known = found.isfinite() & (margin > 0)
    assert known.sum() > 0.9 * (margin > 0).sum()
    torch.testing.assert_close(found[known], margin[known], rtol=0.02, atol=1e-4)


def test_pgd_breaks_nothing_that_it_calls_further_away():
    model, images, labels = toy_net()
    found = minimal_distances(model, images, labels)
    for epsilon in found.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist():
        how = {"options": {"steps": 100, "step_ratio": 0.05}, "seed": 0}
        right = robust_curve(model, images, labels, "pgd", [epsilon], **how)[0]
        assert not right.all()
        assert (found[~right] <= 1.05 * epsilon).all()


def test_a_model_that_cannot_be_wrong_is_at_no_distance_and_stays_as_it_was():
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            zero = self.scale * images.flatten(1).sum(1)
            return torch.stack([zero + 5, zero], 1)

    model = Sure().train()
    found = minimal_distances(model, torch.rand(3, 3, 4, 4), torch.tensor([0, 0, 1]), steps=5)
    assert found.tolist() == [math.inf, math.inf, 0]
    assert minimal_distances(model, torch.rand(1, 3, 4, 4), torch.tensor([1])).tolist() == [0]
    assert model.training and model.scale.requires_grad and model.scale.grad is None


def test_a_study_keeps_each_images_distance_for_whole_models(vit):
    lab = vit(**VIT, distance={"test": 12, "steps": 3})
    outcome, _ = run_all(lab)
    assert not outcome.failed
    table = frame("distance", collect(lab))
    assert table.groupby("method")["image"].nunique().to_dict() == {"original": 12, "cf": 12}
    assert (table["distance"] >= 0).all()
