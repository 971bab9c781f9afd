"""Does the fairness-gap cause vulnerability? Models whose gaps are set by hand, measured as others.

A profile's [intervention] table names the models to start from, over all layers and with the first
forget set, the factors to rescale them by, and the weights of the penalty to fine-tune them under.
That is done by CF's recipe, but for the epochs: the original on all training images, others on the
retain set, and once without penalty, for comparison.
"""

import copy
import time
from dataclasses import replace

from unlearnkit.errors import UserError
from unlearnkit.interventions import TAKERS, fine_tune, rescaled
from unlearnkit.metrics import predictions
from unlearnkit.results import Cell
from unlearnkit.seeding import derive
from unlearnkit.study.lab import Lab
from unlearnkit.study.store import Stage
from unlearnkit.training.recipe import parse_recipe


class Bench(Lab):
    """A lab whose cells are models to start from, and each again after each intervention.

    The method of these is called START~KIND~VALUE: ``cf~rescaled~3``, ``original~penalty~0.1``.
    """

    @property
    def cells(self) -> list[Cell]:
        """All models to measure, each after the one it starts from."""
        told, (entry,) = self.profile["intervention"], self.profile["forget"]
        penalties = [f"~penalty~{weight:g}" for weight in (0, *told["weights"])]
        factors = [f"~rescaled~{factor:g}" for factor in told["factors"]]
        return [
            Cell(architecture, entry["set"], start + change, "all", seed)
            for architecture in self.profile["architectures"]
            for seed in entry["seeds"]
            for start in ("original", *told["methods"])
            for change in ("", *(factors if architecture in TAKERS else ()), *penalties)
        ]

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        start, *change = cell.method.split("~")
        if not change:
            return super().model_stage(cell)
        kind, value = change
        spec = {"start": super().model_stage(replace(cell, method=start)).key, kind: float(value)}
        if kind == "penalty":
            epochs = {"epochs": self.profile["intervention"]["epochs"]}
            recipe = self.profile.hyperparameters("cf", cell.architecture) | epochs
            spec |= {"recipe": self._recipe(recipe), "seed": cell.seed}
            spec["split"] = self.split(cell.forget, cell.seed).hash
        return Stage(cell, "unlearn", spec)

    def _unlearn(self, stage: Stage) -> None:
        """Make the weights of a cell, by its method or its intervention."""
        cell, spec, began = stage.cell, stage.spec, time.perf_counter()
        if "start" not in spec:
            return super()._unlearn(stage)
        name = cell.method.split("~")[0]
        start, value = self.model(replace(cell, method=name)), {"log": {}}
        if "rescaled" in spec:
            made, how = rescaled(start, spec["rescaled"]), {"batch_size": 512}
            images = self.data.test_images
            off = predictions(made, images, **how) - predictions(start, images, **how)
            value["logit_error"] = off.abs().max().item()  # float error: no number to compare
        else:
            split = self.split(cell.forget, cell.seed)
            made = fine_tune(
                copy.deepcopy(start),
                self.data,
                split.train if name == "original" else split.retain,
                parse_recipe(spec["recipe"], "intervention"),
                weight=spec["penalty"],
                seed=derive(cell.seed, "intervention"),  # the same batches whatever the weight
                name=cell.method,
                state_file=self.store.state_file("unlearn", stage.key),
                deadline=self.deadline,
            ).model
        self._store(stage, value, began, made)


def bench_of(lab: Lab) -> Bench:
    """Return the bench of a study's lab; `UserError` if its profile has no [intervention]."""
    profile = lab.profile
    if (told := profile.values.get("intervention")) is None:
        raise UserError(
            f"profile {profile.name} has no [intervention] table; see profile cifar10's"
        )
    forget = {"set": profile["forget"][0]["set"], "seeds": told["seeds"], "scopes": ["all"]}
    attack = next(e for e in profile["attack"] if e["name"] == profile["report"]["attack"])
    attack = {**attack, "test": told["images"], "retain": 0, "forget": 0, "transfer": False}
    distance = {"test": told["images"], "steps": 100}
    profile = profile.with_values(forget=[forget], attack=[attack], distance=distance)
    return Bench(profile, lab.data, lab.store, device=lab.device)
