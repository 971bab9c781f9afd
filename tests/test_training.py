"""The training loop: rates, batches, determinism, resumption, divergence, memory, progress."""

import io
import math
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import IPython.display
import pytest
import torch
import tqdm
from conftest import differing, recipe
from torch import nn

from unlearnkit.methods import METHODS
from unlearnkit.training import OutOfTime, Run, TrainingDiverged, progress, train
from unlearnkit.training import run as training
from unlearnkit.training.batches import batch_sizes, cut

ADAMW = {"optimizer": "adamw", "weight_decay": 0.05, "lr": 2e-3}


@pytest.fixture
def trained(toy, split, build):
    """Train a fresh network on the toy data: (architecture, keywords of train, changes)."""

    def go(architecture="small_vit", *, model=None, data=toy, seed=0, keywords=None, **changes):
        model = model or build(architecture)
        return train(model, data, split.train, recipe(**changes), seed=seed, **keywords or {})

    return go


@pytest.fixture
def at_step(monkeypatch):
    """A function that makes SGD call another function, of its parameter group, at each step."""

    def spy(look):
        step = torch.optim.SGD.step
        monkeypatch.setattr(
            torch.optim.SGD, "step", lambda sgd, *a: (look(sgd.param_groups[0]), step(sgd, *a))[1]
        )

    return spy


@pytest.mark.parametrize(
    "schedule, warmup, rates",
    [
        ("constant", 0.0, {0: 1, 0.5: 1, 1: 1}),
        ("cosine", 0.0, {0: 1, 0.25: (1 + 0.5**0.5) / 2, 0.5: 0.5, 1: 0}),
        ("constant", 0.2, {0: 0, 0.05: 0.25, 0.15: 0.75, 0.2: 1, 0.6: 1, 1: 1}),
        ("cosine", 0.2, {0: 0, 0.05: 0.25, 0.15: 0.75, 0.2: 1, 0.6: 0.5, 1: 0}),
        ("onecycle", 0.25, {0: 0.04, 0.125: 0.52, 0.25: 1, 0.625: 0.5, 1: 0}),
    ],
)
def test_rates(schedule, warmup, rates):
    how = recipe(schedule=schedule, warmup=warmup, lr=0.4)
    found = [how.rate(progress) for progress in rates]
    assert found == pytest.approx([0.4 * rate for rate in rates.values()], abs=1e-12)


def test_each_step_is_taken_at_its_place_in_the_schedule(trained, at_step):
    rates, how = [], {"schedule": "cosine", "warmup": 0.25, "lr": 0.1, "epochs": 4}
    at_step(lambda group: rates.append(group["lr"]))
    trained(**how)
    steps = 4 * math.ceil(42 / 8)
    assert rates == pytest.approx([recipe(**how).rate(i / steps) for i in range(steps)])


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_clip_bounds_the_gradient(clip, trained, at_step):
    norms = []
    at_step(lambda g: norms.append(torch.cat([p.grad.flatten() for p in g["params"]]).norm()))
    trained(epochs=1, clip=clip)
    assert max(norms) <= 0.01 + 1e-6 if clip else min(norms) > 0.01


