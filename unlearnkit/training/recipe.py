"""Hyper-parameters: the ones every training has, and the check of values given by a user."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin

from unlearnkit.errors import UserError, unknown

# Kinds of numbers: the type, what is allowed in words, and the test of it. Floats are finite.
NotNegative = Annotated[float, (">= 0", lambda value: value >= 0)]
Positive = Annotated[float, ("> 0", lambda value: value > 0)]
Share = Annotated[float, ("in [0, 1]", lambda value: 0 <= value <= 1)]
BelowOne = Annotated[float, ("in [0, 1)", lambda value: 0 <= value < 1)]
Count = Annotated[int, (">= 0", lambda value: value >= 0)]
Size = Annotated[int, (">= 1", lambda value: value >= 1)]

_WORDS = {float: "finite number", int: "whole number", bool: "bool, true or false", str: "text"}


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters every training has.

    The schedule goes over the epochs; each pass of an epoch, where a method makes several, goes
    along the epoch's stretch of it.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: NotNegative = 0.01  # the peak
    weight_decay: NotNegative = 5e-4
    momentum: BelowOne = 0.9  # SGD's, ignored by the others
    epochs: Count = 10
    batch_size: Size = 128
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    # share of the training over which the rate rises linearly: from 0, for "onecycle", which needs
    # some, from a 25th of the peak
    warmup: BelowOne = 0.0
    crop: Count = 0  # pixels of zero padding of the random crop; 0 for none
    flip: bool = True  # mirror at random, where the data say that a mirror image keeps its class
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, where the hardware computes in it
    clip: NotNegative = 0.0  # largest norm of the gradient; 0 for no clipping

    def rate(self, progress: float) -> float:
        """Return the learning rate at `progress` in [0, 1] through the training."""
        if progress < self.warmup and self.schedule == "onecycle":
            return self.lr * (0.04 + 0.96 * progress / self.warmup)
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        along = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * (1 + math.cos(math.pi * along)) / 2


RECIPE_KINDS = {f.name: f.type for f in fields(Recipe)}


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe of `values`, defaults where it names none; errors as `check_values`."""
    recipe = Recipe(**check_values(values, RECIPE_KINDS, where))
    if recipe.schedule == "onecycle" and recipe.warmup == 0:
        raise UserError(f"{where}: schedule onecycle needs a warmup above 0, e.g. 0.3")
    return recipe


def check_values(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `values`, whole numbers made floats where `kinds` has floats.

    Parameters
    ----------
    kinds : mapping
        Of all known names to float, int, bool, str, `Literal[...]`, or `Annotated[...]` of a
        number with a rule, as at the top of this file.
    where : str
        The place the values come from, for the error.

    Raises
    ------
    UserError
        For an unknown name, and for a value of another kind, not finite or out of its range.
    """
    for name in values:
        if name not in kinds:
            raise unknown(f"hyper-parameter of {where}", name, kinds)
    return {name: _checked(values[name], kinds[name], f"{where}: {name}") for name in values}


def _checked(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(f"value of {where}", value, get_args(kind))
        return value
    base, *rules = get_args(kind) if get_origin(kind) is Annotated else [kind]
    if base is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not base or (base is float and not math.isfinite(value)):
        raise UserError(f"{where} must be a {_WORDS.get(base, base)}, not {value!r}")
    for words, holds in rules:
        if not holds(value):
            raise UserError(f"{where} must be {words}, not {value!r}")
    return value
