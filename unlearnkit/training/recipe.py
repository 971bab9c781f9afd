"""Hyper-parameters: the ones every training has, and the check of values given by a user."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unlearnkit.errors import UserError, unknown

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
# Beyond these bounds a whole number is a slip that would cost days, or all the memory there is.
Count = Annotated[int, Field(ge=0, le=10**5)]
Size = Annotated[int, Field(ge=1, le=10**6)]
Pixels = Annotated[int, Field(ge=0, le=4096)]
# Floats are finite, a bool is no number; a whole number will do for a float.
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters every training has.

    Each pass of an epoch, where a method makes several, goes along its stretch of the schedule.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: NotNegative = 0.01  # the peak
    weight_decay: NotNegative = 5e-4
    momentum: BelowOne = 0.9  # SGD's, ignored by the others
    epochs: Count = 10
    batch_size: Size = 128
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    # share of the training in which the rate rises, from 0; "onecycle" needs some, from peak / 25
    warmup: BelowOne = 0.0
    crop: Pixels = 0  # pixels of zero padding of the random crop; 0 for none
    flip: bool = True  # mirror at random, where the data say that a mirror image keeps its class
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, where the hardware computes in it
    clip: NotNegative = 0.0  # largest norm of the gradient; 0 for no clipping

    def rate(self, progress: float) -> float:
        """Return the learning rate at `progress` in [0, 1] through the training."""
        if progress < self.warmup:
            if self.schedule == "onecycle":
                return self.lr * (0.04 + 0.96 * progress / self.warmup)
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

    `kinds` maps all known names to types as pydantic reads them, e.g. int, `Literal["a", "b"]` or
    one of those above. A `UserError` names `where` the values come from, and an unknown name or a
    value that is of another kind, not finite or out of its range.
    """
    checked = {}
    for name, value in values.items():
        if name not in kinds:
            raise unknown(f"hyper-parameter of {where}", name, kinds)
        try:
            checked[name] = TypeAdapter(kinds[name], config=STRICT).validate_python(value)
        except ValidationError as error:
            must = error.errors()[0]["msg"].removeprefix("Input should ")
            raise UserError(f"{where}.{name} must {must}, not {value!r}") from None
    return checked
