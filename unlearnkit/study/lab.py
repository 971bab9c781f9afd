"""Computing the stages of a study, each stored as soon as it is done."""

import time
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit import measures, models
from unlearnkit.cost import MemoryCount, matmul_rate, peak_memory, training_flops
from unlearnkit.data import ImageData, load
from unlearnkit.data.splits import Split
from unlearnkit.errors import Unreadable
from unlearnkit.files import set_aside
from unlearnkit.methods import unlearn
from unlearnkit.results import Cell
from unlearnkit.seeding import derive
from unlearnkit.study.machine import commit, facts
from unlearnkit.study.profile import Profile
from unlearnkit.study.stages import Stage, Stages, original_of
from unlearnkit.study.store import Entry, Store
from unlearnkit.training import OutOfTime, parse_recipe, train

# Fields of a spec that say what is measured on; the others are the keywords of its measure.
ON = ("model", "data", "split", "version", "norm", "nested", "source")


class Lab(Stages):
    """The stages of a profile on a data set, with a store, and a device to compute them on.

    `deadline` is the `time.time()` to stop at; `workers` is noted beside the results: how many of
    them were made at a time.
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
        super().__init__(profile, data.to(device), forget_seed)
        self.store, self.device = store, torch.device(device)
        self.deadline, self.workers = deadline, workers
        self.model = lru_cache(maxsize=2)(self._model)

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
        """Return the stage's result, computed now if the store lacks it.

        Raises
        ------
        OutOfTime
            If the deadline passed; what was done is stored.
        """
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
        model, data, split = self.model(cell), self.data, self.split(cell.forget, cell.seed)
        how = {name: value for name, value in stage.spec.items() if name not in ON}
        how["batch_size"] = self.profile["measure"]["batch_size"]
        if stage.name == "quality":
            value = measures.quality(model, data, split, **how)
        elif stage.name == "fairness":
            value = measures.sigma(model, data, **how)
        elif stage.name == "measure":
            value = measures.scalar(model, data, split, **how)
        else:
            how["attack"] = how.pop("name")
            if stage.name == "robustness":
                value = measures.robustness(model, data, split, **how)
            else:
                images = self._adversarial(stage, how)
                value = measures.transfer(model, images, data, split, **how)
        self._store(stage, value, began)

    def _store(
        self, stage: Stage, value: Any, began: float, model: nn.Module | None = None, **machine: Any
    ) -> None:
        """Store a result and how it was made: weights before the entry that vouches for them."""
        if model is not None:
            self.store.put_tensors(stage.name, stage.key, model.state_dict())
        machine |= {"wall": time.perf_counter() - began, "workers": self.workers}
        self.store.put(stage.name, stage.spec, value, machine | facts(self.device))

    def _train_original(self, asked: Stage) -> None:
        """Train an original; store it and its checkpoints, those that are lacking."""
        cell, finished = asked.cell, self.model_stage(original_of(asked.cell))
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
        cost = {
            "flop_per_image": training_flops(model, self.data.image_size),
            "matmul_rate": matmul_rate(self.device, recipe.precision),
        }
        began = time.perf_counter()
        with peak_memory(self.device) as peak:
            run = train(
                model,
                self.data,
                self.trained_on(cell.seed),
                recipe,
                seed=derive(cell.seed, "original"),
                name=f"{cell.architecture} original",
                on_epoch=keep,
                state_file=self.store.state_file("original", finished.key),
                deadline=self.deadline,
            )
        if known:
            return  # others build on the model that is stored
        cost["seconds"] = run.earlier_seconds + time.perf_counter() - began
        cost["peak_memory"] = _number(peak.bytes)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        value = {"log": run.log, "memory": _memory(run.memory()), "parameters": parameters}
        self._store(finished, value, began, run.model, **cost)

    def _unlearn(self, stage: Stage) -> None:
        """Run the cell's method on its original."""
        cell, began = stage.cell, time.perf_counter()
        if cell.method == "retrain" and cell.scope == "all":
            original = self.fresh_model(cell.architecture, cell.seed)
        else:
            original = self.model(original_of(cell))
        made = unlearn(
            cell.method,
            original,
            self.data,
            self.split(cell.forget, cell.seed),
            hyperparameters=stage.spec["hyperparameters"],
            seed=derive(cell.seed, cell.method),
            scope=cell.scope,
            fresh=lambda: self.fresh_model(cell.architecture, derive(cell.seed, "retrain")),
            state_file=self.store.state_file("unlearn", stage.key),
            deadline=self.deadline,
        )
        value = {"log": made.log, "memory": _memory(made.memory), "parameters": made.parameters}
        cost = {"seconds": made.seconds, "peak_memory": _number(made.peak_memory)}
        self._store(stage, value, began, made.model, **cost)

    def _adversarial(self, transfer: Stage, how: dict[str, Any]) -> Tensor:
        """Return the images made on the original, which are stored for the next cell."""
        cell, key = transfer.cell, transfer.key_without("model", "adversarial")
        with self.store.lock("adversarial", key, self.deadline):
            stored = self.store.get_tensors("adversarial", key)
            if stored is None:
                source, split = self.model(original_of(cell)), self.split(cell.forget, cell.seed)
                stored = {"images": measures.adversarial(source, self.data, split, **how)}
                self.store.put_tensors("adversarial", key, stored)
        return stored["images"]

    def _model(self, cell: Cell) -> models.Classifier:
        """Return the cell's model in evaluation mode, computed now if the store lacks it."""
        stage = self.model_stage(cell)
        tensors = self.store.get_tensors(stage.name, stage.key)
        if tensors is None:
            self.run_stage(stage)
            tensors = self.store.get_tensors(stage.name, stage.key)
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
        """Write the study's splits into the store, for the record; set a damaged one aside."""
        for entry in self.profile["forget"]:
            for split in (self.split(entry["set"], seed) for seed in entry["seeds"]):
                path = self.store.path("splits", split.hash[:20])
                try:
                    if Split.load(path).hash == split.hash:
                        continue
                    set_aside(path, "another split")
                except FileNotFoundError:
                    pass
                except Unreadable:
                    set_aside(path, "damaged")
                split.save(path)


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


def _memory(count: MemoryCount) -> dict[str, int]:
    return {**asdict(count), "total": count.total}


def _number(value: float) -> float | None:
    return value if value == value else None
