"""The stages of a cell: what each result depends on, and so the key it is stored under."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from torch import Tensor

from unlearnkit import methods
from unlearnkit.attacks import attack_options, get_attack
from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split, make_split
from unlearnkit.measures import MEASURES
from unlearnkit.results import Cell
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import key_of


@dataclass(frozen=True)
class Stage:
    """A step of a cell: its name, and the spec its key is made of."""

    cell: Cell
    name: str
    spec: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """The key the result is stored under."""
        return key_of(self.name, self.spec)

    @property
    def label(self) -> str:
        """What results call it: the name, with the attack's or the measure's."""
        return f"{self.name}/{self.spec['name']}" if "name" in self.spec else self.name

    def key_without(self, field: str, name: str = "") -> str:
        """Return the key of what several stages share, that differ in a field of their spec."""
        spec = {key: value for key, value in self.spec.items() if key != field}
        return key_of(name or self.name, spec)


class Stages:
    """A profile on a data set: knows the stages of every cell.

    With a `forget_seed` it is for choosing rates: that seed draws the forget sets, and no more
    than quality is measured.
    """

    def __init__(self, profile: Profile, data: ImageData, forget_seed: int | None = None) -> None:
        self.profile, self.data, self.forget_seed = profile, data, forget_seed
        self.split = lru_cache(maxsize=None)(self._split)

    def _split(self, forget: str, seed: int) -> Split:
        how = {"validation": self.profile["validation"], "forget_seed": self.forget_seed}
        return make_split(self.data, forget=forget, seed=seed, **how)

    def trained_on(self, seed: int) -> Tensor:
        """Return the training images of `seed`, which are the same whatever is forgotten."""
        return self.split(self.profile["forget"][0]["set"], seed).train

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        fresh = {
            "data": self.data.train_fingerprint,
            "size": self.data.image_size,
            "architecture": cell.architecture,
            "model": self.profile.model_options(cell.architecture),
            "seed": cell.seed,
        }
        if cell.method == "original":
            recipe = self._recipe(self.profile.recipe(cell.architecture))
            images = _index_key(self.trained_on(cell.seed))
            spec = {**fresh, "images": images, "recipe": recipe}
            if cell.progress < 1:
                spec["epochs_done"] = round(cell.progress * recipe["epochs"])
            return Stage(cell, "original", spec)
        split = self.split(cell.forget, cell.seed)
        chosen = self.profile.hyperparameters(cell.method, cell.architecture)
        spec = {
            "method": cell.method,
            "method_version": methods.get(cell.method).version,
            "scope": cell.scope,
            "seed": cell.seed,
            "retain": _index_key(split.retain),
            "forget": _index_key(split.forget),
            "hyperparameters": self._recipe(chosen),
        }
        if cell.method == "retrain":
            spec["fresh"] = fresh
        if cell.method != "retrain" or cell.scope != "all":
            spec["original"] = self.model_stage(original_of(cell)).key
        return Stage(cell, "unlearn", spec)

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        made, measure, seed = self.model_stage(cell), self.profile["measure"], {"seed": cell.seed}
        tested = {**seed, "model": made.key, "data": self.data.fingerprint}
        spec = {**tested, "split": self.split(cell.forget, cell.seed).hash}
        found = [made, Stage(cell, "quality", {**spec, "mia_images": measure["mia_images"]})]
        if self.forget_seed is not None:
            return found
        each = {"images_per_class": measure["fairness_images_per_class"]}
        found.append(Stage(cell, "fairness", {**tested, **each}))
        for name in measure.get("extra", []):
            own = {"name": name, "version": MEASURES[name].version}
            found.append(Stage(cell, "measure", {**spec, **own}))
        whole = cell.scope == "all" and cell.progress == 1
        for entry in self.profile["attack"]:
            if not (whole or entry["everywhere"]):
                continue
            # Restricted and half-trained models are attacked on test images alone.
            counts = [entry["test"], *((entry["retain"], entry["forget"]) if whole else (0, 0))]
            own = {
                **get_attack(entry["name"]).identity,
                "images": dict(zip(("test", "retain", "forget"), counts, strict=True)),
                "options": attack_options(entry["name"], entry["options"]),
                "epsilons": sorted(float(e) for e in entry["epsilons"]),
                "batch_size": measure["batch_size"],
            }
            found.append(Stage(cell, "robustness", {**spec, **own}))
            if entry["transfer"] and cell.progress == 1:
                source = {"source": self.model_stage(original_of(cell)).key}
                found.append(Stage(cell, "transfer", {**spec, **own, **source}))
        return found

    def _recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters as they act: mirrored only where the data allow it."""
        return {**values, "flip": bool(values["flip"] and self.data.flip)}


def original_of(cell: Cell) -> Cell:
    """Return the original that a cell starts from."""
    return replace(cell, method="original", scope="all", progress=1.0)


def _index_key(index: Tensor) -> str:
    """Return 20 hexadecimal digits that stand for an index list."""
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]
