"""What follows where fairness-gaps are set by hand: does the gap cause vulnerability?"""

import pandas as pd

from unlearnkit.report.frames import ATTACKED
from unlearnkit.report.stats import MISSING, interval, mean_std
from unlearnkit.report.study import Study

# What is shown as a change in %, and what as a difference in percentage points
RATIOS = {"gap": "Gap (%)", "relative": "Relative gap (%)"}
POINTS = {"RA": "RA (points)", "TA": "TA (points)", "clean": "Clean (points)"}
POINTS["robust"] = "Robust (points)"
COLUMNS = ["Architecture", "Start", "Intervention", "Against", *RATIOS.values(), *POINTS.values()]
COLUMNS += ["Minimal distance (%)", "Low", "High", "Largest change of a logit", "Seeds"]
MODEL = ["architecture", "method"]


def interventions(s: Study) -> pd.DataFrame:
    """Return how each intervention changes the models, over seeds: no rows if there were none.

    Each is compared with the model of its seed that it starts from, but those fine-tuned under a
    penalty with the one fine-tuned alike without. Minimal distances are paired by image, over those
    that both models get right when clean: the median of their ratio knows no clean accuracy.
    """
    if (made := s.interventions) is None:
        return s.table([], COLUMNS)
    models, rows = dict(list(_numbers(made).groupby(MODEL))), []
    for (architecture, method), own in sorted(models.items(), key=lambda item: _rank(*item[0])):
        start, kind, value = _parts(method)
        against = f"{start}~penalty~0" if kind == "penalty" and value else start
        if method == against or (architecture, against) not in models:
            continue
        own, other = (part.droplevel(MODEL) for part in (own, models[architecture, against]))
        own, other = own.align(other, join="inner", axis=0)  # the seeds of both
        ratio = 100 * (own / other - 1)
        near = ratio.filter(like="image ").where((own > 0) & (other > 0)).median(axis=1)
        error = own["logit_error"].max()
        rows.append(
            (
                *(s.title(name) for name in (architecture, start)),
                *(_name(method) for method in (method, against)),
                *(mean_std(ratio[name]) for name in RATIOS),
                *(mean_std(own[name] - other[name]) for name in POINTS),
                *(mean_std(near), *interval(near)),
                MISSING if pd.isna(error) else f"{error:.1e}",
                len(own),
            )
        )
    text = (
        "Models with fairness-gaps set by hand, against those that differ in that alone: change of "
        "gap and relative gap (means over layers), RA and TA, accuracies when clean and under "
        f"{s.title(s.attack)} (mean over ε > 0) on the attacked test images, and minimal "
        "adversarial distance (median over images that both get right when clean; with 95 % "
        "Student t interval); mean ± std over seeds."
    )
    return s.table(rows, COLUMNS, text, ["Architecture", "Start"])


def _numbers(s: Study) -> pd.DataFrame:
    """Return one row for each model: its numbers, and ``image 0``, ...: its distances."""
    keys = [*MODEL, "seed"]
    table = s.rows("gap", reading="std").groupby(keys)[list(RATIOS)].mean()
    robust = s.rows("robust", attack=s.attack, **ATTACKED).set_index(keys)
    table["clean"] = robust["accuracy"][robust["epsilon"] == 0]
    table["robust"] = robust["accuracy"][robust["epsilon"] > 0].groupby(keys).mean()
    for name in ("RA", "TA"):
        table[name] = s.rows("quality", metric=name).set_index(keys)["value"]
    errors = {
        tuple(vars(record.cell)[key] for key in keys): record.stages[0]["value"].get("logit_error")
        for record in s.results.records
    }
    table["logit_error"] = pd.Series(errors, dtype=float)
    # What was not broken lies further than any pixel can move.
    near = s.distance.assign(distance=s.distance["distance"].clip(upper=1))
    return table.join(
        near.pivot(index=keys, columns="image", values="distance").add_prefix("image ")
    )


def _parts(method: str) -> tuple[str, str, float]:
    """Return what a model starts from, the intervention, '' for none, and its factor or weight."""
    start, kind, value = [*method.split("~"), "", "0"][:3]
    return start, kind, float(value)


def _rank(architecture: str, method: str) -> tuple:
    start, kind, value = _parts(method)
    return architecture, start != "original", start, kind != "rescaled", value


def _name(method: str) -> str:
    _, kind, value = _parts(method)
    plain = "fine-tuned" if kind == "penalty" else "unchanged"
    return f"{kind} × {value:.3g}" if value else plain
