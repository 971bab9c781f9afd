"""What a training's speed is held against."""

import pytest
import torch
from torch import nn

from unlearnkit import cost as speed
from unlearnkit import models


def test_flop_of_a_linear_layer_are_counted_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
    # Forward and the weights' gradient; the images themselves need none.
    assert speed.training_flops(model, 4) == 2 * (2 * 48 * 10)


def test_flop_of_a_convolution_are_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1))
    first, second = 2 * 36 * 27 * 8, 2 * 36 * 8 * 5
    assert speed.training_flops(model, 6) == 2 * first + 3 * second


def test_flop_of_a_transformer_have_attention_in_them():
    options = {"dim": 8, "heads": 2, "depth": 1, "patch": 4}
    images = {"image_size": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    model = models.build("small_vit", num_classes=10, seed=0, **images, **options)
    tokens, dim = 5, 8  # four patches and the class token
    attention = 2 * 2 * tokens**2 * dim  # queries with keys, weights with values
    layers = 2 * tokens * dim * (3 * dim + dim + 4 * dim + 4 * dim) + 2 * dim * 10
    patches = 2 * 4 * (3 * 4 * 4) * dim
    # Backward twice the forward, but for the images' own gradient.
    assert speed.training_flops(model, 8) == 3 * (attention + layers) + 2 * patches


def test_counting_leaves_the_model_as_it_was(build):
    model = build("resnet50").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert speed.training_flops(model, 16) > 0
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rate_is_that_of_the_best_multiplication(precision, monkeypatch):
    seconds = iter([0.125, 0.0625, 0.25, 0.03])
    monkeypatch.setattr(speed, "_seconds_of_matmul", lambda square: next(seconds))
    assert speed.matmul_rate(torch.device("cpu"), precision) == 2 * 1024**3 / 0.0625
    assert next(seconds) == 0.03, "0.3 s are over"


def test_the_rate_is_a_plausible_one():
    assert 1e8 < speed.matmul_rate(torch.device("cpu"), "fp32") < 1e15
