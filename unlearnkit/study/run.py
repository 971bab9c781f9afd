"""Running a study: its data and store opened, what is lacking computed, results laid down."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearnkit import results as files
from unlearnkit.attacks import ATTACKS
from unlearnkit.data import ImageData
from unlearnkit.data.splits import LISTS
from unlearnkit.errors import UserError
from unlearnkit.files import default_folder, source_folder
from unlearnkit.measures import MEASURES
from unlearnkit.methods import METHODS, ORIGINAL
from unlearnkit.results import Record, Results, Samples, own_results
from unlearnkit.study.compute import compute
from unlearnkit.study.lab import Lab, load_data
from unlearnkit.study.machine import pick_device
from unlearnkit.study.plan import make_plan
from unlearnkit.study.profile import FOLDER, Profile
from unlearnkit.study.store import Store

SPEED_FACTS = ("flop_per_image", "matmul_rate")  # of originals
ARCHITECTURES = {"resnet50": "ResNet-50", "small_vit": "SmallViT"}


def name_of(profile: Profile, dataset: str | None) -> str:
    """Return the name of a study's folders."""
    return files.study_name(profile.name, profile.values, dataset)


def _source(profile: Profile, dataset: str | None) -> dict[str, str]:
    """Return what a study is of: profile and data set, by path where they are not the package's."""
    dataset = dataset or profile["dataset"]
    return {
        "profile": profile.path.stem if profile.path.parent == FOLDER else str(profile.path),
        "dataset": str(source_folder(dataset) or dataset),
        "forget": profile["forget"][0]["set"],
    }


def source_of(name: str) -> dict[str, str]:
    """Return what this machine's results called `name` are of, see `_source`; {} without any."""
    text = b"".join(files.verified(own_results(name), "source.txt").values()).decode()
    return dict(line.split(": ", 1) for line in text.splitlines())


def note_source(profile: Profile, dataset: str | None) -> Path:
    """Note what this machine's results of a study are of; return their folder."""
    lines = [f"{what}: {value}\n" for what, value in _source(profile, dataset).items()]
    folder = own_results(name_of(profile, dataset))
    with writing(folder):
        files.lay_down(folder, {"source.txt": "".join(lines)})
    return folder


def writing(folder: Path) -> AbstractContextManager:
    """Let one process at a time write this machine's results: their list of checksums is one."""
    return Store(default_folder()).lock("results", folder.name)


def open_lab(
    profile: Profile,
    dataset: str | None = None,
    *,
    data: ImageData | None = None,
    device: str | None = None,
) -> Lab:
    """Return a study's lab; `UserError` if results of its name are of another folder or profile."""
    name, ours = name_of(profile, dataset), _source(profile, dataset)
    for what, other in source_of(name).items():
        there, here = Path(other), Path(ours[what])
        if there == here or not (there.is_absolute() and here.is_absolute() and there.exists()):
            continue  # the same, or moved, or not at a place of its own
        if there.is_dir() or there.read_bytes() != here.read_bytes():
            what = f"the results called {name} are those of {there}, not of {here}"
            raise UserError(f"{what}; rename one of the two, or delete {own_results(name)}")
    data = load_data(profile, dataset) if data is None else data
    return Lab(profile, data, Store(default_folder()), device=pick_device(device))


