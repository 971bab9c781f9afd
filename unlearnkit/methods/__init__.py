"""The unlearning algorithms: one file each, one signature, registered by a decorator.

A method receives a `Run` (see `unlearnkit.training`) whose model is a copy of the original, and
changes that model. To add one, put a file beside these or decorate a function in a notebook:

    @method("mine", title="Mine")
    def mine(run):
        for epoch in run.epochs():
            for images, labels in run.retain(epoch):
                run.step(run.cross_entropy(images, labels))

Layer restriction, seeds, precision, progress, checkpoints, cost and the tables are not its concern.
"""

import copy
import importlib
import pkgutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearnkit.cost import MemoryCount, peak_memory
from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split
from unlearnkit.errors import unknown
from unlearnkit.scopes import apply_scope, scope_modules, trainable
from unlearnkit.training.recipe import parse_hyperparameters
from unlearnkit.training.run import Run


@dataclass(frozen=True)
class Method:
    """An unlearning algorithm: its name in profiles, title in tables, function and options.

    `options` maps each hyper-parameter beyond the recipe's to its type, or to the tuple of its
    allowed values.
    """

    name: str
    title: str
    function: Callable[[Run], None]
    options: Mapping[str, type | tuple]
    version: int = 1


@dataclass(frozen=True)
class Unlearned:
    """What a method leaves: the model [on the data's device], its log, and what it cost.

    Attributes
    ----------
    log : dict
        What the method reports, e.g. Boundary Shrink's `hit_ratio`.
    seconds : float
        Of the algorithm alone, with the preparation of masks and labels.
    memory : MemoryCount
        Bytes of training memory, counted.
    peak_memory : float
        Bytes, as the device measured them; NaN where it cannot.
    parameters : int
        Number of trainable parameters.
    """

    model: nn.Module
    log: dict[str, float]
    seconds: float
    memory: MemoryCount
    peak_memory: float
    parameters: int


METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    title: str = "",
    options: Mapping[str, type | tuple] | None = None,
    version: int = 1,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register the decorated function as unlearning method `name`; again to replace it.

    `version` is part of every stored result's key: raise it when the method's meaning changes.
    """

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        METHODS[name] = Method(name, title or name.upper(), function, options or {}, version)
        return function

    return register


def get(name: str) -> Method:
    """Return the method called `name`; `UserError` naming the known ones if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def unlearn(
    name: str,
    original: nn.Module,
    data: ImageData,
    split: Split,
    *,
    hyperparameters: Mapping[str, Any],
    seed: int,
    scope: str = "all",
    fresh: Callable[[], nn.Module] | None = None,
    state_file: Path | None = None,
    deadline: float | None = None,
) -> Unlearned:
    """Unlearn `split.forget` from a copy of `original`, which itself is left as it was.

    Parameters
    ----------
    name : str
        A registered method.
    original : nn.Module
        Trained on retain and forget set; float images [B, 3, H, W] in [0, 1] to logits [B, C].
    data : ImageData
        On the device that computes.
    hyperparameters : mapping
        The recipe's (see `Recipe`) and the method's own.
    seed : int
        Of batch order, augmentation and the method's draws.
    scope : str
        Which layers may change: "all", "first", "intermediate", "last" or "modules:NAME,NAME".
    fresh : function returning an untrained model, for methods that start afresh (Retrain)
    state_file : Path or None
        Where a long run keeps its state, to go on from when cut off.
    deadline : float or None
        `time.time()` after which the run saves its state and raises `OutOfTime`.

    Raises
    ------
    UserError
        Unknown method, scope or hyper-parameter; a loss that is not finite.
    """
    chosen = get(name)
    recipe, options = parse_hyperparameters(hyperparameters, chosen.options, f"method {name}")
    scope_modules(original, scope)  # an unknown scope fails before anything is copied
    device = data.train_images.device
    with torch.random.fork_rng(), peak_memory(device) as peak:
        began = time.perf_counter()
        student = copy.deepcopy(original).to(device).requires_grad_(True)
        frozen = copy.deepcopy(original).to(device).eval().requires_grad_(False)
        apply_scope(student, scope)
        run = Run(
            model=student,
            original=frozen,
            fresh=fresh,
            images=data.train_images,
            labels=data.train_labels,
            retain_index=split.retain,
            forget_index=split.forget,
            recipe=replace(recipe, flip=recipe.flip and data.flip),
            options=options,
            seed=seed,
            num_classes=data.num_classes,
            name=name if scope == "all" else f"{name} {scope}",
            scope=scope,
            state_file=state_file,
            deadline=deadline,
        )
        chosen.function(run)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = run.earlier_seconds + time.perf_counter() - began
    return Unlearned(
        model=run.model.eval(),
        log=run.log,
        seconds=seconds,
        memory=run.memory(),
        peak_memory=peak.bytes,
        parameters=sum(parameter.numel() for _, parameter in trainable(run.model)),
    )


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
