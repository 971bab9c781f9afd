"""A study's frames, tables and files: numbers by hand, names that would break a page, no data."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers_report import EPSILONS, few, invented, model, realistic

from unlearnkit.errors import UserError
from unlearnkit.files import project_folder
from unlearnkit.names import ID, READINGS, forget_title
from unlearnkit.report import NothingToDraw, display, publish, publish_all, tables
from unlearnkit.report import study as studies
from unlearnkit.report.frames import over_seeds, summaries
from unlearnkit.report.publish import FIGURES, TABLES
from unlearnkit.report.stats import Spread
from unlearnkit.report.tidy import COLUMNS, arranged


@pytest.fixture(scope="module")
def study():
    return invented(realistic())


def rows(table, **equal):
    return table[table[list(equal)].eq(equal).all(axis=1)]


def test_titles_colours_and_order_come_from_the_results_alone():
    titled = [{"name": name, "title": name.title(), "color": "#123456"} for name in ("b", "a")]
    models = [model(name, forget=sets) for name in ("a", "mine", "b") for sets in ("z", "y")]
    s = invented(models, methods=[*titled, {"name": "gone", "title": "Gone", "color": ""}])
    assert (s.methods, s.title("b"), s.title("mine")) == (["b", "a", "mine"], "B", "mine")
    assert s.colors == {"b": "#123456", "a": "#123456", "gone": ""}
    assert (s.first_forget, s.order["forget"], s.architectures) == ("z", ["z", "y"], ["small_vit"])
    assert invented([]).first_forget == "" and s.measures == [], "older results have none"
    assert arranged(["b", "b", "a"], ["z", "a", "b", "z"]) == ["b", "a", "z"]


def test_a_study_is_the_same_in_memory_and_read_from_its_folder(tmp_path):
    more = {"log": {"hits": 0.5}, "distances": [0.0, 51.0, None]}
    moved = model("cf", 5, robust={"transfer/pgd": {0: 1}}, **more)
    models = [*few(checkpoints=()), moved]
    memory, read = invented(models), invented(models, folder=tmp_path / "results" / "quick")
    for name, columns in COLUMNS.items():
        mine, theirs = (getattr(s, name).sort_values(columns[:-1]) for s in (memory, read))
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), theirs.reset_index(drop=True))
        assert list(mine) == columns == list(getattr(invented([]), name))
        assert len(mine)
    assert read.distance["distance"].tolist() == [0, 0.2, np.inf]
    assert memory.provenance == read.provenance
    assert read.output == tmp_path / "figures" / "quick", "beside its results"
    assert "2025" not in json.dumps(read.provenance) and read.stamp.endswith("abc")


def test_rows_of_an_unknown_reading_are_refused(study):
    assert len(study.rows("gap", reading="std", method=["cf", "bs"])) == 2 * 2 * 4 * (57 + 9)
    assert study.rows("gap", reading="variance").empty
    for ask in (study.rows, lambda _, reading: summaries(study, reading=reading)):
        with pytest.raises(UserError, match=f"reading of σ 'st'; known: {', '.join(READINGS)}"):
            ask("gap", reading="st")


def test_load_study_computes_only_where_asked(tmp_path, monkeypatch):
    folder = tmp_path / "results" / "quick"
    invented([model("cf")], folder=folder)
    monkeypatch.setattr(studies.files, "committed_folder", lambda name: folder.with_name(name))
    assert len(studies.load_study("quick").results.records) == 1
    with pytest.raises(UserError, match="compute --profile no --dataset x` or set recompute"):
        studies.load_study("no", "x")
    asked = []
    monkeypatch.setattr("unlearnkit.study.load_profile", str.upper, raising=False)
    compute = lambda *which: asked.append(which) or folder  # noqa: E731
    monkeypatch.setattr("unlearnkit.study.run_study", compute, raising=False)
    assert studies.load_study("quick", "", recompute=True).folder == folder
    assert asked == [("QUICK", None)]


def test_drawing_loads_no_statistics_before_they_are_asked_for():
    code = "import unlearnkit.report.readme, sys; print(*sys.modules)"
    code += "; from unlearnkit.report import load_study; from unlearnkit.report.publish import *"
    code += "; FIGURES['fig2_robustness'](load_study())"  # with nothing else that loads figures
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "matplotlib", "seaborn", "scipy.stats"}.isdisjoint(out.stdout.split())


def test_tables_1_and_2_have_a_row_a_method_in_the_studys_order(study):
    table = tables.table2(study)  # its other numbers: test_recomputed
    assert " ".join(table["Method"].unique()) == "Original Retrain CF BS RL SCRUB SalUn GA"
    row = rows(table, Architecture="ResNet-50", Method="SalUn").iloc[0]
    where = {"architecture": "resnet50", "scope": "all", "progress": 1.0}
    seconds = study.rows("cost", method="salun", **where)["seconds"]
    assert str(row["RTE (s) ↓"]) == f"{seconds.mean():.1f} ± {seconds.std():.1f}"
    assert list(tables.table1(study)["Method"]) == ["Original", "Retrain"] * 2


def test_a_measure_of_ones_own_is_a_column_of_table_2():
    about = {"name": "confidence", "title": "Mean confidence (%)", "digits": 1}
    models = [model("cf", seed, measures={"confidence": 70.0 + seed}) for seed in (0, 1)]
    s = invented([*models, model("bs", quality={"UA": 1.0})], measures=[about])
    assert list(s.rows("quality", metric="confidence")["value"]) == [70.0, 71.0]
    shown = dict(tables.table2(s)[["Method", "Mean confidence (%)"]].astype(str).values)
    assert shown == {"CF": "70.5 ± 0.7", "BS": "–"}


def test_table3_drop_and_excess_by_hand(study):
    table = rows(tables.table3(study), Architecture="SmallViT", Attack="PGD")
    cells = table.set_index(["Method", "Quantity"])["ε = 2/255"].map(float)
    where = {"attack": "pgd", "class_index": -1, "architecture": "small_vit", "scope": "all"}
    robust = study.rows("robust", progress=1.0, **where)
    means = robust.groupby(["method", "epsilon"])["accuracy"].mean().unstack("method")
    drop = means.loc[0] - means.loc[2 / 255]
    wanted = means.loc[2 / 255, "scrub"], drop["scrub"], drop["scrub"] - drop["retrain"]
    assert cells["SCRUB"][list(tables.QUANTITIES.values())].tolist() == pytest.approx(wanted)
    assert cells["Retrain", "Excess over Retrain (→ 0)"] == 0
    moved = invented([model("cf", robust={"transfer/pgd": {0: 90, 4: 60}})])
    moved = tables.table3(moved, access="transfer")
    assert float(rows(moved, Quantity="Drop ↓")["ε = 4/255"].item()) == 30
    assert "transfer from the original model" in moved.attrs["caption"]


def test_table4_ratios_and_layers_by_hand(study):
    table = rows(tables.table4(study), Architecture="ResNet-50", Method="CF").set_index("Scope")
    assert list(table.index) == ["all", "first", "intermediate", "last"]
    cost = study.rows("cost", architecture="resnet50", method="cf")
    seconds = cost.pivot(index="seed", columns="scope", values="seconds")
    wanted = {"RTE / all ↓": (seconds["last"] / seconds["all"]).mean(), "Memory / all ↓": 0.35}
    for name, ratio in wanted.items():
        assert float(table.loc["last", name]) == pytest.approx(ratio)
        assert float(table.loc["all", name]) == 1
    gap = study.rows("gap", architecture="resnet50", method="cf", scope="first")
    for name in ("max", "last", "mean"):
        wanted = gap.groupby("seed")["gap"].agg(name).mean()
        assert float(table.loc["first", f"Fairness-gap {name}"]) == pytest.approx(wanted)


def test_the_drop_is_a_mean_over_the_epsilons_all_models_share():
    curve = {epsilon: 90.0 - 5 * epsilon for epsilon in EPSILONS}
    early = {epsilon: curve[epsilon] for epsilon in EPSILONS if epsilon <= 4}
    models = [model("cf", seed, quality={"TA": 1.0}, robust={"pgd": curve}) for seed in (0, 1)]
    models.append(model("original", robust={"pgd": early}, progress=0.5))
    table = summaries(invented(models))
    assert table.duplicated(ID).sum() == 0
    assert table["drop"].to_numpy() == pytest.approx(5 * np.mean([0.25, 0.5, 1, 2, 4]))
    assert summaries(invented(models), attack="fgsm")["drop"].isna().all()


def test_over_seeds_by_hand():
    table = over_seeds(pd.DataFrame({"m": list("aab"), "v": [1.0, 3.0, 5.0]}), ["m"], "v")
    assert table.iloc[0].tolist() == ["a", 2.0, 1.0, 3.0, pytest.approx(np.sqrt(2)), 2]
    assert table.loc[1, "n"] == 1 and np.isnan(table.loc[1, "std"])


def test_a_frame_is_made_once_for_its_options_and_copied():
    s = invented(few())
    first = summaries(s, attack="pgd")
    expected, first["drop"] = first.copy(), 0.0
    pd.testing.assert_frame_equal(summaries(s, attack="pgd"), expected)
    assert len(s.made) == 1 and summaries(s, attack="fgsm")["drop"].isna().all()
    assert len(s.made) == 2


@pytest.mark.parametrize("forgets", [("random:0.1", "class:3"), ("class:3", "random:0.1")])
def test_forget_sets_keep_the_order_of_the_study(forgets):
    s = invented(few(forgets=forgets, seeds=(0,)))
    for table in (tables.table2(s), tables.table3(s), tables.table4(s)):
        assert list(table["Forget set"].unique()) == [s.title(name) for name in forgets]
    wanted = {
        "random: 0.1": "10 % random",
        "class:2": "class 2",
        "class:b": "class b",
        "odd": "odd",
    }
    wanted |= {"class:1": "class a", "class:9": "class 9", "class: b": "class b"}
    assert {name: forget_title(name, ("2", "a", "b")) for name in wanted} == wanted
    assert "TA forgotten class (→ Retrain)" not in tables.table2(s)
    lost = invented([model("retrain", quality={"TA": 5.0, "TA_forgotten": 1.0})])
    assert float(tables.table2(lost)["TA forgotten class (→ Retrain)"].item()) == 1
    assert float(tables.table1(lost)["TA forgotten class"].item()) == 1


def test_contents_are_numbers_and_two_displays():
    spreads = [Spread(5.0, 0.5, 2), Spread(4.0, np.nan, 1)]
    table = pd.DataFrame({"Method": ["CF_1", "RL"], "UA (→ Retrain)": spreads})
    table.attrs["caption"] = "50 % & more"
    files = display.contents(table, "table_x")
    assert files["csv"] == "Method,UA mean,UA std,UA n\nCF_1,5.0,0.5,2\nRL,4.0,,1\n"
    head = "| Method | UA (→ Retrain) |\n| :--- | ---: |\n"
    rows = "| CF_1 | 5.00\u00a0±\u00a00.50 |\n| RL | 4.00 |\n"
    assert files["md"] == f"{head}{rows}\n50 % & more\n"
    assert r"CF\_1 & 5.00~$\pm$~0.50 \\" in files["tex"]
    assert r"UA ($\rightarrow$\\Retrain)" in files["tex"]
    assert r"\caption{50~\% \& more}\label{tab:table_x}" in files["tex"]
    nothing = pd.DataFrame({"a|b": ["nan"], "n": [Spread(np.nan, np.nan, 0)], "m": [np.nan]})
    assert display.markdown(nothing).splitlines()[2] == "| nan |", "a column of dashes is left out"


def test_latex_is_safe_for_every_table(study):
    assert display.latex_text("a_b 5% ± ε ≤ {x} \\ ^ ~ # $") == (
        r"a\_b 5\% $\pm$ $\varepsilon$ $\leq$ \{x\} \textbackslash{} "
        r"\textasciicircum{} \textasciitilde{} \# \$"
    )
    for draw in (tables.table1, tables.table3, tables.table4):
        text = display.latex(draw(study), "t")
        text.encode("ascii")
        found = list(display.parts(draw(study)))
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == len(found)
        bodies = re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
        for body, (_, part) in zip(bodies, found, strict=True):
            lines = [line for line in body.splitlines() if line != r"\midrule"]
            assert len(lines) == len(part)
            assert all(line.count("&") == part.shape[1] - 1 for line in lines)
    many = pd.DataFrame({"a": ["x"] * 46, "b": "y"})
    assert r"\begin{longtable}{ll}" in display.latex(many, "t")


def test_a_table_is_shown_in_parts_without_what_is_empty_or_aside():
    spread = [Spread(-1.0, 0.5, 3, 1), Spread(np.nan, np.nan, 0), Spread(2.0, np.nan, 1, 1)]
    table = pd.DataFrame({"Architecture": ["A", "A", "B"], "Method": list("xyz"), "UA": spread})
    table = table.assign(none=np.nan, more=1.0, Unit="points", Value=[0.25, 1.0, 2.0])
    table = table.assign(Low=[-0.25, 0.0, np.nan], High=[0.5, 2.0, np.nan], Seeds=[3, 3, 1])
    table.attrs |= {"by": ["Architecture"], "aside": ["more"]}
    files = display.contents(table, "t")
    assert "more" in files["csv"] and "none" in files["csv"]
    head, _, *rows = files["md"].replace("\u00a0", "_").split("**A, n = 3**\n\n")[1].splitlines()
    assert head == "| Method | UA | Unit | Value [95_% interval] |"
    assert rows[:2] == [
        "| x | −1.0_±_0.5 | points | 0.2 [−0.2, 0.5] |",
        "| y | – | points | 1.0 [0.0, 2.0] |",
    ]
    assert "**B, n = 1**" in files["md"] and "| z | 2.0 | points | 2.0 |" in files["md"]
    assert r"\caption{B, n = 1. t}\label{tab:t-2}" in files["tex"]


# Points that Computer Modern takes at 8 points; a wrong guess shows in a page that is too wide.
WIDTHS = dict.fromkeys("ijlI.,:;'|![]()", 2.7) | dict.fromkeys("mwMWGOQ%±→↑↓−<>=≤≥", 6.8)
WIDTHS |= dict.fromkeys("ABCDEFHKLNPRSTUVXYZ", 5.7) | {" ": 2.9, "\u00a0": 2.9}


def width(text):
    """Return the points that LaTeX's own text takes, macros read as the sign they stand for."""
    for sign, macro in display.LATEX.items():
        text = text.replace(macro, sign)
    return sum(WIDTHS.get(letter, 4.3) for letter in text)


