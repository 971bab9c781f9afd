"""Running a study: its data and store opened, what is lacking computed, results laid down."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearnkit import results as files
from unlearnkit.attacks import get_attack
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.files import default_folder, source_folder
from unlearnkit.measures import MEASURES
from unlearnkit.methods import METHODS, ORIGINAL
from unlearnkit.results import Cell, Record, Results, Samples, own_results
from unlearnkit.study.compute import compute
from unlearnkit.study.machine import pick_device
from unlearnkit.study.plan import cells_of, make_plan, stage_label
from unlearnkit.study.profile import FOLDER, Profile
from unlearnkit.study.stages import Lab, load_data
from unlearnkit.study.store import Entry, Store

SPEED_FACTS = ("flop_per_image", "matmul_rate")  # of originals
SAMPLES = (8, 10)  # images of each class, classes
ARCHITECTURES = {"resnet50": "ResNet50", "small_vit": "SmallViT"}


def name_of(profile: Profile, dataset: str | None) -> str:
    """Return the name of a study's folders."""
    return files.study_name(profile.name, profile.values, dataset)


def open_lab(
    profile: Profile,
    dataset: str | None = None,
    *,
    data: ImageData | None = None,
    device: str | None = None,
) -> Lab:
    """Return the lab of `profile` on its data set, or on another, with this machine's store.

    Raises
    ------
    UserError
        If this machine's results of that name are those of another folder or profile.
    """
    name = name_of(profile, dataset)
    ours, theirs = _source(profile, dataset), source_of(name)
    for what, other in theirs.items():
        folder = source_folder(other) if what == "dataset" else None
        if other == ours[what] or (what == "dataset" and not ours[what].startswith("folder:")):
            continue
        settings = what == "profile" and Path(other).is_file()
        if (folder is not None and folder.is_dir()) or (
            settings and Path(other).read_bytes() != profile.path.read_bytes()
        ):
            raise UserError(
                f"the results called {name} are those of {other}, not of {ours[what]}; rename one "
                f"of the two, or delete {own_results(name)}"
            )
    data = load_data(profile, dataset) if data is None else data
    return Lab(profile, data, Store(default_folder()), device=pick_device(device))


def source_of(name: str) -> dict[str, str]:
    """Return what this machine's results called `name` are of, {} if there are none.

    Raises
    ------
    UserError
        If the file that tells it is damaged.
    """
    text = b"".join(files.verified(own_results(name), "source.txt").values()).decode()
    return dict(line.split(": ", 1) for line in text.splitlines())


def _source(profile: Profile, dataset: str | None) -> dict[str, str]:
    own = profile.path.parent == FOLDER
    folder = source_folder(dataset := dataset or profile["dataset"])
    return {
        "profile": profile.path.stem if own else str(profile.path.resolve()),
        "dataset": f"folder:{folder}" if folder else dataset,
        "forget": profile["forget"][0]["set"],
    }


def note_source(profile: Profile, dataset: str | None) -> Path:
    """Note what this machine's results of a study are of; return their folder."""
    lines = [f"{what}: {value}\n" for what, value in _source(profile, dataset).items()]
    folder = own_results(name_of(profile, dataset))
    files.lay_down(folder, {"source.txt": "".join(lines)})
    return folder


