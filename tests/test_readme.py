"""README.md's blocks: filled from results, and committed as they are filled."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.files import project_folder
from unlearnkit.report import readme
from unlearnkit.report.tidy import COLUMNS

BLOCKS = ("figure", "main-table", "verdicts")
TEXT = "".join(
    f"before {name}\n<!-- results:{name} -->\nold {name}\n<!-- /results:{name} -->\nafter {name}\n"
    for name in BLOCKS
)
METHODS = {"retrain": 0.0, "cf": 1.0, "mine": 3.0}
REPORT = {"report": {"attack": "pgd"}}


class Settings(dict):
    name = "quick"


def invented(forgets=("random:0.1", "class:3"), seeds=(0, 1)):
    """Return a study in which method `mine` is worse than Retrain by 3 in everything."""
    found = {name: [] for name in COLUMNS}
    for forget in forgets:
        for method, off in METHODS.items():
            for seed in seeds:
                for scope in ("all", "last"):
                    off_here = off + (50 if scope == "last" or forget != forgets[0] else 0)
                    ident = ("small_vit", forget, method, scope, seed, 1.0)
                    _measure(found, ident, off_here)
    frames = {name: pd.DataFrame(rows, columns=COLUMNS[name]) for name, rows in found.items()}
    results = SimpleNamespace(machine={"device": "cpu: abacus", "workers": 2})
    about = {
        "name": "quick",
        "dataset": "digits",
        "stamp": "computed today at abc",
        "extent": "2 models",
        "hours": 1.25,
    }
    return SimpleNamespace(
        profile=Settings(REPORT), profile_name="quick", results=results, **about, **frames
    )


def _measure(found, ident, off):
    seed = ident[4]
    for metric in ("UA", "RA", "TA", "MIA"):
        found["quality"].append((*ident, metric, 10 + off + 2 * seed))
    found["cost"].append((*ident, 4.0 + off, 1e6, 2e6, 100))
    for layer in (1, 2):
        found["gap"].append((*ident, "std", layer, "norm", 0.1 * layer + off))
    for epsilon, lost in ((0.0, 0.0), (0.1, 20 + off), (0.2, 30 + off)):
        right = 90 - lost - seed * (epsilon > 0)
        found["robust"].append(
            (*ident, "pgd", epsilon, "test", "white-box", -1, 100, right),
        )


def block(text: str, name: str) -> str:
    return text.split(f"<!-- results:{name} -->")[1].split(f"<!-- /results:{name} -->")[0]


def test_the_committed_readme_shows_the_committed_results():
    text = (project_folder() / "README.md").read_text(encoding="utf-8")
    assert text == readme.update(text, readme.main_study()), "run `python -m unlearnkit readme`"


def test_the_readme_shows_figures_that_are_there():
    text = (project_folder() / "README.md").read_text(encoding="utf-8")
    study = readme.main_study()
    image = f"figures/{study.name}/fig1_fairness_gap.png"
    assert f"]({image})" in block(text, "figure")
    assert (project_folder() / image).exists()


def test_main_table_by_hand():
    table = readme.main_table(invented()).set_index("Method")
    assert list(table.index) == ["Retrain", "CF", "MINE"]
    mine = table.loc["MINE"]
    assert mine["Architecture"] == "SmallViT"
    assert str(mine["UA"]) == str(mine["TA"]) == "14.00 ± 1.41"
    assert str(mine["Avg. gap ↓"]) == "3.00 ± 0.00"
    assert mine["Drop ↓"].mean == pytest.approx(28.5), "20 and 30, 3 more, half a point for seed 1"
    assert mine["Excess (→ 0)"].mean == pytest.approx(3)
    assert mine["Fairness-gap"].mean == pytest.approx(3.15)
    assert str(mine["RTE (s) ↓"]) == "7.0 ± 0.0"
    assert table.loc["Retrain", "Excess (→ 0)"].mean == 0


def test_what_was_not_measured_is_a_dash():
    study = invented()
    study.robust = study.robust.iloc[:0]
    study.cost = study.cost.iloc[:0]
    row = readme.main_table(study).iloc[0]
    assert str(row["Drop ↓"]) == str(row["Excess (→ 0)"]) == str(row["RTE (s) ↓"]) == "–"
    assert str(row["UA"]) == "11.00 ± 1.41"


def test_blocks_are_filled_and_nothing_else_changes():
    text = readme.update(TEXT, invented())
    assert "old" not in text.replace("threshold", "")
    for name in BLOCKS:
        assert f"before {name}\n<!-- results:{name} -->\n" in text
        assert f"\n<!-- /results:{name} -->\nafter {name}\n" in text
    figure = " ".join(block(text, "figure").split())
    assert "(figures/quick/fig1_fairness_gap.png)" in figure
    for words in ("profile `quick` on digits", "10 % random", "n = 2 seeds (0, 1)"):
        assert words in figure
        assert words in " ".join(block(text, "main-table").split())
    assert "2 models, computed today at abc, in 1.2 hours (sweep aside)." in " ".join(text.split())
    assert "hollow" not in figure, "a transformer of two layers has no published curve"
    assert "Of digits, shapes can be compared" in figure
    assert not any(line.endswith("-") for line in text.splitlines())
    assert "| SmallViT | MINE | 14.00 ± 1.41 |" in block(text, "main-table")


def test_filling_twice_changes_nothing():
    once = readme.update(TEXT, invented(seeds=(0,)))
    assert readme.update(once, invented(seeds=(0,))) == once
    assert "n = 1 seed (0)" in once


def test_verdicts_are_a_line_a_key_measure_and_a_column_an_architecture(monkeypatch):
    table = pd.DataFrame(
        [
            ("C1", "yes", "SmallViT", "ρ", -0.5, -0.75, -0.251, 3, "supported"),
            ("C5", "yes", "ResNet50", "drop", 1.239, math.nan, math.nan, 1, "undecided"),
            ("C5", "no", "ResNet50", "gap", 1.0, 0.5, 1.5, 3, "undecided"),
            ("C5", "yes", "ResNet50", "average gap", 2.0, 1.9, 2.1, 2, "undecided"),
            ("C5", "yes", "SmallViT", "average gap", math.nan, math.nan, math.nan, 0, "undecided"),
            ("C5", "yes", "SmallViT", "drop", 3.0, 2.0, 4.0, 3, "not supported"),
        ],
        columns=[
            *("Claim", "Key", "Architecture", "Measured", "Value", "Low", "High", "Seeds"),
            "Verdict",
        ],
    )
    monkeypatch.setattr(readme, "table5", lambda study: table)
    shown = block(readme.update(TEXT, invented()), "verdicts")
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert lines[0] == "| Claim | Measured | SmallViT | ResNet50 |"
    assert lines[2:] == [
        "| C1 | ρ | -0.50 [-0.75, -0.25] **supported** | – |",
        "| C5 | drop | 3.00 [2.00, 4.00] **not supported** | 1.24 **undecided** |",
        "| C5 | average gap | – | 2.00 [1.90, 2.10] **undecided** |",
    ]
    assert "figures/quick/table5_verdicts.csv" in shown


def test_seeds_that_differ_are_told_apart():
    both = invented(seeds=(0, 1, 2))
    for name in COLUMNS:
        frame = getattr(both, name)
        other = frame[frame["seed"] < 2].assign(architecture="resnet50")
        setattr(both, name, pd.concat([frame, other]))
    words = " ".join(block(readme.update(TEXT, both), "main-table").split())
    assert "n = 2 seeds (0, 1) of ResNet50, n = 3 seeds (0, 1, 2) of SmallViT" in words
    lacking = both.quality["architecture"].eq("resnet50") & both.quality["method"].eq("cf")
    both.quality = both.quality[~(lacking & both.quality["seed"].eq(1))]
    words = " ".join(block(readme.update(TEXT, both), "main-table").split())
    assert "n = 1 to 2 seeds (0, 1) of ResNet50" in words


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    "change",
    [
        lambda text, start, end: text.replace(start, ""),
        lambda text, start, end: text.replace(end, ""),
        lambda text, start, end: text.replace(start, start + start),
        lambda text, start, end: text + end,
        lambda text, start, end: text.replace(start, "?").replace(end, start).replace("?", end),
    ],
    ids=["no start", "no end", "two starts", "two ends", "wrong way round"],
)
def test_markers_have_to_be_there_once(name, change):
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    with pytest.raises(UserError, match=f"README.md needs {start}"):
        readme.update(change(TEXT, start, end), invented())


def test_the_largest_committed_study_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "committed_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(readme, "read_study", lambda folder: folder.name)
    with pytest.raises(UserError, match="no results of paper, cifar10, quick"):
        readme.main_study()
    for name in ("quick", "cifar10", "paper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
        assert readme.main_study() == name


def test_the_command_rewrites_the_file(tmp_path, monkeypatch, capsys):
    study = invented()
    study.folder = tmp_path
    monkeypatch.setattr(readme, "project_folder", lambda: tmp_path)
    monkeypatch.setattr(readme, "main_study", lambda: study)
    assert main(["readme"]) == 2
    assert "cannot read" in capsys.readouterr().err
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert main(["readme"]) == 0
    assert path.read_text() == readme.update(TEXT, study)
    assert "computed today at abc" in capsys.readouterr().out
