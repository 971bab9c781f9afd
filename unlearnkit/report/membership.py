"""Do many models give away what they forgot? LiRA and KLOM beside the SVC, model by model."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from unlearnkit import membership
from unlearnkit.names import MEMBERSHIP
from unlearnkit.report.seen import listed
from unlearnkit.report.stats import interval, mean_std
from unlearnkit.report.study import NothingToDraw, Study, read_study
from unlearnkit.results import committed_folder

AGAIN = "retrain again"  # further retrained models, in the place of unlearned ones
FPR = 0.01
SPLITS = 20  # of all retrained models into two halves, to see what chance does
COLUMNS = ["Method", "SVC (%)", "SVC − Retrain's (points)", "LiRA AUC"]
COLUMNS += ["LiRA TPR at 1 % FPR (%)", "LiRA AUC, held out", "Margin AUC"]
COLUMNS += ["KLOM, forgotten", "KLOM, held out"]


class Panel(NamedTuple):
    """Of the models of each method, in one order of seeds: their margins, and the SVC's scores."""

    forgotten: dict[str, np.ndarray]  # [models, images]
    held_out: dict[str, np.ndarray]  # of images that no model was trained on
    svc: dict[str, np.ndarray]  # [models], in %

    @property
    def compared(self) -> list[str]:
        """What is compared with Retrain: the original, the methods, and Retrain again."""
        return [name for name in self.svc if name != "retrain"]


def load(profile: str = "quick-lira") -> Study:
    """Return what `python -m unlearnkit lira` computed of a profile, as it is committed."""
    return read_study(committed_folder(profile) / MEMBERSHIP)


def panel(s: Study) -> Panel:
    """Return the panel of the study's first architecture, of those seeds that are whole."""
    count, found = s.profile["lira"]["models"], {}
    for record in s.results.records:
        cell = record.cell
        if cell.architecture == s.architectures[0]:
            name = AGAIN if cell.seed >= count else cell.method
            stages = {stage["stage"]: stage["value"] for stage in record.stages}
            found[name, cell.seed % count] = stages["margins"]["margins"], stages["quality"]["MIA"]
    names = [*s.methods, AGAIN]
    seeds = [n for n in range(count) if all((name, n) in found for name in names)]
    if len(seeds) < 3:
        raise NothingToDraw(f"{len(seeds)} seeds are whole; expected 3 or more")

    def rows(name: str, images: str) -> np.ndarray:
        return np.array([found[name, seed][0][images] for seed in seeds])

    parts = [{name: rows(name, of) for name in names} for of in ("forget", "validation")]
    return Panel(*parts, {name: np.array([found[name, n][1] for n in seeds]) for name in names})


