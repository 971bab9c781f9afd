"""The one training loop and its recipe."""

from unlearnkit.training.recipe import Recipe
from unlearnkit.training.run import OutOfTime, Run, TrainingDiverged, train

__all__ = ["OutOfTime", "Recipe", "Run", "TrainingDiverged", "train"]
