"""Content-addressed results and weights: atomic, checked when read, one computer at a time.

A stage's key is the hash of everything that changes its result: the fields of its spec, the keys
of what it builds on, the data's fingerprint and the stage's version. Device, number of workers and
paths are not in it.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from unlearnkit.errors import Unreadable, UserError
from unlearnkit.files import read_json, set_aside, write_atomic
from unlearnkit.results import Cell
from unlearnkit.tensors import load_tensors, save_tensors
from unlearnkit.training import OutOfTime

# Raise a stage's number when its meaning changes: what is stored under the old one is not used.
STAGE_VERSIONS = {"original": 1, "unlearn": 1, "quality": 1, "fairness": 2, "measure": 1}
STAGE_VERSIONS |= {"robustness": 1, "adversarial": 1, "transfer": 2, "distance": 1, "margins": 1}


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`: sorted names, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(stage: str, spec: Mapping[str, Any]) -> str:
    """Return the key of `stage` computed from `spec`: 20 hexadecimal digits."""
    return _sha({"stage": stage, "version": STAGE_VERSIONS[stage], "spec": spec})[:20]


def _sha(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


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


@dataclass(frozen=True)
class Entry:
    """A result: `value`, the same everywhere up to rounding; `machine`: seconds, date, ..."""

    key: str
    value: Any
    machine: dict[str, Any]


class Store:
    """A folder of entries, `STAGE/KEY.json`, and of weights, `STAGE/KEY.safetensors`.

    What is damaged, or not what its name says, is set aside with a warning, and so computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, stage: str, key: str, ending: str = "json") -> Path:
        """Return where the entry or the weights of `key` lie."""
        return self.folder / stage / f"{key}.{ending}"

    def state_file(self, stage: str, key: str) -> Path:
        """Return where a training under way keeps its state."""
        return self.path("unfinished", f"{stage}-{key}", "safetensors")

    def put(
        self, stage: str, spec: Mapping[str, Any], value: Any, machine: Mapping[str, Any]
    ) -> None:
        """Store `value` under the key of `spec`."""
        key, body = key_of(stage, spec), {"stage": stage, "spec": spec, "value": value}
        body["machine"] = machine
        text = canonical({"key": key, "checksum": _sha(body), **body})
        write_atomic(self.path(stage, key), text + "\n")

    def get(self, stage: str, spec: Mapping[str, Any], *, repair: bool = True) -> Entry | None:
        """Return the entry of `spec`, or None if it has to be computed; `repair` sets aside."""
        key, what = key_of(stage, spec), "damaged"
        path = self.path(stage, key)
        try:
            whole = read_json(path)
            body = {name: whole[name] for name in ("stage", "spec", "value", "machine")}
            if whole["checksum"] == _sha(body):
                if body["stage"] == stage and key_of(stage, body["spec"]) == key:
                    return Entry(key, body["value"], body["machine"])
                what = "another stage's result"
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, UserError) and not isinstance(error, Unreadable):
                raise  # the system does not let it be read
        if repair:
            set_aside(path, what)
        return None

    def put_tensors(self, stage: str, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store named tensors, e.g. a model's weights, with a checksum."""
        save_tensors(self.path(stage, key, "safetensors"), tensors, key=key)

    def get_tensors(self, stage: str, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under `key`, or None if there are none that can be trusted."""
        path = self.path(stage, key, "safetensors")
        try:
            tensors, meta = load_tensors(path)
            if meta.get("key") == key:
                return tensors
            what = "another stage's"
        except FileNotFoundError:
            return None
        except Unreadable as error:
            what = str(error)
        set_aside(path, what)
        return None

    @contextmanager
    def lock(self, stage: str, key: str, deadline: float | None = None) -> Iterator[None]:
        """Let one process at a time compute `key`; the file names the host and process that does.

        The system frees the lock of a process that died. Raises `OutOfTime` if another process
        still has it at the deadline, as `time.time()` tells.
        """
        path = self.path("locks", f"{stage}-{key}", "lock")
        lock = FileLock(path, poll_interval=0.2)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = lock.acquire(-1 if deadline is None else max(0.0, deadline - time.time()))
        except Timeout:
            raise OutOfTime(f"another process is still computing it, see {path}") from None
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        with held:
            with suppress(OSError):  # Windows lets nobody write to a locked file
                path.write_text(f"{socket.gethostname()} {os.getpid()}\n")
            yield
