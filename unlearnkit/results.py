"""Results as files: one small JSON for each cell, beside what belongs to the machine.

`SHA256SUMS` holds the checksum of every file, as `sha256sum --check` takes it: a digit changed by
hand, or a file copied over another, is found when results are read. Errors are `UserError`s that
name the file.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unlearnkit import files
from unlearnkit.errors import UserError, one_line
from unlearnkit.names import GAP_METRICS

SWEEP_COLUMNS = ["architecture", "method", "lr", "seed", *GAP_METRICS, "average_gap", "chosen"]
SUMS = "SHA256SUMS"


@dataclass(frozen=True, order=True)
class Cell:
    """What tells one model of a study from the others; `progress` < 1 is of a checkpoint."""

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
        words = (self.architecture, self.forget.replace(":", "-", 1), self.method, self.scope)
        # Names of classes, models and methods may hold anything, slashes included.
        return "_".join(quote(word, safe="") for word in words) + f"_seed{self.seed}{at}"

    @property
    def original(self) -> "Cell":
        """The original that the cell starts from."""
        return replace(self, method="original", scope="all", progress=1.0)

    def __str__(self) -> str:
        at = "" if self.progress == 1 else f" at {100 * self.progress:.0f} %"
        scope = "" if self.scope == "all" else f" {self.scope}"
        return f"{self.architecture} {self.forget} seed {self.seed} {self.method}{scope}{at}"


@dataclass(frozen=True)
class Record:
    """A cell's results: its stages, each a dict of stage, key and value."""

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

    `study`, the same on every machine: profile, data set, split hashes, number of cells asked for.
    `machine`: date, commit, versions, hardware, and each cell's seconds and peak memory.
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
    source = files.source_folder(dataset)
    if source and source.name in settings.get("stand_in", {}):
        return profile
    return f"{profile}@{files.plain_name(source.name if source else dataset)}"


def own_results(name: str) -> Path:
    """Return where this machine's results of a study lie, beside its store."""
    return files.default_folder() / "results" / name


def committed_folder(name: str) -> Path:
    """Return where a study's results are committed."""
    return files.project_folder() / "results" / name


def lay_down(folder: Path, contents: Mapping[str, str | bytes], stale: Iterable[str] = ()) -> None:
    """Write those files of a folder that are new, remove the `stale` ones, and list checksums."""
    try:
        sums = _sums(folder)
    except UserError:
        sums = {}  # what is written now is listed; `verified` names the rest

    def keep(name: str, content: str | bytes) -> None:
        path, data = folder / name, content.encode() if isinstance(content, str) else content
        sums[name] = hashlib.sha256(data).hexdigest()
        if not path.is_file() or path.read_bytes() != data:
            files.write_atomic(path, data)

    try:
        for name, content in contents.items():
            keep(name, content)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        there = sorted(name for name in sums if (folder / name).is_file())
        keep(SUMS, "".join(f"{sums[name]}  {name}\n" for name in there))
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from None