PICTURES = torch.randint(
    0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize("crop, flip, seed", [(2, True, None), (0, False, 0)])
def test_no_augmentation_is_the_exact_pixels(crop, flip, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    index = torch.tensor([3, 0, 3])
    batch = cut(PICTURES, index, crop=crop, flip=flip, generator=generator)
    assert torch.equal(batch, PICTURES[index].float() / 255)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop, least", [(0, 10.8), (2, 51.2)])
def test_every_cut_is_one_window_mirrored_or_not_all_equally_often(crop, least, flip):
    count, offsets = 5000, range(2 * crop + 1)
    image = torch.arange(1, 43, dtype=torch.uint8).view(1, 1, 6, 7).expand(1, 3, 6, 7)
    padded = nn.functional.pad(image[0], (crop,) * 4)
    windows = [padded[:, top : top + 6, left : left + 7] for top in offsets for left in offsets]
    windows += [window.flip(2) for window in windows] if flip else []
    index = torch.zeros(count, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    batch = cut(image, index, crop=crop, flip=flip, generator=generator)
    found = (batch * 255).round().to(torch.uint8)
    hits = torch.stack([(found == window).flatten(1).all(1) for window in windows])
    assert (hits.sum(0) == 1).all()
    expected = count / len(windows)
    chi_squared = ((hits.sum(1) - expected) ** 2 / expected).sum()
    assert chi_squared < least * len(windows) / len(offsets) ** 2, "p < 0.001"
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "count, size, sizes",
    [(129, 128, [65, 64]), (128, 128, [128]), (10, 4, [4, 3, 3]), (1, 8, [1]), (0, 8, [])],
)
def test_batches_are_as_equal_as_they_can_be(count, size, sizes):
    """A rest of one or two images would throw BatchNorm off."""
    assert batch_sizes(count, size) == sizes


def test_images_are_mirrored_only_where_the_data_allow_it(trained, toy, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "cut", lambda *a, **k: (seen.append(k["flip"]), cut(*a, **k))[1])
    trained(epochs=1)
    trained(epochs=1, data=replace(toy, flip=False))
    assert seen == [True] * 6 + [False] * 6


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_same_seed_same_weights_and_other_seed_others(architecture, trained, build):
    def dropping():
        model = build(architecture)
        model.net.head_drop = nn.Dropout(0.5)
        return model

    first = trained(model=dropping(), epochs=1).model
    random_state = torch.get_rng_state()
    again = trained(model=dropping(), epochs=1).model
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.rand(3)
    assert not differing(first, again)
    assert not differing(first, trained(model=dropping(), epochs=1).model)
    assert differing(first, trained(model=dropping(), epochs=1, seed=1).model)
    assert not first.training


def test_what_happens_between_epochs_changes_nothing(trained):
    seen = []

    def nosy(done, model):
        seen.append(done)
        model.eval()
        torch.rand(done)

    plain = trained(epochs=3).model
    assert not differing(plain, trained(epochs=3, keywords={"on_epoch": nosy}).model)
    assert seen == [1, 2, 3]


class Killed(BaseException):
    """What a signal would do."""


@pytest.fixture
def cut_off(monkeypatch):
    """A function that runs another, of a deadline, and ends it after one epoch."""

    def go(how, run):
        with monkeypatch.context() as patch:
            if how == "deadline":
                with pytest.raises(OutOfTime, match="after epoch 1"):
                    run(deadline=0.0)
                return
            step = Run.step

            def fatal(run, loss):
                if run._epoch == 1:
                    raise Killed
                step(run, loss)

            patch.setattr(Run, "step", fatal)
            patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
            with pytest.raises(Killed):
                run()

    return go


RESUMED = [
    ("cf", "small_vit", "deadline", {"schedule": "cosine", "warmup": 0.1}),
    ("cf", "small_vit", "killed", {"schedule": "onecycle", "warmup": 0.1, "momentum": 0.0}),
    ("rl", "small_vit", "killed", {"optimizer": "adam"}),
    ("bs", "resnet50", "killed", {}),
    ("salun", "resnet50", "deadline", ADAMW),
    ("scrub", "small_vit", "killed", {"msteps": 3, **ADAMW}),
    ("retrain", "resnet50", "deadline", {}),
]
NAMED = [name for name, *_ in RESUMED]
RESUMED += [(n, "resnet50", "deadline", {}) for n in sorted(METHODS) if n not in NAMED]


@pytest.mark.parametrize("name, architecture, how, changes", RESUMED)
def test_a_resumed_run_ends_bit_identical(
    name, architecture, how, changes, forget_with, cut_off, tmp_path
):
    scope = "last" if architecture == "resnet50" else "all"

    def go(**keywords):
        return forget_with(name, architecture, keywords={"scope": scope, **keywords}, **changes)

    straight, file = go(), tmp_path / "deep" / "state.safetensors"
    cut_off(how, lambda **late: go(state_file=file, **late))
    assert file.exists()
    resumed = go(state_file=file)
    assert not differing(straight.model, resumed.model)
    assert (straight.log, straight.memory) == (resumed.log, resumed.memory)
    assert not list(file.parent.iterdir()), "nothing is left when it is done"


def test_what_was_done_before_a_deadline_is_not_done_again(trained, cut_off, tmp_path):
    done, keywords = [], {"state_file": tmp_path / "state"}
    cut_off("deadline", lambda **late: trained(keywords=keywords | late))
    keywords["on_epoch"] = lambda epoch, model: done.append(epoch)
    run = trained(keywords=keywords)
    assert done == [2] and run.earlier_seconds > 0
    assert not differing(run.model, trained().model)


def test_a_damaged_state_is_set_aside_and_the_training_starts_over(trained, tmp_path):
    file = tmp_path / "state.safetensors"
    with pytest.raises(OutOfTime):
        trained(keywords={"state_file": file, "deadline": 0.0})
    os.truncate(file, file.stat().st_size - 100)  # of other damage: test_store.py
    with pytest.warns(UserWarning, match=r"state\.safetensors .*checkpoint.*kept as"):
        run = trained(keywords={"state_file": file})
    assert not differing(run.model, trained().model)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors.damaged"]


def linear(hidden=16):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, hidden), nn.ReLU(), nn.Linear(hidden, 3))


