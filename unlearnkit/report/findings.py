"""What a study found on the claims, in sentences made from its numbers."""

from typing import Any

import numpy as np
import pandas as pd

from unlearnkit.report.claims import STUDY_METHODS, VERDICTS, table5
from unlearnkit.report.frames import marks
from unlearnkit.report.study import Study

CLAIMS = {
    "C1": "a well-trained model has a small fairness-gap",
    "C2": "the higher the gap, the more vulnerable the model",
    "C3": "approximate unlearning loses more robustness than retraining",
    "C4": "an evaluation needs the gap and a robustness metric",
    "C5": "intermediate and last layers are enough, and cheaper",
}
MARKED = {"damaged": "are damaged", "did not unlearn": "did not unlearn"}
SUPPORTED, CONTRADICTED, UNDECIDED, DESCRIBED = VERDICTS


def verdict(rows: pd.DataFrame) -> str:
    """Return a claim's verdict from its key rows of `claims.table5`.

    Supported where all of them are, contradicted where one is, described where none is judged.
    """
    found = set(rows["Verdict"])
    if CONTRADICTED in found:
        return CONTRADICTED
    return found.pop() if len(found) == 1 else UNDECIDED


def summary(s: Study) -> list[str]:
    """Return a line on each claim measured: its verdict, and a key row of each architecture.

    Whoever shows it says over how many seeds.
    """
    return [line for claim in CLAIMS if (line := finding(s, claim, brief=True))]


def finding(s: Study, claim: str, *, brief: bool = False) -> str:
    """Return what the study says of `claim` ("C1" to "C5"), in Markdown.

    The verdict, and for each key row direction, size, 95 % interval, seeds, verdict, and what the
    interval excludes. `brief`: as in `summary`, empty where nothing was measured.
    """
    table = table5(s)
    rows = table[(table["Claim"] == claim) & (table["Key"] == "yes")]
    if rows.empty:
        return "" if brief else f"**{claim}**, {CLAIMS[claim]}. The study has no numbers for it."
    if brief:  # of each architecture, a row that decides, else its first
        decides = rows["Verdict"] == verdict(rows)
        order = decides.sort_values(ascending=False, kind="stable").index
        rows = rows.loc[order].drop_duplicates("Architecture").sort_index()
    found = lines(s, rows, brief)
    head = f"**{claim}**, {CLAIMS[claim]}, is **{verdict(rows)}**."
    return " ".join([head, *found]) if brief else "\n* ".join([f"{head}\n", *found])


def lines(s: Study, rows: pd.DataFrame, brief: bool = True) -> list[str]:
    """Return a sentence on each of some rows of `table5`, and on who has none for its marks."""
    told = rows.rename(columns={"p (Holm)": "holm"}).itertuples()
    found = [f"{row.Architecture}: {_said(row, brief)}." for row in told]
    missing = [
        name for name in map(s.title, s.architectures) if name not in set(rows["Architecture"])
    ]
    if set(rows["Claim"]) & {"C3", "C5"} and (marks(s)["mark"] != "").any():
        found += [f"{name}: no method is free of marked models." for name in missing]
    return found


def caveat(s: Study) -> str:
    """Return what limits the findings: seeds, how well originals are trained, models left out."""
    of = {"method": "original", "metric": "TA", "progress": 1.0, "forget": s.first_forget}
    shown = s.rows("quality", **of)
    if shown.empty:
        return ""
    means = shown.groupby("architecture", sort=False)["value"].mean()
    parts = [f"{value:.0f} % ({s.title(name)})" for name, value in means.items()]
    seeds = shown["seed"].nunique()
    text = (
        f"The main caveat: this rests on {seeds} seed{'s' * (seeds != 1)}, and on originals whose "
        f"test accuracy is {' and '.join(parts)}."
    )
    found = marks(s)
    found = found[(found["scope"] == "all") & (found["forget"] == s.first_forget)]
    found = found[found["method"].isin(STUDY_METHODS)]
    counts = found["mark"].value_counts()
    words = [f"{counts[mark]} {said}" for mark, said in MARKED.items() if mark in counts]
    if words:
        text += f" Of {len(found)} models unlearned over all layers, {' and '.join(words)}."
        names = found.groupby(["architecture", "method"], sort=False)["mark"].max()
        rest = [f"{s.title(m)} on {s.title(a)}" for (a, m), mark in names.items() if not mark]
        text += f" C3 and C5 rest on {', '.join(rest) or 'no method'} alone."
    return text


def _said(row: Any, brief: bool) -> str:
    if not row.Seeds:
        return "no seed gives a number"
    value, up, (who, _, what) = row.Value, row.Value >= 0, row.Measured.partition(": ")
    digits, end, ends = 1 if row.Unit == "points" else 2, row.Excluded, (row.Low, row.High)
    if row.Unit in ("points", "1/255") and not up:  # told as a size, such as 3 points fewer
        ends = -row.High, -row.Low
        side, _, number = end.partition(" ")
        end = end and f"{'above' if side == 'below' else 'below'} {-float(number):g}"
    size, low, high = (f"{number:.{digits}f}" for number in (abs(value), *ends))
    if row.Unit in ("share", "ratio"):
        low, high = (f"{100 * number:.0f}" for number in (row.Low, row.High))
    match row.Claim, row.Unit:
        case "C1", _:
            text = f"the gap {'rises' if up else 'falls'} as accuracy rises, ρ = {value:.2f}"
        case "C2", _:
            way = "larger" if up else "smaller"
            text = f"at equal clean accuracy a larger gap goes with a {way} drop, ρ = {value:.2f}"
        case "C3", "1/255":
            way = "further" if up else "nearer"
            text = f"the nearest wrong answer lies {size}/255 {way} than Retrain's (mean of {who})"
        case "C3", _ if what.startswith("drop"):
            way = "more" if up else "less"
            text = f"{who} {'lose' if ',' in who else 'loses'} {size} points {way} than Retrain"
        case "C3", _:
            way = "more" if up else "fewer"
            text = f"{size} points {way} of the right images stay right under attack than Retrain's"
            text += ", with images made on the original" if "made on" in what else ""
            text += f" (mean of {who})"
        case "C4", _:
            text = "over methods, average gap and excess of right images lost have "
            text += f"ρ = {value:.2f}"
        case "C5", "share":
            text = f"{who} keep {100 * value:.0f} % of the improvement"
        case "C5", "points":
            text = f"with {who} {size} points {'more' if up else 'fewer'} images stay right"
        case _:
            text = f"{who} take {100 * value:.0f} % of the {what.partition(',')[0]}"
    if row.Seeds == 1:
        return f"{text} (one seed), {row.Verdict}"
    text += f" [{low}, {high}]" if brief else f" [{low}, {high}], n = {row.Seeds}"
    if row.Verdict == DESCRIBED or row.Key == "no":  # a claim rests on its key rows alone
        return text
    text += f", {row.Verdict}"
    if np.isfinite(row.holm) and row.Verdict != UNDECIDED:
        text += f", p {'< 0.001' if row.holm < 0.001 else f'= {row.holm:.2g}'} after Holm"
    if row.Unit in ("share", "ratio") and end:
        side, _, number = end.partition(" ")
        end = f"{side} {100 * float(number):.0f} %"
    return f"{text} ({end} excluded)" if end and not brief else text
