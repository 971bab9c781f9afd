"""What README.md and docs/ show of the committed results, so that no number is typed there."""

from functools import partial
from pathlib import Path
from textwrap import fill

import pandas as pd

from unlearnkit.errors import UserError
from unlearnkit.files import project_folder, write_atomic
from unlearnkit.names import ID
from unlearnkit.report.claims import table5
from unlearnkit.report.display import markdown, markdown_text, minus
from unlearnkit.report.findings import CLAIMS, caveat, summary
from unlearnkit.report.frames import beside_retrain, summaries
from unlearnkit.report.stats import MISSING
from unlearnkit.report.study import Study, read_study
from unlearnkit.report.tables import marked, wide
from unlearnkit.report.tidy import where
from unlearnkit.results import committed_folder

# A line that ends in a hyphen would be read with a space after it.
wrapped = partial(fill, width=120, break_on_hyphens=False)
STUDIES = ("paper", "cifar10", "quick")  # the first whose results are committed is shown
# Page -> its blocks, each between two markers
PAGES = {"README.md": ("findings", "figure"), "docs/results.md": ("verdicts", "main-table")}
QUALITY = ["UA", "RA", "TA", "MIA"]
COLUMNS = {name: (name, 1) for name in QUALITY} | {
    "average_gap": ("Avg. gap ↓", 1),
    "drop": ("Drop ↓", 1),
    "excess": ("Excess (→ 0)", 1),
    "gap_mean": ("Fairness-gap", 3),
    "seconds": ("RTE (s) ↓", 1),
}


def main_study() -> Study:
    """Return the study shown: the largest whose results are committed; UserError without any."""
    for folder in map(committed_folder, STUDIES):
        if (folder / "study.json").exists():
            return read_study(folder)
    raise UserError(f"no results of {', '.join(STUDIES)} are committed; the README shows theirs")


def update(text: str, s: Study, page: str = "README.md") -> str:
    """Return the `text` of a page with the blocks filled that `PAGES` has for it.

    A block lies between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``. A marker that is
    missing, there twice, or after its end is a UserError.
    """
    build = {"findings": _findings, "figure": _figure, "main-table": _table, "verdicts": _verdicts}
    for name in PAGES[page]:
        start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        if not text.count(start) == text.count(end) == 1 or text.index(end) < text.index(start):
            raise UserError(f"{page} needs {start} and, after it, {end}, each of them once")
        head, tail = text.split(start)[0], text.split(end)[1]
        text = f"{head}{start}\n\n{minus(build[name](s).strip())}\n\n{end}{tail}"
    return text


def refresh() -> tuple[list[Path], Study]:
    """Fill the blocks of the project's pages; return their paths and the study shown."""
    s, filled = main_study(), {}
    for page in PAGES:
        path = project_folder() / page
        try:
            filled[path] = update(path.read_text(encoding="utf-8"), s, page)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
    for path, text in filled.items():
        write_atomic(path, text)
    return list(filled), s


def main_table(s: Study) -> pd.DataFrame:
    """Return a row for each architecture and method: the first forget set, over all layers.

    UA, RA, TA, MIA (%), and of `frames.summaries` average gap, drop and its excess over Retrain's
    (percentage points), fairness-gap (mean over layers), RTE (s); mean ± std over seeds.
    """
    shown = {"scope": "all", "progress": 1.0, "forget": s.first_forget}
    table = beside_retrain(where(summaries(s), **shown), ["architecture", "seed"], ["drop"])
    table = table.assign(excess=table["drop"] - table["drop_retrain"])
    numbers = table.melt(ID, [name for name in COLUMNS if name not in QUALITY], "metric", "value")
    long = pd.concat([s.rows("quality", metric=QUALITY, **shown), numbers])
    return marked(s, wide(s, long, ["architecture", "method"], COLUMNS)).drop(columns="Seeds")


def _findings(s: Study) -> str:
    start = f"What became of the paper's claims on {_where(s)}, {_seeds(s, 'quality')}."
    lines = [wrapped(f"* {line}", subsequent_indent="  ") for line in summary(s)]
    return "\n".join([wrapped(start), "", *lines, "", wrapped(caveat(s))])


def _figure(s: Study) -> str:
    words = (
        f"Figure 5 on {_origin(s)}. What each claim rests on, mean and 95 % interval over "
        f"{_seeds(s, 'gap')}, and the bound it is judged by."
    )
    image = f"figures/{s.name}/fig5_verdicts.png"
    return f"![The claims' key measures and their verdicts]({image})\n\n{wrapped(f'*{words}*')}"


def _table(s: Study) -> str:
    machine = s.results.machine
    words = (
        f"Every method over all layers, on {_origin(s)}. Mean ± standard deviation over "
        f"{_seeds(s, 'quality')}. These are {s.extent}, {s.stamp}, in {s.hours:.1f} hours (sweep "
        "aside). UA, RA, TA and MIA are in %, and Retrain's are the ones to match. The average gap "
        "is the mean distance of the four from Retrain's. The drop is clean minus robust accuracy "
        f"under {s.title(s.attack)}, averaged over every ε at which all models were attacked. The "
        "excess is the drop minus Retrain's. All differences are in percentage points. The "
        "fairness-gap is the mean over layers. RTE is the run time of the algorithm alone, in "
        f"seconds ({machine['device']}, {machine['workers']} models side by side). Where Retrain's "
        "RA is far from 100, UA, MIA and average gap tell little, since the network does not fit "
        "what it has seen."
    )
    return f"{wrapped(words)}\n\n{markdown(main_table(s))}"


def _verdicts(s: Study) -> str:
    table = table5(s).query("Key == 'yes'")
    table.attrs = {}  # its caption says more
    said = table.assign(said=[_judged(row) for _, row in table.iterrows()])
    keys = {"index": ["Claim", "Measured"], "columns": "Architecture", "values": "said"}
    grid = said.pivot_table(**keys, aggfunc="first", fill_value=MISSING, sort=False)
    grid = grid.rename_axis(columns=None).reset_index()
    claims = "\n".join(f"* **{claim}** says that {CLAIMS[claim]}." for claim in CLAIMS)
    words = (
        f"What each claim rests on, on {_where(s)}. Each cell has the mean, its 95 % interval over "
        "seeds, and the verdict. A claim is supported where all its rows are. All measures, and "
        f"what each interval excludes, are in `figures/{s.name}/table5_verdicts.csv`. Notebooks 05 "
        "and 06 have the rules."
    )
    return (
        f"These are the claims, in our words.\n\n{claims}\n\n{wrapped(words)}\n\n{markdown(grid)}"
    )


def _judged(row: pd.Series) -> str:
    if row["Seeds"] == 0:
        return MISSING
    interval = f" [{row['Low']:.2f}, {row['High']:.2f}]" if row["Seeds"] > 1 else ""
    return f"{row['Value']:.2f}{interval} **{row['Verdict']}**"


def _origin(s: Study) -> str:
    return f"{_where(s)}, forget set {markdown_text(s.title(s.first_forget))}"


def _where(s: Study) -> str:
    return f"profile `{s.profile_name}` on {markdown_text(s.dataset)}"


def _seeds(s: Study, frame: str) -> str:
    """Return ``n = 2 seeds (0, 1)`` of the models shown, ``n = 1 to 2`` if some have fewer."""
    shown = s.rows(frame, scope="all", progress=1.0, forget=s.first_forget)
    seeds = sorted(shown["seed"].unique())
    counts = shown.groupby(["architecture", "method"])["seed"].nunique()
    few, most = counts.min(), counts.max()
    count = f"{few} to {most}" if few < most else most
    return f"n = {count} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})"
