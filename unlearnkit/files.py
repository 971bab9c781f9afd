"""Writing files whole, and putting damaged ones out of the way."""

import os
import re
import tempfile
import warnings
from pathlib import Path

from unlearnkit.errors import UserError


def plain_name(text: str) -> str:
    """Return `text` as part of a file name that every system takes: letters, digits, ``_.-``."""
    return re.sub(r"[^\w.-]+", "-", text)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` beside `path`, flush it to the disk and rename it into place.

    Raises
    ------
    UserError
        If the folder cannot be made or written to.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; nothing there was changed"
        ) from None


def set_aside(path: Path, what: str) -> Path:
    """Rename a damaged or foreign file to `NAME.damaged`, say so in a warning, return its place.

    Raises
    ------
    UserError
        If the folder cannot be written to.
    """
    aside = path.with_name(path.name + ".damaged")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return aside  # another worker found it damaged, too, and was faster
    except OSError as error:
        raise UserError(f"{path} is {what} and cannot be set aside: {error.strerror}") from None
    warnings.warn(f"{path.name} is {what}; kept as {aside}, computed again", stacklevel=3)
    return aside


def default_folder() -> Path:
    """Return the store's folder: $UNLEARNKIT_STORE, or `artifacts` in the project."""
    return Path(os.environ.get("UNLEARNKIT_STORE", project_folder() / "artifacts"))


def project_folder() -> Path:
    """Return the folder with notebooks and results: the package's, or else the working folder."""
    beside = Path(__file__).resolve().parents[1]
    return beside if (beside / "notebooks").is_dir() else Path.cwd()


def output_folder() -> Path:
    """Return where figures/ and executed/ are written: $UNLEARNKIT_OUTPUT, or the project."""
    return Path(os.environ.get("UNLEARNKIT_OUTPUT", project_folder()))
