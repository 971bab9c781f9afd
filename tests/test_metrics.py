"""Closed forms of the measures, and proof that measuring leaves the model as it was."""

import copy
import math
import mmap

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearnkit import measures
from unlearnkit.errors import UserError
from unlearnkit.metrics import (
    MemoryCount,
    SavedBytes,
    accuracy,
    peak_memory,
    predictions,
)
from unlearnkit.report.tables.frames import average_gap, excess
from unlearnkit.results import ID


def conv_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def identity(method, *, scope="all", seed=0, progress=1.0, architecture="resnet50"):
    return dict(zip(ID, (architecture, "random:0.1", method, scope, seed, progress), strict=True))


# --- predictions and accuracy ----------------------------------------------------------------


def test_predictions_match_a_plain_pass_and_restore_modes():
    model = conv_net().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    found = predictions(model, images, batch_size=3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    expected = model.eval()(images.float() / 255)
    assert found.dtype == torch.float32 and not found.is_inference() and not found.requires_grad
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found, predictions(model, images.float() / 255), atol=1e-5)


def test_accuracy_is_a_percentage():
    assert accuracy(torch.tensor([True, False, True, True])) == 75.0
    assert math.isnan(accuracy(torch.zeros(0, dtype=torch.bool)))


# --- a measure of one's own --------------------------------------------------------------------


def test_a_measure_of_ones_own(monkeypatch, build, toy, split):
    monkeypatch.setattr(measures, "MEASURES", {})

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


# --- distances to retraining -----------------------------------------------------------------


def quality_rows(who, ua, ra, ta, mia):
    values = {"UA": ua, "RA": ra, "TA": ta, "MIA": mia, "FA": 100 - ua}
    return [{**who, "metric": name, "value": value} for name, value in values.items()]


def test_average_gap_closed_form():
    rows = [
        *quality_rows(identity("retrain"), 5, 100, 94, 12),
        *quality_rows(identity("retrain", seed=1), 7, 100, 94, 12),
        *quality_rows(identity("cf"), 1, 98, 95, 20),
        *quality_rows(identity("cf", seed=1), 1, 98, 95, 20),
        *quality_rows(identity("cf", scope="last"), 5, 100, 94, 12),
        *quality_rows(identity("cf", architecture="small_vit"), 1, 98, 95, 20),
        *quality_rows(identity("retrain", scope="last"), 0, 0, 0, 0),
        *quality_rows(identity("original", progress=0.5), 9, 96, 90, 12),
    ]
    found = average_gap(pd.DataFrame(rows))
    assert list(found.columns) == [*ID, "average_gap"] and len(found) == 8

    def gap(**who):
        mask = pd.concat([found[key] == value for key, value in who.items()], axis=1)
        return found.loc[mask.all(axis=1), "average_gap"].item()

    base = {"architecture": "resnet50", "scope": "all"}
    assert gap(method="retrain", seed=0, **base) == 0
    assert gap(method="cf", seed=0, **base) == (4 + 2 + 1 + 8) / 4
    assert gap(method="cf", seed=1, **base) == (6 + 2 + 1 + 8) / 4
    assert gap(method="original", **base) == (4 + 4 + 4 + 0) / 4
    assert gap(method="cf", scope="last") == 0
    assert math.isnan(gap(method="cf", architecture="small_vit"))


def test_average_gap_does_not_skip_a_missing_metric():
    rows = quality_rows(identity("retrain"), 5, 100, 94, 12)
    rows += quality_rows(identity("cf"), 5, 100, 94, 12)[:3]
    found = average_gap(pd.DataFrame(rows)).set_index("method")["average_gap"]
    assert found["retrain"] == 0 and math.isnan(found["cf"])


def robust_rows(who, accuracies, **setting):
    setting = {
        "attack": "pgd",
        "images": "test",
        "access": "white-box",
        "class_index": -1,
        "n": 100,
        **setting,
    }
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
    frame = pd.DataFrame(rows)
    frame.index = range(100, 100 + len(frame))
    found = excess(frame)
    assert found.index.equals(frame.index) and "drop" not in frame
    assert found[frame.columns].equals(frame)
    assert found["drop"].tolist()[:9] == [60, 0, 40, 0, 70, 0, 10, 0, 38]
    assert found["excess"].tolist()[:5] == [60 - 59, 0, 40 - 34, 0, 70 - 50]
    assert found["excess"].isna().tolist()[5:9] == [True] * 4
    retrain = found[(found["method"] == "retrain") & (found["scope"] == "all")]
    assert (retrain["excess"] == 0).all() and len(retrain) == 5


