"""Choosing each method's learning rate, on a forget set that no result is about.

A profile's [sweep] table names the rates to try. Each is judged by the average gap to a model
retrained without the same *validation* forget set: another draw of as many training images. The
seed's validation images stand in for the test set, in the accuracy and as the non-members of the
membership attack, so no test image is looked at. The first seed tries every rate, the others the
two that came closest on it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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

PAIR = ["architecture", "method"]


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
    the rows of the rate with the smallest mean gap of those that every seed tried.
    """
    rows, whole = [], True
    workers = workers or default_workers(lab.device)
    with Processes(workers) if workers > 1 else nullcontext() as pool:
        how = {"workers": workers, "executor": pool, "deadline": deadline, "report": report}
        for part in sweep_labs(lab):
            outcome = compute(part, make_plan(part), **how)
            for cell, error in outcome.failed:
                if not isinstance(error, TrainingDiverged):
                    raise UserError(f"{cell}: {error}")
            rows += [_row(part, cell) for cell in part.cells]
            if outcome.stopped:
                whole = False
                break
    return _chosen(rows, len(lab.profile["sweep"]["seeds"])), whole


def sweep_labs(lab: Lab) -> Iterator[Lab]:
    """Yield a lab for each seed and number: of Retrain, and of each method at so many a rate.

    What a further seed has to try depends on what the store then holds of the first. A `UserError`
    tells of a profile that has no [sweep], or keeps no validation images.
    """
    profile, data, forget = lab.profile, lab.data.to("cpu"), lab.profile["forget"][0]["set"]
    if (sweep := profile.values.get("sweep")) is None:
        raise UserError(f"profile {profile.name} has no [sweep] table; see profile cifar10's")
    # A profile that extends another inherits its rates, also of what it leaves out.
    tried = {
        (network, method): rates
        for network in profile["architectures"]
        for method, rates in sweep["rates"].get(network, {}).items()
        if method in profile["methods"] and not profile.undefined(method, network)
    }
    for network in dict.fromkeys(network for network, _ in tried):
        rate = profile.hyperparameters("retrain", network)["lr"]
        tried = {(network, "retrain"): [rate], **tried}
    how = {"device": lab.device, "forget_seed": sweep["forget_seed"]}
    for seed in sweep["seeds"]:
        held = lab.split(forget, seed).validation
        if not len(held):
            raise UserError(f"profile {profile.name} keeps no validation images to choose rates on")
        seen = {"test_images": data.train_images[held], "test_labels": data.train_labels[held]}
        entry, rows = {"set": forget, "seeds": [seed], "scopes": ["all"]}, []
        base = profile.with_values(forget=[entry], attack=[])
        for number in range(max(map(len, tried.values()), default=0)):
            now = {pair: rates[number] for pair, rates in tried.items() if number < len(rates)}
            part = Lab(_with_rates(base, now), replace(data, **seen), lab.store, **how)
            part.cells = [Cell(network, forget, name, "all", seed) for network, name in now]
            yield part
            rows += [_row(part, cell) for cell in part.cells]
        if seed == sweep["seeds"][0]:
            near = _gaps(rows).dropna().sort_values("average_gap", kind="stable")
            near = near.groupby(PAIR).head(2).groupby(PAIR, sort=False)
            tried = near["lr"].agg(list).to_dict()


def _with_rates(profile: Profile, rates: Mapping[tuple[str, str], float]) -> Profile:
    tables = dict(profile["method"])
    for (architecture, method), rate in rates.items():
        own = tables.get(method, {})
        known = own.get(architecture, own.get("default", {}))
        tables[method] = {**own, architecture: {**known, "lr": rate}}
    return profile.with_values(method=tables)


def _row(lab: Lab, cell: Cell) -> list[Any]:
    entry = lab.done(lab.stages(cell)[1], repair=False)
    rate = lab.profile.hyperparameters(cell.method, cell.architecture)["lr"]
    found = [entry.value[name] if entry else None for name in GAP_METRICS]
    return [cell.architecture, cell.method, rate, cell.seed, *found]


def _gaps(rows: Iterable[list[Any]]) -> pd.DataFrame:
    """Return the sweep's table without the choice: each row's gap is to Retrain of its seed."""
    table, of = pd.DataFrame(rows, columns=SWEEP_COLUMNS[:-2]), ["architecture", "seed"]
    reference = table[table["method"] == "retrain"].set_index(of)[GAP_METRICS]
    reference = reference.reindex(pd.MultiIndex.from_frame(table[of])).to_numpy(dtype=float)
    distance = (table[GAP_METRICS].astype(float) - reference).abs()
    return table.assign(average_gap=distance.mean(axis=1, skipna=False))


def _chosen(rows: Iterable[list[Any]], seeds: int) -> pd.DataFrame:
    """Return the sweep's table; marked is each method's smallest mean of those over all `seeds`."""
    table = _gaps(rows)
    gaps = table.groupby([*PAIR, "lr"])["average_gap"]
    mean = gaps.transform("mean").where(gaps.transform("count") == seeds)
    best = mean.groupby([table[name] for name in PAIR]).transform("min")
    exact = table["method"] == "retrain"
    table = table.assign(chosen=(mean == best) & ~exact, exact=~exact)
    ordered = table.sort_values(["architecture", "exact", "method", "lr", "seed"])
    ordered = ordered.round(dict.fromkeys([*GAP_METRICS, "average_gap"], 4))
    return ordered[SWEEP_COLUMNS].reset_index(drop=True)
