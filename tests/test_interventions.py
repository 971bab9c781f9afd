"""Gaps set by hand: the function kept, the penalty by its definition."""

import numpy as np
import pytest
import torch
from conftest import MODELS, differing, recipe

from unlearnkit.errors import UserError
from unlearnkit.fairness import class_sigma, fairness_gap
from unlearnkit.interventions import fine_tune, rescaled, spread_penalty
from unlearnkit.models import Classifier, build, norm_layers
from unlearnkit.training import train


def sigma_of(model, data):
    images, labels = data.test_images, data.test_labels
    return class_sigma(model, images, labels, num_classes=3, batch_size=16)["std"]


def relative_gap(sigma):
    return fairness_gap(sigma) / sigma.mean(1)


@pytest.mark.parametrize("name", [*MODELS, "convolutional small_vit"])
@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_rescaling_multiplies_every_spread_and_keeps_the_function(original, toy, name, factor):
    if name in MODELS:
        start = original(name)
    else:
        sizes = {"num_classes": 3, "image_size": 8, "mean": toy.mean, "std": toy.std}
        start = build("small_vit", seed=0, dim=16, heads=2, convolutions=2, **sizes)
    start = start.double().eval()
    changed = rescaled(start, factor)
    before, after = sigma_of(start, toy), sigma_of(changed, toy)
    torch.testing.assert_close(after, factor * before, rtol=1e-5, atol=0)
    images = toy.test_images.double() / 255
    with torch.no_grad():
        logits = start(images)
        assert (changed(images) - logits).abs().max() < 1e-10 * logits.abs().max()


def test_what_cannot_be_rescaled(build):
    other = Classifier("resnet18", torch.nn.Identity(), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match="'resnet18'; known: resnet50, small_vit"):
        rescaled(other, 3.0)
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"factor is .* above 0"):
            rescaled(build("small_vit"), factor)


def gaps_by_hand(outputs, labels):
    """Return the mean relative gap of outputs, one for each layer, in float64."""
    found = []
    for output in outputs:
        parts = [output[labels == c].double() for c in labels.unique() if (labels == c).sum() > 1]
        spreads = np.array([part.std(correction=0).item() for part in parts])
        found.append((spreads.max() - spreads.min()) / spreads.mean())
    return np.mean(found)


@pytest.mark.parametrize("name", MODELS)
def test_the_penalty_is_the_mean_relative_gap_and_its_gradient_lowers_it(original, toy, name):
    start, outputs = original(name).train(), {}
    index = torch.tensor([0, 1, 2, 3, 16, 17, 18, 40])  # one of the last class
    images, labels = toy.train_images[index] / 255, toy.train_labels[index]
    layers = norm_layers(start)
    for layer in layers:
        layer.module.register_forward_hook(
            lambda _, __, output, at=layer.index: outputs.update({at: output.detach().clone()})
        )

    with spread_penalty(start) as penalty:
        start(images)
        value = penalty(labels)
        assert len(outputs) == len(layers)
        assert value.item() == pytest.approx(gaps_by_hand(outputs.values(), labels), rel=1e-3)
        value.backward()
        gradients = {p: p.grad for p in start.parameters() if p.grad is not None}
        assert all(gradients[layer.module.weight].abs().sum() > 0 for layer in layers)
        step = 0.01 * value.item() / sum(g.square().sum() for g in gradients.values())
        with torch.no_grad():
            for parameter, gradient in gradients.items():
                parameter -= step * gradient
        start(images)
        assert penalty(labels).item() == pytest.approx(0.99 * value.item(), rel=3e-3)
    hooks = sum(len(module._forward_hooks) for module in start.modules())
    assert hooks == len(layers), "the penalty's own are gone"


def test_weight_0_is_plain_training_and_a_larger_one_lowers_the_gap(original, toy, split):
    how = recipe(optimizer="adamw", lr=2e-3, epochs=6, batch_size=42, crop=0)

    def tuned(weight):
        return fine_tune(original("small_vit"), toy, split.train, how, weight=weight, seed=0).model

    free, pressed = tuned(0.0), tuned(10.0)
    assert not differing(train(original("small_vit"), toy, split.train, how, seed=0).model, free)
    gaps = [relative_gap(sigma_of(one, toy)).mean() for one in (free, pressed)]
    assert gaps[1] < 0.8 * gaps[0]
