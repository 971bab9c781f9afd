"""A study small enough for a test: digits, two tiny networks, one epoch."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from unlearnkit.data import ImageData
from unlearnkit.results import Cell, Record, Results
from unlearnkit.study.compute import Outcome, compute
from unlearnkit.study.lab import Lab, load_data
from unlearnkit.study.plan import make_plan
from unlearnkit.study.profile import FOLDER, Profile, load_profile
from unlearnkit.study.store import Store

PGD = {"name": "pgd", "epsilons": [16, 4], "test": 20, "retain": 10, "forget": 10}
PGD |= {"transfer": True, "everywhere": True, "options": {"steps": 1, "step_ratio": 1.0}}
ONE_SET = [{"set": "random:0.2", "seeds": [0], "scopes": ["all"]}]
# The cheapest study: one transformer, one method, four numbers of layers restricted to one.
VIT = {"architectures": ["small_vit"], "methods": ["cf"], "checkpoints": [], "forget": ONE_SET}
CF = Cell("small_vit", "random:0.2", "cf", "all", 0)
ORIGINAL = Cell("small_vit", "random:0.2", "original", "all", 0)


def tiny_values(**changes: Any) -> dict[str, Any]:
    """Return the tables of the quick profile made tiny; `changes` replace whole tables."""
    values = tomllib.loads((FOLDER / "quick.toml").read_text())
    values |= {"train_images": 120, "test_images": 60, "validation": 0.1}
    values |= {"methods": ["retrain", "cf"], "checkpoints": [0.0], "distance": {"test": 0}}
    values["forget"] = [{"set": "random:0.2", "seeds": [0], "scopes": ["all", "first"]}]
    values["models"]["resnet50"] |= {"width": 0.0625, "stem_stride": 2}
    values["models"]["small_vit"] |= {"dim": 16, "heads": 2, "patch": 8}
    for table in ("training", "unlearning"):
        for recipe in values[table].values():
            recipe |= {"epochs": 1, "batch_size": 64, "precision": "fp32"}
    report = {"attack": "pgd", "tolerance_points": 3.0, "tolerance_ratio": 0.1}
    return deepcopy({**values, "attack": [PGD], "report": report, **changes})


def recipe(table: str, **changes: Any) -> dict[str, Any]:
    """Return 'training' or 'unlearning' of the tiny profile, the transformer's recipe changed."""
    tables = tiny_values()[table]
    tables["small_vit"] |= changes
    return {table: tables}


def to_toml(value: Any) -> str:
    """Return a value as TOML, tables inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


def write_profile(folder: Path, values: Mapping[str, Any], name: str = "tiny") -> Path:
    """Write a profile into `folder` and return its path."""
    path = folder / f"{name}.toml"
    path.write_text("".join(f"{key} = {to_toml(value)}\n" for key, value in values.items()))
    return path


def tiny_profile(folder: Path, **changes: Any) -> Profile:
    """Return the tiny profile, read back from a file in `folder`."""
    return load_profile(write_profile(folder, tiny_values(**changes)))


def tiny_lab(profile: Profile, store: Path, data: ImageData | None = None) -> Lab:
    """Return a lab of `profile` on the CPU."""
    return Lab(profile, data or load_data(profile), Store(store))


def vit_lab(folder: Path, **changes: Any) -> Lab:
    """Return a lab of the cheapest study, with changed tables, on the store in `folder`."""
    return tiny_lab(tiny_profile(folder, **VIT | changes), folder / "store")


def run_all(lab: Lab, **options: Any) -> tuple[Outcome, list[str]]:
    """Compute all the lab's cells, a thread each; return the outcome and the lines reported."""
    lines: list[str] = []
    plan = make_plan(lab)
    with mock.patch("unlearnkit.study.compute.cpu_count", return_value=1):
        return compute(lab, plan, report=lines.append, **{"workers": 1, **options}), lines


def hears_interrupts() -> None:
    """Undo what a shell does to what it runs in the background: that ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(code: str, *arguments: object, **variables: str) -> subprocess.Popen:
    """Start a Python process of its own group that runs `code`, with these helpers to import."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        start_new_session=True,
        preexec_fn=hears_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Return what `condition` gives once that is true, within `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab whose store holds the whole tiny study."""
    folder = tmp_path_factory.mktemp("whole")
    lab = tiny_lab(tiny_profile(folder), folder / "store")
    outcome, lines = run_all(lab)
    # Two originals to train; for each an original, a checkpoint and 2 x 2 unlearned models.
    assert outcome.done == len(lines) == 2 + 2 * (1 + 1 + 4) and not outcome.failed
    return lab


@pytest.fixture
def vit(whole: Lab, tmp_path: Path) -> Callable[..., Lab]:
    """Return a function of changed tables: a lab that starts from a copy of the small study."""
    shutil.copytree(whole.store.folder, tmp_path / "store")
    return partial(vit_lab, tmp_path)


def keys_of(lab: Lab, *cells: Cell) -> dict[str, str]:
    """Return 'cell's name: stage' -> key of all stages of `cells`, by default of all."""
    return {
        f"{cell.name}: {stage.name} {stage.spec.get('name', '')}".strip(): stage.key
        for cell in cells or lab.cells
        for stage in lab.stages(cell)
    }


def made_data(name: str = "made") -> ImageData:
    """Return 60 + 20 images of 8x8 pixels in two classes, the same on every machine."""
    count = torch.arange(80 * 3 * 8 * 8).reshape(80, 3, 8, 8)
    images, labels = (count * 7919 % 251).to(torch.uint8), torch.arange(80) % 2
    images[labels == 1] //= 4
    return ImageData(
        name, ("dark", "light"), images[:60], labels[:60], images[60:], labels[60:], flip=False
    )


def made_results(**values: Any) -> Results:
    """Return results of one cell, each stage with its first key, e.g. `quality={"UA": 3.0}`."""
    stages = [
        {"stage": name.replace("__", "/"), "key": f"key of {name}", "value": value}
        for name, value in values.items()
    ]
    return Results({"dataset": "made"}, {"cells": {}}, [Record(CF, stages)])
