"""What training costs: memory counted by hand, the measured peak, FLOP counted by hand."""

import copy
import math
import mmap
from contextlib import nullcontext

import pytest
import torch
from conftest import differing, state_of
from torch import nn
from torch.nn import functional as F

from unlearnkit import cost
from unlearnkit.cost import SavedBytes, peak_memory

LABELS = torch.tensor([0, 1, 2, 0])


def saved_bytes(model, images, loss_fn=F.cross_entropy):
    with SavedBytes(model) as saved:
        loss = loss_fn(model(images), LABELS)
    del loss  # alive until here: what its graph holds is what is counted
    return saved.total


def test_memory_of_a_two_layer_mlp():
    # Kept: the input, the ReLU's output (once, though two nodes save it), the log-probabilities,
    # the scalar total weight of the loss, and the labels. Not kept: the weights, there anyway.
    expected = 4 * (4 * 5 + 4 * 7 + 4 * 3 + 1) + LABELS.nbytes
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    images = torch.rand(4, 5)
    assert saved_bytes(model, images) == expected
    target, aside = torch.rand(4, 3), nn.Linear(5, 1000)

    def heavier(logits, labels):
        aside(images).exp()  # what the loss does not need
        return F.cross_entropy(logits, labels) + F.mse_loss(logits, target)

    # The squared error keeps the logits and its captured target.
    assert saved_bytes(model, images, loss_fn=heavier) == expected + 2 * 4 * 4 * 3
    model[0].requires_grad_(False)
    # Neither the input nor anything below the head's own input is kept.
    assert saved_bytes(model, images) == 4 * (4 * 7 + 4 * 3 + 1) + LABELS.nbytes
    assert saved_bytes(model.requires_grad_(False), images) == 0


def test_a_storage_counts_once_and_whole():
    wide = torch.rand(10, 6)
    model = nn.Module()
    model.weight = weight = nn.Parameter(torch.rand(6))
    model.forward = lambda images: images

    def loss_fn(logits, labels):
        return (wide * weight).sum() + (wide[:2] * weight).sum() + (wide[:, 0] * weight[0]).sum()

    assert saved_bytes(model, torch.rand(1), loss_fn=loss_fn) == wide.nbytes


def test_a_counted_pass_is_a_plain_pass():
    """Same loss, gradients, running statistics and random numbers; nothing is held afterwards."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    model.append(nn.Linear(144, 3))
    twin, images, found = copy.deepcopy(model), torch.rand(4, 3, 8, 8), []
    saved = SavedBytes(model)
    for net, block in ((model, saved), (twin, nullcontext())):
        torch.manual_seed(0)
        with block:
            loss = F.cross_entropy(net(images).exp(), LABELS)
        loss.backward()
        found.append([loss, torch.get_rng_state(), *(p.grad for p in net.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert saved.total > 0 and not differing(model, twin)
    with SavedBytes(model) as saved:
        output = model(images).exp()
    del output
    assert saved._saved and all(ref() is None for ref in saved._saved)


def test_peak_memory_sees_a_large_block_that_is_gone():
    with peak_memory() as idle:
        pass
    if math.isnan(idle.bytes):
        pytest.skip("this system does not let a process reset its peak")
    # Mapped by hand: what a training's allocator frees, it keeps for the next step.
    with peak_memory() as busy, mmap.mmap(-1, 64 * 2**20) as block:
        for _ in range(64):
            block.write(b"x" * 2**20)
    with peak_memory() as after:
        pass
    assert busy.bytes > idle.bytes + 48 * 2**20
    assert 2**20 < after.bytes < busy.bytes - 32 * 2**20


def test_flop_are_counted_by_hand(build):
    # Forward and the weights' gradient; the images themselves need none.
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
    assert cost.training_flops(linear, 4) == 2 * (2 * 48 * 10)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1))
    first, second = 2 * 36 * 27 * 8, 2 * 36 * 8 * 5
    assert cost.training_flops(convolutions, 6) == 2 * first + 3 * second
    tokens, dim = 5, 16  # four patches and the class token
    attention = 2 * 2 * tokens**2 * dim  # queries with keys, weights with values
    layers = 4 * (attention + 2 * tokens * dim * 12 * dim) + 2 * dim * 3
    patches = 2 * 4 * (3 * 4 * 4) * dim
    # Backward twice the forward, but for the images' own gradient.
    model = build("small_vit").eval()
    before = state_of(model)
    assert cost.training_flops(model, 8) == 3 * layers + 2 * patches
    assert not model.training and not differing(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_rate_is_that_of_the_best_multiplication(monkeypatch):
    assert 1e8 < cost.matmul_rate(torch.device("cpu"), "bf16") < 1e15
    ticks = iter((0.0, 0.125, 1.0, 1.0625, 2.0, 2.25))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert cost.matmul_rate(torch.device("cpu"), "fp32") == 2 * 1024**3 / 0.0625