def splits(p: Panel) -> list[Panel]:
    """Return `SPLITS` panels of retrained models alone, split at random in "retrain" and `AGAIN`.

    Nothing tells the two halves apart, so what an attack makes of them is chance.
    """
    generator, count = np.random.default_rng(0), len(p.svc["retrain"])

    def part(found: dict[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
        pool = np.concatenate([found["retrain"], found[AGAIN]])[order]
        return {"retrain": pool[:count], AGAIN: pool[count:]}

    orders = [generator.permutation(2 * count) for _ in range(SPLITS)]
    return [Panel(*(part(found, order) for found in p)) for order in orders]


def numbers(s: Study, *, draws: int = 200) -> pd.DataFrame:
    """Return a row for each method, indexed by name, and `AGAIN`; `low` and `high` bound 95 %.

    svc (%) and away, its difference to Retrain's, seed by seed (points, Student's t over models);
    auc, tpr and accuracy of LiRA in [0, 1] (bootstrap over models and images); klom, the median
    over images, in nats; auc_held_out and klom_held_out, the same of images that nobody trained
    on; auc_margin, of one threshold on the margins of all images: below 0.5 if Retrain's are
    larger. `AGAIN` is chance, the mean over `splits`, and its `low` and `high` are their range.
    """
    p, rows = panel(s), {}
    for name in p.compared:
        rows[name], sides = _scores(p, name), ratios(p.forgotten, name)
        bounds = {"away": interval(p.svc[name] - p.svc["retrain"])}
        for what, score in (("auc", membership.auc), ("tpr", _tpr)):
            bounds[what] = membership.interval(score, *sides, seed=0, draws=draws)
        for what, (low, high) in bounds.items():
            rows[name] |= {f"{what}_low": low, f"{what}_high": high}
    again = pd.DataFrame([_scores(half, AGAIN) for half in splits(p)])
    ends = again.min().add_suffix("_low"), again.max().add_suffix("_high")
    rows[AGAIN] = pd.concat([again.mean(), *ends]).to_dict()
    return pd.DataFrame(rows).T


def _scores(p: Panel, name: str) -> dict[str, float]:
    sides, own = ratios(p.forgotten, name), p.svc[name].mean()
    return {
        "svc": own,
        "away": own - p.svc["retrain"].mean(),
        "auc": membership.auc(*sides),
        "tpr": _tpr(*sides),
        "accuracy": membership.accuracy(*sides),
        "auc_margin": membership.auc(p.forgotten[name], p.forgotten["retrain"]),
        "auc_held_out": membership.auc(*ratios(p.held_out, name)),
        "klom": np.median(membership.klom(p.forgotten[name], p.forgotten["retrain"])),
        "klom_held_out": np.median(membership.klom(p.held_out[name], p.held_out["retrain"])),
    }


def ratios(margins: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return `membership.lira` of a method's models and the retrained ones."""
    return membership.lira(margins[name], margins["retrain"])


def _tpr(positives: np.ndarray, negatives: np.ndarray) -> float:
    return float(membership.tpr_at(FPR, positives, negatives))


def title(s: Study, name: str) -> str:
    """Return what a method is called; further retrained models are Retrain, again."""
    return f"{s.title('retrain')}, again" if name == AGAIN else s.title(name)


def table(s: Study, found: pd.DataFrame) -> pd.DataFrame:
    """Return `numbers` as a table, with Retrain's own score of the SVC first."""
    own = panel(s).svc["retrain"]
    rows = [(s.title("retrain"), str(mean_std(own, 1)), *["–"] * (len(COLUMNS) - 2))]
    forms = {"svc": ".1f", "away": "+.1f", "auc": ".3f", "tpr": ".1%", "auc_held_out": ".3f"}
    forms |= {"auc_margin": ".3f", "klom": ".2f", "klom_held_out": ".2f"}
    for name, row in found.iterrows():
        called = title(s, name) + f" (range of {SPLITS} splits)" * (name == AGAIN)
        rows.append((called, *(_cell(row, what, form) for what, form in forms.items())))
    text = (
        f"Membership by two attacks and a distance, over {len(own)} models of each kind. SVC: "
        "share of the forget set that it takes for images never trained on. LiRA: unlearned "
        "against retrained models, image by image, 0.5 is chance. KLOM: median over images, nats. "
        "Held out: the same of images that no model was trained on. Margin AUC: one threshold "
        "for all images, below 0.5 if unlearned models are less sure than retrained ones. "
        f"Retrain, again: mean [smallest, largest] of {SPLITS} random splits of all retrained "
        "models into two halves, which is chance."
    )
    return s.table(rows, COLUMNS, text)


def _cell(row: pd.Series, what: str, form: str) -> str:
    values = row.reindex([what, f"{what}_low", f"{what}_high"])
    value, *ends = (format(x, form).rstrip("%") for x in values)
    return value if values.isna().any() else f"{value} [{', '.join(ends)}]"


def finding(s: Study, found: pd.DataFrame) -> str:
    """Return what `numbers` say of where the two attacks disagree, in Markdown."""
    again, methods = found.loc[AGAIN], found.drop(index=[AGAIN, "original"])

    def named(chosen: pd.Series) -> str:
        return listed([title(s, name) for name in methods.index[chosen]] or ["no method"])

    above = {what: methods[what] > again[f"{what}_high"] for what in ("auc", "auc_held_out", "tpr")}
    head = "LiRA's AUC on forgotten images is above the range of chance for "
    head += f"{named(above['auc'])}. On images that nobody trained on it is so for "
    head += f"{named(above['auc_held_out'])}. At {100 * FPR:g} % false alarms LiRA is not shown "
    head += f"to find {named(~above['tpr'])}."
    lines = [
        f"{title(s, name)}: LiRA has AUC {row['auc']:.2f} on what it forgot and "
        f"{row['auc_held_out']:.2f} on images that nobody trained on, and at {100 * FPR:g} % false "
        f"alarms {_found(row, again)}. {_svc(row, again)}."
        for name, row in methods.iterrows()
    ]
    lines.append(
        f"{title(s, AGAIN)}, the range of chance: AUC {again['auc_low']:.2f} to "
        f"{again['auc_high']:.2f} and {again['auc_held_out_low']:.2f} to "
        f"{again['auc_held_out_high']:.2f}, {100 * again['tpr_low']:.1f} to "
        f"{100 * again['tpr_high']:.1f} % at {100 * FPR:g} % false alarms, and SVC "
        f"{again['away_low']:+.1f} to {again['away_high']:+.1f} points.".replace("-", "−")
    )
    return "\n* ".join([f"**{head}**\n", *lines])


def _found(row: pd.Series, again: pd.Series) -> str:
    share = f"{100 * row['tpr']:.1f} %"
    return (
        f"finds {share}" if row["tpr"] > again["tpr_high"] else f"is not shown to find it ({share})"
    )


def _svc(row: pd.Series, again: pd.Series) -> str:
    if again["away_low"] <= row["away"] <= again["away_high"]:
        return "The SVC sees no more difference to Retrain than chance makes"
    way = "more" if row["away"] > 0 else "less"
    return f"The SVC finds it {abs(row['away']):.1f} points {way} forgotten than Retrain"
