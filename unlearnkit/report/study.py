"""A study as tidy data frames: what every table and figure is drawn from."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit import results as files
from unlearnkit.errors import UserError, unknown
from unlearnkit.names import ID, READINGS, SCOPES
from unlearnkit.report import tidy
from unlearnkit.results import Results, read_sweep

Json = dict[str, Any]
NAN = float("nan")


class NothingToDraw(UserError):
    """A study has no numbers for a table or figure."""


def arranged(known: Iterable[str], values: Iterable[str]) -> list[str]:
    """Return the distinct `values`: those `known` first, in that order, then as they appear."""
    found, known = dict.fromkeys(values), dict.fromkeys(known)
    return [name for name in known if name in found] + [name for name in found if name not in known]


def _entry(key: str, doc: str) -> Any:
    """Return a property that is an entry of study.json, [] where older results lack it."""
    return property(lambda self: self.results.study.get(key, []), doc=doc)


def _frame(name: str) -> Any:
    """Return an attribute that is a frame, made when it is first asked for."""
    return cached_property(lambda self: tidy.frame(name, self.results))


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
    order : column -> its values that have results, in display order
    """

    results: Results
    folder: Path

    profile = _entry("settings", "The settings that the numbers were computed with.")
    profile_name = _entry("profile", "Name of the profile.")
    dataset = _entry("dataset", "What the data set is called in tables.")
    classes = _entry("classes", "Names of the classes, in the order of `class_index`.")
    measures = _entry("measures", "Name, title and digits of each measure of the user's own.")
    quality = _frame("quality")
    cost = _frame("cost")
    sigma = _frame("sigma")
    gap = _frame("gap")
    robust = _frame("robust")
    log = _frame("log")

    @property
    def name(self) -> str:
        """Name of the study's folders under results/ and figures/."""
        return self.folder.name

    @property
    def output(self) -> Path:
        """Folder of the tables and figures: in figures/ beside results/, or $UNLEARNKIT_OUTPUT."""
        beside = self.folder.absolute().parents[1]
        return Path(os.environ.get("UNLEARNKIT_OUTPUT") or beside) / "figures" / self.name

    @property
    def attack(self) -> str:
        """Name of the attack that the study reports where none is named."""
        return self.profile["report"]["attack"]

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each method of the study, "" where it has none of its own."""
        return {entry["name"]: entry["color"] for entry in self.results.study["methods"]}

    def title(self, name: str) -> str:
        """Return what a method, attack, measure or architecture is called in tables."""
        study = self.results.study
        entries = [*study["methods"], *study["attacks"], *study["architectures"], *self.measures]
        return next((entry["title"] for entry in entries if entry["name"] == name), name)

    @cached_property
    def order(self) -> dict[str, list[str]]:
        cells = [record.cell for record in self.results.records]
        known = {
            "architecture": [entry["name"] for entry in self.results.study["architectures"]],
            "forget": [entry["set"] for entry in self.profile["forget"]],
            "method": list(self.colors),
            "scope": SCOPES,
        }
        order = {k: arranged(names, (getattr(c, k) for c in cells)) for k, names in known.items()}
        return order | {"attack": [entry["name"] for entry in self.results.study["attacks"]]}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have results, in display order."""
        return self.order["method"]

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures that have results, in display order."""
        return self.order["architecture"]

    @property
    def first_forget(self) -> str:
        """The forget set that is shown where none is named: the profile's first with results."""
        return next(iter(self.order["forget"]), "")

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
        return "computed on {date} at {commit}".format_map(self.results.machine)

    @property
    def hours(self) -> float:
        """How long computing took, trainings and measurements, with that many models at a time."""
        done: dict[str, float] = {}
        for record in self.results.records:
            facts = tidy.facts(self.results, record)
            for stage in record.stages:
                done[stage["key"]] = facts.get("walls", {}).get(stage["stage"], 0.0)
            # A training that was cut off and resumed knows its seconds, its last part's walls.
            made = record.stages[0]["key"]
            done[made] = max(done[made], facts.get("seconds") or 0.0)
        return sum(done.values()) / self.results.machine["workers"] / 3600

    @property
    def provenance(self) -> Json:
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
        """Every hyper-parameter of every method, a row for each architecture and method."""
        found = self.results.study["hyperparameters"]
        parts = {name: pd.DataFrame(methods).T for name, methods in found.items()}
        return pd.concat(parts, names=["architecture", "method"])

    def recipe(self, architecture: str) -> Json:
        """Return what the profile says of an original's training: its own table, or `default`."""
        tables = self.profile["training"]
        return tables.get(architecture, tables.get("default", {}))

    @property
    def speed(self) -> pd.DataFrame:
        """Seconds and images per second of the trainings from scratch, a row for each.

        `matmul_share`: of the FLOP/s at which the same device multiplied large matrices; NaN for
        Retrain, and where it was not measured.
        """
        rows = []
        for record in self.results.records:
            cell, facts = record.cell, tidy.facts(self.results, record)
            scratch = cell.method in ("original", "retrain") and cell.scope == "all"
            if scratch and cell.progress == 1:
                size = self.results.study["splits"][f"{cell.forget} seed {cell.seed}"]
                images = size["retain"] + (size["forget"] if cell.method == "original" else 0)
                seconds = facts.get("seconds") or NAN
                rate = images * self.recipe(cell.architecture).get("epochs", NAN) / seconds
                share = facts.get("flop_per_image", NAN) * rate / facts.get("matmul_rate", NAN)
                rows.append((*astuple(cell), seconds, rate, share))
        return pd.DataFrame(rows, columns=[*ID, "seconds", "images_per_second", "matmul_share"])


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
        from unlearnkit.study import load_profile, run_study

        return read_study(run_study(load_profile(profile), dataset or None))
    own = os.environ.get("UNLEARNKIT_OWN_RESULTS")
    folder = _folder(profile, dataset, files.own_results if own else files.committed_folder)
    if not (folder / "study.json").exists():
        raise _nothing(folder, profile, dataset)
    return read_study(folder)


def stored(profile: str, dataset: str | None = None) -> list[Path]:
    """Return the folders that hold a study's results: the committed ones, this machine's own.

    Raises
    ------
    UserError
        If there are none; it says how to compute them.
    """
    found = [_folder(profile, dataset, w) for w in (files.committed_folder, files.own_results)]
    there = [folder for folder in found if (folder / "study.json").exists()]
    if not there:
        raise _nothing(found[0], profile, dataset)
    return there


def _folder(profile: str, dataset: str | None, where: Callable[[str], Path]) -> Path:
    stem = Path(profile).stem if profile.endswith(".toml") else profile
    try:
        settings = json.loads((where(stem) / "study.json").read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        settings = {}  # of a data set of one's own there may be results alone
    return where(files.study_name(stem, settings, dataset or None))


def _nothing(folder: Path, profile: str, dataset: str | None) -> UserError:
    option = f" --dataset {dataset}" if dataset else ""
    return UserError(
        f"no results in {folder}; compute them with "
        f"`python -m unlearnkit compute --profile {profile}{option}` or set recompute = True"
    )