def widest(tex):
    """Return the width in points of the widest table in a LaTeX file."""
    tables = re.findall(r"tabular\}\{(.*?)\}\n\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL)
    tables += re.findall(r"longtable\}\{(.*?)\}\n.*?\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL)
    found = []
    for kinds, body in tables:
        shares = re.findall(r"p\{([-\d.]+)\\textwidth\}", kinds)
        long = "p" in kinds and [k for k in re.sub(r"\{.*?\}", "", kinds)]
        columns = {}
        for line in body.splitlines():
            line = re.sub(r"\\shortstack\[\w\]\{((?:[^{}]|\{.*?\})*)\}(?= &| \\\\)", r"\1", line)
            for at, cell in enumerate(
                line.removesuffix(r" \\").split(" & ") if "&" in line else ()
            ):
                if not (long and long[at] == "p"):
                    columns.setdefault(at, []).extend(map(width, cell.split(r"\\")))
        assert all(float(share) > 0.12 for share in shares), shares
        taken = sum(map(max, columns.values())) + 506 * sum(map(float, shares))
        found.append(taken + 6 * (len(columns) + len(shares)))
    return max(found, default=0)


STUDIES = sorted(path.name for path in (project_folder() / "figures").iterdir())


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_fits_a_page_in_latex(name):
    for path in sorted((project_folder() / "figures" / name).glob("*.tex")):
        assert 0 < widest(path.read_text()) <= 506, path.name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert()</script>", r"\<script>alert()\</script>"),
        ("[x](javascript:1)", r"[x\](javascript:1)"),
        ("a|b\\|c", r"a\|b\\\|c"),
        ("`x`\r\n# y\u2028z", r"\`x\` # y z"),
        ("2 < 3 [1, 2]", "2 < 3 [1, 2]"),
    ],
)
def test_names_cannot_break_out_of_a_table(name, shown):
    s = invented([model("retrain", forget=f"class:{name}", quality={"TA": 1.0})], dataset=name)
    files = display.contents(tables.table1(s), "t")
    assert f"**SmallViT, class {shown}, n = 1**" in files["md"]
    assert files["md"].endswith(f"data set {shown}.\n")
    assert len(files["md"].splitlines()) == 7
    assert len(files["tex"].splitlines()) == 12 and "\u2028" not in files["tex"]
    assert f"class {name}" in files["csv"].replace('""', '"'), "a program reads the name itself"


