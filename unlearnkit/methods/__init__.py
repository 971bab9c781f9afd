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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from unlearnkit.cost import MemoryCount, peak_memory
from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split
from unlearnkit.errors import UserError, unknown
from unlearnkit.plugins import Registry, check_values
from unlearnkit.scopes import apply_scope, trainable
from unlearnkit.training import Recipe, Run
from unlearnkit.training.recipe import RECIPE_KINDS, parse_recipe


@dataclass(frozen=True)
class Method:
    """An unlearning algorithm, and how it is shown."""

    name: str
    title: str
    color: str  # "#rrggbb", or "" for a spare one
    order: int  # its place in tables and figures
    version: int = 1  # part of every stored result's key: raised when the meaning changes
    function: Callable[..., None] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of the options, by name
    kinds: Mapping[str, Any] = field(default_factory=dict)  # their types
    paper: str = ""  # where it was published
    needs_retain: str = ""  # "yes", "no", or what of the retain set it needs
    passes: str = ""  # over the data
    published: str = ""  # the settings its authors used
    needs_validation: bool = False  # whether it looks at the validation images
    check: Callable[[nn.Module], None] | None = None  # `UserError` if a model cannot have it


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
METHODS = Registry("method")
FACTS = [f.name for f in fields(Method)[-6:]]  # what may be stated of a method


def method(
    name: str, *, title: str = "", color: str = "", order: int = 100, version: int = 1, **facts: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function as unlearning method `name`; again to replace it.

    The function takes a `Run`, and its options as keywords. An option needs a default, and a name
    that the recipe does not have; else `UserError`. Its annotation may be float, int, bool,
    `Literal[...]`, or a kind of `unlearnkit.training.recipe`, which has a range. The other
    arguments are those of `Method`. `about` may state them, too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        if name == ORIGINAL.name:
            raise UserError("a method cannot be called original: that is the model it starts from")
        defaults, kinds = {}, {}
        for o in list(inspect.signature(function, eval_str=True).parameters.values())[1:]:
            if o.default is o.empty or o.name in RECIPE_KINDS:
                names = ", ".join(RECIPE_KINDS)
                what = f"method {name}: option {o.name}"
                raise UserError(f"{what} needs a default, and a name that is not among {names}")
            defaults[o.name] = o.default
            kinds[o.name] = type(o.default) if o.annotation is o.empty else o.annotation
        check_values(defaults, kinds, f"defaults of method.{name}")
        shown = title or name.upper()
        options = function, defaults, kinds
        told = function.__dict__.pop("about", {}) | facts  # a wrapper would take it over
        METHODS[name] = Method(name, shown, color, order, version, *options, **told)
        return function

    return register


def about(**facts: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """State facts of the function below `method`, such as `paper` or `passes`: see `Method`."""

    def note(function: Callable[..., None]) -> Callable[..., None]:
        if any(known.function is function for known in METHODS.values()):
            raise UserError("@about stands below @method, which reads it")
        if wrong := [name for name in facts if name not in FACTS]:
            raise unknown("fact of a method", wrong[0], FACTS)
        function.about = facts | getattr(function, "about", {})
        return function

    return note


def parse_hyperparameters(
    values: Mapping[str, Any], method: str, where: str = ""
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe and the options of `method`: those of `values`, defaults for the rest.

    A `UserError` names `where`, and an unknown method or name or a value that is not allowed.
    """
    chosen, where = METHODS[method], where or f"method.{method}"
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

    `original` takes float images [B, 3, H, W] in [0, 1] to logits [B, C]. `data` is on the device
    that computes. `hyperparameters` are the recipe's and the method's own. `seed` is that of every
    draw. `scope` names the layers that may change (see `scope_modules`). `fresh` builds an
    untrained model, which Retrain and Bad Teacher need. A long run keeps its state in `state_file`,
    and resumes from it. Once `time.time()` is past `deadline`, it saves its state and raises
    `OutOfTime`. An unknown method, scope or hyper-parameter, a model or split that the method is
    not defined for, or a loss that is not finite is a `UserError`.
    """
    chosen = METHODS[name]
    recipe, options = parse_hyperparameters(hyperparameters, name)
    device = data.train_images.device
    with torch.random.fork_rng(), peak_memory(device) as peak:
        student = copy.deepcopy(original).to(device).requires_grad_(True)
        apply_scope(student, scope)
        if chosen.check:
            chosen.check(student)
        if chosen.needs_validation and not len(split.validation):
            raise UserError(f"method {name} needs validation images, and the split has none")
        frozen = copy.deepcopy(original).to(device).eval().requires_grad_(False)
        kept = {"original": frozen, "fresh": fresh, "state_file": state_file, "deadline": deadline}
        kept |= {"forget_index": split.forget, "validation_index": split.validation}
        kept |= {"options": options}
        shown = name if scope == "all" else f"{name} {scope}"
        run = Run(student, data, split.retain, recipe, seed, shown, **kept)
        chosen.function(run, **options)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = run.seconds
        run.tell()
    parameters = sum(parameter.numel() for _, parameter in trainable(run.model))
    return Unlearned(run.model.eval(), run.log, seconds, run.memory(), peak.bytes, parameters)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
