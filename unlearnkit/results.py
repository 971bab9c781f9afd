"""Results as files: one small JSON for each cell, beside what belongs to the machine."""

import io
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unlearnkit import __version__
from unlearnkit.cells import Cell
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.files import plain_name, write_atomic
from unlearnkit.lab import Lab
from unlearnkit.plan import stage_label
from unlearnkit.profile import Profile
from unlearnkit.store import project_folder

PACKAGES = ("torch", "torchvision", "timm", "torchattacks", "numpy", "scikit-learn")
SPEED_FACTS = ("flop_per_image", "matmul_rate")  # of originals
SAMPLES = (8, 10)  # images of each class, classes


@dataclass(frozen=True)
class Record:
    """A cell's results: its stages, each a dict of stage, label, key and value."""

    cell: Cell
    stages: list[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """All results of a study, as `write` lays them down and `read` finds them.

    Attributes
    ----------
    study : dict
        Profile, data set, split hashes, number of cells asked for: the same on every machine.
    machine : dict
        Date, commit, versions, hardware, and each cell's seconds and peak memory.
    samples : ImageData or None
        A few training images of each class, so that they can be shown without the data set.
    """

    study: dict[str, Any]
    machine: dict[str, Any]
    records: list[Record]
    samples: ImageData | None = None


def study_name(profile: Profile, dataset: str | None) -> str:
    """Return the name of a study's folders: the profile's, with the data set's if another.

    A folder that the profile names under [stand_in] holds its own data set.
    """
    if not dataset or dataset == profile["dataset"]:
        return profile.name
    source = source_folder(dataset)
    if source and source.name in profile.values.get("stand_in", {}):
        return profile.name
    short = source.name if source else dataset
    return f"{profile.name}@{plain_name(short)}"


def source_folder(dataset: str) -> Path | None:
    """Return the folder that 'folder:PATH' names, None for other data sets."""
    kind, colon, path = dataset.partition(":")
    return Path(path.strip()).expanduser().resolve() if colon and kind == "folder" else None


def committed_folder(name: str) -> Path:
    """Return where a study's results are committed."""
    return project_folder() / "results" / name


def collect(lab: Lab, cells: Iterable[Cell], workers: int) -> Results:
    """Gather the stored results of all `cells` that are complete."""
    records, times, made_at, commits = [], {}, set(), set()
    cells = list(cells)
    for cell in cells:
        stages = lab.stages(cell)
        entries = [lab.done(stage) for stage in stages]
        if not all(entries):
            continue
        labels = [stage_label(stage.name, stage.spec) for stage in stages]
        records.append(
            Record(
                cell,
                [
                    {"stage": label, "key": entry.key, "value": entry.value}
                    for label, entry in zip(labels, entries, strict=True)
                ],
            )
        )
        made_at |= {entry.machine.get("date", "") for entry in entries}
        commits |= {entry.machine.get("commit", "") for entry in entries}
        made = entries[0].machine
        times[cell.name] = {
            "seconds": made.get("seconds"),
            "peak_memory": made.get("peak_memory"),
            **{name: made[name] for name in SPEED_FACTS if name in made},
            "walls": {
                label: round(entry.machine.get("wall", 0.0), 3)
                for label, entry in zip(labels, entries, strict=True)
            },
        }
    machine = {
        **_machine(lab, workers),
        "date": max(made_at, default=""),
        "commit": ", ".join(sorted(commits - {""})),
        "cells": times,
    }
    samples = lab.data.first(*SAMPLES)
    return Results({**_study(lab), "cells": len(cells)}, machine, records, samples)


def _study(lab: Lab) -> dict[str, Any]:
    data, profile = lab.data, lab.profile
    splits = {}
    for entry in profile["forget"]:
        for seed in entry["seeds"]:
            split = lab.split(entry["set"], seed)
            splits[f"{entry['set']} seed {seed}"] = {
                "retain": len(split.retain),
                "forget": len(split.forget),
                "validation": len(split.validation),
                "test": len(split.test),
                "hash": split.hash[:20],
            }
    return {
        "profile": profile.name,
        "settings": profile.values,
        "dataset": data.name,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "image_size": data.image_size,
        "splits": splits,
    }


def _machine(lab: Lab, workers: int) -> dict[str, Any]:
    device = platform.processor() or platform.machine()
    if lab.device.type == "cuda":
        device = torch.cuda.get_device_name(lab.device)
    return {
        "versions": versions(),
        "device": f"{lab.device.type}: {device}",
        "workers": workers,
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    found = {"unlearnkit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


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


def _png(samples: ImageData) -> bytes:
    """Return the sample images as one picture, side by side, the labels in its description."""
    strip = torch.cat(list(samples.train_images.cpu()), dim=2).permute(1, 2, 0)
    buffer, note = io.BytesIO(), PngInfo()
    note.add_text("labels", json.dumps(samples.train_labels.tolist()))
    Image.fromarray(strip.contiguous().numpy()).save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def _samples(path: Path, study: dict[str, Any]) -> ImageData | None:
    if not path.exists():
        return None
    with Image.open(path) as picture:
        labels = torch.tensor(json.loads(picture.text["labels"]))
        strip = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    images = torch.stack(strip.split(strip.shape[1], dim=2))
    parts = (images, labels, images[:0], labels[:0])
    return ImageData(study["dataset"], tuple(study["classes"]), *parts)


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
