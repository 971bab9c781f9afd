"""Hyper-parameters: the ones every training has, and the check of a profile's values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, Literal, get_args

from unlearnkit.errors import UserError, unknown


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters every training has; a profile states all of them.

    Attributes
    ----------
    optimizer : "sgd", "adam" or "adamw"
    lr : float
        Peak learning rate.
    weight_decay, momentum : float
        `momentum` is SGD's, and ignored by the others.
    epochs, batch_size : int
    schedule : "constant", "cosine" or "onecycle"
        Over the epochs; each pass of an epoch, where a method makes several, goes along the
        epoch's stretch of it.
    warmup : float
        Fraction of the training over which the rate rises linearly, in [0, 1): from 0, for
        "onecycle" from a 25th of the peak.
    crop : int
        Pixels of zero padding of the random crop; 0 for none.
    flip : bool
        Mirror at random, where the data set says that a mirror image keeps its class.
    precision : "fp32" or "bf16"
        "bf16" is autocast, used where the hardware computes in it, else fp32.
    clip : float
        Largest norm of the gradient; 0 for no clipping.
    """

    optimizer: Literal["sgd", "adam", "adamw"]
    lr: float
    weight_decay: float
    momentum: float
    epochs: int
    batch_size: int
    schedule: Literal["constant", "cosine", "onecycle"]
    warmup: float
    crop: int
    flip: bool
    precision: Literal["fp32", "bf16"]
    clip: float

    def rate(self, progress: float) -> float:
        """Return the learning rate at `progress` in [0, 1] through the training."""
        if self.schedule == "onecycle":
            warm = self.warmup
            if progress < warm:
                return self.lr * (0.04 + 0.96 * progress / warm)
            return self.lr * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))) / 2
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        along = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * (1 + math.cos(math.pi * along)) / 2


def parse_hyperparameters(
    values: Mapping[str, Any], options: Mapping[str, type | tuple], where: str
) -> tuple[Recipe, SimpleNamespace]:
    """Split and check hyper-parameters; return the recipe and the method's options.

    Raises
    ------
    UserError
        For a name that is missing or unknown, or a value of the wrong kind; it names `where`.
    """
    kinds: dict[str, Any] = {f.name: get_args(f.type) or f.type for f in fields(Recipe)}
    kinds.update(options)
    for name in values:
        if name not in kinds:
            raise unknown(f"hyper-parameter of {where}", name, kinds)
    if missing := [name for name in kinds if name not in values]:
        raise UserError(f"{where} lacks the hyper-parameters {', '.join(missing)}")
    checked = {
        name: _checked(values[name], kind, f"{where}: {name}") for name, kind in kinds.items()
    }
    recipe = Recipe(**{f.name: checked.pop(f.name) for f in fields(Recipe)})
    counts = ("lr", "weight_decay", "momentum", "epochs", "crop", "clip")
    if negative := [name for name in counts if getattr(recipe, name) < 0]:
        raise UserError(f"{where}: {', '.join(negative)} must be >= 0")
    if recipe.batch_size < 1 or not 0 <= recipe.warmup < 1:
        raise UserError(f"{where}: batch_size must be >= 1, warmup in [0, 1)")
    if recipe.schedule == "onecycle" and recipe.warmup == 0:
        raise UserError(f"{where}: schedule onecycle needs a warmup above 0, e.g. 0.3")
    return recipe, SimpleNamespace(**checked)


def _checked(value: Any, kind: type | tuple, where: str) -> Any:
    if isinstance(kind, tuple):
        if value not in kind:
            raise unknown(f"value of {where}", value, kind)
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise UserError(f"{where} must be a finite {kind.__name__}, not {value!r}")
    return value
