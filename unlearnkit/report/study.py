"""A study as tidy data frames: what every table and figure is drawn from."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearnkit import results as files
from unlearnkit.errors import UserError, unknown
from unlearnkit.report.sweep import read_sweep
from unlearnkit.results import ID, READINGS, Cell, Results

COLUMNS = {
    "quality": [*ID, "metric", "value"],
    "cost": [*ID, "seconds", "training_memory", "peak_memory", "parameters"],
    "sigma": [*ID, "reading", "layer_index", "layer_name", "class_index", "sigma"],
    "gap": [*ID, "reading", "layer_index", "layer_name", "gap"],
    "robust": [*ID, "attack", "epsilon", "images", "access", "class_index", "n", "accuracy"],
    "log": [*ID, "name", "value"],
}
ACCESS = {"robustness": "white-box", "transfer": "transfer"}
NAN = float("nan")


class NothingToDraw(UserError):
    """A study has no numbers for a table or figure."""


def arranged(known: Iterable[str], values: Iterable[str]) -> list[str]:
    """Return the distinct `values`: those `known` first, in that order, then as they appear."""
    found = list(dict.fromkeys(values))
    first = [name for name in dict.fromkeys(known) if name in found]
    return first + [name for name in found if name not in first]


@dataclass(frozen=True)
class Study:
    """Results of a profile on a data set, one row for each number.

    All frames share the columns `ID`: architecture, forget, method, scope, seed and progress (1.0
    for a finished model, less for a checkpoint along the original's training).

    Attributes
    ----------
    quality : metric ("UA", "RA", "TA", "FA", "MIA", "TA_forgotten": %; a measure's name), value
    cost : seconds, training_memory (bytes, counted), peak_memory (bytes, measured), parameters
    sigma : reading, layer_index, layer_name, class_index, sigma
    gap : reading, layer_index, layer_name, gap
    robust : attack, epsilon (in [0, 1] pixels; 0 is clean), images ("test", "retain", "forget"),
        access ("white-box", "transfer"), class_index (-1: all), n, accuracy (%)
    log : name and value of what a method reports about itself
    """

    results: Results
    folder: Path

    @property
    def profile(self) -> dict[str, Any]:
        """The settings that the numbers were computed with."""
        return self.results.study["settings"]

    @property
    def profile_name(self) -> str:
        """Name of the profile."""
        return self.results.study["profile"]

    @property
    def name(self) -> str:
        """Name of the study's folders under results/ and figures/."""
        return self.folder.name

    @property
    def dataset(self) -> str:
        """What the data set is called in tables."""
        return self.results.study["dataset"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of `class_index`."""
        return self.results.study["classes"]

    @property
    def attack(self) -> str:
        """Name of the attack that the study reports where none is named."""
        return self.profile["report"]["attack"]

    @property
    def output(self) -> Path:
        """Folder of the tables and figures: in figures/ beside results/, or $UNLEARNKIT_OUTPUT."""
        beside = self.folder.parents[1]
        return Path(os.environ.get("UNLEARNKIT_OUTPUT", beside)) / "figures" / self.name

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Return name, title and more of all "methods", "attacks", "architectures", "measures"."""
        return self.results.study.get(kind, [])

    @cached_property
    def titles(self) -> dict[str, str]:
        """What methods, attacks, architectures and measures are called in tables, by name."""
        kinds = ("methods", "attacks", "architectures", "measures")
        return {entry["name"]: entry["title"] for kind in kinds for entry in self.entries(kind)}

    def title(self, name: str) -> str:
        """Return what a method, attack, measure or architecture is called in tables."""
        return self.titles.get(name, name)

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each method of the study, "" where it has none of its own."""
        return {entry["name"]: entry["color"] for entry in self.entries("methods")}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have results, in display order."""
        return self._found("method", (entry["name"] for entry in self.entries("methods")))

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures that have results, in display order."""
        names = (entry["name"] for entry in self.entries("architectures"))
        return self._found("architecture", names)

    @property
    def forgets(self) -> list[str]:
        """The forget sets that have results, in the profile's order."""
        return self._found("forget", (entry["set"] for entry in self.profile["forget"]))

    @property
    def first_forget(self) -> str:
        """The forget set that is shown where none is named: the profile's first with results."""
        return next(iter(self.forgets), "")

    def _found(self, field: str, known: Iterable[str]) -> list[str]:
        return arranged(known, (getattr(record.cell, field) for record in self.results.records))

    def rows(self, name: str, **equal: Any) -> pd.DataFrame:
        """Return the rows of frame `name` whose columns have (one of) the values in `equal`.

        Raises
        ------
        UserError
            For an unknown reading of σ.
        """
        if equal.get("reading", READINGS[0]) not in READINGS:
            raise unknown("reading of σ", equal["reading"], READINGS)
        frame = getattr(self, name)
        for column, value in equal.items():
            frame = frame[frame[column].isin(value if isinstance(value, list) else [value])]
        return frame

    def caption(self, text: str) -> str:
        """Return `text`, followed by profile and data set."""
        return f"{text} Profile {self.profile_name}, data set {self.dataset}."

    @property
    def extent(self) -> str:
        """How many models the results are of: '196 models', or '52 of 196 models' so far."""
        found = len(self.results.records)
        asked = self.results.study.get("cells", found)
        return f"{found} models" if found == asked else f"{found} of {asked} models so far"

    @property
    def stamp(self) -> str:
        """When and from which state of the code the numbers were computed."""
        machine = self.results.machine
        return f"computed on {machine['date']} at {machine['commit']}"

    @property
    def hours(self) -> float:
        """How long computing took, trainings and measurements, with that many models at a time."""
        done: dict[str, float] = {}
        for record in self.results.records:
            facts = self._facts(record.cell)
            for stage in record.stages:
                done[stage["key"]] = facts.get("walls", {}).get(stage["stage"], 0.0)
            # A training that was cut off and resumed knows its seconds, its last part's walls.
            made = record.stages[0]["key"]
            done[made] = max(done[made], facts.get("seconds") or 0.0)
        return sum(done.values()) / self.results.machine["workers"] / 3600

    @property
    def provenance(self) -> dict[str, Any]:
        """What goes beside tables and figures: the same on every machine that computes them."""
        return {
            "profile": self.profile_name,
            "dataset": self.dataset,
            "data_fingerprint": self.results.study["fingerprint"],
            "seeds": sorted({record.cell.seed for record in self.results.records}),
            "cells": {
                record.cell.name: {stage["stage"]: stage["key"] for stage in record.stages}
                for record in self.results.records
            },
        }

    @property
    def splits(self) -> pd.DataFrame:
        """Number of images in each part of each split, and the split's hash."""
        return pd.DataFrame(self.results.study["splits"]).T

    @property
    def sweep(self) -> pd.DataFrame:
        """How the rates were chosen, no rows if they were not: own sweep, or the committed one."""
        own = read_sweep(self.folder)
        return own if len(own) else read_sweep(files.committed_folder(self.name))

    @property
    def settings(self) -> pd.DataFrame:
        """Every hyper-parameter of every method, a row for each method and architecture."""
        rows = [
            {"architecture": architecture, "method": name} | values
            for architecture, methods in self.results.study["hyperparameters"].items()
            for name, values in methods.items()
        ]
        return pd.DataFrame(rows).set_index(["architecture", "method"])

    @property
    def speed(self) -> pd.DataFrame:
        """Seconds and images per second of the trainings from scratch, a row for each.

        `matmul_share`: of the FLOP/s at which the same device multiplied large matrices; NaN for
        Retrain, and where it was not measured.
        """
        rows = []
        for cell in (record.cell for record in self.results.records):
            if cell.method not in ("original", "retrain") or cell.scope != "all":
                continue
            if cell.progress == 1:
                facts, size = self._facts(cell), self.splits.loc[f"{cell.forget} seed {cell.seed}"]
                images = size["retain"] + (size["forget"] if cell.method == "original" else 0)
                seconds = facts.get("seconds") or NAN
                rate = images * self.profile["training"][cell.architecture]["epochs"] / seconds
                share = facts.get("flop_per_image", NAN) * rate / facts.get("matmul_rate", NAN)
                rows.append((*astuple(cell), seconds, rate, share))
        return pd.DataFrame(rows, columns=[*ID, "seconds", "images_per_second", "matmul_share"])

    @cached_property
    def quality(self) -> pd.DataFrame:
        def metrics(stage: dict[str, Any]) -> Iterable[tuple]:
            value = stage["value"]
            return value.items() if stage["stage"] == "quality" else [tuple(value.values())]

        return self._frame("quality", ("quality", "measure"), metrics)

    @cached_property
    def cost(self) -> pd.DataFrame:
        rows = []
        for record in self.results.records:
            made, facts = record.stages[0]["value"], self._facts(record.cell)
            if record.cell.progress == 1:
                numbers = (facts.get("seconds"), made.get("memory", {}).get("total"))
                numbers += (facts.get("peak_memory"), made.get("parameters"))
                rows.append((*astuple(record.cell), *numbers))
        return pd.DataFrame(rows, columns=COLUMNS["cost"])

    @cached_property
    def sigma(self) -> pd.DataFrame:
        def classes(stage: dict[str, Any]) -> Iterator[tuple]:
            for *layer, row in _layers(stage):
                yield from ((*layer, index, sigma) for index, sigma in enumerate(row))

        return self._frame("sigma", ("fairness",), classes)

    @cached_property
    def gap(self) -> pd.DataFrame:
        def gaps(stage: dict[str, Any]) -> Iterator[tuple]:
            return ((*layer, float(np.ptp(row))) for *layer, row in _layers(stage))

        return self._frame("gap", ("fairness",), gaps)

    @cached_property
    def robust(self) -> pd.DataFrame:
        return self._frame("robust", tuple(ACCESS), _accuracies)

    @cached_property
    def log(self) -> pd.DataFrame:
        return self._frame("log", ("unlearn",), lambda stage: stage["value"]["log"].items())

    def _facts(self, cell: Cell) -> dict[str, Any]:
        """Return what belongs to the machine that computed a cell: seconds, memory, walls."""
        return self.results.machine["cells"].get(cell.name, {})

    def _frame(
        self, name: str, kinds: tuple[str, ...], rows_of: Callable[[dict], Iterable[tuple]]
    ) -> pd.DataFrame:
        """Return the `rows_of` each stage of these `kinds`, with columns even if there is none."""
        rows = [
            (*astuple(record.cell), *row)
            for record in self.results.records
            for stage in record.stages
            if stage["stage"].partition("/")[0] in kinds
            for row in rows_of(stage)
        ]
        return pd.DataFrame(rows, columns=COLUMNS[name])


def _layers(stage: dict[str, Any]) -> Iterator[tuple]:
    """Yield reading, layer_index, layer_name and σ of each class, of the readings measured."""
    value = stage["value"]
    for reading in (name for name in READINGS if name in value):
        for index, (layer, row) in enumerate(zip(value["layers"], value[reading], strict=True), 1):
            yield reading, index, layer, row


def _accuracies(stage: dict[str, Any]) -> Iterator[tuple]:
    """Yield accuracy under attack (%) for each set of images, ε and class, -1 for all."""
    (kind, attack), value = stage["stage"].split("/"), stage["value"]
    for images, counts in value["sets"].items():
        for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
            numbers = {-1: (sum(counts["n"]), sum(right))}
            numbers |= dict(enumerate(zip(counts["n"], right, strict=True)))
            for index, (n, hits) in numbers.items():
                if n:
                    yield attack, epsilon / 255, images, ACCESS[kind], index, n, 100 * hits / n


def read_study(folder: Path) -> Study:
    """Return the study whose results lie in `folder`."""
    return Study(files.read(folder), folder)


def load_study(
    profile: str = "quick", dataset: str | None = None, *, recompute: bool = False
) -> Study:
    """Return a study: its committed results, or computed here.

    Parameters
    ----------
    profile : str
        Name of a profile, or path of a TOML file.
    dataset : str or None
        None or "" for the profile's own data set.
    recompute : bool
        Compute what this machine's store lacks instead of reading the committed results.

    Raises
    ------
    UserError
        If there are no results to read; it says how to compute them.
    """
    if recompute:
        from unlearnkit.study import run

        return run.run_study(run.load_profile(profile), dataset or None)
    stem = Path(profile).stem if profile.endswith(".toml") else profile
    own = os.environ.get("UNLEARNKIT_OWN_RESULTS")
    where = files.own_results if own else files.committed_folder
    folder = where(files.study_name(stem, _settings(where(stem)), dataset or None))
    if not (folder / "study.json").exists():
        option = f" --dataset {dataset}" if dataset else ""
        raise UserError(
            f"no results in {folder}; compute them with "
            f"`python -m unlearnkit compute --profile {profile}{option}` or set recompute = True"
        )
    return read_study(folder)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the study in `folder`, none if there is none."""
    try:
        return json.loads((folder / "study.json").read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
