"""What a study found, in sentences made from its numbers."""

import pandas as pd

from unlearnkit.report.claims import VERDICTS, table5
from unlearnkit.report.study import Study

CLAIMS = {
    "C1": "a well-trained model has a small fairness-gap",
    "C2": "the higher the gap, the more vulnerable the model",
    "C3": "approximate unlearning loses more robustness than retraining",
    "C4": "an evaluation needs the gap and a robustness metric",
    "C5": "intermediate and last layers are enough, and cheaper",
}


def summary(s: Study) -> list[str]:
    """Return a sentence on each claim that the study measured: its verdict, and its key rows'.

    A claim is supported where all its key rows of `claims.table5` are, and not supported where one
    speaks against it; else it is undecided.
    """
    keys = table5(s).query("Key == 'yes'")
    return [_said(claim, rows["Verdict"]) for claim, rows in keys.groupby("Claim", sort=False)]


def caveat(s: Study) -> str:
    """Return what limits the findings most: few seeds, and how well the originals are trained."""
    of = {"method": "original", "metric": "TA", "progress": 1.0, "forget": s.first_forget}
    shown = s.rows("quality", **of)
    means = shown.groupby("architecture", sort=False)["value"].mean()
    parts = [f"{value:.0f} % ({s.title(name)})" for name, value in means.items()]
    seeds = shown["seed"].nunique()
    return (
        f"The main caveat: this rests on {seeds} seed{'s' * (seeds != 1)}, and on originals whose "
        f"test accuracy is {' and '.join(parts)}."
    )


def _said(claim: str, verdicts: pd.Series) -> str:
    count = verdicts.value_counts()
    good, bad, unsure = (count.get(name, 0) for name in VERDICTS)
    verdict = VERDICTS[1 if bad else 2 if unsure else 0]
    rows = f"{good} of {len(verdicts)} key measures for it, {bad} against, {unsure} undecided"
    return f"**{claim}**, {CLAIMS[claim]}: **{verdict}** ({rows})."
