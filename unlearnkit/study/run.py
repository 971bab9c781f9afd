"""Running a study: its data and store opened, what is lacking computed, results laid down."""

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearnkit import __version__, attacks, methods
from unlearnkit import results as files
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.files import default_folder, write_atomic
from unlearnkit.report.study import Study
from unlearnkit.results import Cell, Record, Results, Samples, own_results
from unlearnkit.study.compute import compute, default_workers
from unlearnkit.study.lab import Lab, load_data, pick_device
from unlearnkit.study.plan import cells_of, make_plan, stage_label
from unlearnkit.study.profile import Profile, load_profile
from unlearnkit.study.store import Store

PACKAGES = ("torch", "torchvision", "timm", "torchattacks", "numpy", "scikit-learn")
SPEED_FACTS = ("flop_per_image", "matmul_rate")  # of originals
SAMPLES = (8, 10)  # images of each class, classes

__all__ = ["load_profile", "run_study"]


def name_of(profile: Profile, dataset: str | None) -> str:
    """Return the name of a study's folders."""
    return files.study_name(profile.name, profile.values, dataset)


def open_lab(profile: Profile, dataset: str | None = None, *, device: str | None = None) -> Lab:
    """Return the lab of `profile` on its data set, or on another, with this machine's store."""
    return Lab(
        profile, load_data(profile, dataset), Store(default_folder()), device=pick_device(device)
    )


def check_source(name: str, dataset: str) -> None:
    """Make sure that this machine's results of a study are not those of another folder.

    Raises
    ------
    UserError
        If two folders of images have the same name.
    """
    source, path = files.source_folder(dataset), own_results(name) / "source.txt"
    if source is None or not path.exists():
        return
    other = Path(path.read_text().strip())
    if other != source and other.is_dir():
        raise UserError(
            f"the results called {name} are those of {other}, not of {source}; rename one of these "
            f"two folders, or delete {path.parent}"
        )


def run_study(
    profile: Profile,
    dataset: str | None = None,
    *,
    data: ImageData | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> Study:
    """Compute what this machine's store lacks of a study, and return the study.

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
    if data is None:
        check_source(name_of(profile, dataset), dataset or profile["dataset"])
        lab = open_lab(profile, dataset, device=device)
    else:
        dataset = dataset or data.name
        lab = Lab(profile, data, Store(default_folder()), device=pick_device(device))
    workers = workers or default_workers(lab.device)
    cells = cells_of(profile)
    outcome = compute(lab, make_plan(lab, cells), workers=workers)
    if outcome.failed:
        cell, message = outcome.failed[0]
        raise UserError(f"{len(outcome.failed)} cells failed, the first: {cell}: {message}")
    return keep_study(lab, dataset, workers)


def keep_study(lab: Lab, dataset: str | None, workers: int) -> Study:
    """Write what the store holds of a study to this machine's results; return the study."""
    folder = own_results(name_of(lab.profile, dataset))
    results = collect(lab, cells_of(lab.profile), workers)
    files.write(results, folder)
    if (source := files.source_folder(dataset or lab.profile["dataset"])) is not None:
        write_atomic(folder / "source.txt", f"{source}\n")
    return Study(results, folder)


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
    each, most = SAMPLES
    labels = lab.data.train_labels.cpu()
    first = torch.cat([(labels == label).nonzero()[:each, 0] for label in range(most)])
    images = lab.data.train_images[first.to(lab.device)].permute(0, 2, 3, 1).cpu().numpy()
    samples = Samples(np.ascontiguousarray(images), labels[first].numpy(), lab.data.classes)
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
        "hyperparameters": hyperparameters(profile),
        **titles(profile),
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


def hyperparameters(profile: Profile) -> dict[str, dict[str, dict[str, Any]]]:
    """Return architecture -> method -> its hyper-parameters, of all the profile's methods."""
    return {
        architecture: {
            method: profile.hyperparameters(method, architecture) for method in profile["methods"]
        }
        for architecture in profile["architectures"]
    }


COLORS = {
    "original": "#000000",
    "retrain": "#0072B2",
    "cf": "#56B4E9",
    "bs": "#009E73",
    "rl": "#E69F00",
    "scrub": "#D55E00",
    "salun": "#CC79A7",
    "ga": "#7A5C00",
}
ARCHITECTURES = {"resnet50": "ResNet50", "small_vit": "SmallViT"}


def titles(profile: Profile) -> dict[str, list[dict[str, str]]]:
    """Return how methods, attacks and architectures are shown, in their order."""
    chosen = [*(m for m in COLORS if m in profile["methods"])]
    chosen += [m for m in profile["methods"] if m not in COLORS]
    found = [{"name": "original", "title": "Original", "color": COLORS["original"]}]
    for name in chosen:
        color = COLORS.get(name, "")
        found.append({"name": name, "title": methods.get(name).title, "color": color})
    shown = [
        {"name": entry["name"], "title": attacks.get_attack(entry["name"]).title}
        for entry in profile["attack"]
    ]
    networks = [{"name": a, "title": ARCHITECTURES.get(a, a)} for a in profile["architectures"]]
    return {"methods": found, "attacks": shown, "architectures": networks}
