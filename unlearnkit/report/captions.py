"""What a table or figure shows, in one or two plain sentences made from the study's numbers."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from unlearnkit.errors import unknown
from unlearnkit.report import claims, published
from unlearnkit.report.findings import lines
from unlearnkit.report.frames import EXACT, marks, restricted, summaries
from unlearnkit.report.interventions import interventions
from unlearnkit.report.sensitivity import sensitivity
from unlearnkit.report.stats import interval
from unlearnkit.report.study import Study
from unlearnkit.report.tidy import where

MARKED = "No method is free of marked models."
NOTHING = "This study has no numbers for it."
COSTS = ["relative_memory", "relative_seconds"]  # to the same run over all layers
TRANSFER = "stay right under .* made on the original"
Sentence = Callable[[Study], str]


def sentence(s: Study, name: str) -> str:
    """Return what table or figure `name` of `publish` shows of the study's first forget set.

    Numbers are means over seeds, in brackets a 95 % Student t interval. Where methods are ranked,
    one with a damaged model, or with one that did not unlearn, is left out and named. A `UserError`
    refuses an unknown name.
    """
    if name not in SENTENCES:
        raise unknown("table or figure", name, SENTENCES)
    return SENTENCES[name](s) or NOTHING


def _models(s: Study) -> str:
    rows = s.rows("quality", progress=1.0, scope="all", forget=s.first_forget, method=EXACT)
    said = []
    for name, part in rows.groupby("architecture", sort=False):
        parts = part.groupby(["method", "metric"])["value"]
        of = {key: _size(values, most=100) for key, values in parts if values.notna().all()}
        if ("original", "TA") not in of:
            continue
        text = f"{s.title(name)}: Original gets {of['original', 'TA']} % of the test images "
        if ("retrain", "TA") in of:
            text += f"right and Retrain {of['retrain', 'TA']} %. Retrain gets "
            text += f"{of['retrain', 'UA']} % of the forget set wrong."
        else:
            text += "right. There is no Retrain."
        said.append(text)
    return _joined(said, rows)


def _closest(s: Study) -> str:
    models, said = _finished(s).dropna(subset=["average_gap"]), []
    found = marks(s).query("scope == 'all' and forget == @s.first_forget and mark != ''")
    for name, part in models.groupby("architecture", sort=False):
        left = set(found.loc[found["architecture"] == name, "method"])
        gaps = part[~part["method"].isin(left)].groupby("method", sort=False)["average_gap"]
        if len(gaps):
            best = gaps.mean().idxmin()
            rank = f"comes closest to Retrain of the {len(gaps)} methods without a mark"
            rank = rank if len(gaps) > 1 else "is the only method without a mark"
            text = f"{s.title(best)} {rank}, average gap {_size(gaps.get_group(best))} points."
        else:
            text = "no method is free of marked models."
        if left:
            names = ", ".join(s.title(method) for method in s.methods if method in left)
            text += f" Damaged, or not unlearned: {names}."
        said.append(f"{s.title(name)}: {text}")
    return _joined(said, models)


def _gap(reading: str) -> Sentence:
    def said(s: Study) -> str:
        models = _finished(s, EXACT, reading=reading).dropna(subset=["gap_last"])
        approximate = _finished(s, reading=reading)
        found = []
        for name, part in models.groupby("architecture", sort=False):
            sizes = [
                f"{_size(group['gap_last'], '.2g')} in {s.title(method)}"
                for method, group in part.groupby("method", sort=False)
            ]
            others = approximate[approximate["architecture"] == name]
            means = others.groupby("method", sort=False)["gap_last"].mean().dropna()
            text = f"{s.title(name)}, last layer: the gap is {' and '.join(sizes)}"
            if len(means):
                ends = [f"{means[m]:.2g} ({s.title(m)})" for m in (means.idxmin(), means.idxmax())]
                text += f". The other methods' lie between {' and '.join(ends)}"
            found.append(f"{text}.")
        return _joined(found, models)

    return said


def _layers(s: Study) -> str:
    table, said = restricted(s), []
    table = table[table.groupby("architecture")["scope"].transform("nunique") > 1]
    marked = set(marks(s).query("mark != ''")["method"])
    for name, part in table.groupby("architecture", sort=False):
        means = part.groupby("scope", sort=False)[["average_gap", *COSTS]].mean()
        methods = [method for method in s.methods if method in set(part["method"])]
        parts = [
            f"{scope.replace('+', ' and ')} layers {gap:.1f} ({100 * memory:.0f} % of the memory, "
            f"{100 * seconds:.0f} % of the time)"
            for scope, gap, memory, seconds in means.drop("all").itertuples()
        ]
        whole = means.loc["all", "average_gap"]
        who = f"{', '.join(map(s.title, methods))}{', marked or not' * bool(marked & set(methods))}"
        said.append(
            f"{s.title(name)}, average gap to Retrain in points, mean of {who}: all layers "
            f"{whole:.1f}, {', '.join(parts)}."
        )
    return _joined(said, table, bare=True)


def _observations(s: Study) -> str:
    said = []
    for name, part in published.observations(s).groupby("Architecture", sort=False):
        yes, no, open_ = ((part["Holds"] == word).sum() for word in ("yes", "no", "undecided"))
        said.append(
            f"{name}: {yes} of {len(part)} published observations are seen here, {no} are not, "
            f"{open_} are undecided."
        )
    return " ".join(said)


def _readings(s: Study) -> str:
    nearest = published.nearest(published.readings(s)).groupby("Architecture", sort=False)
    parts = (
        f"{name}: nearest in size to the published curve of {' and of '.join(found)}."
        for name, part in nearest
        if (found := [f"{row.Method} is {row[3]}" for row in part.itertuples()])
    )
    return " ".join(parts)


def _outliers(s: Study) -> str:
    table, said = published.outliers(s), []
    for name, part in table.groupby("Architecture", sort=False):
        share = part["Trimmed / all (%)"].map(float)
        ends = dict.fromkeys(f"{share.agg(end):.0f}" for end in ("min", "max"))
        said.append(
            f"{name}: without the 1 % of images furthest off, {' to '.join(ends)} % of the last "
            "layer's gap is left."
        )
    return " ".join(said)


def _interventions(s: Study) -> str:
    table, said = interventions(s), []
    for name, part in table.groupby("Architecture", sort=False):
        sizes = part["Gap (%)"].map(float).abs()
        row = part.loc[sizes.idxmax()]
        said.append(
            f"{name}, {row['Start']} {row['Intervention']}: the gap changes by "
            f"{float(row['Gap (%)']):.0f} % and the minimal distance by "
            f"{float(row['Minimal distance (%)']):.1f} %."
        )
    return " ".join(said)


def _rows(claim: str, measured: str = "") -> Sentence:
    """Say a claim's key rows, or, of all methods together, the one `measured` so."""

    def said(s: Study) -> str:
        table = claims.table5(s)
        table = table[table["Claim"] == claim]
        if not measured:
            all_marked = claim in ("C3", "C5") and len(found := marks(s)) and found["mark"].all()
            keys = table[table["Key"] == "yes"]
            return MARKED if all_marked else " ".join(lines(s, keys, brief=False))
        together = table["Measured"].str.contains(measured)
        together &= ~table["Measured"].str.contains(" alone: ")
        transfer = table["Measured"].str.contains(" made on ")
        together &= transfer == (measured == TRANSFER)
        return " ".join(lines(s, table[together], brief=False))

    return said


