"""Which attacks there are, and what can be set about them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unlearnkit.errors import unknown


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
    version: int = 1


_ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    title: str | None = None,
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
        arguments = inspect.signature(function).parameters.values()
        defaults = {a.name: a.default for a in arguments if a.default is not a.empty}
        _ATTACKS[name] = Attack(name, title or name, function, defaults, norm, nested, version)
        return function

    return register


def attack_names() -> list[str]:
    """Return the names of all registered attacks."""
    return list(_ATTACKS)


def get_attack(name: str) -> Attack:
    """Return the registered attack `name`; an unknown one is a `UserError` naming the known."""
    if name not in _ATTACKS:
        raise unknown("attack", name, _ATTACKS)
    return _ATTACKS[name]


def attack_params(name: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every parameter of the attack: its defaults, overridden by `params` (checked)."""
    defaults = get_attack(name).defaults
    for key in params or {}:
        if key not in defaults:
            raise unknown(f"parameter of attack {name!r}", key, defaults or ["(none)"])
    return {**defaults, **(params or {})}
