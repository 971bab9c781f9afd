"""The training loop: rates, batches, determinism, resumption, divergence, memory, progress."""

import io
import itertools
import math
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import tqdm.notebook
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from unlearnkit.cost import MemoryCount
from unlearnkit.methods import unlearn
from unlearnkit.scopes import apply_scope
from unlearnkit.training import progress as progress_bar
from unlearnkit.training import run as training
from unlearnkit.training.batches import batch_sizes
from unlearnkit.training.run import OutOfTime, Run, TrainingDiverged, cut, train

ADAMW = {"optimizer": "adamw", "weight_decay": 0.05, "lr": 2e-3}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def identical(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture
def trained(toy, split, build, recipe):
    """Train a fresh network on the toy data: (architecture, seed, keywords of train, changes)."""

    def go(architecture="small_vit", *, seed=0, data=toy, options=None, **changes):
        options = options or {}
        return train(
            build(architecture), data, split.train, recipe(**changes), seed=seed, **options
        )

    return go


# --- the schedule ------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 0.999, 1.0])
def test_rate_without_warmup(progress, recipe):
    assert recipe(schedule="constant", lr=0.3).rate(progress) == 0.3
    expected = 0.3 * (1 + math.cos(math.pi * progress)) / 2
    assert recipe(schedule="cosine", lr=0.3).rate(progress) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_linearly_from_zero_to_the_peak(schedule, recipe):
    how = recipe(schedule=schedule, lr=0.4, warmup=0.2)
    assert [how.rate(p) for p in (0, 0.05, 0.1, 0.15)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert how.rate(0.2) == pytest.approx(0.4)
    assert how.rate(0.6) == pytest.approx(0.4 if schedule == "constant" else 0.2)
    assert how.rate(1.0) == pytest.approx(0.4 if schedule == "constant" else 0.0, abs=1e-12)


def test_onecycle_climbs_from_a_25th_and_falls_to_zero(recipe):
    how = recipe(schedule="onecycle", lr=0.5, warmup=0.25)
    assert how.rate(0) == pytest.approx(0.02)
    assert how.rate(0.125) == pytest.approx(0.26)
    assert how.rate(0.25) == pytest.approx(0.5)
    assert how.rate(0.625) == pytest.approx(0.25)
    assert how.rate(1.0) == pytest.approx(0, abs=1e-12)


def test_each_step_is_taken_at_its_place_in_the_schedule(trained, recipe, monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def spied(optimizer, *args):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", spied)
    how = {"schedule": "cosine", "warmup": 0.25, "lr": 0.1, "epochs": 4}
    trained(**how)
    steps = math.ceil(42 / 8)
    assert rates == pytest.approx([recipe(**how).rate(i / (4 * steps)) for i in range(4 * steps)])


def test_clip_bounds_the_gradient(trained, monkeypatch):
    norms, step = [], torch.optim.SGD.step

    def spied(optimizer, *args):
        parameters = optimizer.param_groups[0]["params"]
        norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", spied)
    trained(epochs=1, clip=0.01)
    assert max(norms) <= 0.01 + 1e-6
    norms.clear()
    trained(epochs=1, clip=0.0)
    assert min(norms) > 0.01


# --- batches -----------------------------------------------------------------------------------

PICTURES = torch.randint(
    0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize("crop,flip,seed", [(2, True, None), (0, False, 0)])
def test_no_augmentation_is_the_exact_pixels(crop, flip, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    index = torch.tensor([3, 0, 3])
    batch = cut(PICTURES, index, crop=crop, flip=flip, generator=generator)
    assert torch.equal(batch, PICTURES[index].float() / 255)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_flip_is_the_exact_mirror_for_half_of_the_images():
    index = torch.arange(5).repeat(200)
    generator = torch.Generator().manual_seed(0)
    batch = cut(PICTURES, index, crop=0, flip=True, generator=generator)
    plain = PICTURES[index].float() / 255
    as_is = (batch == plain).flatten(1).all(1)
    mirrored = (batch == plain.flip(3)).flatten(1).all(1)
    assert (as_is ^ mirrored).all()
    assert 0.45 < mirrored.double().mean() < 0.55
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_offsets_are_uniform_and_each_image_has_its_own(flip):
    crop, count = 2, 5000
    image = torch.arange(1, 43, dtype=torch.uint8).view(1, 1, 6, 7).expand(1, 3, 6, 7)
    padded = torch.nn.functional.pad(image[0], (crop,) * 4)
    windows = [
        padded[:, top : top + 6, left : left + 7]
        for top, left in itertools.product(range(5), range(5))
    ]
    generator = torch.Generator().manual_seed(0)
    index = torch.zeros(count, dtype=torch.long)
    batch = cut(image, index, crop=crop, flip=flip, generator=generator)
    found = (batch * 255).round().to(torch.uint8)
    hits = torch.stack([(found == window).flatten(1).all(1) for window in windows])
    flipped = torch.stack([(found == window.flip(2)).flatten(1).all(1) for window in windows])
    assert ((hits | flipped).sum(0) == 1).all(), "every cut is one window, mirrored or not"
    assert flipped.any() == flip
    counts = (hits | flipped).sum(1).double()
    chi_squared = ((counts - count / 25) ** 2 / (count / 25)).sum()
    assert chi_squared < 51.2, "p < 0.001 at 24 degrees of freedom"
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_shows_every_image_once_whatever_the_batch_size(toy, split, build, recipe):
    for size, expected in (
        (8, [7] * 6),
        (41, [21, 21]),
        (42, [42]),
        (100, [42]),
        (1, [1] * 42),
    ):
        run = Run(
            model=build("small_vit"),
            images=toy.train_images,
            labels=toy.train_labels,
            retain_index=split.train,
            recipe=recipe(batch_size=size),
            seed=0,
            num_classes=3,
            name="x",
        )
        batches = list(run.order(split.train, "retain", 0))
        assert [len(batch) for batch in batches] == expected
        assert torch.cat(batches).sort().values.tolist() == split.train.tolist()
        run._stop_counting()


def test_images_are_mirrored_only_where_the_data_allow_it(trained, toy, monkeypatch):
    seen = set()
    spied = training.cut
    monkeypatch.setattr(training, "cut", lambda *a, **k: (seen.add(k["flip"]), spied(*a, **k))[1])
    trained(epochs=1)
    assert seen == {True}
    seen.clear()
    trained(epochs=1, data=replace(toy, flip=False))
    assert seen == {False}


# --- determinism -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_same_seed_same_weights_and_other_seed_others(architecture, trained):
    first = trained(architecture, epochs=1)
    random_state = torch.get_rng_state()
    second = trained(architecture, epochs=1)
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.rand(3)
    assert identical(first.model, second.model)
    assert not identical(first.model, trained(architecture, epochs=1, seed=1).model)
    assert not first.model.training


def test_random_layers_depend_on_the_seed_alone(toy, split, build, recipe):
    def go(seed):
        model = build("small_vit")
        model.net.head_drop = nn.Dropout(0.5)
        return train(model, toy, split.train, recipe(), seed=seed).model

    first = go(0)
    torch.rand(7)
    assert identical(first, go(0))


def test_what_happens_between_epochs_changes_nothing(trained):
    seen = []

    def nosy(done, model):
        seen.append(done)
        model.eval()
        torch.rand(done)

    assert identical(trained(epochs=3).model, trained(epochs=3, options={"on_epoch": nosy}).model)
    assert seen == [1, 2, 3]


def test_training_learns(trained, toy):
    run = trained(**ADAMW | {"lr": 5e-3}, epochs=8)
    with torch.no_grad():
        right = run.model(toy.test_images / 255).argmax(1) == toy.test_labels
    assert right.double().mean() > 0.9


# --- cut off and resumed -----------------------------------------------------------------------


class Killed(BaseException):
    """What a signal would do."""


def stop_after(monkeypatch, epochs, how):
    """Make the next runs end after `epochs`: by deadline, or killed in the epoch after."""
    if how == "deadline":
        clock = itertools.count()
        # asked once after each epoch; the deadline is one that the last of these asks passes
        monkeypatch.setattr(training.time, "time", lambda: float(next(clock)))
        return {"deadline": epochs - 1.5}
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    step = Run.step

    def fatal(run, loss):
        if run._epoch == epochs:
            raise Killed
        step(run, loss)

    monkeypatch.setattr(Run, "step", fatal)
    return {}


@pytest.mark.parametrize(
    "architecture,how,changes",
    [
        ("small_vit", "deadline", {"schedule": "cosine", "warmup": 0.1}),
        ("small_vit", "killed", {"schedule": "onecycle", "warmup": 0.1}),
        ("small_vit", "deadline", ADAMW),
        ("small_vit", "killed", {"momentum": 0.0}),
        ("small_vit", "killed", {"optimizer": "adam"}),
        ("resnet50", "deadline", {}),
        ("resnet50", "killed", ADAMW),
    ],
)
def test_a_resumed_training_ends_bit_identical(
    architecture, changes, how, trained, tmp_path, monkeypatch
):
    file = tmp_path / "deep" / "state.safetensors"
    straight = trained(architecture, epochs=2, **changes)
    with monkeypatch.context() as patch:
        options = stop_after(patch, 1, how)
        with pytest.raises(OutOfTime if how == "deadline" else Killed):
            trained(architecture, epochs=2, options={"state_file": file, **options}, **changes)
    assert file.exists()
    done = []
    options = {"state_file": file, "on_epoch": lambda epoch, _: done.append(epoch)}
    resumed = trained(architecture, epochs=2, options=options, **changes)
    assert done == [2], "the first epoch is not done again"
    assert identical(straight.model, resumed.model)
    assert straight.memory() == resumed.memory()
    assert resumed.earlier_seconds > 0
    assert not list(file.parent.iterdir()), "nothing is left when it is done"


@pytest.mark.parametrize(
    "name,architecture,how,changes",
    [
        ("rl", "small_vit", "deadline", {"labels_drawn": "batch"}),
        ("bs", "resnet50", "killed", {}),
        ("salun", "resnet50", "deadline", {}),
        ("salun", "small_vit", "killed", ADAMW),
        ("scrub", "small_vit", "deadline", {"msteps": 1, "forget_batch_size": 9}),
        ("scrub", "small_vit", "killed", {"msteps": 3, **ADAMW}),
        ("retrain", "resnet50", "killed", {}),
        ("ga", "small_vit", "deadline", {"lr": 1e-3}),
    ],
)
def test_a_resumed_method_ends_bit_identical(
    name, architecture, changes, how, toy, split, original, build, hyper, tmp_path, monkeypatch
):
    def go(**options):
        return unlearn(
            name,
            original(architecture),
            toy,
            split,
            hyperparameters=hyper(name, **{"epochs": 2, **changes}),
            seed=0,
            scope="last" if architecture == "resnet50" else "all",
            fresh=lambda: build(architecture, 1),
            **options,
        )

    straight = go()
    file = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        options = stop_after(patch, 1, how)
        with pytest.raises(OutOfTime if how == "deadline" else Killed):
            go(state_file=file, **options)
    resumed = go(state_file=file)
    assert identical(straight.model, resumed.model)
    assert straight.log == resumed.log
    assert straight.memory == resumed.memory
    assert not list(tmp_path.iterdir())


def test_a_deadline_long_past_still_does_an_epoch_at_a_time(trained, tmp_path):
    file, stops = tmp_path / "state", 0
    options = {"state_file": file, "deadline": time.time() - 100}
    while True:
        try:
            run = trained(epochs=3, options=options)
            break
        except OutOfTime as stopped:
            stops += 1
            assert f"after epoch {stops}" in str(stopped)
    assert stops == 2
    assert identical(run.model, trained(epochs=3).model)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def no_state(file):
    from safetensors.torch import save

    file.write_bytes(save({"weight": torch.ones(3)}))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, no_state])
def test_a_damaged_state_is_set_aside_and_the_training_starts_over(damage, trained, tmp_path):
    file = tmp_path / "state.safetensors"
    options = {"state_file": file, "deadline": 0.0}
    with pytest.raises(OutOfTime):
        trained(epochs=2, options=options)
    damage(file)
    with pytest.warns(UserWarning, match=r"state\.safetensors .*checkpoint.*kept as"):
        run = trained(epochs=2, options={"state_file": file})
    assert identical(run.model, trained(epochs=2).model)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors.damaged"]


@pytest.mark.parametrize("other", [{"lr": 0.01}, {"optimizer": "adamw"}, {"seed": 1}])
def test_the_state_of_another_training_is_not_taken_up(other, trained, tmp_path):
    file = tmp_path / "state.safetensors"
    with pytest.raises(OutOfTime):
        trained(epochs=2, options={"state_file": file, "deadline": 0.0})
    with pytest.warns(UserWarning, match="the checkpoint of another training"):
        run = trained(epochs=2, options={"state_file": file}, **other)
    assert identical(run.model, trained(epochs=2, **other).model)


def test_the_state_of_another_network_leaves_no_trace(trained, toy, split, recipe, tmp_path):
    def net(hidden):
        torch.manual_seed(0)
        layers = nn.Linear(192, hidden), nn.ReLU(), nn.Linear(hidden, 3)
        model = nn.Sequential(nn.Flatten(), *layers)
        return model

    file = tmp_path / "state.safetensors"
    with torch.random.fork_rng():
        with pytest.raises(OutOfTime):
            train(net(4), toy, split.train, recipe(), seed=0, state_file=file, deadline=0.0)
        with pytest.warns(UserWarning, match="another training"):
            resumed = train(net(5), toy, split.train, recipe(), seed=0, state_file=file)
        assert identical(resumed.model, train(net(5), toy, split.train, recipe(), seed=0).model)


# --- a loss that is not finite -----------------------------------------------------------------


def test_divergence_names_what_ran_epoch_and_rate(trained, monkeypatch):
    with pytest.raises(TrainingDiverged, match=r"^original: the loss is not finite in epoch 1 at"):
        trained(lr=1e20)
    cross_entropy = Run.cross_entropy
    monkeypatch.setattr(
        Run,
        "cross_entropy",
        lambda run, *batch: cross_entropy(run, *batch) * (math.inf if run._epoch == 2 else 1),
    )
    with pytest.raises(TrainingDiverged) as caught:
        trained(epochs=5, lr=0.0125, options={"name": "vit original"})
    message = str(caught.value)
    assert message.startswith("vit original: ") and "epoch 3 at a rate of 0.0125" in message
    assert "smaller rate" in message and "\n" not in message


# --- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_bf16_runs_near_fp32_on_fp32_weights(architecture, trained, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: True)
    run = trained(architecture, epochs=1, precision="bf16", lr=1e-5)
    plain = trained(architecture, epochs=1, lr=1e-5)
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert run.logits(torch.rand(2, 3, 8, 8)).dtype == torch.float32
    assert not identical(run.model, plain.model)
    for one, other in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.1)
    assert run.memory().activations < plain.memory().activations


def test_bf16_falls_back_to_fp32_where_the_hardware_lacks_it(trained, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: False)
    assert identical(trained(epochs=1, precision="bf16").model, trained(epochs=1).model)


# --- memory ------------------------------------------------------------------------------------


def linear_run(toy, split, recipe, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 3)
    how = recipe(epochs=1, batch_size=32, **changes)
    return train(nn.Sequential(nn.Flatten(), *layers), toy, split.train, how, seed=0)


def test_memory_is_the_plain_count_of_a_small_network(toy, split, recipe):
    count = linear_run(toy, split, recipe).memory()
    weights = 4 * (192 * 16 + 16 + 16 * 3 + 3)
    # kept for the backward pass, 21 rows each: the first layer's input, the ReLU's output (once,
    # though the next layer keeps it too), the log-probabilities; then labels, and the loss's weight
    saved = 4 * 21 * (192 + 16 + 3)
    extra = 8 * 21 + 4
    assert (count.parameters, count.gradients, count.optimizer) == (weights,) * 3
    assert saved <= count.activations <= saved + extra


@pytest.mark.parametrize("optimizer,tensors", [("adam", 2), ("adamw", 2)])
def test_memory_of_the_optimiser(optimizer, tensors, toy, split, recipe):
    count = linear_run(toy, split, recipe, optimizer=optimizer).memory()
    assert count.optimizer == pytest.approx(tensors * count.parameters, abs=4 * 4)


@pytest.mark.parametrize("architecture", ["resnet50", "small_vit"])
def test_frozen_layers_save_memory(architecture, toy, split, original, hyper):
    def count(name, scope="all", **changes) -> MemoryCount:
        return unlearn(
            name,
            original(architecture),
            toy,
            split,
            hyperparameters=hyper(name, epochs=1, **changes),
            seed=0,
            scope=scope,
        ).memory

    everything, last = count("cf"), count("cf", "last")
    assert last.activations < 0.6 * everything.activations
    assert last.gradients < everything.gradients and last.optimizer < everything.optimizer
    assert last.parameters == everything.parameters
    assert count("cf", "first").activations > last.activations
    assert count("scrub").parameters == 2 * everything.parameters, "the teacher is kept"
    assert count("ga").parameters == everything.parameters


def test_memory_is_that_of_the_largest_pass(toy, split, original, hyper):
    def activations(forget_batch_size):
        return unlearn(
            "scrub",
            original("small_vit"),
            toy,
            split,
            hyperparameters=hyper("scrub", epochs=1, forget_batch_size=forget_batch_size),
            seed=0,
        ).memory.activations

    assert activations(2) == activations(4) < activations(9)


def test_frozen_layers_get_no_gradient(toy, split, original, recipe):
    model = original("small_vit")
    apply_scope(model, "last")
    before = state_of(model)
    train(model, toy, split.train, recipe(epochs=1), seed=0)
    frozen = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in frozen)


# --- compiling ----------------------------------------------------------------------------------


def run_of(model, data, index, how, **options):
    return Run(
        model=model,
        images=data.train_images,
        labels=data.train_labels,
        retain_index=index,
        recipe=how,
        seed=0,
        num_classes=data.num_classes,
        name="toy",
        **options,
    )


def test_a_compiled_training_ends_where_the_plain_one_does(toy, split, build, recipe, monkeypatch):
    graphs = []

    def traced(graph, inputs):  # all of torch.compile but the code generation
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
    ends = []
    for compiled in (None, True):
        run = run_of(build("small_vit"), toy, split.train, recipe(epochs=2), compiled=compiled)
        for epoch in run.epochs():
            for images, labels in run.retain(epoch):
                run.step(run.cross_entropy(images, labels))
        ends.append(run)
        assert len(graphs) == bool(compiled), "one graph, whatever the size of the batch"
    plain, compiled = ends
    assert compiled.memory() == plain.memory(), "counted on the model as written"
    for (name, one), other in zip(
        plain.model.named_parameters(), compiled.model.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=name, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("epochs", [10, 5000])
def test_only_long_trainings_on_a_gpu_are_compiled(
    device, epochs, toy, split, build, recipe, monkeypatch
):
    run = run_of(build("small_vit"), toy, split.train, recipe(epochs=epochs))
    monkeypatch.setattr(Run, "device", torch.device(device))
    assert run._is_compiled() == (device == "cuda" and epochs == 5000)


# --- progress ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("UNLEARNKIT_WORKER", raising=False)
    made, made_bar = [], training.epoch_bar

    def spied(*arguments):
        bar = made_bar(*arguments)
        positions = []
        if not bar.disable:
            bar.mininterval = 0
            display = bar.display
            bar.display = lambda *a, **k: (positions.append(bar.n), display(*a, **k))[1]
        made.append((bar, positions, bar.disable))  # a closed bar always says that it is disabled
        return bar

    monkeypatch.setattr(training, "epoch_bar", spied)
    return made


def test_progress_is_silent_when_not_a_terminal(trained, bars, capsys):
    trained(epochs=1)
    assert bars[0][2]
    assert capsys.readouterr() == ("", "")


def test_progress_shows_loss_accuracy_and_time_left(trained, bars, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    trained(epochs=2, options={"name": "small_vit original"})
    shown = stream.getvalue()
    assert "small_vit original" in shown and "<" in shown
    assert "loss " in shown and "accuracy " in shown and " %" in shown


@pytest.mark.parametrize("name", ["rl", "scrub", "cf", "ga"])
def test_progress_never_goes_back_nor_past_the_end(
    name, toy, split, original, hyper, bars, monkeypatch
):
    monkeypatch.setattr(sys, "stderr", Terminal())
    unlearn(name, original("small_vit"), toy, split, hyperparameters=hyper(name, epochs=3), seed=0)
    ((bar, positions, _),) = bars
    assert positions == sorted(positions) and len(positions) >= 4
    assert positions[-1] == pytest.approx(bar.total) == 3


@pytest.mark.parametrize("variable", ["TQDM_DISABLE", "UNLEARNKIT_WORKER"])
def test_progress_can_be_switched_off(variable, trained, bars, monkeypatch):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    trained(epochs=1)
    assert bars[0][2]


def test_a_notebook_shows_bars_too_unless_told_not_to(trained, monkeypatch):
    asked = []

    class Bar(tqdm.notebook.tqdm):
        def __init__(self, **options):
            asked.append(bool(options["disable"]))
            super().__init__(**options | {"disable": True})

    monkeypatch.setattr(progress_bar, "tqdm", Bar)
    for value in ("0", "1"):
        monkeypatch.setenv("TQDM_DISABLE", value)
        trained(epochs=0)
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(129, 128, [65, 64]), (128, 128, [128]), (10, 4, [4, 3, 3]), (1, 8, [1]), (0, 8, [])],
)
def test_batches_are_as_equal_as_they_can_be(count, size, sizes):
    """A rest of one or two images would throw BatchNorm off."""
    assert batch_sizes(count, size) == sizes
