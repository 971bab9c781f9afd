"""Tables 2 and 5 once more, from the results' JSON in plain Python: a second implementation."""

import csv
import json
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
import pytest
from scipy.stats import rankdata, t

ROOT = Path(__file__).parents[1]
STUDIES = sorted(path.name for path in (ROOT / "results").iterdir() if (path / "cells").exists())
FIVE = ("cf", "bs", "rl", "scrub", "salun")
BOTH = "intermediate+last"


def read(name):
    """Return each model's numbers by (architecture, forget, method, scope, seed, progress)."""
    models = {}
    for path in (ROOT / "results" / name / "cells").glob("*.json"):
        told = json.loads(path.read_text())
        stages = {stage["stage"]: stage["value"] for stage in told["stages"]}
        made = stages.get("unlearn", stages.get("original"))
        of = dict(stages["quality"])
        if "memory" in made:  # a checkpoint has none of its own
            of["memory"] = made["memory"]["total"] / 2**20
        sigma = np.array(stages["fairness"]["std"])  # layers × classes
        of["gap"] = mean(layer.max() - layer.min() for layer in sigma)
        if "robustness/pgd" in stages:
            told_pgd = stages["robustness/pgd"]
            counts = told_pgd["sets"]["test"]
            right = [100 * sum(row) / sum(counts["n"]) for row in counts["right"]]
            curve = dict(zip(told_pgd["epsilons"], right, strict=True))
            of["clean"] = curve.pop(0.0)
            of["robust"] = mean(curve.values())
        if "distance" in stages:
            of["distances"] = stages["distance"]["distances"]
        models[tuple(told["cell"].values())] = of
    return models


def table(name, stem):
    with (ROOT / "figures" / name / f"{stem}.csv").open() as file:
        return list(csv.DictReader(file))


def titles(name):
    study = json.loads((ROOT / "results" / name / "study.json").read_text())
    named = [*study["architectures"], *study["methods"]]
    found = {entry["title"]: entry["name"] for entry in named}
    for name in (entry["set"] for entry in study["settings"]["forget"]):
        kind, _, value = name.partition(":")
        of_class = kind == "class" and f"class {study['classes'][int(value)]}"
        found[of_class or f"{100 * float(value):g} % random"] = name
    return found


def retrained(models, cell):
    architecture, forget, _, _, seed, _ = cell
    return models.get((architecture, forget, "retrain", "all", seed, 1.0))


def average_gap(models, cell):
    exact, own = retrained(models, cell), models[cell]
    names = ("UA", "RA", "TA", "MIA")
    return mean(abs(own[n] - exact[n]) for n in names) if exact else None


def is_marked(models, cell):
    exact, own = retrained(models, cell), models[cell]
    start = models[(*cell[:2], "original", "all", cell[4], 1.0)]["UA"]
    way = exact["UA"] - start
    return own["RA"] < exact["RA"] - 5 or (way > 0 and own["UA"] - start < 0.1 * way)


def partial_rho(*columns):
    """Return Spearman's ρ of the first two columns, the third held fixed: residuals of ranks."""
    x, y, *fixed = (rankdata(np.round(column, 9)) for column in columns)
    design = np.stack([np.ones_like(x), *fixed], axis=1)
    x, y = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def difference(models, cell, exact):
    """Return the median over images that both get right of the difference in distance."""
    if "distances" not in models[cell]:
        return None
    both = zip(models[cell]["distances"], exact["distances"], strict=True)
    far = [[np.inf if size is None else size for size in pair] for pair in both]
    return median(a - b for a, b in far if a > 0 and b > 0)


@pytest.fixture(params=STUDIES)
def study(request):
    return request.param, read(request.param), titles(request.param)


def test_table_2_is_what_the_results_say(study):
    name, models, named = study
    seen = 0
    for row in table(name, "table2_unlearning"):
        architecture, method = named[row["Architecture"]], named[row["Method"]]
        forget = named[row["Forget set"]]
        cells = [c for c in models if c[:4] == (architecture, forget, method, "all") and c[5] == 1]
        assert len(cells) == int(row["Seeds"])
        for metric in ("UA", "RA", "TA", "MIA", "memory", "Avg. gap"):
            values = [models[cell].get(metric) for cell in cells]
            if metric == "Avg. gap":
                values = [average_gap(models, cell) for cell in cells]
            header = "Memory (MiB)" if metric == "memory" else metric
            assert float(row[f"{header} mean"]) == pytest.approx(mean(values), abs=1e-9)
            if len(values) > 1:
                assert float(row[f"{header} std"]) == pytest.approx(stdev(values), abs=1e-9)
            seen += 1
    assert seen > 50