@pytest.mark.parametrize(
    "other", [{"lr": 0.01}, {"optimizer": "adamw"}, {"seed": 1}, {"hidden": 5}, {"file": "copy"}]
)
def test_the_state_of_another_training_is_not_taken_up(other, trained, tmp_path):
    def go(file="state", hidden=4, deadline=None, **changes):
        keywords = {"state_file": tmp_path / file, "deadline": deadline}
        return trained(model=linear(hidden), keywords=keywords, **changes).model

    with pytest.raises(OutOfTime):
        go(deadline=0.0)
    (tmp_path / "state").rename(tmp_path / other.get("file", "state"))
    with pytest.warns(UserWarning, match="no usable checkpoint: it is of another training"):
        taken = go(**other)
    assert not differing(taken, go(**other))


def test_divergence_names_what_ran_epoch_and_rate(trained, forget_with, monkeypatch):
    with pytest.raises(TrainingDiverged, match=r"^original: the loss is not finite in epoch 1 at"):
        trained(lr=1e20)
    cross_entropy = Run.cross_entropy
    monkeypatch.setattr(
        Run,
        "cross_entropy",
        lambda run, *batch: cross_entropy(run, *batch) * (math.inf if run._epoch == 2 else 1),
    )
    says = "^vit original: .*epoch 3 at a rate of 0.0125; try a smaller rate$"
    with pytest.raises(TrainingDiverged, match=says):
        trained(epochs=5, lr=0.0125, keywords={"name": "vit original"})
    monkeypatch.undo()
    last_step = {"lr": 1e38, "weight_decay": 1e10, "epochs": 1, "batch_size": 64, "clip": 1.0}
    with pytest.raises(TrainingDiverged, match=r"^ga last: the weights are not finite in epoch 1"):
        forget_with("ga", keywords={"scope": "last"}, **last_step)


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_bf16_runs_near_fp32_on_fp32_weights(architecture, trained, monkeypatch):
    plain = trained(architecture, epochs=1, lr=1e-5)
    monkeypatch.setattr(training, "has_bf16", lambda device: False)
    assert not differing(plain.model, trained(architecture, epochs=1, lr=1e-5).model)
    monkeypatch.setattr(training, "has_bf16", lambda device: True)
    run = trained(architecture, epochs=1, precision="bf16", lr=1e-5)
    assert run.logits(torch.rand(2, 3, 8, 8)).dtype == torch.float32
    assert differing(run.model, plain.model)
    for one, other in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.1)
    assert run.memory().activations < plain.memory().activations