def _verdicts(s: Study) -> str:
    table, said = claims.table5(s).query("Key == 'yes'"), []
    for claim, part in table.groupby("Claim", sort=False):
        count = part["Verdict"].value_counts(sort=False)
        said.append(f"{claim} has {' and '.join(f'{n} {word}' for word, n in count.items())}")
    if not said:
        return ""
    few = f" Fewer than {claims.SEEDS} seeds decide nothing." * int(
        table["Seeds"].min() < claims.SEEDS
    )
    return f"Of the key rows {', '.join(said)}.{few}"


def _choices(s: Study) -> str:
    table, said = sensitivity(s), []
    for claim, group in table.groupby("Claim", sort=False):
        turned = [
            f"{(part['Verdict'] != part['Verdict'].iloc[0]).sum()} of {len(part) - 1} on {name}"
            for name, part in group.groupby("Architecture", sort=False)
            if part["Choice"].iloc[0] != "models"  # else Table 5 has no row to compare with
        ]
        if turned:
            said.append(f"{claim}: other choices give another verdict in {' and '.join(turned)}.")
    return " ".join(said)


def _classes(s: Study) -> str:
    rows = s.rows("sigma", reading="std", progress=1.0, scope="all", forget=s.first_forget)
    rows, said = rows[rows["method"].isin(EXACT)], []
    rows = rows[rows["layer_index"] == rows.groupby("architecture")["layer_index"].transform("max")]
    level = rows.groupby(["architecture", "method", "seed"])["sigma"].transform("mean")
    rows = rows.assign(ratio=rows["sigma"] / level.replace(0.0, np.nan)).dropna(subset=["ratio"])
    for name, part in rows.groupby("architecture", sort=False):
        for method, group in part.groupby("method", sort=False):
            means = group.groupby("class_index")["ratio"].mean()
            widest, least = (s.classes[int(at)] for at in (means.idxmax(), means.idxmin()))
            said.append(
                f"{s.title(name)}, {s.title(method)}: at the last layer class {widest} has "
                f"{means.max():.3f} times the mean σ and class {least} {means.min():.3f} times."
            )
    return _joined(said, rows, bare=True)