def run_study(
    profile: Profile,
    dataset: str | None = None,
    *,
    data: ImageData | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> Path:
    """Compute what this machine's store lacks of a study; return the folder of its results.

    Parameters
    ----------
    dataset : str or None
        Any name `unlearnkit.data.load` takes; None for the profile's own.
    data : ImageData or None
        The data set itself, if loaded already.

    Raises
    ------
    UserError
        If a cell failed; the others are stored.
    """
    dataset = data.name if data is not None and dataset is None else dataset
    lab = open_lab(profile, dataset, data=data, device=device)
    note_source(profile, dataset)
    outcome = compute(lab, make_plan(lab, cells_of(profile)), workers=workers)
    if outcome.failed:
        cell, error = outcome.failed[0]
        raise UserError(f"{len(outcome.failed)} cells failed, the first: {cell}: {error}")
    return keep_study(lab, dataset)


def keep_study(lab: Lab, dataset: str | None) -> Path:
    """Write what the store holds of a study to this machine's results; return their folder."""
    with lab.store.lock("results", name_of(lab.profile, dataset)):
        folder = note_source(lab.profile, dataset)
        files.write(collect(lab, cells_of(lab.profile)), folder)
    return folder


def collect(lab: Lab, cells: Iterable[Cell]) -> Results:
    """Gather the stored results of all `cells` that are complete."""
    cells, records, times, made = list(cells), [], {}, {}
    for cell in cells:
        entries = [lab.done(stage) for stage in lab.stages(cell)]
        if not all(entries):
            continue
        labels = [stage_label(entry.stage, entry.spec) for entry in entries]
        stages = [
            {"stage": label, "key": entry.key, "value": entry.value}
            for label, entry in zip(labels, entries, strict=True)
        ]
        records.append(Record(cell, stages))
        made |= {entry.key: entry for entry in entries}
        first = entries[0].machine
        times[cell.name] = {
            "seconds": first.get("seconds"),
            "peak_memory": first.get("peak_memory"),
            **{name: first[name] for name in SPEED_FACTS if name in first},
            "walls": {
                label: round(entry.machine.get("wall", 0.0), 3)
                for label, entry in zip(labels, entries, strict=True)
            },
        }
    machine = {**_machine(made.values()), "cells": times}
    each, most = SAMPLES
    labels = lab.data.train_labels.cpu()
    first = torch.cat([(labels == label).nonzero()[:each, 0] for label in range(most)])
    images = lab.data.train_images[first.to(lab.device)].permute(0, 2, 3, 1).cpu().numpy()
    samples = Samples(np.ascontiguousarray(images), labels[first].numpy(), lab.data.classes)
    return Results({**_study(lab), "cells": len(cells)}, machine, records, samples)


def _machine(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return when, on what and how the entries were computed, whoever gathers them."""
    facts = [entry.machine for entry in entries]

    def joined(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values) - {""}))

    seconds = [max(f.get("wall", 0.0), f.get("seconds") or 0.0) for f in facts]
    hours = sum(s / f.get("workers", 1) for s, f in zip(seconds, facts, strict=True))
    names = {name for f in facts for name in f.get("versions", {})}
    # The mean over the seconds: divided by it, they are the hours it took.
    workers = round(sum(seconds) / hours, 2) if hours else 1
    return {
        "date": max((f.get("date", "") for f in facts), default=""),
        "commit": joined(f.get("commit", "") for f in facts),
        "device": joined(f.get("device", "") for f in facts),
        "versions": {n: joined(f.get("versions", {}).get(n, "") for f in facts) for n in names},
        "workers": int(workers) if workers == int(workers) else workers,
    }


def hyperparameters(profile: Profile) -> dict[str, dict[str, dict[str, Any]]]:
    """Return architecture -> method -> its hyper-parameters, of all the profile's methods."""
    return {
        architecture: {
            method: profile.hyperparameters(method, architecture) for method in profile["methods"]
        }
        for architecture in profile["architectures"]
    }


def _study(lab: Lab) -> dict[str, Any]:
    data, profile = lab.data, lab.profile
    splits = {}
    for forget, seed in ((e["set"], seed) for e in profile["forget"] for seed in e["seeds"]):
        split = lab.split(forget, seed)
        parts = ("retain", "forget", "validation", "test")
        sizes = {part: len(getattr(split, part)) for part in parts}
        splits[f"{forget} seed {seed}"] = {**sizes, "hash": split.hash[:20]}
    chosen = sorted((METHODS[name] for name in profile["methods"]), key=lambda m: m.order)
    attacks = [get_attack(entry["name"]) for entry in profile["attack"]]
    extra = [MEASURES[name] for name in profile["measure"].get("extra", [])]
    return {
        "profile": profile.name,
        "settings": profile.values,
        "hyperparameters": hyperparameters(profile),
        "methods": [_named(m, color=m.color) for m in (ORIGINAL, *chosen)],
        "attacks": [_named(attack) for attack in attacks],
        "architectures": [
            {"name": name, "title": ARCHITECTURES.get(name, name)}
            for name in profile["architectures"]
        ],
        "measures": [_named(measure, digits=measure.digits) for measure in extra],
        "dataset": data.name,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "image_size": data.image_size,
        "splits": splits,
    }


def _named(entry: Any, **more: Any) -> dict[str, Any]:
    return {"name": entry.name, "title": entry.title, **more}
