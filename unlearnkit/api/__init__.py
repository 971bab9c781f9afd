"""A model and images of your own, from Python: no profile, no store.

    import unlearnkit as uk

    data = uk.load_data((train_images, train_labels, test_images, test_labels))
    split = uk.split(data, forget="random:0.1")
    forgot = uk.unlearn(model, data, split, method="salun", lr=0.01, epochs=5)
    print(uk.compare(uk.measure(forgot, data, split), uk.measure(retrained, data, split)))

A model takes float images [N, 3, S, S] in [0, 1] to logits [N, C]; `normalised` makes one of a
network that was trained on normalised images. The folder of a model (`models.load_folder`) will do.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import nn

from unlearnkit import measures, metrics
from unlearnkit.attacks import ATTACKS, robust_curve, score_images
from unlearnkit.data import DATASETS, ImageData, Split, dataset, load, make_split
from unlearnkit.data.splits import stratified
from unlearnkit.distance import minimal_distances
from unlearnkit.errors import UserError, one_line
from unlearnkit.fairness import fairness_gap
from unlearnkit.methods import unlearn as _unlearn
from unlearnkit.models import Classifier, load_folder, norm_layers
from unlearnkit.names import GAP_METRICS
from unlearnkit.plugins import load_plugins

ModelOrFolder = nn.Module | Path | str
DISTANCE = "minimal distance, median (1/255)"

load_plugins()


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` found: tables with a row for each quantity, layer, class and attacked image.

    `images` are at their positions among the test images: which stay right, and their distances.
    """

    numbers: pd.Series
    layers: pd.DataFrame
    classes: pd.DataFrame
    images: pd.DataFrame


def load_data(source: str | Sequence[Any], *, flip: bool = True, **how: Any) -> ImageData:
    """Return a data set by its name, see `data.load`, or made of tensors or arrays.

    Arrays are train_images, train_labels, test_images, test_labels and, if they are not '0', '1',
    …, the class names. Their layouts are those of `data.dataset`. `flip` says whether a mirrored
    image keeps its class; it is for arrays alone. `how` are the keywords of `data.load`, as `size`.
    """
    if isinstance(source, str):
        return load(source, **how)
    dataset("tensors", flip)(lambda: source)
    try:
        return load("tensors", **how)
    finally:
        del DATASETS["tensors"]


def split(
    data: ImageData,
    forget: str | ArrayLike = "random:0.1",
    *,
    validation: float = 0.0,
    seed: int = 0,
) -> Split:
    """Return what to retain and forget of the training images.

    `forget` is 'random:F' or 'class:C', see `data.make_split`, or the positions of the images to
    forget. `validation` is the share of the training images to hold out.
    """
    if isinstance(forget, str):
        return make_split(data, forget=forget, validation=validation, seed=seed)
    index, count = np.asarray(forget), len(data.train_labels)
    whole = index.ndim == 1 and index.dtype.kind in "iu" and len(np.unique(index)) == len(index)
    if not (whole and 0 < len(index) < count and 0 <= index.min() <= index.max() < count):
        wanted = f"different whole numbers from 0 to {count - 1}, fewer than all {count} images"
        raise UserError(f"these are no positions of training images to forget; expected {wanted}")
    gone = torch.from_numpy(np.sort(index).astype(np.int64))
    rest = torch.from_numpy(np.setdiff1d(np.arange(count), gone))
    labels = data.train_labels.cpu()[rest]
    held = stratified(labels, round(validation * count), seed=seed, purpose="validation")
    retain = torch.from_numpy(np.delete(rest.numpy(), held))
    return Split(retain, gone, rest[held], torch.arange(len(data.test_labels)))


