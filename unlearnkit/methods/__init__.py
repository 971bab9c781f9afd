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
import inspect
import pkgutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from unlearnkit.cost import MemoryCount, peak_memory
from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split
from unlearnkit.errors import UserError, unknown
from unlearnkit.scopes import apply_scope, scope_modules, trainable
from unlearnkit.training import Recipe, Run, check_values, parse_recipe
from unlearnkit.training.recipe import RECIPE_KINDS


@dataclass(frozen=True)
class Method:
    """An unlearning algorithm, and how it is shown."""

    name: str
    title: str
    color: str  # "#rrggbb", or "" for a spare one
    order: int  # its place in tables and figures
    version: int = 1  # part of every stored result's key: raised when the meaning changes
    function: Callable[..., None] | None = None
    # of each option, from the function's keywords: its default, and its annotation
    defaults: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unlearned:
    """What a method leaves, and what it cost."""

    model: nn.Module  # in evaluation mode, on the data's device
    log: dict[str, float]  # what the method reports, e.g. Boundary Shrink's `hit_ratio`
    seconds: float  # of the algorithm alone, with the preparation of masks
    memory: MemoryCount  # bytes of training memory, counted
    peak_memory: float  # bytes, as the device measured them; NaN where it cannot
    parameters: int  # number of trainable parameters


# What is unlearned; no method, but shown with them.
ORIGINAL = Method("original", "Original", "#000000", order=0)
METHODS: dict[str, Method] = {}


def method(
    name: str, *, title: str = "", color: str = "", order: int = 100, version: int = 1
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function as unlearning method `name`; again to replace it.

    The function takes a `Run` and its options as keywords, each with a default and best with an
    annotation: float, int, bool, `Literal[...]` or a kind of `unlearnkit.training.recipe`, which
    has a range as well. The other arguments are those of `Method`.

    Raises
    ------
    UserError
        For an option without a default, of a wrong default, or named as one of the recipe's.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        options = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        for option in options:
            if option.default is option.empty or option.name in RECIPE_KINDS:
                raise UserError(
                    f"method {name}: option {option.name} needs a default, and a name that is not "
                    f"among {', '.join(RECIPE_KINDS)}"
                )
        defaults = {option.name: option.default for option in options}
        kinds = {
            o.name: type(o.default) if o.annotation is o.empty else o.annotation for o in options
        }
        check_values(defaults, kinds, f"method {name}, defaults")
        if name == ORIGINAL.name:
            raise UserError("a method cannot be called original: that is the model it starts from")
        shown = title or name.upper()
        METHODS[name] = Method(name, shown, color, order, version, function, defaults, kinds)
        return function

    return register


def get(name: str) -> Method:
    """Return the method called `name`; `UserError` naming the known ones if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def parse_hyperparameters(
    values: Mapping[str, Any], method: str, where: str = ""
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe and the options of `method`: those of `values`, defaults for the rest.

    Raises
    ------
    UserError
        Unknown method or name, or a value that is not allowed; it names `where`.
    """
    chosen, where = get(method), where or f"method {method}"
    checked = check_values(values, {**RECIPE_KINDS, **chosen.kinds}, where)
    options = {name: checked.pop(name, default) for name, default in chosen.defaults.items()}
    return parse_recipe(checked, where), options


def unlearn(
    name: str,
    original: nn.Module,
    data: ImageData,
    split: Split,
    *,
    hyperparameters: Mapping[str, Any] = MappingProxyType({}),
    seed: int,
    scope: str = "all",
    fresh: Callable[[], nn.Module] | None = None,
    state_file: Path | None = None,
    deadline: float | None = None,
) -> Unlearned:
    """Unlearn `split.forget` from a copy of `original`, which itself is left as it was.

    Parameters
    ----------
    original : nn.Module
        Trained on retain and forget set; float images [B, 3, H, W] in [0, 1] to logits [B, C].
    data : ImageData
        On the device that computes.
    hyperparameters : mapping
        The recipe's (see `Recipe`) and the method's own; those it lacks have their defaults.
    seed : int
        Of batch order, augmentation and the method's draws.
    scope : str
        Which layers may change, see `scope_modules`: "all", "first", "intermediate+last", ...
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
    recipe, options = parse_hyperparameters(hyperparameters, name)
    scope_modules(original, scope)  # an unknown scope fails before anything is copied
    device = data.train_images.device
    with torch.random.fork_rng(), peak_memory(device) as peak:
        began = time.perf_counter()
        student = copy.deepcopy(original).to(device).requires_grad_(True)
        apply_scope(student, scope)
        run = Run(
            student,
            data,
            split.retain,
            recipe,
            seed,
            name if scope == "all" else f"{name} {scope}",
            forget_index=split.forget,
            original=copy.deepcopy(original).to(device).eval().requires_grad_(False),
            fresh=fresh,
            options=options,
            state_file=state_file,
            deadline=deadline,
        )
        chosen.function(run, **options)
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
