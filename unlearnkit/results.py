"""Results as files: one small JSON for each cell, beside what belongs to the machine."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unlearnkit.errors import UserError
from unlearnkit.files import (
    default_folder,
    plain_name,
    project_folder,
    source_folder,
    write_atomic,
)

ID = ["architecture", "forget", "method", "scope", "seed", "progress"]
GAP_METRICS = ["UA", "RA", "TA", "MIA"]
READINGS = ("std", "variance", "channel_std", "trimmed_std")
SCOPES = ("all", "first", "intermediate", "last")


@dataclass(frozen=True, order=True)
class Cell:
    """One model of the study: everything that tells it from the others.

    `progress` is 1.0 for a finished model and less for a checkpoint along the original's training.
    """

    architecture: str
    forget: str
    method: str
    scope: str
    seed: int
    progress: float = 1.0

    @property
    def name(self) -> str:
        """A file name, e.g. 'resnet50_random-0.1_cf_all_seed0'."""
        at = "" if self.progress == 1 else f"_at{self.progress:g}"
        kind, _, value = self.forget.partition(":")
        words = (self.architecture, kind, value, self.method, self.scope)
        # Names of classes, models and methods may hold anything, slashes included.
        architecture, kind, value, method, scope = (quote(word, safe="") for word in words)
        return f"{architecture}_{kind}-{value}_{method}_{scope}_seed{self.seed}{at}"

    def __str__(self) -> str:
        at = "" if self.progress == 1 else f" at {100 * self.progress:.0f} %"
        scope = "" if self.scope == "all" else f" {self.scope}"
        return f"{self.architecture} {self.forget} seed {self.seed} {self.method}{scope}{at}"


@dataclass(frozen=True)
class Record:
    """A cell's results: its stages, each a dict of stage, label, key and value."""

    cell: Cell
    stages: list[dict[str, Any]]


@dataclass(frozen=True)
class Samples:
    """A few images of a data set: uint8 [N, S, S, 3], labels [N], names of the classes."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """All results of a study, as `write` lays them down and `read` finds them.

    Attributes
    ----------
    study : dict
        Profile, data set, split hashes, number of cells asked for: the same on every machine.
    machine : dict
        Date, commit, versions, hardware, and each cell's seconds and peak memory.
    samples : Samples or None
        A few training images of each class, so that they can be shown without the data set.
    """

    study: dict[str, Any]
    machine: dict[str, Any]
    records: list[Record]
    samples: Samples | None = None


def study_name(profile: str, settings: Mapping[str, Any], dataset: str | None) -> str:
    """Return the name of a study's folders: the profile's, with the data set's if another.

    A folder that the settings name under [stand_in] holds the profile's own data set.
    """
    if not dataset or dataset == settings.get("dataset"):
        return profile
    source = source_folder(dataset)
    if source and source.name in settings.get("stand_in", {}):
        return profile
    short = source.name if source else dataset
    return f"{profile}@{plain_name(short)}"


def own_results(name: str) -> Path:
    """Return where this machine's results of a study lie, beside its store."""
    return default_folder() / "results" / name


def committed_folder(name: str) -> Path:
    """Return where a study's results are committed."""
    return project_folder() / "results" / name


def write(results: Results, folder: Path) -> None:
    """Write `results` to `folder`; cells it holds beyond them are removed."""
    wanted = set()
    for record in results.records:
        path = folder / "cells" / f"{record.cell.name}.json"
        wanted.add(path.name)
        lines = ",\n".join(json.dumps(stage, sort_keys=True) for stage in record.stages)
        head = json.dumps(asdict(record.cell))
        _write_if_new(path, f'{{"cell": {head},\n"stages": [\n{lines}\n]}}\n')
    for path in (folder / "cells").glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in (("study", results.study), ("machine", results.machine)):
        text = json.dumps(content, indent=1, sort_keys=True)
        _write_if_new(folder / f"{name}.json", text + "\n")
    if results.samples is not None:
        _write_if_new(folder / "samples.png", _png(results.samples))


def _write_if_new(path: Path, content: str | bytes) -> None:
    content = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, content)


def _png(samples: Samples) -> bytes:
    """Return the sample images as one picture, side by side, the labels in its description."""
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text("labels", json.dumps(samples.labels.tolist()))
    strip = np.concatenate(samples.images, axis=1)
    Image.fromarray(strip).save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def _samples(path: Path, study: dict[str, Any]) -> Samples | None:
    if not path.exists():
        return None
    with Image.open(path) as picture:
        labels = np.array(json.loads(picture.text["labels"]))
        strip = np.array(picture)
    images = strip.reshape(len(strip), -1, len(strip), 3).transpose(1, 0, 2, 3)
    return Samples(images, labels, tuple(study["classes"]))


def read(folder: Path) -> Results:
    """Read what `write` wrote.

    Raises
    ------
    UserError
        If there is nothing, or a file is damaged; it names the file.
    """
    path = folder / "study.json"
    try:
        study = _table(path)
        sets = [entry["set"] for entry in study["settings"]["forget"]]
        path = folder / "machine.json"
        machine = _table(path)
        records = []
        for path in sorted((folder / "cells").glob("*.json")):
            whole = json.loads(path.read_text())
            records.append(Record(Cell(**whole["cell"]), whole["stages"]))
        path = folder / "samples.png"
        samples = _samples(path, study)
    except FileNotFoundError:
        raise UserError(f"no results in {folder}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it from version control or compute it again"
        ) from None
    # In the profile's order: what is drawn without a forget set named is the first one's.
    records.sort(key=lambda record: [*sets, record.cell.forget].index(record.cell.forget))
    return Results(study, machine, records, samples)


def _table(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise TypeError("it holds no names")
    return content


def recorded_walls(*folders: Path) -> dict[str, dict[str, float]]:
    """Return cell name -> stage -> seconds, as recorded in `folders`, the first that has it."""
    walls: dict[str, dict[str, float]] = {}
    for folder in folders:
        try:
            cells = json.loads((folder / "machine.json").read_text())["cells"]
            found = {name: entry["walls"] for name, entry in cells.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        walls = found | walls
    return walls
