"""Setting the fairness-gap by hand, to see what follows from it.

`rescaled` moves the gaps and leaves the function as it is; `fine_tune` under a `spread_penalty`
brings the classes' spreads together. If the gap causes vulnerability, the second should help.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.data import ImageData
from unlearnkit.errors import UserError, unknown
from unlearnkit.fairness import fairness_gap, probe
from unlearnkit.models import Classifier, norm_layers
from unlearnkit.training import Recipe, Run, train

# Architecture -> which of its linear maps take what a normalisation layer put out, by their names
TAKERS = {"resnet50": r"layer.+|fc", "small_vit": r".+\.(qkv|fc1)|head"}


def rescaled(model: Classifier, factor: float) -> Classifier:
    """Return a copy that is the same function, to float error, with `factor` times the gaps.

    Scale and shift of every normalisation layer are multiplied by `factor`, and the weights of the
    linear maps behind them (`TAKERS`) divided by it. ReLU, pooling and sums pass a positive factor
    on, so σ and fairness-gap of every layer grow by it; relative gaps stay.

    A `UserError` refuses a `factor` that is not finite and above 0, and other architectures.
    """
    if not 0 < factor < float("inf"):
        raise UserError(f"factor is {factor}; it must be finite and above 0")
    if model.architecture not in TAKERS:
        raise unknown("architecture to rescale", model.architecture, TAKERS)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for norm in {layer.module for layer in norm_layers(model)}:
            norm.weight *= factor
            norm.bias *= factor
        for name, module in model.net.named_modules():
            linear = isinstance(module, nn.Conv2d | nn.Linear)
            if linear and re.fullmatch(TAKERS[model.architecture], name):
                module.weight /= factor
    return model


@contextmanager
def spread_penalty(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Watch the normalisation layers; give a function that tells how unlike the classes are spread.

    Called with the labels [B] of the batch that went through `model` last, it returns the relative
    gap (max σ - min σ) / mean σ over classes, in the mean over `norm_layers`: a float32 scalar with
    a gradient. That is the quantity reported, and unlike a variance its slope does not vanish as
    the classes come together.

    σ of a class is the standard deviation (divided by n) over its images in the batch, channels and
    positions, at the layer's output; classes with one image are left out. In training mode that is
    after BatchNorm's normalisation by the batch.
    """
    layers, outputs = norm_layers(model), {}

    def penalty(labels: Tensor) -> Tensor:
        hot = nn.functional.one_hot(labels).float()
        hot = hot[:, hot.sum(0) > 1]
        hot = hot / hot.sum(0)

        def relative_gap(output: Tensor) -> Tensor:
            rest = tuple(range(1, output.dim()))
            means = (value.mean(rest) for value in (output, output.square()))
            # windows and tokens folded into the first axis stand sample by sample
            mean, square = (value.view(len(labels), -1).mean(1) @ hot for value in means)
            sigma = (square - mean.square()).sqrt()
            return fairness_gap(sigma) / sigma.mean()

        return torch.stack([relative_gap(outputs[layer.module]) for layer in layers]).mean()

    def watch(module: nn.Module, output: Tensor) -> None:
        # around 0, for the squares' sake; a copy, since a ReLU may overwrite what it is given
        outputs[module] = output.float() - output.detach().float().mean()

    with ExitStack() as stack:
        for module in {layer.module for layer in layers}:
            hook = probe(module).register_forward_hook(
                lambda _, __, output, module=module: watch(module, output)
            )
            stack.callback(hook.remove)
        yield penalty


def fine_tune(
    model: nn.Module,
    data: ImageData,
    index: Tensor,
    recipe: Recipe,
    *,
    weight: float,
    seed: int,
    **kept: Any,
) -> Run:
    """Train `model` in place down cross-entropy + `weight` · `spread_penalty`; return the run.

    A `weight` of 0 is plain training. A batch should hold several images of a class. Other
    arguments and errors as for `training.train`.
    """
    if not weight:
        return train(model, data, index, recipe, seed=seed, **kept)
    with spread_penalty(model) as penalty:

        def loss(run: Run, images: Tensor, labels: Tensor) -> Tensor:
            return run.cross_entropy(images, labels) + weight * penalty(labels)

        return train(model, data, index, recipe, seed=seed, loss=loss, **kept)
