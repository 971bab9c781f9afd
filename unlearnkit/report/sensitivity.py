"""Which verdicts turn with a choice of ours: of control, σ, aggregator, measure, attacker."""

import pandas as pd

from unlearnkit.names import ID, READINGS
from unlearnkit.report import claims
from unlearnkit.report.claims import (
    architectures,
    compared,
    judge,
    mean_over,
    models_of,
    places,
    rho,
)
from unlearnkit.report.frames import GAPS, marks
from unlearnkit.report.study import Study

VULNERABLE = {
    "lost": "share lost of the images right when clean",
    "near": "minimal distance, its sign turned",
}
SAID = {"models": ", marked models too", "attacker": ", images made on the original"}


def sensitivity(s: Study, *, attack: str | None = None) -> pd.DataFrame:
    """Return what C1, C2 and C3 rest on under other choices, one changed at a time.

    Claim, Architecture, Choice (what is changed: reading of σ, aggregator over layers, control,
    measure, models, attacker), Taken, and Unit, Value, Low, High, Seeds, Verdict of `judge`. The
    first row of each claim is Table 5's.
    """
    attack, found = attack or s.attack, []
    everything = {name: models_of(s, reading=name, attack=attack) for name in READINGS}
    everything = {name: part[part["progress"] > 0] for name, part in everything.items()}
    usual = everything["std"].assign(near=-everything["std"]["distance"])
    usual["lost"] = 100 - usual["kept"]
    carried = models_of(s, attack=attack, access="transfer")
    marked = pd.MultiIndex.from_frame(marks(s).query("mark != ''")[ID])
    clear = usual[~pd.MultiIndex.from_frame(usual[ID]).isin(marked)]
    gaps = {"reading": {name: (part, "gap_mean") for name, part in everything.items()}}
    gaps["aggregator"] = {name.removeprefix("gap_"): (usual, name) for name in GAPS[1:]}
    for choice, options in gaps.items():
        for taken, (models, gap) in options.items():
            original = models[models["method"] == "original"].dropna(subset=[gap])
            for name, part in architectures(s, original):
                if part["progress"].nunique() > 1:
                    values = rho(part, gap, "accuracy")
                    found.append(("C1", name, choice, taken, "ρ", (values, *claims.FALLS)))
    options = [(c, t, m, g, "drop", ["clean"]) for c, o in gaps.items() for t, (m, g) in o.items()]
    options += [
        ("control", " and ".join(control) or "none", usual, "gap_mean", "drop", control)
        for control in ([], ["accuracy"], ["clean", "RA"])
    ]
    options += [
        ("measure", said, usual, "gap_mean", column, ["clean"])
        for column, said in VULNERABLE.items()
    ]
    options += [("models", "those without a mark", clear, "gap_mean", "drop", ["clean"])]
    options += [("attacker", "holds the original", carried, "gap_mean", "drop", ["clean"])]
    for choice, taken, models, gap, hurt, control in options:
        for name, part in architectures(s, models.dropna(subset=[gap, hurt])):
            values = rho(part, gap, hurt, *control)
            found.append(("C2", name, choice, taken, "ρ", (values, *claims.RISES)))
    asked = [("measure", "white-box", True), ("models", "white-box", False)]
    for choice, access, unmarked in [*asked, ("attacker", "transfer", True)]:
        for name, words, part in places(s, compared(s, attack, access)):
            for column, (text, unit, rule) in claims.COMPARED.items():
                values = mean_over(part, column, unmarked)
                if len(values) and not (access == "transfer" and column == "nearer"):
                    taken = f"{text.format(attack=s.title(attack))}{words}{SAID.get(choice, '')}"
                    found.append(("C3", name, choice, taken, unit, (values, *rule)))
    names = ["Claim", "Architecture", "Choice", "Taken", "Unit"]
    rows = [dict(zip(names, head, strict=True)) | judge(*rest) for *head, rest in found]
    table = pd.DataFrame(rows, columns=[*names, *claims.COLUMNS[5:8], "Seeds", "Verdict"])
    text = "What C1, C2 and C3 rest on, one choice changed at a time; rule and interval as in "
    return s.table(table, list(table), f"{text}Table 5.", ["Claim", "Architecture"])
