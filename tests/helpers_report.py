"""Invented studies: real ones, of numbers that a test chooses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unlearnkit.report.study import Study, read_study
from unlearnkit.report.tidy import arranged
from unlearnkit.results import Cell, Record, Results, Samples, write

NAMES = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun", "ga"]
TITLES = ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA"]
COLORS = ["#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#7A5C00"]
ARCHITECTURES = {"resnet50": "ResNet-50", "small_vit": "SmallViT"}
ATTACKS = {"noise": "Gaussian noise", "fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}
Model = tuple[Record, dict[str, Any]]


def model(
    method: str,
    seed: int = 0,
    *,
    architecture: str = "small_vit",
    forget: str = "random:0.1",
    scope: str = "all",
    progress: float = 1.0,
    quality: dict[str, float] | None = None,
    gap: dict[str, list[float]] | None = None,
    robust: dict[str, dict[float, Any]] | None = None,
    log: dict[str, float] | None = None,
    measures: dict[str, float] | None = None,
    distances: list[float | None] | None = None,
    memory: float | None = None,
    **facts: Any,
) -> Model:
    """Return one model's record, and what belongs to the machine that computed it (`facts`).

    `gap` is by reading of σ and layer. `robust` is by attack (``transfer/ATTACK`` of images made
    on the original) and ε in 1/255 (0 is clean): % of 100 test images of each class, one number
    for all or one for each class. `distances` are in 1/255, `memory` in bytes.
    """
    cell = Cell(architecture, forget, method, scope, seed, progress)
    made = {"memory": {"total": memory}, "parameters": 1000, "log": log or {}}
    values = {"original" if method == "original" else "unlearn": made}
    if quality is not None:
        values["quality"] = quality
    if gap:
        names = [f"net.n{index}" for index in range(len(next(iter(gap.values()))))]
        sigma = {reading: [[0.0, size] for size in sizes] for reading, sizes in gap.items()}
        values["fairness"] = {"layers": names, **sigma}
    for attack, curve in (robust or {}).items():
        right = [list(np.atleast_1d(accuracy).astype(float)) for accuracy in curve.values()]
        counts = {"n": [100] * len(right[0]), "right": right}
        stage = attack if "/" in attack else f"robustness/{attack}"
        values[stage] = {"epsilons": list(map(float, curve)), "sets": {"test": counts}}
    for name, value in (measures or {}).items():
        values[f"measure/{name}"] = {"name": name, "value": value}
    if distances:
        values["distance"] = {"distances": distances}
    stages = [{"stage": s, "key": f"{cell.name} {s}", "value": v} for s, v in values.items()]
    return Record(cell, stages), facts


def invented(
    models: list[Model],
    *,
    profile: str = "quick",
    folder: Path | None = None,
    samples: Samples | None = None,
    **study: Any,
) -> Study:
    """Return a study of `models`; `study` replaces entries of its study.json.

    In memory, or, where a results folder is named, written there and read back.
    """
    cells = [record.cell for record, _ in models]
    architectures = arranged(ARCHITECTURES, (cell.architecture for cell in cells))
    methods = arranged(NAMES, ["original", *(cell.method for cell in cells)])
    looks = {name: {"title": name.upper(), "color": ""} for name in methods}
    for name, title, color in zip(NAMES, TITLES, COLORS, strict=True):
        looks[name] = {"title": title, "color": color}
    sizes = {"retain": 80, "forget": 10, "validation": 10, "test": 20, "hash": "0"}
    sets = list(dict.fromkeys(cell.forget for cell in cells))
    about = {
        "profile": profile,
        "dataset": "digits",
        "classes": [str(index) for index in range(10)],
        "fingerprint": "0",
        "image_size": 16,
        "cells": len(models),
        "settings": {
            "architectures": architectures,
            "forget": [{"set": name, "seeds": [0], "scopes": ["all"]} for name in sets],
            "training": {name: {"epochs": 10} for name in architectures},
            "report": {"attack": "pgd", "tolerance_points": 3.0, "tolerance_ratio": 0.1},
        },
        "hyperparameters": {a: {m: {"lr": 0.1} for m in methods[1:]} for a in architectures},
        "splits": dict.fromkeys(sorted(f"{c.forget} seed {c.seed}" for c in cells), sizes),
        "architectures": [{"name": a, "title": ARCHITECTURES.get(a, a)} for a in architectures],
        "methods": [{"name": name, **looks[name]} for name in methods],
        "attacks": [{"name": name, "title": title} for name, title in ATTACKS.items()],
    }
    machine = {"date": "2025-01-01", "commit": "abc", "versions": {}, "device": "cpu: abacus"}
    machine |= {"workers": 2, "cells": {record.cell.name: facts for record, facts in models}}
    records = [record for record, _ in models]
    found = Results(about | study, machine, records, samples)
    if folder is not None:
        write(found, folder)
        return read_study(folder)
    return Study(found, Path("/nowhere/results") / profile)


def changed(one: Model, **cell: Any) -> Model:
    record, facts = one
    return replace(record, cell=replace(record.cell, **cell)), facts


METHODS = ("original", "retrain", "ga", "salun", "cf", "bs", "rl", "scrub")
SCOPES = ("all", "first", "intermediate", "last")
EPSILONS = (0, 0.25, 0.5, 1, 2, 4, 8)
LAYERS = {"resnet50": 57, "small_vit": 9}
STRENGTH = {"scrub": 30.0, "salun": 6.0, "rl": 2.0, "bs": 0.8, "cf": 0.9}
PART = {"all": 1.0, "first": 0.2, "intermediate": 0.6, "last": 0.8}
COST = {"all": 1.0, "first": 0.95, "intermediate": 0.7, "last": 0.35}


def realistic(
    architectures=("resnet50", "small_vit"),
    forgets=("random:0.1",),
    methods=METHODS,
    scopes=SCOPES,
    seeds=(0, 1),
    checkpoints=(0.1, 0.25, 0.5, 0.75),
    attacks=("noise", "fgsm", "pgd"),
    classes=10,
) -> list[Model]:
    """Return the models of a study whose numbers have the order of size of real ones.

    Original, Retrain and GA are over all layers alone, as in the profiles.
    """
    rng = np.random.default_rng(0)
    return [
        _numbers(Cell(architecture, forget, method, scope, seed, at), rng, attacks, classes)
        for architecture in architectures
        for forget in forgets
        for method in methods
        for scope in (("all",) if method in ("original", "retrain", "ga") else scopes)
        for seed in seeds
        for at in ((*checkpoints, 1.0) if method == "original" else (1.0,))
    ]


def few(**changes: Any) -> list[Model]:
    small = {"architectures": ("small_vit",), "methods": ("original", "retrain", "cf", "salun")}
    small |= {"scopes": ("all", "last"), "checkpoints": (0.5,), "attacks": ("pgd",), "classes": 3}
    return realistic(**small | changes)


def _numbers(cell: Cell, rng: np.random.Generator, attacks: tuple, classes: int) -> Model:
    part, cost = PART.get(cell.scope, 0.5), COST.get(cell.scope, 0.5)
    accuracy = 95 * (1 - 0.7 * np.exp(-5 * cell.progress)) + rng.normal(0, 0.4)
    kept = 99.5 if cell.method == "original" else 95 - 2 * part
    quality = {"UA": 100 - kept, "RA": 99.8, "TA": accuracy, "FA": kept}
    quality["MIA"] = 2.0 if cell.method == "original" else 12.0
    size = 1 + (STRENGTH.get(cell.method, 1.0) - 1) * part
    depth = np.linspace(0, 1, LAYERS.get(cell.architecture, 12))
    level = (0.08 + 0.05 * rng.random(len(depth))) * (
        1 + 0.4 * cell.progress + (size - 1) * depth**6
    )
    robust = {}
    for attack in attacks:
        weak = {"noise": 0.05, "fgsm": 0.6}.get(attack, 1.0)
        hurt = weak * (0.8 + 0.25 * np.log(size + 0.2)) * rng.normal(1, 0.05)
        robust[attack] = {}
        for epsilon in EPSILONS:
            right = accuracy / (1 + (hurt * epsilon / 1.5) ** 1.6)
            shifts = 8 * np.sin(1.7 * np.arange(classes) + hurt) * (1 - right / 100)
            robust[attack][epsilon] = np.clip(right + shifts, 0, 100)
    scratch = 10 if cell.method in ("original", "retrain") else 1
    return model(
        **vars(cell),
        quality={name: value + rng.normal(0, 0.3) for name, value in quality.items()},
        gap={"std": level.tolist()},
        robust=robust,
        memory=3e8 * cost,
        seconds=20 * cost * scratch + rng.normal(0, 0.5),
    )
