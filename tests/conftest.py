"""A toy data set, networks small enough to train in a test, and functions that train them."""

import copy

import matplotlib
import pytest
import torch

from unlearnkit import methods, models
from unlearnkit.data import ImageData
from unlearnkit.data.splits import make_split
from unlearnkit.training import Recipe, Run, train
from unlearnkit.training import run as training

pytest_plugins = ["helpers_study"]
matplotlib.use("Agg")
# Tensors this small gain nothing from a second thread, and lose much on a busy machine.
torch.set_num_threads(1)

MODELS = {"resnet50": {"width": 0.0625}, "small_vit": {"dim": 16, "heads": 2, "patch": 4}}
RECIPE = {"lr": 0.02, "epochs": 2, "batch_size": 8, "crop": 1}
OPTIONS = {"alpha": 0.5, "gamma": 1.0, "temperature": 2.0, "jitter": 0.01}
OPTIONS |= {"forget_batch_size": 4, "msteps": 1, "steps": 5, "overshoot": 1.0}


def recipe(**changes) -> Recipe:
    """Return a recipe fit for the toy data."""
    return Recipe(**RECIPE | changes)


def state_of(model) -> dict[str, torch.Tensor]:
    """Return a copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def differing(one, other) -> list[str]:
    """Return the names of the tensors of two models, or states, that are not bit-identical."""
    one, other = (s if isinstance(s, dict) else s.state_dict() for s in (one, other))
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture(scope="session")
def toy() -> ImageData:
    """Three classes of 8x8 images: a colour and a pattern each, under noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(3, 3, 4, 4, generator=generator)
    patterns = patterns.repeat_interleave(2, 2).repeat_interleave(2, 3)
    colours = 0.3 * torch.eye(3).view(3, 3, 1, 1)

    def draw(each: int):
        labels = torch.arange(3).repeat(each)
        noise = 0.2 * torch.randn(len(labels), 3, 8, 8, generator=generator)
        images = (0.2 + 0.3 * patterns[labels] + colours[labels] + noise).clamp(0, 1)
        return (images * 255).round().to(torch.uint8), labels

    return ImageData("toy", ("a", "b", "c"), *draw(16), *draw(10), flip=True)


@pytest.fixture(scope="session")
def split(toy):
    """Forget 9 of the 42 training images, hold out 6."""
    return make_split(toy, forget="random:0.2143", validation=0.125, seed=0)


@pytest.fixture(scope="session")
def build(toy):
    """A function (architecture, seed) that builds an untrained small network for the toy data."""

    def build(architecture: str, seed: int = 0) -> models.Classifier:
        sizes = {"num_classes": 3, "image_size": 8, "mean": toy.mean, "std": toy.std}
        return models.build(architecture, seed=seed, **sizes, **MODELS[architecture])

    return build


@pytest.fixture(scope="session")
def original(toy, split, build):
    """A function that returns a fresh copy of the network trained on the toy data."""

    def trained(architecture: str):
        how = recipe(optimizer="adamw", lr=5e-3, epochs=8 if architecture == "small_vit" else 4)
        return train(build(architecture), toy, split.train, how, seed=0).model

    # Now, not when first asked for: a test may have put its spies in by then.
    kept = {architecture: trained(architecture) for architecture in MODELS}
    return lambda architecture: copy.deepcopy(kept[architecture])


@pytest.fixture(scope="session")
def forget_with(toy, split, original, build):
    """Unlearn the toy data's forget set: (method, architecture, changes) -> Unlearned."""

    def go(name, architecture="small_vit", *, of=None, keywords=None, **changes):
        known = {
            option: OPTIONS[option] for option in methods.METHODS[name].kinds if option in OPTIONS
        }
        return methods.unlearn(
            name,
            of or original(architecture),
            **{"data": toy, "split": split, "seed": 0, "fresh": lambda: build(architecture, 1)}
            | (keywords or {}),
            hyperparameters=RECIPE | known | changes,
        )

    return go


@pytest.fixture
def events(monkeypatch):
    """What runs do, in order: ("cut", index), ("loss", batch), ("step", loss), ("run", run)."""
    seen = []

    def spy(owner, name, what):
        original = getattr(owner, name)

        def spied(*arguments, **keywords):
            seen.append(what(*arguments))
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, spied)

    spy(training, "cut", lambda images, index: ("cut", index.tolist()))
    spy(Run, "cross_entropy", lambda run, *batch: ("loss", batch))
    spy(Run, "step", lambda run, loss: ("step", loss.item()))
    spy(Run, "__post_init__", lambda run: ("run", run))
    return seen


@pytest.fixture
def fetched(monkeypatch):
    """The (index, images, labels) of each batch that runs fetch."""
    seen, batch = [], Run.batch

    def spied(run, index, **how):
        seen.append((index, *batch(run, index, **how)))
        return seen[-1][1:]

    monkeypatch.setattr(Run, "batch", spied)
    return seen


def of_kind(events, kind):
    """Return what `events` noted of one kind, in order."""
    return [value for what, value in events if what == kind]
