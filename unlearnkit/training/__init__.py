"""The one training loop and its recipe."""

from unlearnkit.training.recipe import Recipe, check_values, parse_recipe
from unlearnkit.training.run import OutOfTime, Run, TrainingDiverged, train

__all__ = [
    "OutOfTime",
    "Recipe",
    "Run",
    "TrainingDiverged",
    "check_values",
    "parse_recipe",
    "train",
]
