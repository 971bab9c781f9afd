"""A study as tidy data frames: what every table and figure is drawn from."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnkit import results as files
from unlearnkit.cells import Cell, cells_of
from unlearnkit.compute import compute, default_workers
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.files import write_atomic
from unlearnkit.lab import Lab, load_data, pick_device
from unlearnkit.metrics import ID
from unlearnkit.plan import make_plan
from unlearnkit.profile import Profile, load_profile
from unlearnkit.results import Results
from unlearnkit.store import Store, default_folder, output_folder
from unlearnkit.sweeps import read_sweep
from unlearnkit.tidy import frame, gap_rows, log_rows, quality_rows, robust_rows, sigma_rows


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

    profile: Profile
    results: Results
    folder: Path

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
            "profile": self.profile.name,
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
            {"architecture": architecture, "method": name}
            | self.profile.hyperparameters(name, architecture)
            for architecture in self.profile["architectures"]
            for name in self.profile["methods"]
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
            speeds.append(images * self.profile.recipe(row.architecture)["epochs"] / row.seconds)
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


def open_lab(profile: Profile, dataset: str | None = None, *, device: str | None = None) -> Lab:
    """Return the lab of `profile` on its data set, or on another, with this machine's store."""
    return Lab(
        profile, load_data(profile, dataset), Store(default_folder()), device=pick_device(device)
    )


def own_results(name: str) -> Path:
    """Return where this machine's results of a study lie, beside its store."""
    return default_folder() / "results" / name


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
        check_source(files.study_name(profile, dataset), dataset or profile["dataset"])
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
    folder = own_results(files.study_name(lab.profile, dataset))
    results = files.collect(lab, cells_of(lab.profile), workers)
    files.write(results, folder)
    if (source := files.source_folder(dataset or lab.profile["dataset"])) is not None:
        write_atomic(folder / "source.txt", f"{source}\n")
    return Study(lab.profile, results, folder)


def read_study(profile: Profile, folder: Path) -> Study:
    """Return the study in `folder`, with the settings it was computed with.

    The profile's file may have changed since: what is shown must belong to the numbers.
    """
    results = files.read(folder)
    return Study(replace(profile, values=results.study["settings"]), results, folder)


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
    settings = load_profile(profile)
    dataset = dataset or None
    if recompute:
        return run_study(settings, dataset)
    name = files.study_name(settings, dataset)
    folder = files.committed_folder(name)
    if os.environ.get("UNLEARNKIT_OWN_RESULTS"):
        check_source(name, dataset or settings["dataset"])
        folder = own_results(name)
    try:
        return read_study(settings, folder)
    except UserError as error:
        if "no results" not in str(error):
            raise
        option = f" --dataset {dataset}" if dataset else ""
        raise UserError(
            f"{error}; compute them with `python -m unlearnkit compute --profile {profile}{option}`"
            " or set recompute = True"
        ) from None
