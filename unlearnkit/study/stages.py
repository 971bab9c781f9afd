"""A stage: what a result depends on, and so the key it is stored under."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from unlearnkit.results import Cell
from unlearnkit.study.store import key_of


@dataclass(frozen=True)
class Stage:
    """A step of a cell: its name, and the spec its key is made of."""

    cell: Cell
    name: str
    spec: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """The key the result is stored under."""
        return key_of(self.name, self.spec)

    @property
    def label(self) -> str:
        """What results call it: the name, with the attack's or the measure's."""
        return f"{self.name}/{self.spec['name']}" if "name" in self.spec else self.name

    def key_without(self, field: str, name: str = "") -> str:
        """Return the key of what several stages share, that differ in a field of their spec."""
        spec = {key: value for key, value in self.spec.items() if key != field}
        return key_of(name or self.name, spec)


def original_of(cell: Cell) -> Cell:
    """Return the original that a cell starts from."""
    return replace(cell, method="original", scope="all", progress=1.0)


def index_key(index: Tensor) -> str:
    """Return 20 hexadecimal digits that stand for an index list."""
    return hashlib.sha256(index.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:20]