@pytest.mark.parametrize("optimizer, tensors", [("sgd", 1), ("adam", 2), ("adamw", 2)])
def test_memory_is_the_plain_count_of_a_small_network(optimizer, tensors, trained):
    run = trained(model=linear(), epochs=1, batch_size=32, optimizer=optimizer)
    weights = 4 * (192 * 16 + 16 + 16 * 3 + 3)
    # kept for the backward pass of 21 images: see test_cost.py
    saved, extra = 4 * 21 * (192 + 16 + 3), 8 * 21 + 4
    count = run.memory()
    assert (count.parameters, count.gradients) == (weights, weights)
    assert count.optimizer == pytest.approx(tensors * weights, abs=4 * 4)
    assert saved <= count.activations <= saved + extra


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_frozen_layers_save_memory_and_a_teacher_takes_some(architecture, forget_with):
    def count(name, scope="all"):
        return forget_with(name, architecture, keywords={"scope": scope}, epochs=1).memory

    everything, last = count("cf"), count("cf", "last")
    assert last.activations < 0.6 * everything.activations
    assert last.gradients < everything.gradients and last.optimizer < everything.optimizer
    assert last.parameters == everything.parameters == count("ga").parameters
    assert count("cf", "first").activations > last.activations
    for asking in ("scrub", "bs"):
        assert count(asking).parameters == 2 * everything.parameters, "the original is kept"


def test_memory_is_that_of_the_largest_pass(forget_with):
    small, middle, large = (
        forget_with("scrub", epochs=1, forget_batch_size=size).memory.activations
        for size in (2, 4, 9)
    )
    assert small == middle < large


@pytest.fixture
def screen(monkeypatch):
    """A terminal; `screen.bars` are those made, `bar.places` where they stood when drawn."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("UNLEARNKIT_WORKER", raising=False)
    screen = io.StringIO()
    screen.bars, screen.isatty = [], lambda: True

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            self.places = []
            super().__init__(**options, file=screen, mininterval=0)
            screen.bars.append(self)

        def display(self, *arguments, **keywords):
            self.places.append(self.n)
            return super().display(*arguments, **keywords)

    monkeypatch.setattr(progress, "tqdm", Bar)
    return screen


@pytest.mark.parametrize("variable", [None, "TQDM_DISABLE", "UNLEARNKIT_WORKER"])
def test_progress_is_silent_without_a_terminal_and_where_told(
    variable, trained, screen, monkeypatch, capsys
):
    if variable:
        monkeypatch.setenv(variable, "1")
    else:
        screen.isatty = lambda: False
    trained(epochs=1)
    assert len(screen.bars) == 1 and not screen.bars[0].places
    assert (screen.getvalue(), *capsys.readouterr()) == ("", "", "")


@pytest.mark.parametrize("name", ["rl", "scrub", "ga"])
def test_progress_never_goes_back_nor_past_the_end_and_leaves_one_line(name, forget_with, screen):
    forget_with(name, epochs=3)
    (bar,), shown = screen.bars, screen.getvalue()
    assert bar.places == sorted(bar.places) and len(bar.places) >= 4
    assert bar.places[-1] == pytest.approx(bar.total) == 3
    assert all(text in shown for text in (name, " < ", "loss "))
    last = shown.rpartition("\r")[2]
    assert re.fullmatch(rf"{name}: 3 epochs, [\d.]+ % test accuracy, [\d.]+ s *\n", last)
    assert shown.count("\n") == 1


def test_a_notebook_has_one_output_that_ends_as_the_line(trained, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("UNLEARNKIT_WORKER", raising=False)
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    texts, made = [], []

    def show(data, **how):
        made.append(how)
        return SimpleNamespace(update=lambda data, raw: texts.append(data["text/plain"]))

    monkeypatch.setattr(IPython.display, "display", show)
    trained(epochs=1)
    assert made == [{"raw": True, "display_id": True}]
    assert "0% |" in texts[0] and texts[-1].startswith("original: 1 epoch, ")
