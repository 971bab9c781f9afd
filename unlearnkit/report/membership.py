"""Do many models give away what they forgot? LiRA and KLOM beside the SVC, model by model."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from unlearnkit import membership
from unlearnkit.names import MEMBERSHIP
from unlearnkit.report.stats import interval, mean_std
from unlearnkit.report.study import NothingToDraw, Study, read_study
from unlearnkit.results import committed_folder

AGAIN = "retrain again"  # further retrained models, in the place of unlearned ones
FPR = 0.01
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


def numbers(s: Study, *, draws: int = 200) -> pd.DataFrame:
    """Return a row for each method, indexed by name, and `AGAIN`; `low` and `high` bound 95 %.

    LiRA's bounds are those of the models at hand: `AGAIN` shows how far chance moves an AUC.

    svc (%) and its difference to Retrain's, seed by seed (points, Student's t over models); auc,
    tpr and accuracy of LiRA in [0, 1] (bootstrap over models and images); klom, the median over
    images, in nats; auc_held_out and klom_held_out, the same of images that nobody trained on;
    auc_margin, of one threshold on the margins of all images: below 0.5 if Retrain's are larger.
    """
    p, rows = panel(s), {}
    for name in p.compared:
        away, sides = p.svc[name] - p.svc["retrain"], ratios(p.forgotten, name)
        row = {"svc": p.svc[name].mean(), "away": away.mean()}
        row["away_low"], row["away_high"] = interval(away)
        for what, score in (("auc", membership.auc), ("tpr", _tpr)):
            row[what] = float(score(*sides))
            how = {"seed": 0, "draws": draws}
            row[f"{what}_low"], row[f"{what}_high"] = membership.interval(score, *sides, **how)
        row["accuracy"] = membership.accuracy(*sides)
        row["auc_margin"] = membership.auc(p.forgotten[name], p.forgotten["retrain"])
        row["auc_held_out"] = membership.auc(*ratios(p.held_out, name))
        for what, images in (("klom", p.forgotten), ("klom_held_out", p.held_out)):
            row[what] = np.median(membership.klom(images[name], images["retrain"]))
        rows[name] = row
    return pd.DataFrame(rows).T


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
    for name, row in found.iterrows():
        rows.append(
            (
                title(s, name),
                f"{row.svc:.1f}",
                f"{row.away:+.1f} [{row.away_low:+.1f}, {row.away_high:+.1f}]",
                f"{row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}]",
                f"{100 * row.tpr:.1f} [{100 * row.tpr_low:.1f}, {100 * row.tpr_high:.1f}]",
                f"{row.auc_held_out:.3f}",
                f"{row.auc_margin:.3f}",
                f"{row.klom:.2f}",
                f"{row.klom_held_out:.2f}",
            )
        )
    text = (
        f"Membership by two attacks and a distance, over {len(own)} models of each kind. SVC: "
        "share of the forget set that it takes for images never trained on. LiRA: unlearned "
        "against retrained models, image by image, 0.5 is chance. KLOM: median over images, nats. "
        "Held out: the same of images that no model was trained on. Margin AUC: one threshold "
        "for all images, below 0.5 if unlearned models are less sure than retrained ones."
    )
    return s.table(rows, COLUMNS, text)


def finding(s: Study, found: pd.DataFrame) -> str:
    """Return what `numbers` say of where the two attacks disagree, in Markdown."""
    again, methods = found.loc[AGAIN], found.drop(index=[AGAIN, "original"])
    first = methods["auc"].idxmax()
    head = f"LiRA's AUC is highest for {title(s, first)}, {methods.loc[first, 'auc']:.2f} on what "
    head += f"was forgotten and {methods.loc[first, 'auc_held_out']:.2f} on images that nobody "
    head += f"trained on. {_svc(methods.loc[first])}. "
    seldom = methods.index[methods["tpr_low"] <= FPR]
    head += f"At {100 * FPR:g} % false alarms it is not shown to find {len(seldom)} of "
    head += f"{len(methods)} methods more often than chance."
    lines = [f"{title(s, name)}: {_lira(row)}. {_svc(row)}." for name, row in methods.iterrows()]
    lines.append(f"{title(s, AGAIN)}, one draw of chance: {_lira(again)}. {_svc(again)}.")
    return "\n* ".join([f"**{head}**\n", *lines])


def _svc(row: pd.Series) -> str:
    if row["away_low"] <= 0 <= row["away_high"]:
        return "The SVC sees no difference to Retrain"
    way = "more" if row["away"] > 0 else "less"
    return f"The SVC finds it {abs(row['away']):.1f} points {way} forgotten than Retrain"


def _lira(row: pd.Series) -> str:
    text = f"LiRA has AUC {row['auc']:.2f} [{row['auc_low']:.2f}, {row['auc_high']:.2f}]"
    text += f" on what it forgot and {row['auc_held_out']:.2f} on images that nobody trained on"
    return f"{text}, and finds {100 * row['tpr']:.1f} %"
