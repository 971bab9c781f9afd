"""What training costs: memory counted by hand, the measured peak, FLOP counted by hand."""

import copy
import math
import mmap

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearnkit import cost, models
from unlearnkit.cost import MemoryCount, SavedBytes, peak_memory

LABELS = torch.tensor([0, 1, 2, 0])


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def saved_bytes(model, images, labels=LABELS, loss_fn=F.cross_entropy):
    with SavedBytes(model) as saved:
        loss = loss_fn(model(images), labels)
    # Alive until here: what its graph holds is what is counted.
    del loss
    return saved.total


# --- memory ----------------------------------------------------------------------------------


def test_a_memory_count_is_the_sum_of_its_parts():
    assert MemoryCount(1000, 200, 30, 4).total == 1234


def test_memory_of_a_two_layer_mlp():
    # Kept: the input, the ReLU's output (once, though two nodes save it), the log-probabilities,
    # the scalar total weight of the loss, and the labels. Not kept: the weights, there anyway.
    expected = 4 * (4 * 5 + 4 * 7 + 4 * 3 + 1) + LABELS.nbytes
    model, images = mlp(), torch.rand(4, 5)
    assert saved_bytes(model, images) == expected
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
        # Three products keep the same storage, two of them parts of it.
        return (wide * weight).sum() + (wide[:2] * weight).sum() + (wide[:, 0] * weight[0]).sum()

    assert saved_bytes(model, torch.rand(1), loss_fn=loss_fn) == wide.nbytes


def test_parts_the_loss_does_not_need_are_not_counted():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = mlp(), nn.Linear(5, 1000)

        def forward(self, images):
            self.side(images).exp()
            return self.main(images)

    images = torch.rand(4, 5)
    assert saved_bytes(Aside(), images) == saved_bytes(mlp(), images)


def test_memory_grows_with_the_batch_and_the_loss():
    model, labels = mlp(), torch.zeros(8, dtype=torch.int64)
    small = saved_bytes(model, torch.rand(4, 5), labels[:4].clone())
    large = saved_bytes(model, torch.rand(8, 5), labels)
    assert large - small == 4 * (4 * (5 + 7 + 3) + 8)
    target = torch.rand(8, 3)

    def loss_fn(logits, labels):
        return F.cross_entropy(logits, labels) + F.mse_loss(logits, target)

    heavier = saved_bytes(model, torch.rand(8, 5), labels, loss_fn)
    # The squared error keeps the logits and its captured target.
    assert heavier - large == 2 * 4 * 8 * 3


def test_a_counted_pass_is_a_plain_pass():
    """Same loss, gradients, running statistics and random numbers; nothing is held afterwards."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    model.append(nn.Linear(144, 3))
    twin = copy.deepcopy(model)
    images, rng = torch.rand(4, 3, 8, 8), torch.get_rng_state()
    expected = F.cross_entropy(twin(images).exp(), LABELS)
    expected.backward()
    after = torch.get_rng_state()
    torch.set_rng_state(rng)
    with SavedBytes(model) as saved:
        loss = F.cross_entropy(model(images).exp(), LABELS)
    assert saved.total > 0 and torch.equal(loss, expected)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(rng, after)
    loss.backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    state = twin.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with SavedBytes(model) as saved:
        output = model(images).exp()
    del output
    assert not saved._saved


def test_peak_memory_sees_a_large_block_that_is_gone():
    with peak_memory() as idle:
        pass
    if math.isnan(idle.bytes):
        pytest.skip("this system does not let a process reset its peak")
    # Mapped by hand: what a training's allocator frees, it keeps for the next step.
    with peak_memory() as busy, mmap.mmap(-1, 64 * 2**20) as block:
        for _ in range(64):
            block.write(b"x" * 2**20)
    with pytest.raises(RuntimeError), peak_memory() as after:
        raise RuntimeError
    assert busy.bytes > idle.bytes + 48 * 2**20
    assert 2**20 < after.bytes < busy.bytes - 32 * 2**20


# --- speed -----------------------------------------------------------------------------------


def test_flop_are_counted_by_hand():
    # Forward and the weights' gradient; the images themselves need none.
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
    assert cost.training_flops(linear, 4) == 2 * (2 * 48 * 10)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1))
    first, second = 2 * 36 * 27 * 8, 2 * 36 * 8 * 5
    assert cost.training_flops(convolutions, 6) == 2 * first + 3 * second


def test_flop_of_a_transformer_have_attention_in_them():
    options = {"dim": 8, "heads": 2, "depth": 1, "patch": 4}
    images = {"image_size": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    model = models.build("small_vit", num_classes=10, seed=0, **images, **options)
    tokens, dim = 5, 8  # four patches and the class token
    attention = 2 * 2 * tokens**2 * dim  # queries with keys, weights with values
    layers = 2 * tokens * dim * (3 * dim + dim + 4 * dim + 4 * dim) + 2 * dim * 10
    patches = 2 * 4 * (3 * 4 * 4) * dim
    # Backward twice the forward, but for the images' own gradient.
    assert cost.training_flops(model, 8) == 3 * (attention + layers) + 2 * patches


def test_counting_flop_leaves_the_model_as_it_was(build):
    model = build("resnet50").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert cost.training_flops(model, 16) > 0
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_rate_is_that_of_the_best_multiplication(monkeypatch):
    assert 1e8 < cost.matmul_rate(torch.device("cpu"), "bf16") < 1e15
    ticks = iter((0.0, 0.125, 1.0, 1.0625, 2.0, 2.25))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert cost.matmul_rate(torch.device("cpu"), "fp32") == 2 * 1024**3 / 0.0625
