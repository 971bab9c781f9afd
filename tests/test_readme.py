"""README.md and docs/: blocks filled from results, plain English, links that lead somewhere."""

import math
import re

import pandas as pd
import pytest
from helpers_report import changed, invented, model

from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.files import project_folder
from unlearnkit.report import readme
from unlearnkit.report.claims import COLUMNS

ROOT = project_folder()
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EACH = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
HOME, RESULTS = readme.PAGES
BLOCKS = [(page, name) for page, names in readme.PAGES.items() for name in names]
TEXT = {
    page: "".join(
        f"before {name}\n<!-- results:{name} -->\nold {name}\n"
        f"<!-- /results:{name} -->\nafter {name}\n"
        for name in names
    )
    for page, names in readme.PAGES.items()
}


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


def filled(models, page=HOME, **study):
    return readme.update(TEXT[page], invented(models, **study), page)


def prose(text: str) -> str:
    """Return a page's text without code, tables, comments, directives and addresses."""
    text = re.sub(
        r"```.*?```|<!--.*?-->|^(    |\||:).*?$", "", text, flags=re.DOTALL | re.MULTILINE
    )
    return re.sub(r"`[^`]+`|\]\([^)]*\)", "", text)


@pytest.mark.parametrize("page", readme.PAGES)
def test_committed_pages_show_the_committed_results(page):
    text, study = (ROOT / page).read_text("utf-8"), readme.main_study()
    assert text == readme.update(text, study, page), "run `python -m unlearnkit readme`"


def test_the_readme_is_short_and_says_at_first_use_what_abbreviations_mean():
    text = (ROOT / HOME).read_text("utf-8")
    assert len(text.split()) <= 1000
    for name in ("CF", "RL", "BS", "SalUn", "SCRUB", "UA", "RA", "TA", "MIA"):
        assert re.search(rf"\b{name}\b.{{2,4}}", text)[0].endswith("** ("), name
    assert prose(TEXT[HOME] + "a: `b:` [c](d:e)\n    f:\n| g: |").count(":") == 1


@EACH
def test_pages_are_in_short_sentences_and_their_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    words = prose(text)
    assert len(re.findall("[:;]", words)) <= len(words.split()) / 50
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_main_table_by_hand():
    table = readme.main_table(invented(models())).set_index("Method")
    assert list(table.index) == ["Retrain", "CF", "MINE"]
    mine = table.loc["MINE"]
    assert mine["Architecture"] == "SmallViT"
    assert str(mine["UA"]) == str(mine["TA"]) == "14.0 ± 1.4"
    assert str(mine["Avg. gap ↓"]) == "3.0 ± 0.0"
    assert mine["Drop ↓"].mean == pytest.approx(28.5), "20 and 30, 3 more, one for seed 1"
    assert mine["Excess (→ 0)"].mean == pytest.approx(3)
    assert mine["Fairness-gap"].mean == pytest.approx(3.15)
    assert str(mine["RTE (s) ↓"]) == "7.0 ± 0.0"
    assert table.loc["Retrain", "Excess (→ 0)"].mean == 0


def test_what_was_not_measured_is_a_dash():
    s = invented([model("retrain", seed, quality={"UA": 1.0}) for seed in (0, 1)])
    row = readme.main_table(s).iloc[0]
    assert str(row["Drop ↓"]) == str(row["Excess (→ 0)"]) == str(row["RTE (s) ↓"]) == "–"
    assert str(row["UA"]) == "1.0 ± 0.0"


def test_blocks_are_filled_and_nothing_else_changes():
    home, results = (filled(models(), page) for page in readme.PAGES)
    for page, name in BLOCKS:
        text = filled(models(), page)
        assert f"old {name}" not in text
        assert f"before {name}\n<!-- results:{name} -->\n" in text
        assert f"\n<!-- /results:{name} -->\nafter {name}\n" in text
        assert not any(line.endswith("-") for line in text.splitlines())
        assert readme.update(text, invented(models()), page) == text
    figure, table = block(home, "figure"), block(results, "main-table")
    assert "(figures/quick/fig5_verdicts.png)" in figure
    for words in ("profile `quick` on digits", "10 % random", "n = 2 seeds (0, 1)"):
        assert words in figure and words in table
    assert "10 models, computed on 2025-01-01 at abc, in 0.0 hours (sweep aside)." in table
    assert "| MINE | 14.0 ± 1.4 |" in table