def normalised(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Return a model of images in [0, 1] from a network of images normalised by `mean`, `std`."""
    return Classifier(type(net).__name__, net, mean, std).to(metrics.device_of(net))


def unlearn(
    model: ModelOrFolder,
    data: ImageData,
    split: Split,
    *,
    method: str,
    seed: int = 0,
    scope: str = "all",
    fresh: Callable[[], nn.Module] | None = None,
    **hyperparameters: Any,
) -> nn.Module:
    """Return a copy of a model that has unlearned `split.forget`, on the data's device.

    `hyperparameters` are those of `training.Recipe`, such as `lr` and `epochs`, and the method's
    own. The methods 'retrain' and 'bad_teacher' need `fresh`, a function that builds an untrained
    model like this one. Errors are those of `methods.unlearn`, which also returns the cost.
    """
    model = _fitting(model, data)
    if fresh and fresh().state_dict().keys() != model.state_dict().keys():
        raise UserError("`fresh` builds another network; expected one with the model's parameters")
    how = {"hyperparameters": hyperparameters, "seed": seed, "scope": scope, "fresh": fresh}
    return _unlearn(method, model, data, split, **how).model


def measure(
    model: ModelOrFolder,
    data: ImageData,
    split: Split | None = None,
    *,
    attack: str = "pgd",
    epsilons: Sequence[float] = (1, 2),
    attacked: int = 100,
    steps: int = 30,
    extra: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 256,
) -> Measured:
    """Measure accuracy, fairness-gap and robustness of a model; with a split also UA, RA and MIA.

    `attacked` test images are drawn by `seed`, stratified by class. They are attacked by `attack`
    at the `epsilons`, in units of 1/255 and above 0. Their minimal distance is searched in `steps`
    steps. `extra` names registered measures, which need the split. The relative gap is (max − min)
    / mean of σ. Without normalisation layers there is a warning and no gap. A forgotten class is
    left out of TA and of the attack. `UserError` if model and data do not go together.
    """
    model, truth = _fitting(model, data), data.test_labels.cpu()
    how, found = {"batch_size": batch_size}, {"std": [], "layers": []}
    if norm_layers(model):
        found = measures.sigma(model, data, seed=seed, images_per_class=0, **how)
    else:
        warnings.warn("no fairness-gap: expected a model with a normalisation layer", stacklevel=2)
    sigma = torch.tensor(found["std"], dtype=torch.float64).view(-1, data.num_classes)
    gap, mean = fairness_gap(sigma), sigma.mean(1)
    layers = pd.DataFrame({"fairness-gap": gap, "relative gap": gap / mean}, found["layers"])

    right = score_images(model, data.test_images, truth, **how)
    kept = torch.arange(len(truth))
    if split and split.forgotten_class is not None:
        kept = kept[truth != split.forgotten_class]
    numbers = {"TA (%)": metrics.accuracy(right[kept])}
    if split:
        value = measures.quality(model, data, split, seed=seed, mia_images=2000, **how)
        numbers = {f"{name} (%)": value[name] for name in GAP_METRICS}
    numbers |= {f"{name}, mean over layers": layers[name].mean() for name in layers}

    chosen = kept[stratified(truth[kept], min(attacked, len(kept)), seed=seed, purpose="attacked")]
    images, labels = data.test_images[chosen.to(data.test_images.device)], truth[chosen]
    sizes = [0.0, *sorted(epsilons)]
    curve = robust_curve(model, images, labels, attack, [e / 255 for e in sizes], seed=seed, **how)
    names = ["attacked images: clean accuracy (%)"]
    names += [f"accuracy under {ATTACKS[attack].title}, ε = {e:g}/255 (%)" for e in sizes[1:]]
    seen = pd.DataFrame(100.0 * curve.T.numpy(), chosen.numpy(), names)
    seen[DISTANCE] = 255 * minimal_distances(model, images, labels, steps=steps, **how).numpy()
    pooled = dict.fromkeys(names, "mean") | {DISTANCE: "median"}
    numbers |= seen.agg(pooled).to_dict()
    for name in extra:
        value = measures.scalar(model, data, split, name=name, seed=seed, **how)["value"]
        numbers[measures.MEASURES[name].title] = value

    tested = pd.Series(100.0 * right.numpy()).groupby(truth.numpy())
    met = seen.groupby(labels.numpy())
    columns = {"test images": tested.size(), "accuracy (%)": tested.mean()}
    columns["σ / mean σ"] = pd.Series((sigma / mean[:, None]).mean(0))
    columns |= {"attacked": met.size(), **met.agg(pooled)}
    classes = pd.DataFrame(columns).set_axis(list(data.classes)).dropna(axis=1, how="all")
    return Measured(pd.Series(numbers).dropna(), layers, classes, seen)


def compare(a: Measured, b: Measured) -> pd.DataFrame:
    """Return the numbers of two models, and the excess of the first: a − b.

    That of the minimal distance is the median of the differences, image by image.
    """
    table = pd.DataFrame({"a": a.numbers, "b": b.numbers}).reindex(a.numbers.index)
    table["excess"] = table["a"] - table["b"]
    table.loc[DISTANCE, "excess"] = (a.images[DISTANCE] - b.images[DISTANCE]).median()
    return table


def _fitting(model: ModelOrFolder, data: ImageData) -> nn.Module:
    """Return a model, or that of a folder; `UserError` unless it fits the data."""
    if not isinstance(model, nn.Module):
        model = load_folder(model).to(data.test_images.device)
    size, count = data.image_size, data.num_classes
    wanted = f"expected float images [N, 3, {size}, {size}] in [0, 1] to become logits [N, {count}]"
    wanted += f", for the classes {', '.join(data.classes)[:200]}"
    index = stratified(data.test_labels.cpu(), min(500, len(data.test_labels)), seed=0, purpose="")
    images = data.test_images[index.to(data.test_images.device)]
    labels = data.test_labels.cpu()[index]
    try:
        logits = metrics.predictions(model, images)
    except Exception as error:  # whatever another's model raises
        raise UserError(f"the model fails ({one_line(error)[:200]}); {wanted}") from error
    if logits.shape != (len(images), count) or not logits.isfinite().all():
        found = f"{'' if logits.isfinite().all() else 'not finite, '}of shape {list(logits.shape)}"
        raise UserError(f"the model's logits are {found}; {wanted}")
    known = model.classes if isinstance(model, Classifier) else ()
    if set(known) & set(data.classes) and known != data.classes:
        found = ", ".join(known)[:200]
        raise UserError(f"the model's classes are {found}, in this order; {wanted}")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    twice = metrics.predictions(model, (metrics.to_float(images) - mean) / std).argmax(1)
    shares = [(guess == labels).double().mean() for guess in (logits.argmax(1), twice)]
    chance = labels.bincount().max() / len(labels)
    if shares[1] > max(shares[0], chance) + 0.1 + len(labels) ** -0.5:  # not by accident
        once, then = (f"{100 * share:.0f} %" for share in shares)
        why = f"the model gets {once} of the images right, and {then} of them once normalised"
        raise UserError(f"{why}; expected a model that does it inside, see unlearnkit.normalised")
    return model