def verified(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Return name -> content of the files of results that fit a pattern, each as it was written."""
    sums, found = _sums(folder), {}
    there = {path.relative_to(folder).as_posix() for p in patterns for path in folder.glob(p)}
    there |= {name for name in sums if any(fnmatch(name, pattern) for pattern in patterns)}
    for name in sorted(there):
        try:
            found[name] = files.read_bytes(folder / name)
        except FileNotFoundError:
            raise _damaged(folder / name, "it is gone") from None
        if hashlib.sha256(found[name]).hexdigest() != sums.get(name):
            raise _damaged(folder / name, f"{SUMS} has another checksum, or none")
    return found


def _sums(folder: Path) -> dict[str, str]:
    """Return name -> checksum as listed in `folder`, none where there is no list."""
    try:
        lines = files.read_bytes(folder / SUMS).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}); restore it or compute it again")


def write(results: Results, folder: Path) -> None:
    """Write `results` to `folder`; cells it holds beyond them are removed."""
    contents: dict[str, str | bytes] = {}
    for record in results.records:
        head = json.dumps(asdict(record.cell))
        lines = ",\n".join(json.dumps(stage, sort_keys=True) for stage in record.stages)
        text = f'{{"cell": {head},\n"stages": [\n{lines}\n]}}\n'
        contents[f"cells/{record.cell.name}.json"] = text
    for name, table in (("study", results.study), ("machine", results.machine)):
        contents[f"{name}.json"] = json.dumps(table, indent=1, sort_keys=True) + "\n"
    if results.samples is not None:
        contents["samples.png"] = _png(results.samples)
    cells = {f"cells/{path.name}" for path in (folder / "cells").glob("*.json")}
    lay_down(folder, contents, stale=cells - contents.keys())


def read(folder: Path) -> Results:
    """Read what `write` wrote."""
    found = verified(folder, "study.json", "machine.json", "samples.png", "cells/*.json")
    if "study.json" not in found:
        raise UserError(f"no results in {folder}")
    name, records, samples = "study.json", [], None
    try:
        study = json.loads(found[name])
        sets = [entry["set"] for entry in study["settings"]["forget"]]
        for name in (n for n in found if n.startswith("cells/")):
            content = json.loads(found[name])
            cell, stages = Cell(**content["cell"]), content["stages"]
            different = {stage["stage"] for stage in stages}
            if name != f"cells/{cell.name}.json" or len(different) < len(stages):
                raise ValueError("it is another cell's, or has a stage twice")
            records.append(Record(cell, stages))
        if (name := "samples.png") in found:
            samples = _samples(found[name], study["classes"])
        name = "machine.json"
        machine = {**json.loads(found[name])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise _damaged(folder / name, one_line(error)) from None
    # In the profile's order: what is drawn without a forget set named is the first one's.
    records.sort(key=lambda record: [*sets, record.cell.forget].index(record.cell.forget))
    return Results(study, machine, records, samples)


def _png(samples: Samples) -> bytes:
    """Return the sample images as one picture, side by side, the labels in its description."""
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text("labels", json.dumps(samples.labels.tolist()))
    Image.fromarray(np.concatenate(samples.images, axis=1)).save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def _samples(data: bytes, classes: list[str]) -> Samples:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        labels, strip = np.array(json.loads(picture.text["labels"])), np.array(picture)
    images = strip.reshape(len(strip), -1, len(strip), 3).transpose(1, 0, 2, 3)
    return Samples(images, labels, tuple(classes))


def recorded_walls(*folders: Path) -> dict[str, dict[str, float]]:
    """Return cell name -> stage -> seconds, as recorded in `folders`, the first that has it."""
    walls: dict[str, dict[str, float]] = {}
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            cells = files.read_json(folder / "machine.json")["cells"]
            walls = {name: dict(entry["walls"]) for name, entry in cells.items()} | walls
    return walls


def write_sweep(table: pd.DataFrame, folder: Path) -> None:
    """Write one CSV of `SWEEP_COLUMNS` for each architecture to `folder`/sweeps."""
    for architecture, part in table.groupby("architecture"):
        text = part.to_csv(index=False, lineterminator="\n")
        lay_down(folder, {f"sweeps/{quote(architecture, safe='')}.csv": text})


def read_sweep(folder: Path) -> pd.DataFrame:
    """Return what `write_sweep` wrote to `folder`, with no rows if there is nothing."""
    parts = []
    for name, content in verified(folder, "sweeps/*.csv").items():
        try:
            parts.append(pd.read_csv(io.BytesIO(content))[SWEEP_COLUMNS])
        except (ValueError, KeyError) as error:
            raise _damaged(folder / name, one_line(error)) from None
    empty = pd.DataFrame(columns=SWEEP_COLUMNS)
    return pd.concat(parts, ignore_index=True) if parts else empty


def disagreements(hyperparameters: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """Return a line for each rate, in study.json's table, that is not the sweep's choice."""
    lines = []
    keys = ["architecture", "method", "lr"]  # on a line for each seed
    for row in table.loc[table["chosen"], keys].drop_duplicates().itertuples():
        rate = hyperparameters[row.architecture][row.method]["lr"]
        if rate != row.lr:
            lines.append(f"[method.{row.method}] {row.architecture}.lr = {row.lr:g}, not {rate:g}")
    return lines
