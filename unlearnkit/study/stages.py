"""From a cell of the study to its measurements, each stage stored under its own key."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit import attacks, measures, models
from unlearnkit.cost import MemoryCount, matmul_rate, peak_memory, training_flops
from unlearnkit.data import ImageData, load
from unlearnkit.data.splits import Split, make_split
from unlearnkit.methods import get, unlearn
from unlearnkit.results import Cell
from unlearnkit.seeding import derive
from unlearnkit.study.machine import commit, facts
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import Entry, Store, key_of
from unlearnkit.training import parse_recipe, train


@dataclass(frozen=True)
class Stage:
    """A step of a cell: its name, the spec its key is made of, and the function that stores it.

    Of a `family`, by default the stage alone, one process computes at a time.
    """

    name: str
    spec: dict[str, Any]
    do: Callable[[], None]
    family: str = ""

    @cached_property
    def key(self) -> str:
        """The key the result is stored under."""
        return key_of(self.name, self.spec)


class Lab:
    """A profile on a data set, with its store: knows every stage's spec and how to compute it.

    With a `forget_seed` it is for choosing rates: that seed draws the forget sets, and no more
    than quality is measured. `workers` is noted beside results: how many were made at a time.
    """

    def __init__(
        self,
        profile: Profile,
        data: ImageData,
        store: Store,
        *,
        device: torch.device | str = "cpu",
        forget_seed: int | None = None,
        deadline: float | None = None,
        workers: int = 1,
    ) -> None:
        commit()  # asked once, now: the files may change while this process computes
        self.profile, self.store, self.forget_seed = profile, store, forget_seed
        self.device = torch.device(device)
        self.deadline, self.workers = deadline, workers
        self.data = data.to(self.device)
        self.split = lru_cache(maxsize=None)(self._split)
        self.model = lru_cache(maxsize=2)(self._model)

    # -- specs: what a result depends on ---------------------------------------------------------

    def original_stage(self, architecture: str, seed: int, progress: float = 1.0) -> Stage:
        """Return the training of the original, or the part of it up to a checkpoint."""
        recipe = self._recipe(self.profile.recipe(architecture))
        spec = {
            **self._model_spec(architecture, seed),
            "images": _index_key(self._trained_on(seed)),
            "recipe": recipe,
        }
        family = key_of("original", spec)
        if progress < 1:
            spec["epochs_done"] = round(progress * recipe["epochs"])
        doing = partial(self._train_original, architecture, seed, progress)
        return Stage("original", spec, doing, family)

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        if cell.method == "original":
            return self.original_stage(cell.architecture, cell.seed, cell.progress)
        split = self.split(cell.forget, cell.seed)
        chosen = self.profile.hyperparameters(cell.method, cell.architecture)
        spec = {
            "method": cell.method,
            "method_version": get(cell.method).version,
            "scope": cell.scope,
            "seed": cell.seed,
            "retain": _index_key(split.retain),
            "forget": _index_key(split.forget),
            "hyperparameters": self._recipe(chosen),
        }
        if cell.method == "retrain":
            spec["fresh"] = self._model_spec(cell.architecture, cell.seed)
        if cell.method != "retrain" or cell.scope != "all":
            spec["original"] = self.original_stage(cell.architecture, cell.seed).key
        return Stage("unlearn", spec, partial(self._unlearn, cell, spec))

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        made = self.model_stage(cell)
        split, measure = self.split(cell.forget, cell.seed), self.profile["measure"]
        seed, size = {"seed": cell.seed}, {"batch_size": measure["batch_size"]}
        tested = {"model": made.key, "data": self.data.fingerprint}
        spec = {**tested, "split": split.hash}
        found = [made]

        def add(name: str, spec: dict, function: Callable, /, *of: Any, **how: Any) -> None:
            doing = partial(self._measure, cell, name, spec, function, *of, **how)
            found.append(Stage(name, spec, doing))

        how = {**seed, "mia_images": measure["mia_images"]}
        add("quality", {**spec, **how}, measures.quality, split, **how, **size)
        if self.forget_seed is not None:
            return found
        how = {**seed, "images_per_class": measure["fairness_images_per_class"]}
        add("fairness", {**tested, **how}, measures.sigma, **how, **size)
        for name in measure.get("extra", []):
            own = {**spec, **seed, "name": name, "version": measures.MEASURES[name].version}
            add("measure", own, measures.scalar, split, name=name, **seed, **size)
        whole = cell.scope == "all" and cell.progress == 1
        for entry in self.profile["attack"]:
            if not (whole or entry["everywhere"]):
                continue
            images = {name: entry[name] for name in ("test", "retain", "forget")}
            how = {
                # Restricted and half-trained models are attacked on test images alone.
                "images": images if whole else {**images, "retain": 0, "forget": 0},
                "options": attacks.attack_options(entry["name"], entry["options"]),
                "epsilons": sorted(float(e) for e in entry["epsilons"]),
                **size,
                **seed,
            }
            own = {**spec, **attacks.get_attack(entry["name"]).identity, **how}
            how["attack"] = entry["name"]
            add("robustness", own, measures.robustness, split, **how)
            if entry["transfer"] and cell.progress == 1:
                moved = {**own, "source": self.original_stage(cell.architecture, cell.seed).key}
                add("transfer", moved, self._transfer, split, cell, moved, **how)
        return found

    # -- doing them ------------------------------------------------------------------------------

    def done(self, stage: Stage, *, repair: bool = True) -> Entry | None:
        """Return the stage's stored result, or None if it has to be computed (see `Store.get`)."""
        entry = self.store.get(stage.name, stage.spec, repair=repair)
        lies = self.store.path(stage.name, stage.key, "safetensors").exists()
        return entry if lies or stage.name not in ("original", "unlearn") else None

    def run_stage(self, stage: Stage) -> Entry:
        """Return the stage's result, computed now if the store lacks it.

        Raises
        ------
        OutOfTime
            If the deadline passed; what was done is stored.
        """
        if (entry := self.done(stage)) is None:
            with self.store.lock(stage.name, stage.family or stage.key, self.deadline):
                # Another process may have done it meanwhile. A training that goes on from a later
                # epoch than a checkpoint's leaves the checkpoint to a training more.
                while (entry := self.done(stage)) is None:
                    stage.do()
        return entry

    def run(self, cell: Cell, *, weights_only: bool = False) -> list[Entry]:
        """Return all results of a cell, or those of its original's weights and checkpoints."""
        stages = [] if weights_only else self.stages(cell)
        for progress in (1.0, *self.profile["checkpoints"]) if weights_only else ():
            stages.append(self.original_stage(cell.architecture, cell.seed, progress))
        return [self.run_stage(stage) for stage in stages]

    def keep_splits(self) -> None:
        """Write the study's splits into the store, for the record."""
        for entry in self.profile["forget"]:
            for seed in entry["seeds"]:
                split = self.split(entry["set"], seed)
                split.save(self.store.folder / "splits" / f"{split.hash[:20]}.json")

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

    def _model(self, cell: Cell) -> models.Classifier:
        """Return the cell's model in evaluation mode, computed now if the store lacks it."""
        stage = self.model_stage(cell)
        while (tensors := self.store.get_tensors(stage.name, stage.key)) is None:
            self.run_stage(stage)
        model = self.fresh_model(cell.architecture, cell.seed)
        model.load_state_dict(tensors)
        return model.to(self.device).eval()

    def _store(
        self, name: str, spec: dict, value: Any, began: float, model: Any = None, **machine: Any
    ) -> None:
        """Store a result and how it was made: weights before the entry that vouches for them."""
        if model is not None:
            self.store.put_tensors(name, key_of(name, spec), model.state_dict())
        machine |= {"wall": time.perf_counter() - began, "workers": self.workers}
        self.store.put(name, spec, value, machine | facts(self.device))

    def _train_original(self, architecture: str, seed: int, progress: float) -> None:
        """Train an original; store it and its checkpoints, those that are lacking."""
        finished = self.original_stage(architecture, seed)
        recipe = parse_recipe(finished.spec["recipe"], architecture)
        parts = [at for at in {*self.profile["checkpoints"], progress} if at < 1]
        stages = [self.original_stage(architecture, seed, at) for at in parts]
        lacking = {s.spec["epochs_done"]: s for s in stages if self.done(s) is None}
        known = self.done(finished) is not None
        since = time.perf_counter()

        def keep(epochs: int, model: nn.Module) -> None:
            nonlocal since
            if (stage := lacking.pop(epochs, None)) is not None:
                # The time counts as the finished model's, unless that was there before.
                began = since if known else time.perf_counter()
                self._store("original", stage.spec, {"log": {}}, began, model, seconds=0)
                since = time.perf_counter()

        model = self.fresh_model(architecture, seed).to(self.device)
        keep(0, model)
        if known and not lacking:
            return
        # Before the training: what goes wrong here must not cost one that is done.
        made = {
            "flop_per_image": training_flops(model, self.data.image_size),
            "matmul_rate": matmul_rate(self.device, recipe.precision),
        }
        began = time.perf_counter()
        with peak_memory(self.device) as peak:
            run = train(
                model,
                self.data,
                self._trained_on(seed),
                recipe,
                seed=derive(seed, "original"),
                name=f"{architecture} original",
                on_epoch=keep,
                state_file=self.store.state_file("original", finished.key),
                deadline=self.deadline,
            )
        if known:
            return  # others build on the model that is stored
        made["seconds"] = run.earlier_seconds + time.perf_counter() - began
        made["peak_memory"] = _number(peak.bytes)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        value = {"log": run.log, "memory": _memory(run.memory()), "parameters": parameters}
        self._store("original", finished.spec, value, began, run.model, **made)

    def _unlearn(self, cell: Cell, spec: dict[str, Any]) -> None:
        """Run the cell's method on its original."""
        began = time.perf_counter()
        if cell.method == "retrain" and cell.scope == "all":
            original = self.fresh_model(cell.architecture, cell.seed)
        else:
            original = self.model(original_of(cell))
        made = unlearn(
            cell.method,
            original,
            self.data,
            self.split(cell.forget, cell.seed),
            hyperparameters=spec["hyperparameters"],
            seed=derive(cell.seed, cell.method),
            scope=cell.scope,
            fresh=lambda: self.fresh_model(cell.architecture, derive(cell.seed, "retrain")),
            state_file=self.store.state_file("unlearn", key_of("unlearn", spec)),
            deadline=self.deadline,
        )
        value = {"log": made.log, "memory": _memory(made.memory), "parameters": made.parameters}
        cost = {"seconds": made.seconds, "peak_memory": _number(made.peak_memory)}
        self._store("unlearn", spec, value, began, made.model, **cost)

    def _measure(
        self, cell: Cell, stage: str, spec: dict, function: Callable, /, *of: Any, **how: Any
    ) -> None:
        began = time.perf_counter()
        value = function(self.model(cell), self.data, *of, **how)
        self._store(stage, spec, value, began)

    def _transfer(
        self, model: nn.Module, data: ImageData, split: Split, cell: Cell, spec: dict, **how: Any
    ) -> dict[str, Any]:
        """Measure on images made on the original, which are stored for the next cell."""
        key = adversarial_key(spec)
        with self.store.lock("adversarial", key, self.deadline):
            stored = self.store.get_tensors("adversarial", key)
            if stored is None:
                source = self.model(original_of(cell))
                stored = {"images": measures.adversarial(source, data, split, **how)}
                self.store.put_tensors("adversarial", key, stored)
        return measures.transfer(model, stored["images"], data, split, **how)

    # -- pieces of specs -------------------------------------------------------------------------

    def _split(self, forget: str, seed: int) -> Split:
        kept = self.profile["validation"]
        how = {"validation": kept, "seed": seed, "forget_seed": self.forget_seed}
        return make_split(self.data, forget=forget, **how)

    def _trained_on(self, seed: int) -> Tensor:
        """Return the training images of `seed`, which are the same whatever is forgotten."""
        return self.split(self.profile["forget"][0]["set"], seed).train

    def _model_spec(self, architecture: str, seed: int) -> dict[str, Any]:
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


def original_of(cell: Cell) -> Cell:
    """Return the original that a cell starts from."""
    return replace(cell, method="original", scope="all", progress=1.0)


def adversarial_key(transfer: Mapping[str, Any]) -> str:
    """Return the key of the images that models are attacked with, from a transfer's spec."""
    return key_of("adversarial", {name: v for name, v in transfer.items() if name != "model"})


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
    """Return 20 hexadecimal digits that stand for an index list."""
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]


def _memory(count: MemoryCount) -> dict[str, int]:
    return {**asdict(count), "total": count.total}


def _number(value: float) -> float | None:
    return value if value == value else None
