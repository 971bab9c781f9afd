"""From a cell of the study to its measurements, each stage stored under its own key."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from unlearnkit import attacks, metrics, models
from unlearnkit import measures as measuring
from unlearnkit.cost import hardware_facts
from unlearnkit.data import ImageData, load
from unlearnkit.data.splits import Split, make_split
from unlearnkit.errors import UserError
from unlearnkit.methods import Unlearned, get, unlearn
from unlearnkit.results import Cell
from unlearnkit.seeding import derive
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import Entry, Store, commit, key_of, now
from unlearnkit.training import parse_recipe, train


@dataclass(frozen=True)
class Stage:
    """A step of a cell: what it is called, the spec its key is made of, and how to do it."""

    name: str
    spec: dict[str, Any]
    compute: Callable[[], tuple[Any, dict[str, Any]]]
    has_tensors: bool = False

    @property
    def key(self) -> str:
        """The key the result is stored under."""
        return key_of(self.name, self.spec)


class Lab:
    """A profile on a data set, with its store: knows every stage's spec and how to compute it."""

    def __init__(
        self,
        profile: Profile,
        data: ImageData,
        store: Store,
        *,
        device: torch.device | str = "cpu",
        deadline: float | None = None,
    ) -> None:
        commit()  # asked once, now: the files may change while this process computes
        self.profile, self.store = profile, store
        self.device = torch.device(device)
        self.deadline = deadline
        self.data = data.to(self.device)
        self.split = lru_cache(maxsize=None)(self._split)
        self._models = lru_cache(maxsize=2)(self._load_model)

    # -- specs: what a result depends on ---------------------------------------------------------

    def original_stage(self, architecture: str, seed: int, progress: float = 1.0) -> Stage:
        """Return the training of the original, or the part of it up to a checkpoint."""
        recipe = self._recipe(self.profile.recipe(architecture))
        spec = {
            **self._model_spec(architecture, seed),
            "images": _index_key(self._any_split(seed).train),
            "recipe": recipe,
        }
        if progress < 1:
            spec["epochs_done"] = round(progress * recipe["epochs"])
        return Stage(
            "original", spec, lambda: self._train_original(architecture, seed, progress), True
        )

    def model_stage(self, cell: Cell) -> Stage:
        """Return the stage that makes the cell's weights."""
        if cell.method == "original":
            return self.original_stage(cell.architecture, cell.seed, cell.progress)
        split, chosen = self.split(cell.forget, cell.seed), get(cell.method)
        spec = {
            "method": cell.method,
            "method_version": chosen.version,
            "scope": cell.scope,
            "seed": cell.seed,
            "retain": _index_key(split.retain),
            "forget": _index_key(split.forget),
            "hyperparameters": self._recipe(
                self.profile.hyperparameters(cell.method, cell.architecture)
            ),
        }
        if cell.method == "retrain":
            spec["fresh"] = self._model_spec(cell.architecture, cell.seed)
        if cell.method != "retrain" or cell.scope != "all":
            spec["original"] = self.original_stage(cell.architecture, cell.seed).key
        return Stage("unlearn", spec, lambda: self._unlearn(cell), True)

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        made = self.model_stage(cell)
        stages = [made]
        split, measure = self.split(cell.forget, cell.seed), self.profile["measure"]
        size, seed = measure["batch_size"], {"seed": cell.seed}
        tested = {"model": made.key, "data": self.data.fingerprint}
        spec = {**tested, "split": split.hash}
        how = {**seed, "mia_images": measure["mia_images"]}
        doing = self._doing(measuring.quality, cell, split, **how, batch_size=size)
        stages.append(Stage("quality", {**spec, **how}, doing))
        how = {**seed, "images_per_class": measure["fairness_images_per_class"]}
        doing = self._doing(measuring.sigma, cell, **how, batch_size=size)
        stages.append(Stage("fairness", {**tested, **how}, doing))
        for entry in self.profile["attack"]:
            if not (entry["everywhere"] or (cell.scope == "all" and cell.progress == 1)):
                continue
            how = {
                "images": _image_counts(cell, entry),
                "options": attacks.attack_options(entry["name"], entry["options"]),
                "epsilons": sorted(float(e) for e in entry["epsilons"]),
                "batch_size": size,
                "seed": cell.seed,
            }
            attack = {**spec, **attacks.get_attack(entry["name"]).identity, **how}
            how["attack"] = entry["name"]
            doing = self._doing(measuring.robustness, cell, split, **how)
            stages.append(Stage("robustness", attack, doing))
            if entry["transfer"] and cell.progress == 1:
                source = self.original_stage(cell.architecture, cell.seed).key
                doing = self._doing(self._transfer, cell, split, cell, **how)
                stages.append(Stage("transfer", {**attack, "source": source}, doing))
        return stages

    def _doing(
        self, measure: Callable[..., Any], cell: Cell, *of: Any, **how: Any
    ) -> Callable[[], tuple[Any, dict]]:
        """Return the function of a stage that measures: it has nothing to say of the machine."""
        return lambda: (measure(self.model(cell), self.data, *of, **how), {})

    def _transfer(
        self, model: torch.nn.Module, data: ImageData, split: Split, cell: Cell, **how: Any
    ) -> dict[str, Any]:
        """Measure on images made on the original, which are stored for the next cell."""
        source = replace(cell, method="original", scope="all", progress=1.0)
        spec = {
            **attacks.get_attack(how["attack"]).identity,
            "attack": how["attack"],
            "epsilons": [epsilon / 255 for epsilon in how["epsilons"]],
            "params": how["options"],
            "num_classes": data.num_classes,
            "batch_size": how["batch_size"],
            "seed": derive(cell.seed, "attack"),
            "source": self.model_stage(source).key,
            "data": data.fingerprint,
            "split": split.hash,
            "images": how["images"],
        }
        key = key_of("adversarial", spec)
        stored = self.store.get_tensors("adversarial", key)
        if stored is None:
            stored = {"images": measuring.adversarial(self.model(source), data, split, **how)}
            self.store.put_tensors("adversarial", key, stored)
        return measuring.transfer(model, stored["images"], data, split, **how)

    # -- doing them ------------------------------------------------------------------------------

    def done(self, stage: Stage) -> Entry | None:
        """Return the stage's stored result, or None if it has to be computed."""
        entry = self.store.get(stage.name, stage.spec)
        if entry is None or not stage.has_tensors:
            return entry
        weights = self.store.path(stage.name, stage.key, "safetensors")
        return entry if weights.exists() else None

    def run_stage(self, stage: Stage) -> Entry:
        """Return the stage's result, computed now if the store lacks it."""
        if (entry := self.done(stage)) is not None:
            return entry
        began = time.perf_counter()
        value, machine = stage.compute()
        machine |= {"wall": time.perf_counter() - began, "date": now(), "commit": commit()}
        return self.store.put(stage.name, stage.spec, value, machine)

    def run_cell(self, cell: Cell) -> list[Entry]:
        """Compute what the store lacks of a cell; return all its results.

        Raises
        ------
        OutOfTime
            If the deadline passed; what was done is stored.
        """
        return [self.run_stage(stage) for stage in self.stages(cell)]

    def model(self, cell: Cell) -> models.Classifier:
        """Return the cell's model in evaluation mode, computed now if the store lacks it."""
        stage = self.model_stage(cell)
        self.run_stage(stage)
        return self._models(cell)

    def _load_model(self, cell: Cell) -> models.Classifier:
        stage = self.model_stage(cell)
        tensors = self.store.get_tensors(stage.name, stage.key)
        if tensors is None:
            # Damaged since it was planned, and set aside by now: make it once more.
            value, machine = stage.compute()
            self.store.put(stage.name, stage.spec, value, {**machine, "date": now()})
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

    def _train_original(
        self, architecture: str, seed: int, progress: float
    ) -> tuple[Any, dict[str, Any]]:
        finished = self.original_stage(architecture, seed)
        recipe = parse_recipe(finished.spec["recipe"], architecture)
        steps = {
            round(at * recipe.epochs): self.original_stage(architecture, seed, at)
            for at in self.profile["checkpoints"]
        }
        model = self.fresh_model(architecture, seed).to(self.device)

        def keep(epochs_done: int, model: torch.nn.Module) -> None:
            if (stage := steps.get(epochs_done)) is not None:
                self.store.put_tensors("original", stage.key, model.state_dict())
                self.store.put("original", stage.spec, {"log": {}}, {"seconds": 0, "wall": 0.0})

        if progress < 1 and round(progress * recipe.epochs) == 0:
            wanted = self.original_stage(architecture, seed, progress)
            self.store.put_tensors("original", wanted.key, model.state_dict())
            return {"log": {}}, {"seconds": 0}
        known = self.done(finished)
        # Before the training: what goes wrong here must not cost one that is done.
        facts = hardware_facts(model, self.data.image_size, recipe.precision)
        with metrics.peak_memory(self.device) as peak:
            began = time.perf_counter()
            run = train(
                model,
                self.data,
                self._any_split(seed).train,
                recipe,
                seed=derive(seed, "original"),
                name=f"{architecture} original",
                on_epoch=keep,
                state_file=self.store.state_file("original", finished.key),
                deadline=self.deadline,
            )
            seconds = run.earlier_seconds + time.perf_counter() - began
        if known is not None:
            # Trained again for a checkpoint alone: others build on the model that is stored.
            return {"log": {}}, {"seconds": 0}
        value = {
            "log": run.log,
            "memory": _memory(run.memory()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        machine = {
            "seconds": seconds,
            "peak_memory": _number(peak.bytes),
            **facts,
        }
        self.store.put_tensors("original", finished.key, run.model.state_dict())
        if progress < 1:
            # The checkpoint was asked for alone: the finished model is a gift.
            self.store.put("original", finished.spec, value, {**machine, "wall": seconds})
            return {"log": {}}, {"seconds": 0}
        return value, machine

    def _unlearn(self, cell: Cell) -> tuple[Any, dict[str, Any]]:
        stage = self.model_stage(cell)
        made = self.unlearn(cell, stage)
        self.store.put_tensors("unlearn", stage.key, made.model.state_dict())
        value = {"log": made.log, "memory": _memory(made.memory), "parameters": made.parameters}
        return value, {"seconds": made.seconds, "peak_memory": _number(made.peak_memory)}

    def unlearn(self, cell: Cell, stage: Stage) -> Unlearned:
        """Run the cell's method on its original."""
        if cell.method == "retrain" and cell.scope == "all":
            original = self.fresh_model(cell.architecture, cell.seed)
        else:
            original = self.model(replace(cell, method="original", scope="all"))
        return unlearn(
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

    # -- pieces of specs -------------------------------------------------------------------------

    def _split(self, forget: str, seed: int) -> Split:
        split = make_split(
            self.data, forget=forget, validation=self.profile["validation"], seed=seed
        )
        path = self.store.folder / "splits" / f"{split.hash[:20]}.json"
        if not path.exists():
            split.save(path)
        return split

    def _any_split(self, seed: int) -> Split:
        """Return some split of `seed`: they share the training images, whatever they forget."""
        return self.split(self.profile["forget"][0]["set"], seed)

    @cached_property
    def _data_spec(self) -> dict[str, Any]:
        return {"data": self.data.train_fingerprint, "size": self.data.image_size}

    def _model_spec(self, architecture: str, seed: int) -> dict[str, Any]:
        options = self.profile.model_options(architecture)
        return {**self._data_spec, "architecture": architecture, "model": options, "seed": seed}

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


def pick_device(name: str | None = None) -> torch.device:
    """Return the device to compute on: the one named, else a GPU if there is one, else the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; known: cpu, cuda, cuda:0, ...") from None
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise UserError(
            f"device {name} asked for, but this machine's torch sees {seen or 'no'} GPU; use cpu"
        )
    return device


def _image_counts(cell: Cell, entry: Mapping[str, Any]) -> dict[str, int]:
    """Return how many images of each set to attack; restricted models only on test images."""
    whole = cell.scope == "all" and cell.progress == 1
    return {
        "test": entry["test"],
        "retain": entry["retain"] if whole else 0,
        "forget": entry["forget"] if whole else 0,
    }


def _index_key(index: Tensor) -> str:
    """Return 20 hexadecimal digits that stand for an index list."""
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]


def _memory(count: metrics.MemoryCount) -> dict[str, int]:
    return {**asdict(count), "total": count.total}


def _number(value: float) -> float | None:
    return value if value == value else None