def test_names_in_the_text():
    text = filled(
        [changed(numbers("retrain", 0, 0.0), forget="class:<b>")], dataset="<script>[x](y)"
    )
    assert r"class \<b>" in text and r"on \<script>[x\](y), forget set" in " ".join(text.split())
    assert "<script" not in text.replace(r"\<", "")


def test_the_main_caveat_counts_seeds_accuracy_and_marked_models():
    quality = {"TA": 70.0, "UA": 0.0, "RA": 99.0}
    text = [model("original", quality=quality), model("retrain", quality={**quality, "UA": 10.0})]
    text += [model(name, quality={**quality, "RA": ra}) for name, ra in (("cf", 90), ("rl", 99))]
    said = block(filled(text), "findings")
    assert "1 seed, and on originals whose test accuracy is 70 % (SmallViT)." in said
    assert "Of 2 models unlearned over all layers, 1 are damaged and 1 did not unlearn." in said


def test_verdicts_are_a_line_a_key_measure_and_a_column_an_architecture(monkeypatch):
    table = pd.DataFrame(
        [
            ("C1", "yes", "SmallViT", "ρ", -0.5, -0.75, -0.251, 3, "supported"),
            ("C5", "yes", "ResNet-50", "drop", 1.239, math.nan, math.nan, 1, "undecided"),
            ("C5", "no", "ResNet-50", "gap", 1.0, 0.5, 1.5, 3, "undecided"),
            ("C5", "yes", "ResNet-50", "average gap", 2.0, 1.9, 2.1, 2, "undecided"),
            ("C5", "yes", "SmallViT", "average gap", math.nan, math.nan, math.nan, 0, "undecided"),
            ("C5", "yes", "SmallViT", "drop", 3.0, 2.0, 4.0, 3, "contradicted"),
        ],
        columns=[*COLUMNS[:4], *COLUMNS[5:8], "Seeds", "Verdict"],
    )
    monkeypatch.setattr(readme, "table5", lambda study: table)
    text = filled(models(), RESULTS).split("results:verdicts")[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| Claim | Measured | SmallViT | ResNet-50 |"
    assert lines[2:] == [
        "| C1 | ρ | −0.50 [−0.75, −0.25] **supported** | – |",
        "| C5 | drop | 3.00 [2.00, 4.00] **contradicted** | 1.24 **undecided** |",
        "| C5 | average gap | – | 2.00 [1.90, 2.10] **undecided** |",
    ]
    assert "figures/quick/table5_verdicts.csv" in text


def test_fewer_seeds_of_some_models_are_told():
    some = [*models(seeds=(0, 1)), numbers("retrain", 2, 0.0)]
    assert "n = 2 to 3 seeds (0, 1, 2)" in block(filled(some, RESULTS), "main-table")
    apart = [
        *models(seeds=(0,)),
        *(changed(m, architecture="resnet50") for m in models(seeds=(1,))),
    ]
    assert "n = 1 seeds (0, 1)" in block(filled(apart, RESULTS), "main-table")
    assert "n = 1 seed (0)" in filled(models(seeds=(0,)))


@pytest.mark.parametrize(("page", "name"), BLOCKS)
def test_markers_have_to_be_there_once(page, name):
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    text, turned = TEXT[page], TEXT[page].replace(start, "?").replace(end, start).replace("?", end)
    for wrong in (text.replace(start, ""), text.replace(end, ""), start + text, text + end, turned):
        with pytest.raises(UserError, match=f"{page} needs {start}"):
            readme.update(wrong, invented([]), page)


def test_the_command_fills_the_pages_from_the_largest_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(readme, "project_folder", lambda: tmp_path)
    monkeypatch.setattr(readme, "committed_folder", lambda name: tmp_path / "results" / name)
    with pytest.raises(UserError, match="no results of paper, cifar10, quick"):
        readme.main_study()
    for name in ("quick", "cifar10"):
        invented(models(), folder=tmp_path / "results" / name)
        assert readme.main_study().name == name
    assert main(["readme"]) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    for page, text in TEXT.items():
        (tmp_path / page).write_text(text)
    assert main(["readme"]) == 0
    for page, text in TEXT.items():
        assert (tmp_path / page).read_text() == readme.update(text, readme.main_study(), page)
    assert "results/cifar10 (computed on 2025-01-01 at abc)" in capsys.readouterr().out