def run_study(
    profile: Profile,
    dataset: str | None = None,
    *,
    data: ImageData | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> Path:
    """Compute what this machine's store lacks of a study; return the folder of its results.

    `dataset` is any name `unlearnkit.data.load` takes, `data` the data set if loaded already.
    A `UserError` names a cell that failed; others are stored.
    """
    dataset = data.name if data is not None and dataset is None else dataset
    lab = open_lab(profile, dataset, data=data, device=device)
    note_source(profile, dataset)
    outcome = compute(lab, make_plan(lab), workers=workers)
    if outcome.failed:
        cell, error = outcome.failed[0]
        raise UserError(f"{len(outcome.failed)} cells failed, the first: {cell}: {error}")
    return keep_study(lab, dataset)


def keep_study(lab: Lab, dataset: str | None, part: str = "") -> Path:
    """Write what the store holds of a study, or a part, to its results here; return the folder."""
    folder = note_source(lab.profile, dataset)
    with writing(folder):
        files.write(collect(lab), folder / part)
    return folder / part


def collect(lab: Lab) -> Results:
    """Gather the stored results of all cells that are complete."""
    records, times, facts = [], {}, {}
    for cell in lab.cells:
        found = {stage.label: lab.done(stage) for stage in lab.stages(cell)}
        if not all(found.values()):
            continue
        stages = [{"stage": n, "key": e.key, "value": e.value} for n, e in found.items()]
        records.append(Record(cell, stages))
        facts |= {entry.key: entry.machine for entry in found.values()}
        made = next(iter(found.values())).machine
        walls = {n: round(e.machine.get("wall", 0.0), 3) for n, e in found.items()}
        cost = {name: made.get(name) for name in ("seconds", "peak_memory")}
        speed = {name: made[name] for name in SPEED_FACTS if name in made}
        times[cell.name] = {**cost, **speed, "walls": walls}
    machine = {**_machine(list(facts.values())), "cells": times}
    labels = lab.data.train_labels.cpu()  # eight images of each of the first ten classes
    first = torch.cat([(labels == label).nonzero()[:8, 0] for label in range(10)])
    images = lab.data.train_images[first.to(lab.device)].permute(0, 2, 3, 1).cpu().numpy()
    samples = Samples(np.ascontiguousarray(images), labels[first].numpy(), lab.data.classes)
    return Results({**_study(lab), "cells": len(lab.cells)}, machine, records, samples)


def _machine(facts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return when, on what and how all was computed, whoever gathers it."""

    def joined(values: Iterable[str | None]) -> str:
        return ", ".join(sorted(set(values) - {None}))

    seconds = [max(f.get("wall", 0.0), f.get("seconds") or 0.0) for f in facts]
    hours = sum(s / f.get("workers", 1) for s, f in zip(seconds, facts, strict=True))
    # The mean over the seconds: divided by it, they are what it took.
    workers = round(sum(seconds) / hours, 2) if hours else 1.0
    versions = [f.get("versions", {}) for f in facts]
    return {
        "date": max((f.get("date", "") for f in facts), default=""),
        "commit": joined(f.get("commit") for f in facts),
        "device": joined(f.get("device") for f in facts),
        "versions": {n: joined(v.get(n) for v in versions) for n in set().union(*versions)},
        "workers": int(workers) if workers.is_integer() else workers,
    }


def hyperparameters(profile: Profile) -> dict[str, dict[str, dict[str, Any]]]:
    """Return architecture -> method -> its hyper-parameters, of all the profile's methods."""
    networks, names = profile["architectures"], profile["methods"]
    return {a: {name: profile.hyperparameters(name, a) for name in names} for a in networks}


def _study(lab: Lab) -> dict[str, Any]:
    data, profile, splits = lab.data, lab.profile, {}
    for forget, seed in ((e["set"], seed) for e in profile["forget"] for seed in e["seeds"]):
        split = lab.split(forget, seed)
        sizes = {part: len(getattr(split, part)) for part in LISTS}
        splits[f"{forget} seed {seed}"] = {**sizes, "hash": split.hash[:20]}
    chosen = sorted((METHODS[name] for name in profile["methods"]), key=lambda m: m.order)
    extra = [MEASURES[name] for name in profile["measure"].get("extra", [])]
    networks = [(name, ARCHITECTURES.get(name, name)) for name in profile["architectures"]]
    return {
        "profile": profile.name,
        "settings": profile.values,
        "hyperparameters": hyperparameters(profile),
        "methods": [_named(m, color=m.color) for m in (ORIGINAL, *chosen)],
        "attacks": [_named(ATTACKS[entry["name"]]) for entry in profile["attack"]],
        "architectures": [{"name": name, "title": title} for name, title in networks],
        "measures": [_named(measure, digits=measure.digits) for measure in extra],
        "dataset": data.name,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "image_size": data.image_size,
        "splits": splits,
    }


def _named(entry: Any, **more: Any) -> dict[str, Any]:
    return {"name": entry.name, "title": entry.title, **more}
