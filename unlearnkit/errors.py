"""The errors a user can cause and mend."""

from collections.abc import Iterable


class UserError(ValueError):
    """Something in the input is wrong; one line says what, what is allowed, what to do."""


class Unreadable(UserError):
    """What lies at a path cannot be used: damaged, too large, or not a file at all."""


def unknown(kind: str, value: object, known: Iterable[object]) -> UserError:
    """Return the error for a `value` that is not among the `known` ones of its `kind`."""
    names = ", ".join(map(str, known)) or "(none)"
    return UserError(f"unknown {kind} {str(value)!r}; known: {names}")


def one_line(error: Exception) -> str:
    """Return the message of any error without its line breaks; without one, the error's kind."""
    return " ".join(str(error).split()) or type(error).__name__
