"""README.md's figure and tables, drawn from the committed results so that no number is typed."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from unlearnkit.errors import UserError
from unlearnkit.files import project_folder, write_atomic
from unlearnkit.report.claims import table5
from unlearnkit.report.figures.fairness import fairness_gap_data
from unlearnkit.report.figures.style import default_forget
from unlearnkit.report.stats import MISSING, mean_std
from unlearnkit.report.study import Study, read_study
from unlearnkit.report.tables.frames import (
    ARCHITECTURES,
    architecture_title,
    arranged,
    attack_title,
    forget_title,
    method_title,
    rows,
    study_methods,
    summaries,
)
from unlearnkit.report.tables.saving import markdown
from unlearnkit.results import committed_folder

STUDIES = ("paper", "cifar10", "quick")  # the first whose results are committed is shown
DATASET = ("cifar10", "CIFAR-10")  # how names of the publication's begin
CLAIMS = {
    "C1": "a well-trained model has a small fairness-gap",
    "C2": "the higher the gap, the more vulnerable the model",
    "C3": "approximate unlearning loses more robustness than retraining",
    "C4": "an evaluation needs the gap and a robustness metric",
    "C5": "intermediate and last layers are enough, and cheaper",
}
# Column of the measures -> header, digits
MEASURES = {
    "UA": ("UA", 2),
    "RA": ("RA", 2),
    "accuracy": ("TA", 2),
    "MIA": ("MIA", 2),
    "average_gap": ("Avg. gap ↓", 2),
    "drop": ("Drop ↓", 2),
    "excess": ("Excess (→ 0)", 2),
    "gap_mean": ("Fairness-gap", 3),
    "seconds": ("RTE (s) ↓", 1),
}


def main_study() -> Study:
    """Return the study that the README shows: the largest whose results are committed.

    Raises
    ------
    UserError
        If no results are committed at all.
    """
    for name in STUDIES:
        folder = committed_folder(name)
        if (folder / "study.json").exists():
            return read_study(folder)
    raise UserError(f"no results of {', '.join(STUDIES)} are committed; the README shows theirs")


def update(text: str, s: Study) -> str:
    """Return the README's `text` with its blocks filled from a study.

    A block lies between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``; NAME is figure,
    main-table or verdicts.

    Raises
    ------
    UserError
        If a block's marker is missing, there twice, or after its end.
    """
    blocks = {"figure": _figure, "main-table": _main_table, "verdicts": _verdicts}
    for name, build in blocks.items():
        start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        if not text.count(start) == text.count(end) == 1 or text.index(end) < text.index(start):
            raise UserError(f"README.md needs {start} and, after it, {end}, each of them once")
        head, tail = text.split(start)[0], text.split(end)[1]
        text = f"{head}{start}\n\n{build(s).strip()}\n\n{end}{tail}"
    return text


def refresh() -> tuple[Path, Study]:
    """Fill the blocks of the project's README.md; return its path and the study shown."""
    path, s = project_folder() / "README.md", main_study()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    write_atomic(path, update(text, s))
    return path, s


def main_table(s: Any) -> pd.DataFrame:
    """Return one row for each architecture and method: what the study says of it in short.

    Of the first forget set, over all layers, mean ± std over seeds: UA, RA, TA, MIA (%), average
    gap, drop under the report's attack and its excess over Retrain's (percentage points),
    fairness-gap (mean over layers), RTE (s); as in `tables.frames.summaries`.
    """
    forget = default_forget(s, None)
    table = summaries(s, attack=s.profile["report"]["attack"])
    whole = (table["scope"] == "all") & (table["progress"] == 1)
    table = table[whole & (table["forget"] == forget)]
    key = ["architecture", "method", "seed"]
    quality = rows(s, "quality", scope="all", progress=1.0, forget=forget)
    quality = quality.pivot_table(index=key, columns="metric", values="value")
    exact = table.loc[table["method"] == "retrain", ["architecture", "seed", "drop"]]
    table = table.merge(quality.reset_index(), how="left", on=key)
    table = table.merge(exact, how="left", on=["architecture", "seed"], suffixes=("", "_exact"))
    table = table.assign(excess=table["drop"] - table["drop_exact"])
    found = []
    for architecture in arranged(ARCHITECTURES, table["architecture"]):
        for method in study_methods(s):
            same = table[(table["architecture"] == architecture) & (table["method"] == method)]
            if len(same):
                names = {"Architecture": architecture_title(architecture)}
                names["Method"] = method_title(method)
                found.append(
                    names
                    | {
                        header: mean_std(same.get(column, ()), digits)
                        for column, (header, digits) in MEASURES.items()
                    }
                )
    headers = ["Architecture", "Method", *(header for header, _ in MEASURES.values())]
    return pd.DataFrame(found, columns=headers)