def _finished(s: Study, methods: Iterable[str] = (), **how: str) -> pd.DataFrame:
    """Return `summaries` of finished models over all layers: of `methods`, or approximate ones."""
    table = where(summaries(s, **how), progress=1.0, scope="all", forget=s.first_forget)
    return table[table["method"].isin(methods or set(table["method"]) - set(EXACT))]


def _size(values: pd.Series, form: str = ".1f", most: float = np.inf) -> str:
    """Return the mean of what is at least 0 and at `most` that, and its interval if it has one."""
    low, high = np.clip(interval(values), 0, most)
    text = f"{values.mean():{form}}"
    return text if np.isnan(low) else f"{text} [{low:{form}}, {high:{form}}]"


def _joined(said: list[str], rows: pd.DataFrame, bare: bool = False) -> str:
    """Add how many seeds the means are over, and what stands in brackets."""
    few, most = rows.groupby("architecture")["seed"].nunique().agg(["min", "max"])
    brackets = "" if bare else ", with the 95 % interval in brackets"
    seeds = most if few == most else f"{few} to {most}"
    many = f"Means over {seeds} seeds{brackets}." if most > 1 else "One seed, so no interval."
    return " ".join([*said, many]) if said else ""


SENTENCES: dict[str, Sentence] = {
    "table1_models": _models,
    "table2_unlearning": _closest,
    "table3_robustness": _rows("C3", "drop under"),
    "table3_transfer": _rows("C3", TRANSFER),
    "table4_layerwise": _layers,
    "table_observations": _observations,
    "table_readings": _readings,
    "table_outliers": _outliers,
    "table_interventions": _interventions,
    "table5_verdicts": _verdicts,
    "table5_sensitivity": _choices,
    "fig1_fairness_gap": _gap("std"),
    "fig1_fairness_gap_trimmed": _gap("trimmed_std"),
    "fig2_robustness": _rows("C3"),
    "fig2_transfer": _rows("C3", TRANSFER),
    "fig3_conjectures": lambda s: f"{_rows('C1')(s)} {_rows('C2')(s)}".strip(),
    "fig4_layerwise": _layers,
    "fig5_verdicts": _verdicts,
    "fig6_sigma": _classes,
    "fig7_tradeoff": _rows("C4"),
}
