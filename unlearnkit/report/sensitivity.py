"""Which verdicts turn with a choice of ours: of control, σ, aggregator, measure, attacker."""

import pandas as pd

from unlearnkit.names import ID, READINGS
from unlearnkit.report import claims
from unlearnkit.report.frames import GAPS, marks
from unlearnkit.report.study import Study

CONTROLS = ([], ["accuracy"], ["clean", "RA"])
SAID = {"models": ", marked models too", "attacker": ", images made on the original"}


def sensitivity(s: Study) -> pd.DataFrame:
    """Return what C1, C2 and C3 rest on under other choices, one changed at a time.

    Claim, Architecture, Choice (what is changed: reading of σ, aggregator over layers, control,
    measure, models, attacker), Taken, and Unit, Value, Low, High, Seeds, Verdict of `judge`. The
    first row of each claim is Table 5's.
    """
    found, attack = [], s.attack
    of = {name: claims.models_of(s, reading=name, attack=attack) for name in READINGS}
    of = {name: models[models["progress"] > 0] for name, models in of.items()}
    usual = of["std"].assign(near=-of["std"]["distance"], lost=100 - of["std"]["kept"])
    carried = claims.models_of(s, attack=attack, access="transfer")
    marked = pd.MultiIndex.from_frame(marks(s).query("mark != ''")[ID])
    clear = usual[~pd.MultiIndex.from_frame(usual[ID]).isin(marked)]
    gaps = [("reading", name, models, "gap_mean") for name, models in of.items()]
    gaps += [("aggregator", name.removeprefix("gap_"), usual, name) for name in GAPS[1:]]
    for choice, taken, models, gap in gaps:
        original = models[models["method"] == "original"].dropna(subset=[gap])
        for name, part in claims.architectures(s, original):
            if part["progress"].nunique() > 1:
                values = claims.rho(part, gap, "accuracy")
                found.append(("C1", name, choice, taken, "ρ", (values, *claims.FALLS)))
    asked = [(*row, "drop", ["clean"]) for row in gaps]
    asked += [
        ("control", " and ".join(c) or "none", usual, "gap_mean", "drop", c) for c in CONTROLS
    ]
    for choice, taken, models, hurt in (
        ("measure", "share lost of the images right when clean", usual, "lost"),
        ("measure", "minimal distance, its sign turned", usual, "near"),
        ("models", "those without a mark", clear, "drop"),
        ("attacker", "holds the original", carried, "drop"),
    ):
        asked.append((choice, taken, models, "gap_mean", hurt, ["clean"]))
    for choice, taken, models, gap, hurt, control in asked:
        for name, part in claims.architectures(s, models.dropna(subset=[gap, hurt])):
            values = claims.rho(part, gap, hurt, *control)
            found.append(("C2", name, choice, taken, "ρ", (values, *claims.RISES)))
    for choice, access in (
        ("measure", "white-box"),
        ("models", "white-box"),
        ("attacker", "transfer"),
    ):
        for name, words, part in claims.places(s, claims.compared(s, attack, access)):
            for column, (text, unit, rule) in claims.COMPARED.items():
                values = claims.mean_over(part, column, unmarked=choice != "models")
                if len(values) and not (access == "transfer" and column == "nearer"):
                    taken = f"{text.format(attack=s.title(attack))}{words}{SAID.get(choice, '')}"
                    found.append(("C3", name, choice, taken, unit, (values, *rule)))
    names = ["Claim", "Architecture", "Choice", "Taken", "Unit"]
    rows = [dict(zip(names, head, strict=True)) | claims.judge(*rest) for *head, rest in found]
    columns = [*names, *claims.COLUMNS[5:8], "Seeds", "Verdict"]
    text = (
        "What C1, C2 and C3 rest on, one choice changed at a time; rule and interval as in Table 5."
    )
    return s.table(pd.DataFrame(rows, columns=columns), columns, text, ["Claim", "Architecture"])
