"""Content-addressed results and weights: atomic, checked when read, resumable.

A stage's key is the hash of everything that changes its result: the fields of its spec, the keys
of what it builds on, the data's fingerprint and the stage's version. Device, number of workers and
paths are not in it.
"""

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from unlearnkit import __version__
from unlearnkit.errors import UserError
from unlearnkit.files import project_folder, set_aside, write_atomic
from unlearnkit.tensors import DamagedFile, load_tensors, save_tensors

# Raise a stage's number when its meaning changes: what is stored under the old one is not used.
STAGE_VERSIONS = {
    "original": 1,
    "unlearn": 1,
    "quality": 1,
    "fairness": 2,
    "robustness": 1,
    "adversarial": 1,
    "transfer": 1,
}


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted names, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(stage: str, spec: Mapping[str, Any]) -> str:
    """Return the key of `stage` computed from `spec`: 20 hexadecimal digits."""
    whole = {"stage": stage, "version": STAGE_VERSIONS[stage], "spec": spec}
    return hashlib.sha256(canonical(whole).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Entry:
    """A stored result.

    Attributes
    ----------
    value : JSON value
        What the stage computed: the same on every machine, up to rounding.
    machine : dict
        What belongs to the machine that did: `seconds`, `peak_memory`, `date`, ...
    """

    key: str
    stage: str
    spec: dict[str, Any]
    value: Any
    machine: dict[str, Any]


class Store:
    """A folder of entries, `STAGE/KEY.json`, and of weights, `STAGE/KEY.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, stage: str, key: str, ending: str = "json") -> Path:
        """Return where the entry or the weights of `key` lie."""
        return self.folder / stage / f"{key}.{ending}"

    def put(
        self, stage: str, spec: Mapping[str, Any], value: Any, machine: Mapping[str, Any]
    ) -> Entry:
        """Store `value` under the key of `spec` and return the entry."""
        body = {"stage": stage, "spec": spec, "value": value, "machine": dict(machine)}
        body = json.loads(canonical(body))
        key = key_of(stage, spec)
        text = canonical({"key": key, "checksum": _sha(canonical(body)), **body})
        write_atomic(self.path(stage, key), text + "\n")
        return Entry(key=key, **body)

    def get(self, stage: str, spec: Mapping[str, Any]) -> Entry | None:
        """Return the entry of `spec`, or None if it has to be computed.

        A file that is damaged, or is not what its name says, is set aside with a warning.
        """
        path = self.path(stage, key_of(stage, spec))
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        try:
            whole = json.loads(text)
            body = {name: whole[name] for name in ("stage", "spec", "value", "machine")}
            sound = whole["checksum"] == _sha(canonical(body))
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            set_aside(path, "damaged")
            return None
        if key_of(stage, body["spec"]) != path.stem or body["stage"] != stage:
            set_aside(path, "another stage's result")
            return None
        return Entry(key=path.stem, **body)

    def put_tensors(self, stage: str, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store named tensors, e.g. a model's weights, with a checksum."""
        save_tensors(self.path(stage, key, "safetensors"), tensors, key=key)

    def get_tensors(self, stage: str, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under `key`, or None if there are none that can be trusted."""
        path = self.path(stage, key, "safetensors")
        try:
            tensors, meta = load_tensors(path)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            set_aside(path, str(error))
            return None
        if meta.get("key") != key:
            set_aside(path, "another stage's")
            return None
        return tensors

    def state_file(self, stage: str, key: str) -> Path:
        """Return where a training under way keeps its state."""
        return self.path("unfinished", f"{stage}-{key}", "safetensors")


def now() -> str:
    """Return the date and time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the project's commit, marked if the package differs from it; outside a checkout
    the package's version.
    """
    git = ["git", "-C", str(project_folder())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "unlearnkit"]).returncode
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
    return head.stdout.strip() + (" (changed)" if changed else "")


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