def key_values(models, named, row):
    """Return the statistic of a key row of Table 5, one number a seed, by the rule's own words."""
    architecture, claim, text = named[row["Architecture"]], row["Claim"], row["Measured"]
    sets = dict.fromkeys(cell[1] for cell in models if cell[1].startswith("random"))
    forget = next((f for f in sets if f"{100 * float(f[7:]):g} % random" in text), "random:0.1")
    ours = {c: m for c, m in models.items() if c[:2] == (architecture, forget)}
    seeds, found = sorted({cell[4] for cell in ours}), []
    finished = {c: m for c, m in ours.items() if c[5] == 1 and c[2] not in ("original", "retrain")}
    bad = {cell[2] for cell in finished if cell[3] == "all" and is_marked(models, cell)}
    methods = {c[2] for c in finished if c[2] in FIVE and c[2] not in bad}
    for seed in seeds:
        mine = {c: m for c, m in ours.items() if c[4] == seed and c[5] > 0 and "robust" in m}
        exact = ours[(architecture, forget, "retrain", "all", seed, 1.0)]
        over = [c for c in mine if c[2] in methods and c[5] == 1]
        whole = {c[2]: c for c in over if c[3] == "all"}
        if claim == "C1":
            mine = {c: m for c, m in ours.items() if c[4] == seed and c[5] > 0}
            along = [m for c, m in mine.items() if c[2] == "original"]
            found.append(partial_rho([m["gap"] for m in along], [m["TA"] for m in along]))
        elif claim == "C2":
            drop = [m["clean"] - m["robust"] for m in mine.values()]
            rest = [[m[name] for m in mine.values()] for name in ("gap", "clean")]
            found.append(partial_rho(rest[0], drop, rest[1]))
        elif claim == "C3" and "stay right" in text:
            shares = [mine[c]["robust"] / mine[c]["clean"] for c in whole.values()]
            found.append(100 * (mean(shares) - exact["robust"] / exact["clean"]))
        elif claim == "C3":
            found.append(mean(difference(models, c, exact) for c in whole.values()))
        elif claim == "C4":
            every = [c for c in mine if c in finished and c[3] == "all"]
            base = exact["robust"] / exact["clean"]
            size = [abs(mine[c]["robust"] / mine[c]["clean"] - base) for c in every]
            found.append(partial_rho([average_gap(models, c) for c in every], size))
        elif claim == "C5":
            scope = text.partition(" layers")[0].replace(" and ", "+")
            start = average_gap(models, (architecture, forget, "original", "all", seed, 1.0))
            parts = []
            for cell in (c for c in over if c[3] == scope):
                own, full = mine[cell], mine[whole[cell[2]]]
                gone = start - average_gap(models, whole[cell[2]])
                if "share" in text:
                    parts.append((start - average_gap(models, cell)) / gone)
                elif "stay right" in text:
                    parts.append(
                        100 * (own["robust"] / own["clean"] - full["robust"] / full["clean"])
                    )
                elif "memory" in text:
                    parts.append(own["memory"] / full["memory"])
            found += [mean(parts)] if parts else []
    return found


def test_the_key_rows_of_table_5_are_what_the_results_say(study):
    name, models, named = study
    claims = set()
    for row in table(name, "table5_verdicts"):
        if row["Key"] != "yes" or "seconds" in row["Measured"]:  # seconds are the machine's
            continue
        values = key_values(models, named, row)
        assert float(row["Value"]) == pytest.approx(mean(values), abs=1e-9), row["Measured"]
        assert int(row["Seeds"]) == len(values)
        if row["Bound"] and len(values) > 2:
            far = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
            low, high = mean(values) - far, mean(values) + far
            bound, rises = (
                float(row["Bound"]),
                not (row["Claim"] in ("C1", "C3") or "memory" in row["Measured"]),
            )
            apart = low > bound or high < bound
            holds = (low > bound) == rises
            verdict = ("supported" if holds else "contradicted") if apart else "undecided"
            assert row["Verdict"] == verdict, row["Measured"]
        claims.add(row["Claim"])
    assert claims >= {"C1", "C2", "C3", "C4"}