# --- memory ----------------------------------------------------------------------------------


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def saved_bytes(model, images, labels, loss_fn=F.cross_entropy):
    with SavedBytes(model, [labels]) as saved:
        loss = loss_fn(model(images), labels)
    # Alive until here: what its graph holds is what is counted.
    del loss
    return saved.total


def test_a_memory_count_is_the_sum_of_its_parts():
    assert MemoryCount(1000, 200, 30, 4).total == 1234


def test_memory_of_a_two_layer_mlp():
    batch = 4
    images, labels = torch.rand(batch, 5), torch.tensor([0, 1, 2, 0])
    # Kept: the input, the ReLU's output (once, though two nodes save it), the log-probabilities,
    # and the scalar total weight of the loss. Not kept: the weights and the labels, there anyway.
    expected = 4 * (batch * 5 + batch * 7 + batch * 3 + 1)
    model = mlp()
    assert saved_bytes(model, images, labels) == expected
    with SavedBytes(model) as saved:
        loss = F.cross_entropy(model(images), labels)
    assert saved.total == expected + labels.nbytes and loss.requires_grad


def test_frozen_layers_need_less():
    model = mlp()
    model[0].requires_grad_(False)
    images, labels = torch.rand(4, 5), torch.tensor([0, 1, 2, 0])
    # Neither the input nor anything below the head's own input is kept.
    assert saved_bytes(model, images, labels) == 4 * (4 * 7 + 4 * 3 + 1)
    assert saved_bytes(model.requires_grad_(False), images, labels) == 0


def test_a_storage_counts_once_and_whole():
    wide = torch.rand(10, 6)
    weight = nn.Parameter(torch.rand(6))

    def loss_fn(logits, labels):
        # Three products keep the same storage, two of them parts of it.
        return (wide * weight).sum() + (wide[:2] * weight).sum() + (wide[:, 0] * weight[0]).sum()

    model = nn.Module()
    model.weight = weight
    model.forward = lambda images: images
    assert saved_bytes(model, torch.rand(1), torch.zeros(1), loss_fn) == wide.nbytes


def test_parts_the_loss_does_not_need_are_not_counted():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = mlp(), nn.Linear(5, 1000)

        def forward(self, images):
            self.side(images).exp()
            return self.main(images)

    images, labels = torch.rand(4, 5), torch.tensor([0, 1, 2, 0])
    assert saved_bytes(Aside(), images, labels) == saved_bytes(mlp(), images, labels)


def test_counting_leaves_the_pass_and_random_state_alone():
    """A counted pass is a plain pass: same loss, running statistics and random numbers drawn."""
    model = conv_net().train()
    twin = copy.deepcopy(model)
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    rng = torch.get_rng_state()
    expected = F.cross_entropy(twin(images), labels)
    after = torch.get_rng_state()
    torch.set_rng_state(rng)
    with SavedBytes(model, [labels]) as first:
        loss = F.cross_entropy(model(images), labels)
    assert torch.equal(loss, expected)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(rng, after)
    state = twin.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert saved_bytes(model, images, labels) == first.total > 0


def test_memory_grows_with_the_batch_and_the_loss():
    model, labels = mlp(), torch.zeros(8, dtype=torch.int64)
    small = saved_bytes(model, torch.rand(4, 5), labels[:4])
    large = saved_bytes(model, torch.rand(8, 5), labels)
    assert large - small == 4 * 4 * (5 + 7 + 3)
    target = torch.rand(8, 3)
    heavier = saved_bytes(
        model,
        torch.rand(8, 5),
        labels,
        lambda logits, labels: F.cross_entropy(logits, labels) + F.mse_loss(logits, target),
    )
    # The squared error keeps the logits and its captured target.
    assert heavier - large == 2 * 4 * 8 * 3


def test_saved_bytes_around_a_real_step():
    """Counting does not change the gradients, and what was saved is let go afterwards."""
    model, images = mlp(), torch.rand(4, 5)
    labels = torch.tensor([0, 1, 2, 0])
    expected = torch.autograd.grad(
        F.cross_entropy(model(images).exp(), labels), [*model.parameters()]
    )
    with SavedBytes(model, [labels]) as saved:
        output = model(images).exp()
        loss = F.cross_entropy(output, labels)
    found = torch.autograd.grad(loss, [*model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # As in the plain step, and the exponential's output.
    assert saved.total == saved_bytes(model, images, labels) + 4 * 4 * 3
    with SavedBytes(model, [labels]) as saved:
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
    with peak_memory() as after:
        pass
    assert busy.bytes > idle.bytes + 48 * 2**20
    assert after.bytes < busy.bytes - 32 * 2**20


def test_peak_memory_is_filled_when_the_block_fails():
    with pytest.raises(RuntimeError), peak_memory() as peak:
        raise RuntimeError
    assert math.isnan(peak.bytes) or peak.bytes > 2**20
