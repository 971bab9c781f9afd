"""Choosing each method's learning rate, on a forget set that no result is about.

A profile's [sweep] table names the rates to try. Each is judged by the average gap to a model
retrained without the same *validation* forget set: another draw of as many training images. The
validation images stand in for the test set, in the accuracy and as the non-members of the
membership attack, so no test image is looked at.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd

from unlearnkit.errors import UserError
from unlearnkit.names import GAP_METRICS
from unlearnkit.results import SWEEP_COLUMNS, Cell
from unlearnkit.study.compute import compute, default_workers
from unlearnkit.study.lab import Lab
from unlearnkit.study.plan import make_plan
from unlearnkit.study.profile import Profile
from unlearnkit.training import TrainingDiverged
from unlearnkit.workers import Processes


def run_sweep(
    lab: Lab,
    *,
    workers: int | None = None,
    deadline: float | None = None,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, bool]:
    """Try every rate of the profile's [sweep] that the store lacks.

    Returns a table of `SWEEP_COLUMNS`, in % and percent points to four decimals, Retrain first,
    NaN where the training diverged, and whether all were tried before the deadline. `chosen` marks
    the smallest gap.
    """
    rows, whole = [], True
    workers = workers or default_workers(lab.device)
    with Processes(workers) if workers > 1 else nullcontext() as pool:
        how = {"workers": workers, "executor": pool, "deadline": deadline, "report": report}
        for part, cells in sweep_labs(lab):
            outcome = compute(part, make_plan(part, cells), **how)
            for cell, error in outcome.failed:
                if not isinstance(error, TrainingDiverged):
                    raise UserError(f"{cell}: {error}")
            rows += [_row(part, cell) for cell in cells]
            if outcome.stopped:
                whole = False
                break
    return _chosen(rows), whole


def sweep_labs(lab: Lab) -> Iterator[tuple[Lab, list[Cell]]]:
    """Yield a lab and the cells to do with it: Retrain, then the rates one after the other.

    A `UserError` tells of a profile that has no [sweep], or keeps no validation images.
    """
    profile, data, forget = lab.profile, lab.data.to("cpu"), lab.profile["forget"][0]["set"]
    if (sweep := profile.values.get("sweep")) is None:
        raise UserError(f"profile {profile.name} has no [sweep] table; see profile cifar10's")
    held = lab.split(forget, sweep["seed"]).validation
    if not len(held):
        raise UserError(f"profile {profile.name} keeps no validation images to choose rates on")
    data = replace(data, test_images=data.train_images[held], test_labels=data.train_labels[held])
    entry = {"set": forget, "seeds": [sweep["seed"]], "scopes": ["all"]}
    base = profile.with_values(forget=[entry], attack=[])
    # A profile that extends another inherits its rates, also of what it leaves out.
    tried = {
        (architecture, method): rates
        for architecture, table in sweep["rates"].items()
        for method, rates in table.items()
        if architecture in profile["architectures"] and method in profile["methods"]
    }

    def part(step: Profile, pairs: Iterable[tuple[str, str]]) -> tuple[Lab, list[Cell]]:
        cells = [Cell(network, forget, name, "all", sweep["seed"]) for network, name in pairs]
        how = {"device": lab.device, "forget_seed": sweep["forget_seed"]}
        return Lab(step, data, lab.store, **how), cells

    yield part(base, dict.fromkeys((architecture, "retrain") for architecture, _ in tried))
    for number in range(max(map(len, tried.values()), default=0)):
        pairs = [pair for pair in tried if number < len(tried[pair])]
        tables = dict(base["method"])
        for architecture, method in pairs:
            own = tables.get(method, {})
            known = own.get(architecture, own.get("default", {}))
            rate = {"lr": tried[architecture, method][number]}
            tables[method] = {**own, architecture: {**known, **rate}}
        yield part(base.with_values(method=tables), pairs)


def _row(lab: Lab, cell: Cell) -> dict[str, Any]:
    entry = lab.done(lab.stages(cell)[1])
    rate = lab.profile.hyperparameters(cell.method, cell.architecture)["lr"]
    found = {name: entry.value[name] if entry else None for name in GAP_METRICS}
    return {"architecture": cell.architecture, "method": cell.method, "lr": rate, **found}


def _chosen(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return the sweep's table: each rate's gap to Retrain, each method's smallest one marked."""
    table = pd.DataFrame(rows, columns=SWEEP_COLUMNS[:7])
    exact = table["method"] == "retrain"
    reference = table[exact].set_index("architecture")[GAP_METRICS]
    reference = reference.reindex(table["architecture"]).to_numpy(dtype=float)
    distance = (table[GAP_METRICS].astype(float) - reference).abs()
    table["average_gap"] = distance.mean(axis=1, skipna=False)
    best = table.groupby(["architecture", "method"])["average_gap"].transform("min")
    table["chosen"] = (table["average_gap"] == best) & ~exact
    ordered = table.assign(exact=~exact).sort_values(["architecture", "exact", "method", "lr"])
    ordered = ordered.round(dict.fromkeys([*GAP_METRICS, "average_gap"], 4))
    return ordered[SWEEP_COLUMNS].reset_index(drop=True)
