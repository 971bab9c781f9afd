"""What is measured of a model: functions of (model, data, split) that return a JSON value.

They compute where the model is, and leave it as it was. A number of your own is one function::

    @measure("confidence", title="Mean confidence (%)")
    def confidence(model, data, split, *, seed, batch_size):
        logits = metrics.predictions(model, data.test_images, batch_size=batch_size)
        return 100 * logits.softmax(1).amax(1).mean().item()
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit import attacks, fairness, membership, metrics
from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split
from unlearnkit.distance import minimal_distances
from unlearnkit.errors import UserError
from unlearnkit.models import norm_layers
from unlearnkit.plugins import Registry
from unlearnkit.seeding import derive, stream


@dataclass(frozen=True)
class Measure:
    """A registered scalar measure: its name in profiles, title in tables and decimals shown."""

    name: str
    title: str
    digits: int
    version: int
    function: Callable[..., float]


MEASURES = Registry("measure")
# What tables and frames already have under these names
RESERVED = {"UA", "RA", "TA", "FA", "MIA", "TA_forgotten", "average_gap", "seconds"}
RESERVED |= {"training_memory", "peak_memory", "parameters"}


def measure(name: str, *, title: str = "", digits: int = 1, version: int = 1) -> Callable:
    """Register a function `(model, data, split, *, seed, batch_size)` -> float.

    Registering a name again replaces it. `version` is part of every stored result's key: raise it
    when the measure's meaning changes.
    """
    if name in RESERVED:
        raise UserError(f"a measure cannot be called {name}: the tables have one of that name")

    def register(function: Callable[..., float]) -> Callable[..., float]:
        MEASURES[name] = Measure(name, title or name, digits, version, function)
        return function

    return register


def scalar(
    model: nn.Module, data: ImageData, split: Split, *, name: str, seed: int, batch_size: int
) -> dict[str, Any]:
    """Return `name` and `value` of a registered measure, taken in evaluation mode."""
    function = MEASURES[name].function
    with metrics.evaluating(model):
        value = function(model, data, split, seed=seed, batch_size=batch_size)
    try:
        sound = math.isfinite(value)
    except TypeError:
        sound = False
    if not sound:
        raise UserError(f"measure {name} gave {value}; it must return a finite number")
    return {"name": name, "value": float(value)}


def quality(
    model: nn.Module, data: ImageData, split: Split, *, seed: int, mia_images: int, batch_size: int
) -> dict[str, float]:
    """Return UA, RA, TA, FA and MIA in %, and TA_forgotten where a class is forgotten.

    `mia_images` limits members and non-members each; 0 takes as many as there are.
    """

    def look(images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = index.to(images.device)
        truth = labels[index].cpu()
        logits = metrics.predictions(model, images[index], batch_size=batch_size)
        return logits.argmax(1) == truth, metrics.true_class_confidence(logits, truth), truth

    kept, retain, _ = look(data.train_images, data.train_labels, split.retain)
    gone, forget, _ = look(data.train_images, data.train_labels, split.forget)
    value = {"RA": metrics.accuracy(kept), "FA": metrics.accuracy(gone)}
    value["UA"] = 100 - value["FA"]
    right, test, truth = look(data.test_images, data.test_labels, split.test)
    if split.forgotten_class is not None:
        inside = truth == split.forgotten_class
        value["TA_forgotten"] = metrics.accuracy(right[inside])
        right, test = right[~inside], test[~inside]
    value["TA"] = metrics.accuracy(right)
    generator, limit = stream(seed, "membership"), mia_images or None
    retain = retain[torch.randperm(len(retain), generator=generator)[:limit]]
    test = test[torch.randperm(len(test), generator=generator)[:limit]]
    value["MIA"] = metrics.mia_efficacy(retain, test, forget, seed=seed)
    return value


def sigma(
    model: nn.Module, data: ImageData, *, seed: int, images_per_class: int, batch_size: int
) -> dict[str, Any]:
    """Return each reading of sigma [layers][classes] on the test images, and the layers' names.

    `images_per_class` is a wish; 0 takes as many as the rarest class has.
    """
    count, seed = data.num_classes, derive(seed, "fairness")
    index = fairness.balanced(data.test_labels, images_per_class, count, seed)
    index = index.to(data.test_images.device)
    images, labels = data.test_images[index], data.test_labels[index]
    found = fairness.class_sigma(model, images, labels, num_classes=count, batch_size=batch_size)
    # Six significant digits: more than float32 activations carry.
    value: dict[str, Any] = {
        reading: [[float(f"{number:.6g}") for number in row] for row in table.tolist()]
        for reading, table in found.items()
    }
    value["layers"] = [layer.name for layer in norm_layers(model)]
    value["images_per_class"] = len(index) // count
    return value


def robustness(
    model: nn.Module,
    data: ImageData,
    split: Split,
    *,
    attack: str,
    options: Mapping[str, Any],
    epsilons: Sequence[float],
    images: Mapping[str, int],
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """Return what an attack on the model leaves right of each set of images.

    `epsilons` are in units of 1/255, above 0, in any order; `images` says how many "test", "retain"
    and "forget" images to attack, drawn by `seed`. Returned are `epsilons`, 0 and the others,
    ascending, and `sets`: for each set with images `n` [C], the images of each class, and `right`
    [epsilons][C], how many of them are still right.
    """
    sets, pictures, labels = _attacked(data, split, images, seed)
    how = {"options": options, "batch_size": batch_size, "seed": derive(seed, "attack")}
    steps = [0.0, *(epsilon / 255 for epsilon in sorted(epsilons))]
    right = attacks.robust_curve(model, pictures, labels, attack, steps, **how)
    return _counted(sets, right, epsilons)


def adversarial(
    source_model: nn.Module, data: ImageData, split: Split, *, images: Mapping[str, int], **how: Any
) -> Tensor:
    """Return images made on a source, float32 [epsilons, N, 3, H, W] in [0, 1], for `transfer`.

    Keywords as in `robustness`, which attacks the same images.
    """
    _, pictures, labels = _attacked(data, split, images, how["seed"])
    how["seed"] = derive(how["seed"], "attack")
    steps = [epsilon / 255 for epsilon in sorted(how.pop("epsilons"))]
    made = [attacks.perturb(source_model, pictures, labels, epsilon=e, **how) for e in steps]
    return torch.stack(made)


def transfer(
    model: nn.Module, adversarial_images: Tensor, data: ImageData, split: Split, **how: Any
) -> dict[str, Any]:
    """Return what `adversarial`'s images leave right on another model, as `robustness` does.

    An image that the model gets wrong when clean stays wrong, unless the attack is random noise.
    """
    sets, pictures, labels = _attacked(data, split, how["images"], how["seed"])
    shown = (pictures, *adversarial_images)
    right = [attacks.score_images(model, x, labels, batch_size=how["batch_size"]) for x in shown]
    right = torch.stack(right)
    if attacks.ATTACKS[how["attack"]].norm:
        right = right & right[0]
    return _counted(sets, right, how["epsilons"])


def distance(
    model: nn.Module,
    data: ImageData,
    split: Split,
    *,
    test: int,
    steps: int,
    seed: int,
    batch_size: int,
) -> dict[str, list[float | None]]:
    """Return `distances`, each test image's smallest L∞ one to a wrong answer, in units of 1/255.

    The first `test` of the images that attacks meet; `steps` are FMN's (`minimal_distances`). 0
    stands for an image that is wrong when clean, None for one that was not broken.
    """
    images = {"test": test, "retain": 0, "forget": 0}
    _, pictures, labels = _attacked(data, split, images, seed)
    found = minimal_distances(model, pictures, labels, steps=steps, batch_size=batch_size)
    # Four significant digits: more than the search is good for.
    rounded = [float(f"{255 * size:.4g}") for size in found.tolist()]
    return {"distances": [size if math.isfinite(size) else None for size in rounded]}


def margins(
    model: nn.Module, data: ImageData, split: Split, *, batch_size: int
) -> dict[str, dict[str, list[float]]]:
    """Return the `margins` (see `membership.margins`) of "forget" and "validation" images."""
    found, device = {}, data.train_images.device
    for name in ("forget", "validation"):
        index = getattr(split, name).to(device)
        images, labels = data.train_images[index], data.train_labels[index].cpu()
        logits = metrics.predictions(model, images, batch_size=batch_size)
        values = membership.margins(logits.numpy(), labels.numpy())
        found[name] = [float(f"{value:.4g}") for value in values]
    return {"margins": found}


def _attacked(
    data: ImageData, split: Split, counts: Mapping[str, int], seed: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return each set's classes, one-hot [N, C]; the images and labels of all, to be attacked."""
    test = split.test
    if split.forgotten_class is not None:
        test = test[data.test_labels.cpu()[test] != split.forgotten_class]
    sources = {
        "test": (data.test_images, data.test_labels, test),
        "retain": (data.train_images, data.train_labels, split.retain),
        "forget": (data.train_images, data.train_labels, split.forget),
    }
    sets, images, labels = {}, [], []
    for name, (all_images, all_labels, index) in sources.items():
        order = torch.randperm(len(index), generator=stream(seed, "attacked", name))
        chosen = index[order[: counts[name]]].sort().values.to(all_images.device)
        images.append(all_images[chosen])
        labels.append(all_labels[chosen])
        sets[name] = nn.functional.one_hot(labels[-1].cpu(), data.num_classes)
    return sets, torch.cat(images), torch.cat(labels)


def _counted(
    sets: Mapping[str, Tensor], right: Tensor, epsilons: Sequence[float]
) -> dict[str, Any]:
    parts = right.long().split([len(classes) for classes in sets.values()], dim=1)
    counts = {
        name: {"n": classes.sum(0).tolist(), "right": (part @ classes).tolist()}
        for (name, classes), part in zip(sets.items(), parts, strict=True)
        if len(classes)
    }
    return {"epsilons": [0.0, *sorted(map(float, epsilons))], "sets": counts}
