"""Which attacks there are, and what can be set about them."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unlearnkit.errors import UserError, unknown


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    `norm` is 'linf' for a bounded perturbation, None for one that ε merely scales. `nested` says
    that an image broken at a smaller ε counts as broken at the larger ones.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    defaults: Mapping[str, Any]
    norm: str | None
    nested: bool
    version: int

    @property
    def identity(self) -> dict[str, Any]:
        """What of the registration changes a result, for its key."""
        return {name: getattr(self, name) for name in ("name", "version", "norm", "nested")}


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    title: str = "",
    norm: str | None = "linf",
    nested: bool = False,
    version: int = 1,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function (model, images, labels, epsilon, *, num_classes, seed, ...) -> images.

    Registering a name again replaces it. `version` is part of every stored result's key: raise it
    when the attack's meaning changes.
    """
    if norm not in ("linf", None):
        raise unknown("norm", norm, ("linf", None))

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        options = dict(inspect.signature(function).parameters)
        for given in ("num_classes", "seed"):  # keywords of every attack, no options
            if options.pop(given, None) is None:
                raise UserError(f"attack {name} must take the keywords num_classes and seed")
        defaults = {o.name: o.default for o in options.values() if o.default is not o.empty}
        ATTACKS[name] = Attack(name, title or name, function, defaults, norm, nested, version)
        return function

    return register


def get_attack(name: str) -> Attack:
    """Return the registered attack `name`; an unknown one is a `UserError` naming the known."""
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    return ATTACKS[name]


def attack_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every option of the attack: its defaults, overridden by `options`.

    A number must be finite, whole where the default is, and above 0 where the default is.
    """
    defaults = get_attack(name).defaults
    for key, value in (options or {}).items():
        if key not in defaults:
            raise unknown(f"option of attack {name!r}", key, defaults or ["(none)"])
        default = defaults[key]
        if type(default) not in (int, float):
            if type(value) is not type(default):
                kind = type(default).__name__
                raise UserError(f"{key} of attack {name} is {value!r}; it must be a {kind}")
            continue
        kinds = (int,) if type(default) is int else (int, float)
        fits = type(value) in kinds and math.isfinite(value) and (value > 0 or default <= 0)
        if not fits:
            limit = " above 0" if default > 0 else ""
            raise UserError(
                f"{key} of attack {name} is {value!r}; "
                f"it must be a finite {type(default).__name__}{limit}"
            )
    return {**defaults, **(options or {})}
