"""A toy data set, and networks small enough to train in a test."""

import copy

import matplotlib
import pytest
import torch

from unlearnkit import models
from unlearnkit.data import ImageData
from unlearnkit.data.splits import make_split
from unlearnkit.methods import METHODS
from unlearnkit.training import Recipe, train

matplotlib.use("Agg")
torch.set_num_threads(2)

MODELS = {"resnet50": {"width": 0.0625}, "small_vit": {"dim": 16, "heads": 2, "patch": 4}}
RECIPE = {
    "optimizer": "sgd",
    "lr": 0.02,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "epochs": 2,
    "batch_size": 8,
    "schedule": "constant",
    "warmup": 0.0,
    "crop": 1,
    "flip": True,
    "precision": "fp32",
    "clip": 0.0,
}
OPTIONS = {"alpha": 0.5, "gamma": 1.0, "temperature": 2.0, "bound": 0.1, "jitter": 0.01}
OPTIONS |= {"forget_batch_size": 4, "msteps": 1, "mask_fraction": 0.5}


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
def recipe():
    """A function that makes a recipe from keyword arguments and small defaults."""
    return lambda **changes: Recipe(**RECIPE | changes)


@pytest.fixture(scope="session")
def hyper():
    """A function (method, changes) that makes hyper-parameters fit for the toy data."""

    def hyper(name: str, **changes) -> dict:
        options = {option: OPTIONS[option] for option in METHODS[name].kinds if option in OPTIONS}
        return RECIPE | options | changes

    return hyper


@pytest.fixture(scope="session")
def original(toy, split, build, recipe):
    """A function that returns a fresh copy of the network trained on the toy data."""

    def trained(architecture: str):
        how = recipe(optimizer="adamw", lr=5e-3, epochs=8 if architecture == "small_vit" else 4)
        return train(build(architecture), toy, split.train, how, seed=0).model

    # Now, not when first asked for: a test may have put its spies in by then.
    kept = {architecture: trained(architecture) for architecture in MODELS}
    return lambda architecture: copy.deepcopy(kept[architecture])
