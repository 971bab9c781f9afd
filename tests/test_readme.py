"""README.md's blocks: filled from results, and committed as they are filled."""

import math

import pandas as pd
import pytest
from helpers_report import changed, invented, model

from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.files import project_folder
from unlearnkit.report import readme

BLOCKS = ("figure", "main-table", "verdicts")
TEXT = "".join(
    f"before {name}\n<!-- results:{name} -->\nold {name}\n<!-- /results:{name} -->\nafter {name}\n"
    for name in BLOCKS
)


def numbers(method, seed, off, **cell):
    """Return a model that is worse by `off` in everything."""
    losses = {0: 0.0, 1: 20 + off + seed, 2: 30 + off + seed}
    return model(
        method,
        seed,
        quality=dict.fromkeys(("UA", "RA", "TA", "MIA"), 10 + off + 2 * seed),
        gap={"std": [0.1 + off, 0.2 + off]},
        robust={"pgd": {epsilon: 90 - lost for epsilon, lost in losses.items()}},
        seconds=4.0 + off,
        memory=1e6,
        **cell,
    )


def models(seeds=(0, 1)):
    """Return models of which `mine` is worse than Retrain by 3, and what is not shown by 50."""
    shown = [
        numbers(method, seed, off)
        for method, off in {"retrain": 0.0, "cf": 1.0, "mine": 3.0}.items()
        for seed in seeds
    ]
    elsewhere = ({"scope": "last"}, {"forget": "class:3"})
    return shown + [numbers("cf", seed, 50.0, **cell) for cell in elsewhere for seed in seeds]


def block(text: str, name: str) -> str:
    """Return a block's text on one line."""
    inside = text.split(f"<!-- results:{name} -->")[1].split(f"<!-- /results:{name} -->")[0]
    return " ".join(inside.split())


def test_the_committed_readme_shows_the_committed_results():
    text, study = (project_folder() / "README.md").read_text("utf-8"), readme.main_study()
    assert text == readme.update(text, study), "run `python -m unlearnkit readme`"
    image = f"figures/{study.name}/fig1_fairness_gap.png"
    assert f"]({image})" in block(text, "figure")
    assert (project_folder() / image).exists()


def test_main_table_by_hand():
    table = readme.main_table(invented(models())).set_index("Method")
    assert list(table.index) == ["Retrain", "CF", "MINE"]
    mine = table.loc["MINE"]
    assert mine["Architecture"] == "SmallViT"
    assert str(mine["UA"]) == str(mine["TA"]) == "14.00 ± 1.41"
    assert str(mine["Avg. gap ↓"]) == "3.00 ± 0.00"
    assert mine["Drop ↓"].mean == pytest.approx(28.5), "20 and 30, 3 more, one for seed 1"
    assert mine["Excess (→ 0)"].mean == pytest.approx(3)
    assert mine["Fairness-gap"].mean == pytest.approx(3.15)
    assert str(mine["RTE (s) ↓"]) == "7.0 ± 0.0"
    assert table.loc["Retrain", "Excess (→ 0)"].mean == 0


def test_what_was_not_measured_is_a_dash():
    s = invented([model("retrain", seed, quality={"UA": 1.0}) for seed in (0, 1)])
    row = readme.main_table(s).iloc[0]
    assert str(row["Drop ↓"]) == str(row["Excess (→ 0)"]) == str(row["RTE (s) ↓"]) == "–"
    assert str(row["UA"]) == "1.00 ± 0.00"


def test_blocks_are_filled_and_nothing_else_changes():
    s = invented(models())
    text = readme.update(TEXT, s)
    assert "old" not in text.replace("threshold", "")
    for name in BLOCKS:
        assert f"before {name}\n<!-- results:{name} -->\n" in text
        assert f"\n<!-- /results:{name} -->\nafter {name}\n" in text
    figure, table = block(text, "figure"), block(text, "main-table")
    assert "(figures/quick/fig1_fairness_gap.png)" in figure
    for words in ("profile `quick` on digits", "10 % random", "n = 2 seeds (0, 1)"):
        assert words in figure and words in table
    assert "10 models, computed on 2025-01-01 at abc, in 0.0 hours (sweep aside)." in table
    assert "published" not in figure, "a transformer of two layers has no published curve"
    assert "Of digits, shapes can be compared" in figure
    assert not any(line.endswith("-") for line in text.splitlines())
    assert "| SmallViT | MINE | 14.00 ± 1.41 |" in table
    assert readme.update(text, s) == text


def test_published_values_and_names_in_the_text():
    curve = numbers("retrain", 0, 0.0)
    nine = [model("retrain", gap={"std": [0.1] * 9}, quality={"UA": 1.0})]
    figure = block(readme.update(TEXT, invented(nine, dataset="CIFAR-10")), "figure")
    assert "; lower row: the values published." in figure
    assert "shapes can be compared" not in figure
    s = invented([changed(curve, forget="class:<b>")], dataset="<script>[x](y)")
    text = readme.update(TEXT, s)
    assert r"class \<b>" in text and r"on \<script>[x\](y), forget set" in " ".join(text.split())
    assert "<script" not in text.replace(r"\<", "")


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
        columns=readme.table5(invented([])).columns[:9],
    )
    monkeypatch.setattr(readme, "table5", lambda study: table)
    text = readme.update(TEXT, invented(models())).split("results:verdicts")[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| Claim | Measured | SmallViT | ResNet50 |"
    assert lines[2:] == [
        "| C1 | ρ | -0.50 [-0.75, -0.25] **supported** | – |",
        "| C5 | drop | 3.00 [2.00, 4.00] **not supported** | 1.24 **undecided** |",
        "| C5 | average gap | – | 2.00 [1.90, 2.10] **undecided** |",
    ]
    assert "figures/quick/table5_verdicts.csv" in text


def test_seeds_that_differ_are_told_apart():
    both = models(seeds=(0, 1, 2))
    both += [changed(one, architecture="resnet50") for one in models(seeds=(0, 1))]
    words = block(readme.update(TEXT, invented(both)), "main-table")
    assert "n = 2 seeds (0, 1) of ResNet50, n = 3 seeds (0, 1, 2) of SmallViT" in words
    lost = ("resnet50", "cf", 1)
    cells = ((one, one[0].cell) for one in both)
    part = [one for one, cell in cells if (cell.architecture, cell.method, cell.seed) != lost]
    words = block(readme.update(TEXT, invented(part)), "main-table")
    assert "n = 1 to 2 seeds (0, 1) of ResNet50" in words
    assert "n = 1 seed (0)" in readme.update(TEXT, invented(models(seeds=(0,))))


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
        readme.update(change(TEXT, start, end), invented(models()))


def test_the_command_fills_the_file_from_the_largest_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(readme, "project_folder", lambda: tmp_path)
    monkeypatch.setattr(readme, "committed_folder", lambda name: tmp_path / "results" / name)
    with pytest.raises(UserError, match="no results of paper, cifar10, quick"):
        readme.main_study()
    for name in ("quick", "cifar10"):
        invented(models(), folder=tmp_path / "results" / name)
        assert readme.main_study().name == name
    assert main(["readme"]) == 2
    assert "cannot read" in capsys.readouterr().err
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert main(["readme"]) == 0
    assert path.read_text() == readme.update(TEXT, readme.main_study())
    assert "results/cifar10 (computed on 2025-01-01 at abc)" in capsys.readouterr().out