def _figure(s: Any) -> str:
    data = fairness_gap_data(s)
    hollow = data["published"].notna().any()
    words = (
        f"Figure 1, {_origin(s)}: fairness-gap of each normalisation layer, mean and range over "
        f"{_seeds(s, 'gap')}"
    )
    if hollow:
        words += "; hollow markers: the values published for CIFAR-10"
    words += "."
    if not s.dataset.startswith(DATASET):
        words += f" Of {s.dataset}, shapes can be compared with the publication's, sizes cannot."
    image = f"figures/{s.name}/fig1_fairness_gap.png"
    return f"![Fairness-gap per normalisation layer]({image})\n\n{_wrapped(f'*{words}*')}"


def _main_table(s: Any) -> str:
    attack = attack_title(s.profile["report"]["attack"])
    machine = s.results.machine
    words = (
        f"Every method over all layers, {_origin(s)}; mean ± standard deviation over "
        f"{_seeds(s, 'quality')}; {s.extent}, {s.stamp}, in {s.hours:.1f} hours (sweep aside). "
        "UA, RA, TA, MIA in %: Retrain's are the ones to match; average gap: the mean distance of "
        f"the four from Retrain's. Drop: clean − robust accuracy under {attack}, averaged over "
        "every ε at which all models were attacked, and its excess over Retrain's. All differences "
        "are in percentage points. Fairness-gap: mean over layers. RTE: seconds of the algorithm "
        f"alone ({machine['device']}, models side by side: {machine['workers']}). Where "
        "Retrain's RA is far from 100, UA, MIA and average gap tell little: the network does not "
        "fit what it has seen."
    )
    return f"{_wrapped(words)}\n\n{markdown(main_table(s))}"


def _verdicts(s: Any) -> str:
    """Return the claims' key rows: a line for each measure, a column for each architecture."""
    table = table5(s)
    table = table[table["Key"] == "yes"]
    judged = table.assign(said=table.apply(_judged, axis=1))
    wide = judged.pivot(index=["Claim", "Measured"], columns="Architecture", values="said")
    wide = wide.reindex(
        index=list(dict.fromkeys(zip(table["Claim"], table["Measured"], strict=True))),
        columns=table["Architecture"].unique(),
    )
    wide = wide.fillna(MISSING).rename_axis(columns=None).reset_index()
    claims = "; ".join(f"{claim}: {CLAIMS[claim]}" for claim in table["Claim"].unique())
    words = (
        f"What each claim rests on, {_where(s)}: mean, 95 % interval over seeds, verdict. A claim "
        f"is supported where all its rows are. In our words, {claims}. All measures and what would "
        f"change a verdict: `figures/{s.name}/table5_verdicts.csv`; the rules, and which of them "
        "are weak: notebooks 05 and 06."
    )
    return f"{_wrapped(words)}\n\n{markdown(wide)}"


def _judged(row: pd.Series) -> str:
    if row["Seeds"] == 0:
        return MISSING
    interval = f" [{row['Low']:.2f}, {row['High']:.2f}]" if row["Seeds"] > 1 else ""
    return f"{row['Value']:.2f}{interval} **{row['Verdict']}**"


def _wrapped(text: str) -> str:
    # a line that ends in a hyphen would be read with a space after it
    return fill(text, 120, break_on_hyphens=False)


def _origin(s: Any) -> str:
    return f"{_where(s)}, forget set {forget_title(default_forget(s, None))}"


def _where(s: Any) -> str:
    return f"profile `{s.profile_name}` on {s.dataset}"


def _seeds(s: Any, frame: str) -> str:
    """Return ``n = 2 seeds (0, 1)``, of the finished models shown.

    Where architectures or methods differ in it, a study in parts, each architecture is named.
    """
    shown = rows(s, frame, scope="all", progress=1.0, forget=default_forget(s, None))
    if shown.groupby(["architecture", "method"])["seed"].agg(frozenset).nunique() <= 1:
        return _seed_words(shown)
    parts = shown.groupby("architecture")
    names = arranged(ARCHITECTURES, shown["architecture"])
    return ", ".join(f"{_seed_words(parts.get_group(a))} of {architecture_title(a)}" for a in names)


def _seed_words(shown: pd.DataFrame) -> str:
    seeds = sorted(shown["seed"].unique())
    counts = shown.groupby("method")["seed"].nunique()
    fewest = f"{counts.min()} to " if counts.min() < len(seeds) else ""
    plural = "s" * (len(seeds) != 1)
    return f"n = {fewest}{len(seeds)} seed{plural} ({', '.join(map(str, seeds))})"
