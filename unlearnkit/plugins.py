"""What registers by name and takes options: methods, attacks, measures; ours and others'."""

import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unlearnkit.errors import UserError, one_line, unknown

# Floats are finite, a bool is no number; a whole number will do for a float.
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Registry(dict):
    """Entries by name; an unknown name is a `UserError` that lists the known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __missing__(self, name: str) -> None:
        raise unknown(self.kind, name, self)


def check_values(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `values`, whole numbers made floats where `kinds` has floats.

    `kinds` maps all known names to types as pydantic reads them, e.g. int, `Literal["a", "b"]` or
    a kind of `unlearnkit.training.recipe`. A `UserError` names `where` the values come from, and an
    unknown name or a value that is of another kind, not finite or out of its range.
    """
    checked = {}
    for name, value in values.items():
        if name not in kinds:
            raise unknown(f"hyper-parameter of {where}", name, kinds)
        try:
            checked[name] = TypeAdapter(kinds[name], config=STRICT).validate_python(value)
        except ValidationError as error:
            must = error.errors()[0]["msg"].removeprefix("Input should ")
            raise UserError(f"{where}.{name} must {must}, not {value!r}") from None
    return checked


def load_plugins() -> None:
    """Import what installed packages name in the entry point group 'unlearnkit'.

    Their decorators then register, as those in a module of your own do. One that cannot be imported
    is left out, with a warning.
    """
    for point in entry_points(group="unlearnkit"):
        try:
            point.load()
        except Exception as error:  # whatever another's module raises
            why = f"{type(error).__name__}: {one_line(error)}"
            warnings.warn(f"{point.name} = {point.value} is left out: {why}", stacklevel=2)
