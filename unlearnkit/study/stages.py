"""The stages of a cell: what each result depends on, and so the key it is stored under."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """A step of a cell: its name, the spec its key is made of, the keywords of its measure.

    Of a `family`, by default the stage alone, one process computes at a time.
    """

    cell: Cell
    name: str
    spec: dict[str, Any]
    how: dict[str, Any] = field(default_factory=dict)
    family: str = ""

    @cached_property
    def key(self) -> str:
        """The key the result is stored under."""
        return key_of(self.name, self.spec)

    @property
    def label(self) -> str:
        """What results call it: the name, with the attack's or the measure's."""
        return f"{self.name}/{self.spec['name']}" if "name" in self.spec else self.name


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

    def original_stage(self, architecture: str, seed: int, progress: float = 1.0) -> Stage:
        """Return the training of the original, or the part of it up to a checkpoint."""
        recipe = self._recipe(self.profile.recipe(architecture))
        images = _index_key(self.trained_on(seed))
        spec = {**self._fresh(architecture, seed), "images": images, "recipe": recipe}
        family = key_of("original", spec)
        if progress < 1:
            spec["epochs_done"] = round(progress * recipe["epochs"])
        cell = Cell(architecture, "", "original", "all", seed, progress)
        return Stage(cell, "original", spec, family=family)

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        if cell.method == "original":
            return self.original_stage(cell.architecture, cell.seed, cell.progress)
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
            spec["fresh"] = self._fresh(cell.architecture, cell.seed)
        if cell.method != "retrain" or cell.scope != "all":
            spec["original"] = self.original_stage(cell.architecture, cell.seed).key
        return Stage(cell, "unlearn", spec)

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        made, measure = self.model_stage(cell), self.profile["measure"]
        seed, size = {"seed": cell.seed}, {"batch_size": measure["batch_size"]}
        tested = {"model": made.key, "data": self.data.fingerprint}
        spec = {**tested, "split": self.split(cell.forget, cell.seed).hash}
        how = {**seed, "mia_images": measure["mia_images"]}
        found = [made, Stage(cell, "quality", {**spec, **how}, how | size)]
        if self.forget_seed is not None:
            return found
        how = {**seed, "images_per_class": measure["fairness_images_per_class"]}
        found.append(Stage(cell, "fairness", {**tested, **how}, how | size))
        for name in measure.get("extra", []):
            how = {**seed, "name": name}
            own = {**spec, **how, "version": MEASURES[name].version}
            found.append(Stage(cell, "measure", own, how | size))
        whole = cell.scope == "all" and cell.progress == 1
        for entry in self.profile["attack"]:
            if not (whole or entry["everywhere"]):
                continue
            # Restricted and half-trained models are attacked on test images alone.
            images = {n: entry[n] if whole or n == "test" else 0 for n in PARTS}
            options = attack_options(entry["name"], entry["options"])
            how = {"images": images, "options": options, **size, **seed}
            how["epsilons"] = sorted(float(e) for e in entry["epsilons"])
            own = {**spec, **get_attack(entry["name"]).identity, **how}
            how["attack"] = entry["name"]
            found.append(Stage(cell, "robustness", own, how))
            if entry["transfer"] and cell.progress == 1:
                source = self.original_stage(cell.architecture, cell.seed).key
                found.append(Stage(cell, "transfer", {**own, "source": source}, how))
        return found

    def _fresh(self, architecture: str, seed: int) -> dict[str, Any]:
        """Return what an untrained model depends on, and the images it will be trained on."""
        return {
            "data": self.data.train_fingerprint,
            "size": self.data.image_size,
            "architecture": architecture,
            "model": self.profile.model_options(architecture),
            "seed": seed,
        }

    def _recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters as they act: mirrored only where the data allow it."""
        return {**values, "flip": bool(values["flip"] and self.data.flip)}


PARTS = ("test", "retain", "forget")


def original_of(cell: Cell) -> Cell:
    """Return the original that a cell starts from."""
    return replace(cell, method="original", scope="all", progress=1.0)


def adversarial_key(transfer: Mapping[str, Any]) -> str:
    """Return the key of the images that models are attacked with, from a transfer's spec."""
    return key_of("adversarial", {name: v for name, v in transfer.items() if name != "model"})


def _index_key(index: Tensor) -> str:
    """Return 20 hexadecimal digits that stand for an index list."""
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]
