"""README.md's figure and tables, drawn from the committed results so that no number is typed."""

from functools import partial
from pathlib import Path
from textwrap import fill

import pandas as pd

from unlearnkit.errors import UserError
from unlearnkit.files import project_folder, write_atomic
from unlearnkit.names import ID
from unlearnkit.report.claims import table5
from unlearnkit.report.frames import beside_retrain, forget_title, summaries
from unlearnkit.report.published import DATASET, curves
from unlearnkit.report.stats import MISSING
from unlearnkit.report.study import Study, read_study
from unlearnkit.report.tables import markdown, markdown_text, wide
from unlearnkit.results import committed_folder

# A line that ends in a hyphen would be read with a space after it.
wrapped = partial(fill, width=120, break_on_hyphens=False)
STUDIES = ("paper", "cifar10", "quick")  # the first whose results are committed is shown
CLAIMS = {
    "C1": "a well-trained model has a small fairness-gap",
    "C2": "the higher the gap, the more vulnerable the model",
    "C3": "approximate unlearning loses more robustness than retraining",
    "C4": "an evaluation needs the gap and a robustness metric",
    "C5": "intermediate and last layers are enough, and cheaper",
}
COLUMNS = {name: (name, 2) for name in ("UA", "RA", "TA", "MIA")} | {
    "average_gap": ("Avg. gap ↓", 2),
    "drop": ("Drop ↓", 2),
    "excess": ("Excess (→ 0)", 2),
    "gap_mean": ("Fairness-gap", 3),
    "seconds": ("RTE (s) ↓", 1),
}


def main_study() -> Study:
    """Return the study shown: the largest whose results are committed; UserError without any."""
    for folder in map(committed_folder, STUDIES):
        if (folder / "study.json").exists():
            return read_study(folder)
    raise UserError(f"no results of {', '.join(STUDIES)} are committed; the README shows theirs")


def update(text: str, s: Study) -> str:
    """Return the README's `text` with its blocks figure, main-table and verdicts filled.

    A block lies between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``. A marker that is
    missing, there twice, or after its end is a UserError.
    """
    for name, build in {"figure": _figure, "main-table": _table, "verdicts": _verdicts}.items():
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


def main_table(s: Study) -> pd.DataFrame:
    """Return a row for each architecture and method: the first forget set, over all layers.

    UA, RA, TA, MIA (%), and of `frames.summaries` average gap, drop and its excess over Retrain's
    (percentage points), fairness-gap (mean over layers), RTE (s); mean ± std over seeds.
    """
    shown = {"scope": "all", "progress": 1.0, "forget": s.first_forget}
    table = summaries(s)
    table = table[table[list(shown)].eq(shown).all(axis=1)]
    table = beside_retrain(table, ["architecture", "seed"], ["drop"])
    table = table.assign(excess=table["drop"] - table["drop_retrain"])
    numbers = table.melt(ID, [name for name in COLUMNS if name in table], "metric", "value")
    long = pd.concat([s.rows("quality", **shown), numbers])
    return wide(s, long, ["architecture", "method"], COLUMNS).drop(columns="Seeds")


def _figure(s: Study) -> str:
    words = (
        f"Figure 1, {_origin(s)}: fairness-gap of each normalisation layer, mean and range over "
    )
    words += _seeds(s, "gap")
    ours = s.dataset.startswith(DATASET)
    if ours and any(curves(s, name, None, "std") for name in s.architectures):
        words += "; lower row: the values published"
    words += "."
    if not ours:
        name = markdown_text(s.dataset)
        words += f" Of {name}, shapes can be compared with the publication's, sizes cannot."
    image = f"figures/{s.name}/fig1_fairness_gap.png"
    return f"![Fairness-gap per normalisation layer]({image})\n\n{wrapped(f'*{words}*')}"


def _table(s: Study) -> str:
    machine = s.results.machine
    words = (
        f"Every method over all layers, {_origin(s)}; mean ± standard deviation over "
        f"{_seeds(s, 'quality')}; {s.extent}, {s.stamp}, in {s.hours:.1f} hours (sweep aside). "
        "UA, RA, TA, MIA in %: Retrain's are the ones to match; average gap: the mean distance of "
        f"the four from Retrain's. Drop: clean − robust accuracy under {s.title(s.attack)}, "
        "averaged over every ε at which all models were attacked, and its excess over Retrain's. "
        "All differences are in percentage points. Fairness-gap: mean over layers. RTE: seconds of "
        f"the algorithm alone ({machine['device']}, models side by side: {machine['workers']}). "
        "Where Retrain's RA is far from 100, UA, MIA and average gap tell little: the network does "
        "not fit what it has seen."
    )
    return f"{wrapped(words)}\n\n{markdown(main_table(s))}"


def _verdicts(s: Study) -> str:
    table = table5(s).query("Key == 'yes'")
    table.attrs = {}  # its caption says more
    said = table.assign(said=[_judged(row) for _, row in table.iterrows()])
    keys = {"index": ["Claim", "Measured"], "columns": "Architecture", "values": "said"}
    grid = said.pivot_table(**keys, aggfunc="first", fill_value=MISSING, sort=False)
    grid = grid.rename_axis(columns=None).reset_index()
    claims = "; ".join(f"{claim}: {CLAIMS[claim]}" for claim in table["Claim"].unique())
    words = (
        f"What each claim rests on, {_where(s)}: mean, 95 % interval over seeds, verdict. A claim "
        f"is supported where all its rows are. In our words, {claims}. All measures and what would "
        f"change a verdict: `figures/{s.name}/table5_verdicts.csv`; the rules, and which of them "
        "are weak: notebooks 05 and 06."
    )
    return f"{wrapped(words)}\n\n{markdown(grid)}"


def _judged(row: pd.Series) -> str:
    if row["Seeds"] == 0:
        return MISSING
    interval = f" [{row['Low']:.2f}, {row['High']:.2f}]" if row["Seeds"] > 1 else ""
    return f"{row['Value']:.2f}{interval} **{row['Verdict']}**"


def _origin(s: Study) -> str:
    return f"{_where(s)}, forget set {markdown_text(forget_title(s.first_forget))}"


def _where(s: Study) -> str:
    return f"profile `{s.profile_name}` on {markdown_text(s.dataset)}"


def _seeds(s: Study, frame: str) -> str:
    """Return ``n = 2 seeds (0, 1)`` of the models shown, of each architecture if they differ."""
    shown = s.rows(frame, scope="all", progress=1.0, forget=s.first_forget)
    parts = [("", shown)]
    if shown.groupby(["architecture", "method"])["seed"].agg(frozenset).nunique() > 1:
        found = dict(list(shown.groupby("architecture")))
        parts = [(f" of {s.title(name)}", found[name]) for name in s.architectures if name in found]
    said = []
    for of, part in parts:
        seeds = sorted(part["seed"].unique())
        few = part.groupby("method")["seed"].nunique().min()
        count = f"{few} to {len(seeds)}" if few < len(seeds) else len(seeds)
        plural = "s" * (len(seeds) != 1)
        said.append(f"n = {count} seed{plural} ({', '.join(map(str, seeds))}){of}")
    return ", ".join(said)
