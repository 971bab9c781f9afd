"""Writing files whole, reading them with care, and putting damaged ones out of the way."""

import json
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from unlearnkit.errors import Unreadable, UserError, one_line

LARGEST = 64 * 2**20  # bytes; no file of results comes near it


def plain_name(text: str) -> str:
    """Return `text` as part of a file name that every system takes: letters, digits, ``_.-``."""
    return re.sub(r"[^\w.-]+", "-", text)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` beside `path`, flush it to the disk, rename it into place; else UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        why = f"{error.strerror}; nothing there was changed"
        raise UserError(f"cannot write {path}: {why}") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain file of at most `LARGEST` bytes; else `Unreadable`.

    `FileNotFoundError` if nothing is there, `UserError` if the system does not let it be read.
    """
    try:
        if path.stat().st_size <= LARGEST and path.is_file():
            return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no file {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    raise Unreadable(f"{path} is damaged: not a plain file of at most {LARGEST} bytes")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; errors as of `read_bytes`, `Unreadable` if it is not JSON."""
    content = read_bytes(path)
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path} is damaged: {one_line(error)}") from None


def set_aside(path: Path, what: str) -> None:
    """Rename a damaged or foreign file or folder to `NAME.damaged`, with a warning."""
    aside = path.with_name(path.name + ".damaged")
    while aside.is_dir() or (path.is_dir() and aside.exists()):  # what a rename cannot replace
        aside = aside.with_name(aside.name + ".damaged")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return  # another worker found it damaged, too, and was faster
    except OSError as error:
        raise UserError(f"{path} is {what} and cannot be set aside: {error.strerror}") from None
    warnings.warn(f"{path.name} is {what}; kept as {aside}, computed again", stacklevel=3)


def source_folder(dataset: str) -> Path | None:
    """Return the folder that 'folder:PATH' names, there or not; None for other data sets."""
    kind, colon, path = dataset.partition(":")
    if kind != "folder" or not colon:
        return None
    try:
        if not path.strip():
            raise ValueError("folder: needs a path, as in folder:PATH")
        folder = Path(path.strip()).expanduser().resolve()
        folder.exists()  # raises where a name is too long
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no folder {path!r}: {one_line(error)}") from None
    return folder


def project_folder() -> Path:
    """Return the folder with notebooks and results: the package's, or else the working folder."""
    beside = Path(__file__).resolve().parents[1]
    return beside if (beside / "notebooks").is_dir() else Path.cwd()


def default_folder() -> Path:
    """Return the store's folder: $UNLEARNKIT_STORE, or `artifacts` in the project."""
    return Path(os.environ.get("UNLEARNKIT_STORE") or project_folder() / "artifacts")


def output_folder() -> Path:
    """Return where figures/ and executed/ are written: $UNLEARNKIT_OUTPUT, or the project."""
    return Path(os.environ.get("UNLEARNKIT_OUTPUT") or project_folder())