def test_published_files_stay_untouched_while_nothing_changes(tmp_path):
    s = invented(few(), folder=tmp_path / "results" / "quick")
    table = publish(s, "table1_models")
    names = ["table1_models.csv", "table1_models.md", "table1_models.tex"]
    files = [s.output / name for name in (*names, "provenance.json")]
    assert sorted(s.output.iterdir()) == sorted(files)
    assert json.loads(files[-1].read_text()) == s.provenance
    before = [file.stat() for file in files]
    files[1].write_text("old")
    pd.testing.assert_frame_equal(publish(s, "table1_models").astype(str), table.astype(str))
    after = [file.stat() for file in files]
    same = [a.st_ino == b.st_ino for a, b in zip(after, before, strict=True)]
    assert same == [True, False, True, True]
    with pytest.raises(UserError, match="unknown table or figure 'table9'; known: table1_models, "):
        publish(s, "table9")
    s.output.rename(tmp_path / "away")
    s.output.write_text("")
    with pytest.raises(UserError, match="cannot write "):
        publish(s, "table1_models")


def test_what_the_same_code_made_of_the_same_numbers_is_not_made_again(tmp_path, monkeypatch):
    drawn = []

    def again(study):
        drawn.append(study)
        return tables.table1(study)

    def made():
        drawn.clear()
        publish_all(s)
        return len(drawn)

    again.__module__ = "unlearnkit.report.tables"
    for name in list(FIGURES):
        monkeypatch.delitem(FIGURES, name)
    monkeypatch.setitem(TABLES, "table1_models", again)
    s = invented(few(), folder=tmp_path / "results" / "quick")
    assert (made(), made()) == (1, 0)
    assert len(publish(s, "table1_models")) and drawn, "it is shown all the same"
    (s.output / "table1_models.md").write_text("changed by hand")
    assert (made(), made()) == (1, 0)
    (s.output / "table1_models.tex").unlink()
    assert (made(), made()) == (1, 0)
    s = invented(few(seeds=(0,)), folder=tmp_path / "results" / "quick")
    assert (made(), made()) == (1, 0), "other numbers"
    monkeypatch.setitem(publish_all.__globals__, "CODE", ["another version"])
    assert (made(), made()) == (1, 0), "other code"
    again.__module__ = "mine"
    assert (made(), made()) == (1, 1), "of another's code nothing is known"


