"""A study as tidy data frames: what every table and figure is drawn from."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit import results as files
from unlearnkit.errors import UserError
from unlearnkit.files import output_folder
from unlearnkit.report.tidy import frame, gap_rows, log_rows, quality_rows, robust_rows, sigma_rows
from unlearnkit.results import ID, Cell, Results, own_results, read_sweep


@dataclass(frozen=True)
class Study:
    """Results of a profile on a data set, one row for each number.

    All frames share the columns `ID`: architecture, forget, method, scope, seed and progress (1.0
    for a finished model, less for a checkpoint along the original's training).

    Attributes
    ----------
    quality : metric ("UA", "RA", "TA", "FA", "MIA", "TA_forgotten") and value (%)
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

    def title(self, name: str) -> str:
        """Return what a method, attack, measure or architecture is called in tables."""
        return self._titles.get(name, name)

    @cached_property
    def _titles(self) -> dict[str, str]:
        study = self.results.study
        named = [*study["methods"], *study["attacks"], *study["architectures"]]
        return {entry["name"]: entry["title"] for entry in named}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have results, in display order."""
        found = {record.cell.method for record in self.results.records}
        return [m["name"] for m in self.results.study["methods"] if m["name"] in found]

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each method of the study."""
        return {entry["name"]: entry["color"] for entry in self.results.study["methods"]}

    @property
    def first_forget(self) -> str:
        """The forget set that is shown where none is named: the profile's first."""
        return self.profile["forget"][0]["set"]

    def rows(self, name: str, **equal: Any) -> pd.DataFrame:
        """Return the rows of frame `name` whose columns have (one of) the values in `equal`."""
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
        machine, done = self.results.machine, {}
        for record in self.results.records:
            cell = machine["cells"].get(record.cell.name, {})
            for stage in record.stages:
                done[stage["key"]] = cell.get("walls", {}).get(stage["stage"], 0.0)
            # A training that was cut off and resumed knows its seconds, its last part's walls.
            made = record.stages[0]["key"]
            done[made] = max(done[made], cell.get("seconds") or 0.0)
        return sum(done.values()) / machine["workers"] / 3600

    @property
    def provenance(self) -> dict[str, Any]:
        """What goes beside every table and figure: settings, seeds, cell keys, versions."""
        keys = {
            record.cell.name: {stage["stage"]: stage["key"] for stage in record.stages}
            for record in self.results.records
        }
        return {
            "profile": self.profile_name,
            "dataset": self.dataset,
            "data_fingerprint": self.results.study["fingerprint"],
            "seeds": sorted({record.cell.seed for record in self.results.records}),
            "computed": self.stamp,
            "versions": self.results.machine["versions"],
            "cells": keys,
        }

    @property
    def output(self) -> Path:
        """Folder of this study's tables and figures."""
        return output_folder() / "figures" / self.name

    @property
    def splits(self) -> pd.DataFrame:
        """Number of images in each part of each split, and the split's hash."""
        return pd.DataFrame(self.results.study["splits"]).T

    @property
    def sweep(self) -> pd.DataFrame:
        """How the rates were chosen (see `sweeps.COLUMNS`), no rows if they were not.

        This machine's own sweep, or else the committed one of the same profile.
        """
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

    @cached_property
    def quality(self) -> pd.DataFrame:
        return frame("quality", self._rows("quality", quality_rows))

    @cached_property
    def cost(self) -> pd.DataFrame:
        cells = self.results.machine["cells"]
        rows = (
            {
                "seconds": cells.get(record.cell.name, {}).get("seconds"),
                "training_memory": stage["value"].get("memory", {}).get("total"),
                "peak_memory": cells.get(record.cell.name, {}).get("peak_memory"),
                "parameters": stage["value"].get("parameters"),
                **asdict(record.cell),
            }
            for record in self.results.records
            if record.cell.progress == 1
            for stage in record.stages
            if stage["stage"] in ("original", "unlearn")
        )
        return frame("cost", rows)

    @property
    def speed(self) -> pd.DataFrame:
        """Seconds and images per second of the trainings from scratch, a row for each.

        `matmul_share`: of the FLOP/s at which the same device multiplied large matrices; NaN for
        Retrain, and where it was not measured.
        """
        cost = self.cost.query("method in ['original', 'retrain'] and scope == 'all'")
        sizes = self.results.study["splits"]
        cells = self.results.machine["cells"]
        speeds, shares = [], []
        for row in cost.itertuples():
            parts = ["retain", "forget"] if row.method == "original" else ["retain"]
            images = sum(sizes[f"{row.forget} seed {row.seed}"][part] for part in parts)
            epochs = self.profile["training"][row.architecture]["epochs"]
            speeds.append(images * epochs / row.seconds)
            facts = cells.get(Cell(*(getattr(row, name) for name in ID)).name, {})
            flops = facts.get("flop_per_image", float("nan"))
            shares.append(flops * speeds[-1] / facts.get("matmul_rate", float("nan")))
        return cost[[*ID, "seconds"]].assign(images_per_second=speeds, matmul_share=shares)

    @cached_property
    def sigma(self) -> pd.DataFrame:
        return frame("sigma", self._rows("fairness", sigma_rows))

    @cached_property
    def gap(self) -> pd.DataFrame:
        return frame("gap", self._rows("fairness", gap_rows))

    @cached_property
    def robust(self) -> pd.DataFrame:
        white = self._rows("robustness/", lambda stage: robust_rows(stage, "white-box"))
        moved = self._rows("transfer/", lambda stage: robust_rows(stage, "transfer"))
        return frame("robust", [*white, *moved])

    @cached_property
    def log(self) -> pd.DataFrame:
        return frame("log", self._rows("unlearn", log_rows))

    def _rows(self, prefix: str, rows_of: Any) -> Iterator[dict[str, Any]]:
        for record in self.results.records:
            cell = asdict(record.cell)
            for stage in record.stages:
                if stage["stage"].startswith(prefix):
                    for row in rows_of(stage):
                        yield cell | row


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
    stem = Path(profile).stem if profile.endswith(".toml") else profile
    where = own_results if os.environ.get("UNLEARNKIT_OWN_RESULTS") else files.committed_folder
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
