"""A study as tidy data frames: what every table and figure is drawn from."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit import results as files
from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.names import ID, INTERVENTIONS, READINGS, SCOPES, forget_title
from unlearnkit.report import tidy
from unlearnkit.report.tidy import arranged, where
from unlearnkit.results import Results, read_sweep

NAN = float("nan")


class NothingToDraw(UserError):
    """A study has no numbers for a table or figure."""


class Study:
    """Results of a profile on a data set, with a frame of one row for each number.

    All frames share the columns `ID`: architecture, forget, method, scope, seed and progress (1.0
    for a finished model, less for a checkpoint along the original's training).

    Attributes
    ----------
    quality
        metric ("UA", "RA", "TA", "FA", "MIA", "TA_forgotten": %; a measure's name), value
    cost
        seconds, training_memory (bytes, counted), peak_memory (bytes, measured), parameters
    sigma
        reading, layer_index, layer_name, class_index, sigma
    gap
        reading, layer_index, layer_name, gap (largest minus smallest σ of a class), relative (in
        shares of the classes' mean σ)
    robust
        attack, epsilon (in [0, 1] pixels; 0 is clean), images ("test", "retain", "forget"), access
        ("white-box", "transfer"), class_index (-1: all), n, accuracy (%)
    distance
        image (its place among those attacked), distance (the smallest L∞ perturbation that makes
        the model wrong, in [0, 1] pixels; 0 if wrong when clean, inf if none was found)
    log
        name and value of what a method reports about itself
    """

    quality = cached_property(lambda self: tidy.frame("quality", self.results))
    cost = cached_property(lambda self: tidy.frame("cost", self.results))
    sigma = cached_property(lambda self: tidy.frame("sigma", self.results))
    gap = cached_property(lambda self: tidy.frame("gap", self.results))
    robust = cached_property(lambda self: tidy.frame("robust", self.results))
    distance = cached_property(lambda self: tidy.frame("distance", self.results))
    log = cached_property(lambda self: tidy.frame("log", self.results))

    def __init__(self, results: Results, folder: Path) -> None:
        study, cells = results.study, [record.cell for record in results.records]
        self.results, self.folder = results, folder
        self.made: dict[tuple, pd.DataFrame] = {}  # see `tidy.made_once`
        self.name = folder.name  # of its folders under results/ and figures/
        self.profile = study["settings"]
        self.profile_name, self.dataset = study["profile"], study["dataset"]
        self.classes = study["classes"]  # names, in the order of `class_index`
        self.measures = study.get("measures", [])  # the user's own: name, title and digits
        self.attack = self.profile["report"]["attack"]  # the one shown where none is named
        self.colors = {entry["name"]: entry["color"] for entry in study["methods"]}  # "": none
        titled = [*study["methods"], *study["attacks"], *study["architectures"], *self.measures]
        self.titles = {entry["name"]: entry["title"] for entry in reversed(titled)}
        known = {
            "architecture": [entry["name"] for entry in study["architectures"]],
            "forget": [entry["set"] for entry in self.profile["forget"]],
            "method": self.colors,
            "scope": SCOPES,
        }
        # Column -> its values that have results, in display order; and every attack
        self.order = {
            k: arranged(v, (getattr(cell, k) for cell in cells)) for k, v in known.items()
        }
        self.order["attack"] = [entry["name"] for entry in study["attacks"]]
        self.titles |= {name: forget_title(name, self.classes) for name in self.order["forget"]}
        self.architectures, self.methods = self.order["architecture"], self.order["method"]
        self.first_forget = next(iter(self.order["forget"]), "")  # shown where none is named

    @property
    def output(self) -> Path:
        """Folder of the tables and figures: in figures/ beside results/, or $UNLEARNKIT_OUTPUT."""
        beside = self.folder.absolute().parents[1]
        return Path(os.environ.get("UNLEARNKIT_OUTPUT") or beside) / "figures" / self.name

    def title(self, name: str) -> str:
        """Return what an architecture, method, attack, measure or forget set is called."""
        return self.titles.get(name, name)

    def rows(self, name: str, **equal: Any) -> pd.DataFrame:
        """Return the rows of frame `name` whose columns have (one of) the values in `equal`.

        A `UserError` refuses an unknown reading of σ.
        """
        if equal.get("reading", READINGS[0]) not in READINGS:
            raise unknown("reading of σ", equal["reading"], READINGS)
        return where(getattr(self, name), **equal)

    def caption(self, text: str) -> str:
        """Return `text`, followed by profile and data set."""
        return f"{text} Profile {self.profile_name}, data set {self.dataset}."

    def table(
        self,
        rows: Any,
        columns: list[str],
        caption: str = "",
        by: Sequence[str] = (),
        aside: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Return a table that carries its caption, if it has one, and how `display` slims it.

        It has a part for each value of the columns `by`; those `aside` are in the CSV alone.
        """
        table = pd.DataFrame(rows, columns=columns)
        table.attrs |= {"by": list(by), "aside": list(aside)}
        if caption:
            table.attrs["caption"] = self.caption(caption)
        return table

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
    def provenance(self) -> dict[str, Any]:
        """What goes beside tables and figures: the same on every machine that computes them."""
        by_hand = self.interventions
        return {
            "profile": self.profile_name,
            "dataset": self.dataset,
            "data_fingerprint": self.results.study["fingerprint"],
            "seeds": sorted({record.cell.seed for record in self.results.records}),
            "cells": {
                record.cell.name: {stage["stage"]: stage["key"] for stage in record.stages}
                for record in self.results.records
            },
            **({INTERVENTIONS: by_hand.provenance["cells"]} if by_hand else {}),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all results, those of the interventions included."""
        found = self.results
        told = [found.study, found.machine, [(str(r.cell), r.stages) for r in found.records]]
        told += [self.interventions.digest] if self.interventions else []
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def splits(self) -> pd.DataFrame:
        """Number of images in each part of each split, and the split's hash."""
        return pd.DataFrame(self.results.study["splits"]).T

    @property
    def sweep(self) -> pd.DataFrame:
        """How the rates were chosen, no rows if they were not: own sweep, or the committed one."""
        own = read_sweep(self.folder)
        return own if len(own) else read_sweep(files.committed_folder(self.name))

    @cached_property
    def interventions(self) -> "Study | None":
        """The models whose fairness-gaps were set by hand, if there are any: `study.intervene`."""
        folder = self.folder / INTERVENTIONS
        return read_study(folder) if (folder / "study.json").exists() else None

    @property
    def settings(self) -> pd.DataFrame:
        """Every hyper-parameter of every method, a row for each architecture and method."""
        found = self.results.study["hyperparameters"]
        parts = {name: pd.DataFrame(methods).T for name, methods in found.items()}
        return pd.concat(parts, names=["architecture", "method"])

    def recipe(self, architecture: str) -> dict[str, Any]:
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
            if (cell.scope, cell.progress) == ("all", 1) and cell.method in ("original", "retrain"):
                size = self.results.study["splits"][f"{cell.forget} seed {cell.seed}"]
                images = size["retain"] + (size["forget"] if cell.method == "original" else 0)
                seconds = facts.get("seconds") or NAN
                rate = images * self.recipe(cell.architecture).get("epochs", NAN) / seconds
                share = facts.get("flop_per_image", NAN) * rate / facts.get("matmul_rate", NAN)
                rows.append((*astuple(cell), seconds, rate, share))
        return pd.DataFrame(rows, columns=[*ID, "seconds", "images_per_second", "matmul_share"])


def read_study(folder: Path) -> Study:
    """Return the study whose results lie in `folder`."""
    results = files.read(folder)
    try:
        return Study(results, folder)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{folder / 'study.json'} lacks what a study has ({reason})") from None


def load_study(
    profile: str = "quick", dataset: str | None = None, *, recompute: bool = False
) -> Study:
    """Return a study: its committed results, or computed here.

    `profile` is a name or the path of a TOML file; `dataset` None or "" for the profile's own.
    `recompute` computes what this machine's store lacks instead of reading the committed results.
    A `UserError` says how to compute results where there are none.
    """
    if recompute:
        from unlearnkit.study import load_profile, run_study

        return read_study(run_study(load_profile(profile), dataset or None))
    own = os.environ.get("UNLEARNKIT_OWN_RESULTS")
    place = files.own_results if own else files.committed_folder
    return read_study(stored(profile, dataset, place)[0])


def stored(profile: str, dataset: str | None = None, *places: Callable[[str], Path]) -> list[Path]:
    """Return the folders that hold a study's results: the committed ones, this machine's own.

    `places` are functions of a study's name. A `UserError` says how to compute if there are none.
    """
    stem = Path(profile).stem if profile.endswith(".toml") else profile
    folders = []
    for place in places or (files.committed_folder, files.own_results):
        try:
            settings = json.loads((place(stem) / "study.json").read_text())["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            settings = {}  # of a data set of one's own there may be results alone
        folders.append(place(files.study_name(stem, settings, dataset or None)))
    there = [folder for folder in folders if (folder / "study.json").exists()]
    if not there:
        option = f" --dataset {dataset}" if dataset else ""
        raise UserError(
            f"no results in {folders[0]}; compute them with "
            f"`python -m unlearnkit compute --profile {profile}{option}` or set recompute = True"
        )
    return there
