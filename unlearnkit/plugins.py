"""What registers by name: methods, attacks, measures; this package's and others'."""

import warnings
from importlib.metadata import entry_points

from unlearnkit.errors import one_line, unknown


class Registry(dict):
    """Entries by name; an unknown name is a `UserError` that lists the known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __missing__(self, name: str) -> None:
        raise unknown(self.kind, name, self)


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
