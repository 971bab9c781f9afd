"""Hyper-parameters: the ones every training has, and kinds for those of methods."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from unlearnkit.errors import UserError
from unlearnkit.plugins import check_values

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
# Beyond these bounds a whole number is a slip that would cost days, or all the memory there is.
Count = Annotated[int, Field(ge=0, le=10**5)]
Size = Annotated[int, Field(ge=1, le=10**6)]
Pixels = Annotated[int, Field(ge=0, le=4096)]


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