def test_what_a_study_lacks_is_skipped_and_said(tmp_path, monkeypatch):
    def lacking(study):
        raise NothingToDraw("no image was attacked")

    for name in FIGURES:
        monkeypatch.setitem(FIGURES, name, lacking)
    s = invented([model("retrain", quality={"TA": 1.0})], folder=tmp_path / "results" / "quick")
    s.output.mkdir(parents=True)
    for name in ("fig2_robustness.png", "fig2_robustness_column.pdf"):
        (s.output / name).write_text("of an earlier study")
    lines = []
    assert publish_all(s, report=lines.append) == [line for line in lines if " " not in line]
    assert "table1_models" in lines
    assert "table_outliers is not drawn: the study has no numbers for it" in lines
    assert "fig4_layerwise is not drawn: no image was attacked" in lines
    kept = {path.stem for path in s.output.iterdir()}
    assert kept == {"provenance", *(line for line in lines if " " not in line)}
    with pytest.warns(UserWarning, match="table3_robustness is not drawn"):
        assert publish(s, "table3_robustness").empty
    with pytest.warns(UserWarning, match="no image was attacked"):
        assert publish(s, "fig2_robustness") is None
    assert issubclass(NothingToDraw, UserError)


@pytest.mark.parametrize("models", [[], [model("retrain")], [model("cf", quality={"TA": 1.0})]])
def test_a_study_with_next_to_nothing_has_tables_all_the_same(models):
    s = invented(models)
    for draw in TABLES.values():
        table = draw(s)
        assert len(table.columns) and display.contents(table, "t")
    assert set(FIGURES).isdisjoint(TABLES)
