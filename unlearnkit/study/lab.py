"""The stages of a study's cells: what each result depends on, and how it is computed and stored."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit import measures, methods, models
from unlearnkit.attacks import ATTACKS, attack_options
from unlearnkit.cost import matmul_rate, peak_memory, training_flops
from unlearnkit.data import ImageData, load
from unlearnkit.data.splits import LISTS, Split, make_split
from unlearnkit.results import Cell
from unlearnkit.seeding import derive
from unlearnkit.study.machine import commit, facts
from unlearnkit.study.profile import Profile, cells_of
from unlearnkit.study.store import Entry, Stage, Store
from unlearnkit.training import OutOfTime, train
from unlearnkit.training.recipe import parse_recipe

MEASURED = {"quality": measures.quality, "fairness": measures.sigma, "measure": measures.scalar}
MEASURED |= {"robustness": measures.robustness, "transfer": measures.transfer}
MEASURED |= {"distance": measures.distance, "margins": measures.margins}
# Fields of a spec that say what is measured on; the others are the keywords of its measure.
ON = ("model", "data", "split", "version", "norm", "nested", "source")


class Lab:
    """A profile on a data set, with a store, and a device to compute on.

    With a `forget_seed`, for choosing rates, it draws the forget sets, and only quality is
    measured. `deadline` is the `time.time()` to stop at; `workers` is noted beside the results.
    """

    def __init__(
        self,
        profile: Profile,
        data: ImageData,
        store: Store,
        *,
        device: torch.device | str = "cpu",
        forget_seed: int | None = None,
    ) -> None:
        commit()  # asked once, now: the files may change while this process computes
        self.profile, self.store, self.device = profile, store, torch.device(device)
        self.data, self.forget_seed = data.to(device), forget_seed
        self.deadline: float | None = None
        self.workers = 1
        self.split = lru_cache(maxsize=None)(self._split)
        self.model = lru_cache(maxsize=2)(self._model)

    @cached_property
    def cells(self) -> list[Cell]:
        """What to compute."""
        return cells_of(self.profile)

    def _split(self, forget: str, seed: int) -> Split:
        how = {"validation": self.profile["validation"], "forget_seed": self.forget_seed}
        return make_split(self.data, forget=forget, seed=seed, **how)

    def trained_on(self, seed: int) -> Tensor:
        """Return the training images of `seed`, which are the same whatever is forgotten."""
        return self.split(self.profile["forget"][0]["set"], seed).train

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        options = self.profile.model_options(cell.architecture)
        fresh = {"architecture": cell.architecture, "model": options, "seed": cell.seed}
        fresh |= {"data": self.data.train_fingerprint, "size": self.data.image_size}
        if cell.method == "original":
            recipe = self._recipe(self.profile.recipe(cell.architecture))
            spec = {**fresh, "images": _index_key(self.trained_on(cell.seed)), "recipe": recipe}
            if cell.progress < 1:
                spec["epochs_done"] = round(cell.progress * recipe["epochs"])
            return Stage(cell, "original", spec)
        split = self.split(cell.forget, cell.seed)
        chosen = self._recipe(self.profile.hyperparameters(cell.method, cell.architecture))
        spec = {"method": cell.method, "method_version": methods.METHODS[cell.method].version}
        spec |= {"scope": cell.scope, "seed": cell.seed, "hyperparameters": chosen}
        spec |= {"retain": _index_key(split.retain), "forget": _index_key(split.forget)}
        if cell.method == "retrain":
            spec["fresh"] = fresh
        if cell.method != "retrain" or cell.scope != "all":
            spec["original"] = self.model_stage(cell.original).key
        return Stage(cell, "unlearn", spec)

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        made, measure = self.model_stage(cell), self.profile["measure"]
        tested = {"seed": cell.seed, "model": made.key, "data": self.data.fingerprint}
        spec = {**tested, "split": self.split(cell.forget, cell.seed).hash}
        found = [made, Stage(cell, "quality", {**spec, "mia_images": measure["mia_images"]})]
        if self.forget_seed is not None:
            return found
        each = {"images_per_class": measure["fairness_images_per_class"]}
        found.append(Stage(cell, "fairness", {**tested, **each}))
        for name in measure.get("extra", []):
            own = {"name": name, "version": measures.MEASURES[name].version}
            found.append(Stage(cell, "measure", {**spec, **own}))
        whole = cell.scope == "all" and cell.progress == 1
        for entry in self.profile["attack"]:
            if not (whole or entry["everywhere"]):
                continue
            # Restricted and half-trained models are attacked on test images alone.
            counts = [entry["test"], *((entry["retain"], entry["forget"]) if whole else (0, 0))]
            own = {
                **ATTACKS[entry["name"]].identity,
                "images": dict(zip(("test", "retain", "forget"), counts, strict=True)),
                "options": attack_options(entry["name"], entry["options"]),
                "epsilons": sorted(float(e) for e in entry["epsilons"]),
                "batch_size": measure["batch_size"],
            }
            found.append(Stage(cell, "robustness", {**spec, **own}))
            if entry["transfer"] and cell.progress == 1:
                source = {"source": self.model_stage(cell.original).key}
                found.append(Stage(cell, "transfer", {**spec, **own, **source}))
        if whole and self.profile["distance"]["test"]:
            found.append(Stage(cell, "distance", {**spec, **self.profile["distance"]}))
        return found

    def done(self, stage: Stage, *, repair: bool = True) -> Entry | None:
        """Return the stage's stored result, or None if it has to be computed (see `Store.get`)."""
        entry = self.store.get(stage.name, stage.spec, repair=repair)
        lies = self.store.path(stage.name, stage.key, "safetensors").exists()
        return entry if lies or stage.name not in ("original", "unlearn") else None

    def run(self, cell: Cell) -> list[Entry]:
        """Return all results of a cell; without a forget set, its original and the checkpoints."""
        if cell.forget:
            return [self.run_stage(stage) for stage in self.stages(cell)]
        parts = [replace(cell, progress=at) for at in (1.0, *self.profile["checkpoints"])]
        return [self.run_stage(self.model_stage(part)) for part in parts]

    def run_stage(self, stage: Stage) -> Entry:
        """Return the stage's result, computed now if the store lacks it; else `OutOfTime`."""
        if (entry := self.done(stage)) is None:
            # An original and its checkpoints are made by one training.
            with self.store.lock(stage.name, stage.key_without("epochs_done"), self.deadline):
                # Another process may have done it meanwhile. A training that goes on from a later
                # epoch than a checkpoint's leaves the checkpoint to one more.
                while (entry := self.done(stage)) is None:
                    if self.deadline is not None and time.time() > self.deadline:
                        raise OutOfTime("no time left")
                    self.compute(stage)
        return entry

    def compute(self, stage: Stage) -> None:
        """Compute a stage, and store it."""
        if stage.name == "original":
            return self._train_original(stage)
        if stage.name == "unlearn":
            return self._unlearn(stage)
        cell, began = stage.cell, time.perf_counter()
        on = [self.model(cell), self.data, self.split(cell.forget, cell.seed)]
        how = {name: value for name, value in stage.spec.items() if name not in ON}
        how["batch_size"] = self.profile["measure"]["batch_size"]
        if stage.name == "fairness":
            on.pop()
        if stage.name in ("robustness", "transfer"):
            how["attack"] = how.pop("name")
        if stage.name == "transfer":
            on.insert(1, self._adversarial(stage, how))
        self._store(stage, MEASURED[stage.name](*on, **how), began)

    def _store(
        self, stage: Stage, value: Any, began: float, model: nn.Module | None = None, **machine: Any
    ) -> None:
        """Store a result and how it was made: weights before the entry that vouches for them."""
        if model is not None:
            self.store.put_tensors(stage.name, stage.key, model.state_dict())
        machine |= {"wall": time.perf_counter() - began, "workers": self.workers}
        told = {name: fact if fact == fact else None for name, fact in machine.items()}  # no NaN
        self.store.put(stage.name, stage.spec, value, told | facts(self.device))

    def _train_original(self, asked: Stage) -> None:
        """Train an original; store it and its checkpoints, those that are lacking."""
        cell, finished = asked.cell, self.model_stage(asked.cell.original)
        recipe = parse_recipe(finished.spec["recipe"], cell.architecture)
        parts = [at for at in {*self.profile["checkpoints"], cell.progress} if at < 1]
        stages = [self.model_stage(replace(cell, progress=at)) for at in parts]
        lacking = {s.spec["epochs_done"]: s for s in stages if self.done(s) is None}
        known = self.done(finished) is not None
        since = time.perf_counter()

        def keep(epochs: int, model: nn.Module) -> None:
            nonlocal since
            if (stage := lacking.pop(epochs, None)) is not None:
                # The time counts as the finished model's, unless that was there before.
                began = since if known else time.perf_counter()
                self._store(stage, {"log": {}}, began, model, seconds=0)
                since = time.perf_counter()

        model = self.fresh_model(cell.architecture, cell.seed).to(self.device)
        keep(0, model)
        if known and not lacking:
            return
        # Before the training: what goes wrong here must not cost one that is done.
        flops = training_flops(model, self.data.image_size)
        rate = matmul_rate(self.device, recipe.precision)
        began = time.perf_counter()
        with peak_memory(self.device) as peak:
            how = {"seed": derive(cell.seed, "original"), "name": f"{cell.architecture} original"}
            how |= {"on_epoch": keep, "deadline": self.deadline}
            how["state_file"] = self.store.state_file("original", finished.key)
            run = train(model, self.data, self.trained_on(cell.seed), recipe, **how)
        if known:
            return  # others build on the model that is stored
        seconds = run.earlier_seconds + time.perf_counter() - began
        parameters = sum(parameter.numel() for parameter in model.parameters())
        value = {"log": run.log, "memory": run.memory().counts(), "parameters": parameters}
        cost = {"seconds": seconds, "flop_per_image": flops, "matmul_rate": rate}
        self._store(finished, value, began, run.model, peak_memory=peak.bytes, **cost)

    def _unlearn(self, stage: Stage) -> None:
        """Run the cell's method on its original."""
        cell, began = stage.cell, time.perf_counter()
        afresh = cell.method == "retrain" and cell.scope == "all"
        start = self.fresh_model(cell.architecture, cell.seed) if afresh else None
        made = methods.unlearn(
            cell.method,
            start or self.model(cell.original),
            self.data,
            self.split(cell.forget, cell.seed),
            hyperparameters=stage.spec["hyperparameters"],
            seed=derive(cell.seed, cell.method),
            scope=cell.scope,
            fresh=lambda: self.fresh_model(cell.architecture, derive(cell.seed, "retrain")),
            state_file=self.store.state_file("unlearn", stage.key),
            deadline=self.deadline,
        )
        value = {"log": made.log, "memory": made.memory.counts(), "parameters": made.parameters}
        cost = {"seconds": made.seconds, "peak_memory": made.peak_memory}
        self._store(stage, value, began, made.model, **cost)

    def _adversarial(self, transfer: Stage, how: dict[str, Any]) -> Tensor:
        """Return the images made on the original, which are stored for the next cell."""
        cell, key = transfer.cell, transfer.key_without("model", "adversarial")
        with self.store.lock("adversarial", key, self.deadline):
            stored = self.store.get_tensors("adversarial", key)
            if stored is None:
                source, split = self.model(cell.original), self.split(cell.forget, cell.seed)
                stored = {"images": measures.adversarial(source, self.data, split, **how)}
                self.store.put_tensors("adversarial", key, stored)
        return stored["images"]

    def _model(self, cell: Cell) -> models.Classifier:
        """Return the cell's model in evaluation mode, computed now if the store lacks it."""
        stage = self.model_stage(cell)
        while (tensors := self.store.get_tensors(stage.name, stage.key)) is None:
            self.run_stage(stage)
        model = self.fresh_model(cell.architecture, cell.seed)
        model.load_state_dict(tensors)
        return model.to(self.device).eval()

    def fresh_model(self, architecture: str, seed: int) -> models.Classifier:
        """Return the untrained model every training of this architecture and seed starts from."""
        return models.build(
            architecture,
            num_classes=self.data.num_classes,
            image_size=self.data.image_size,
            mean=self.data.mean,
            std=self.data.std,
            seed=derive(seed, "weights"),
            **self.profile.model_options(architecture),
        )

    def keep_splits(self) -> None:
        """Write the study's splits into the store, for the record, where they are not yet."""
        for entry in self.profile["forget"]:
            for split in (self.split(entry["set"], seed) for seed in entry["seeds"]):
                key = split.hash[:20]
                if self.store.get_tensors("splits", key) is None:
                    lists = {part: getattr(split, part) for part in LISTS}
                    self.store.put_tensors("splits", key, lists)

    def _recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters as they act: mirrored only where the data allow it."""
        return {**values, "flip": bool(values["flip"] and self.data.flip)}


def load_data(profile: Profile, dataset: str | None = None) -> ImageData:
    """Load the profile's data set, or another, in the profile's size and number of images."""
    data = load(
        dataset or profile["dataset"],
        size=profile["image_size"] or None,
        train_images=profile["train_images"] or None,
        test_images=profile["test_images"] or None,
    )
    title = profile.values.get("stand_in", {}).get(data.name.removeprefix("folder:"))
    return replace(data, name=title) if title else data


def _index_key(index: Tensor) -> str:
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]
