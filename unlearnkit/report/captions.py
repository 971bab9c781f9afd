"""What a table or figure shows, in one or two plain sentences made from the study's numbers."""

import numpy as np
import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.report import claims, published
from unlearnkit.report.frames import EXACT, marks, summaries
from unlearnkit.report.sensitivity import sensitivity
from unlearnkit.report.stats import interval
from unlearnkit.report.study import Study

NOTHING = "This study has no numbers for it."


def sentence(s: Study, name: str) -> str:
    """Return what table or figure `name` of `publish` shows of the study's first forget set.

    Means are over seeds and an interval is a 95 % Student t interval over them. A method with a
    damaged model, or one that did not unlearn, is left out and named. A `UserError` refuses an
    unknown name.
    """
    if name not in SENTENCES:
        raise unknown("table or figure", name, SENTENCES)
    return SENTENCES[name](s) or NOTHING


def _models(s: Study) -> str:
    quality = s.rows("quality", progress=1.0, scope="all", forget=s.first_forget, method=EXACT)
    quality = quality[quality["metric"] == "TA"]
    said = []
    for name, part in quality.groupby("architecture", sort=False):
        means = {m: _size(p["value"], " %") for m, p in part.groupby("method", sort=False)}
        said.append(f"{s.title(name)} gets {means['original']} of the test images right")
        said[-1] += f" and Retrain {means['retrain']}." if "retrain" in means else "; no Retrain."
    return _joined(said, quality)


def _closest(s: Study) -> str:
    return _ranked(s, summaries(s), "average_gap", "closest to Retrain on clean data", " points")


def _excess(s: Study) -> str:
    models = summaries(s)
    retrain = models[(models["method"] == "retrain") & (models["progress"] == 1)]
    if retrain.empty:
        return "There is no Retrain, so no excess over it can be told."
    keys = ["architecture", "forget", "seed"]
    models = models.merge(retrain[[*keys, "drop"]], on=keys, suffixes=("", "_retrain"))
    models["more"] = models["drop"] - models["drop_retrain"]
    title = f"with the largest excess over Retrain's drop under {s.title(s.attack)}"
    return _ranked(s, models, "more", title, " points", largest=True)


def _gap(reading: str, words: str):
    def said(s: Study) -> str:
        models = summaries(s, reading=reading)
        return _ranked(s, models, "gap_last", f"with the largest {words}", "", largest=True)

    return said


def _ranked(
    s: Study, models: pd.DataFrame, column: str, title: str, unit: str, largest: bool = False
) -> str:
    """Say for each architecture which unmarked method has the least (or largest) mean."""
    of = (models["forget"] == s.first_forget) & (models["scope"] == "all")
    models = models[of & (models["progress"] == 1) & ~models["method"].isin(EXACT)]
    models, said = models.dropna(subset=[column]), []
    for name, part in models.groupby("architecture", sort=False):
        left = _marked(s, name)
        part = part[~part["method"].isin(left)]
        aside = f" Left out as damaged or not unlearned: {_titles(s, left)}." if left else ""
        if part.empty:
            said.append(f"{s.title(name)}: no method is left to compare.{aside}")
            continue
        means = part.groupby("method", sort=False)[column].mean()
        best = means.idxmax() if largest else means.idxmin()
        size = _size(part.loc[part["method"] == best, column], unit)
        said.append(f"On {s.title(name)}, {s.title(best)} is the method {title} ({size}).{aside}")
    return _joined(said, models)


def _marked(s: Study, architecture: str) -> list[str]:
    found = marks(s)
    found = found[(found["architecture"] == architecture) & (found["forget"] == s.first_forget)]
    return list(
        dict.fromkeys(found.loc[(found["scope"] == "all") & found["mark"].ne(""), "method"])
    )


def _layers(s: Study) -> str:
    table = summaries(s)
    table = table[(table["progress"] == 1) & (table["scope"] != "all")]
    table = table[(table["forget"] == s.first_forget) & ~table["method"].isin(EXACT)]
    said = []
    for (name, scope), part in table.groupby(["architecture", "scope"], sort=False):
        memory = part["relative_memory"].mean()
        if np.isfinite(memory):
            said.append(
                f"{s.title(name)}, {scope} layers alone: {100 * memory:.0f} % of the training "
                f"memory and {100 * part['relative_seconds'].mean():.0f} % of the seconds of all."
            )
    return _joined(said, table)


def _observations(s: Study) -> str:
    table, said = published.observations(s), []
    for name, part in table.groupby("Architecture", sort=False):
        count = part["Holds"].value_counts()
        parts = [f"{count.get(word, 0)} {as_}" for word, as_ in HOLDS.items()]
        said.append(f"{name}: of {len(part)} published observations, {', '.join(parts)}.")
    return " ".join(said)


def _readings(s: Study) -> str:
    table, said = published.readings(s), []
    table = table.dropna(subset=["Distance (decades)"]) if len(table) else table
    if len(table):
        for (name, method), part in table.groupby(["Architecture", "Method"], sort=False):
            near = part.loc[part["Distance (decades)"].astype(float).idxmin(), "Reading"]
            said.append(f"{name}, {method}: {near} comes nearest to the published size.")
    return " ".join(said)


def _outliers(s: Study) -> str:
    table, said = published.outliers(s), []
    for name, part in table.groupby("Architecture", sort=False) if len(table) else ():
        share = part["Trimmed / all (%)"].map(float)
        said.append(
            f"{name}: without each class's furthest 1 % of images, {share.min():.0f} to "
            f"{share.max():.0f} % of a method's last-layer gap is left."
        )
    return " ".join(said)


def _verdicts(*only: str):
    def said(s: Study) -> str:
        table = claims.table5(s)
        table = table[table["Key"] == "yes"]
        table, found = table[table["Claim"].isin(only)] if only else table, []
        for claim, part in table.groupby("Claim", sort=False):
            count = part["Verdict"].value_counts(sort=False)
            found.append(f"{claim}: {', '.join(f'{n} {word}' for word, n in count.items())}.")
        seeds = table["Seeds"].min() if len(table) else claims.SEEDS
        few = f" With fewer than {claims.SEEDS} seeds nothing is decided."
        few *= int(seeds < claims.SEEDS)
        return f"Key rows by verdict. {' '.join(found)}{few}" if found else ""

    return said


def _choices(s: Study) -> str:
    table, said = sensitivity(s), []
    for (claim, name), part in table.groupby(["Claim", "Architecture"], sort=False):
        first, others = part["Verdict"].iloc[0], part["Verdict"].iloc[1:]
        changed = int((others != first).sum())
        said.append(f"{claim}, {name}: {changed} of {len(others)} other choices change {first}.")
    return " ".join(said)


def _classes(s: Study) -> str:
    rows = s.rows("sigma", reading="std", progress=1.0, scope="all", forget=s.first_forget)
    said = []
    for name, part in rows.groupby("architecture", sort=False):
        part = part[part["layer_index"] == part["layer_index"].max()]
        for method in [m for m in EXACT if m in set(part["method"])]:
            means = part[part["method"] == method].groupby("class_index")["sigma"].mean()
            widest, least = (s.classes[int(at)] for at in (means.idxmax(), means.idxmin()))
            said.append(
                f"{s.title(name)}, {s.title(method)}: at the last layer class {widest} has the "
                f"largest σ ({means.max():.2f}) and {least} the smallest ({means.min():.2f})."
            )
    return _joined(said, rows)


def _size(values: pd.Series, unit: str) -> str:
    low, high = interval(values.to_numpy(float))
    text = f"{values.mean():.1f}{unit}"
    return (
        f"{text}, 95 % interval {low:.1f} to {high:.1f}" if np.isfinite([low, high]).all() else text
    )


def _titles(s: Study, names: list[str]) -> str:
    return ", ".join(s.title(name) for name in names)


def _joined(said: list[str], rows: pd.DataFrame) -> str:
    seeds = rows["seed"].nunique()
    many = f"Means over {seeds} seeds." if seeds > 1 else "One seed alone, so no interval."
    return f"{' '.join(said)} {many}" if said else ""


HOLDS = {"yes": "hold", "no": "do not", "undecided": "are undecided"}
SENTENCES = {
    "table1_models": _models,
    "table2_unlearning": _closest,
    "table3_robustness": _excess,
    "table4_layerwise": _layers,
    "table_observations": _observations,
    "table_readings": _readings,
    "table_outliers": _outliers,
    "table5_verdicts": _verdicts(),
    "table5_sensitivity": _choices,
    "fig1_fairness_gap": _gap("std", "fairness-gap at the last layer"),
    "fig1_fairness_gap_trimmed": _gap("trimmed_std", "trimmed fairness-gap at the last layer"),
    "fig2_robustness": _excess,
    "fig3_conjectures": _verdicts("C1", "C2"),
    "fig4_layerwise": _layers,
    "fig5_verdicts": _verdicts(),
    "fig6_sigma": _classes,
    "fig7_tradeoff": lambda s: f"{_closest(s)} {_excess(s)}".strip(),
}
