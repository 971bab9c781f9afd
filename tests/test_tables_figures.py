"""Tables and figures of an invented study: numbers by hand, files byte for byte, missing data."""

import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from unlearnkit.errors import UserError
from unlearnkit.report import figures, tables
from unlearnkit.report.figures import style
from unlearnkit.report.figures.robustness import epsilon_label
from unlearnkit.report.stats import Spread
from unlearnkit.report.tables.frames import arranged, forget_title, summaries
from unlearnkit.report.tables.saving import latex, latex_escape, markdown, numeric
from unlearnkit.report.tidy import COLUMNS
from unlearnkit.results import ID

METHODS = ("original", "retrain", "ga", "salun", "cf", "bs", "rl", "scrub")
SCOPES = ("all", "first", "intermediate", "last")
EPSILONS = tuple(step / 255 for step in (0, 0.25, 0.5, 1, 2, 4, 8))
LAYERS = {"resnet50": 57, "small_vit": 9, "convnext": 12}
STRENGTH = {"scrub": 30.0, "salun": 6.0, "rl": 2.0, "bs": 0.8, "cf": 0.9}


def synthetic(
    architectures=("resnet50", "small_vit"),
    forgets=("random:0.1",),
    methods=METHODS,
    scopes=SCOPES,
    seeds=(0, 1),
    checkpoints=(0.1, 0.25, 0.5, 0.75),
    attacks=("noise", "fgsm", "pgd"),
    classes=10,
    profile="quick",
):
    """Return an invented study whose numbers have the order of size of real ones."""
    rng = np.random.default_rng(0)
    found = {name: [] for name in COLUMNS}
    for architecture in architectures:
        for forget in forgets:
            for method in methods:
                own = ("all",) if method in ("original", "retrain", "ga") else scopes
                times = (*checkpoints, 1.0) if method == "original" else (1.0,)
                for scope in own:
                    for seed in seeds:
                        for progress in times:
                            model = (architecture, forget, method, scope, seed, progress)
                            _measure(found, model, rng, attacks, classes)
    frames = {name: pd.DataFrame(found[name], columns=COLUMNS[name]) for name in COLUMNS}
    return SimpleNamespace(
        profile=SimpleNamespace(name=profile),
        profile_name=profile,
        dataset="digits",
        stamp="",
        keys=[],
        **frames,
    )


def _measure(found, model, rng, attacks, classes):
    architecture, _, method, scope, _, progress = model
    part = {"all": 1.0, "first": 0.2, "intermediate": 0.6, "last": 0.8}.get(scope, 0.5)
    accuracy = 95 * (1 - 0.7 * np.exp(-5 * progress)) + rng.normal(0, 0.4)
    forget_accuracy = 99.5 if method == "original" else 95 - 2 * part
    for name, value in {
        "UA": 100 - forget_accuracy,
        "RA": 99.8,
        "TA": accuracy,
        "FA": forget_accuracy,
        "MIA": 12.0 if method != "original" else 2.0,
    }.items():
        found["quality"].append((*model, name, value + rng.normal(0, 0.3)))
    cost = {"all": 1.0, "first": 0.95, "intermediate": 0.7, "last": 0.35}.get(scope, 0.5)
    seconds = 20 * cost * (10 if method in ("original", "retrain") else 1) + rng.normal(0, 0.5)
    found["cost"].append((*model, seconds, 3e8 * cost, float("nan"), 1000))
    size = 1 + (STRENGTH.get(method, 1.0) - 1) * part
    layers = LAYERS[architecture]
    depth = np.linspace(0, 1, layers)
    level = (0.08 + 0.05 * rng.random(layers)) * (1 + 0.4 * progress + (size - 1) * depth**6)
    for index in range(layers):
        found["gap"].append((*model, "std", index + 1, f"net.n{index}", float(level[index])))
    for attack in attacks:
        weak = {"noise": 0.05, "fgsm": 0.6}.get(attack, 1.0)
        hurt = weak * (0.8 + 0.25 * np.log(size + 0.2)) * rng.normal(1, 0.05)
        for epsilon in EPSILONS:
            right = accuracy / (1 + (hurt * epsilon * 255 / 1.5) ** 1.6)
            for c in range(-1, classes):
                shift = 0 if c < 0 else 8 * np.sin(1.7 * c + hurt) * (1 - right / 100)
                value = float(np.clip(right + shift, 0, 100))
                row = (*model, attack, epsilon, "test", "white-box", c, 100, value)
                found["robust"].append(row)


@pytest.fixture(scope="module")
def study():
    return synthetic()


def small(**changes):
    """Return a small study, for what is drawn often."""
    few = {
        "architectures": ("small_vit",),
        "methods": ("original", "retrain", "cf", "salun"),
        "scopes": ("all", "last"),
        "checkpoints": (0.5,),
        "attacks": ("pgd",),
        "classes": 3,
    }
    return synthetic(**(few | changes))


def model(s, **equal):
    """Return the frame mask for one model."""

    def pick(frame):
        mask = pd.Series(True, index=frame.index)
        for column, value in equal.items():
            mask &= frame[column] == value
        return frame[mask]

    return pick


# --- tables -----------------------------------------------------------------------------------


def test_methods_come_in_the_published_order_and_new_ones_after(study):
    table = tables.table2(synthetic(methods=(*METHODS[::-1], "mine"), architectures=("resnet50",)))
    expected = ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA", "MINE"]
    assert list(table["Method"]) == expected
    assert list(tables.table1(study)["Method"]) == ["Original", "Retrain"] * 2
    assert arranged(["b", "a"], ["z", "a", "b", "z"]) == ["b", "a", "z"]


def test_table2_numbers_by_hand(study):
    pick = model(study, architecture="resnet50", method="salun", scope="all")
    exact = model(study, architecture="resnet50", method="retrain", scope="all")
    mine = pick(study.quality).pivot(index="seed", columns="metric", values="value")
    theirs = exact(study.quality).pivot(index="seed", columns="metric", values="value")
    names = ["UA", "RA", "TA", "MIA"]
    gaps = [np.mean([abs(mine.loc[k, n] - theirs.loc[k, n]) for n in names]) for k in (0, 1)]
    table = tables.table2(study)
    row = table[(table["Architecture"] == "ResNet50") & (table["Method"] == "SalUn")].iloc[0]
    assert row["UA (→ Retrain)"].mean == pytest.approx((mine.loc[0, "UA"] + mine.loc[1, "UA"]) / 2)
    spread = abs(mine.loc[0, "UA"] - mine.loc[1, "UA"]) / np.sqrt(2)
    assert row["UA (→ Retrain)"].std == pytest.approx(spread)
    assert row["Avg. gap ↓"].mean == pytest.approx(np.mean(gaps))
    seconds = pick(study.cost)["seconds"]
    assert str(row["RTE (s) ↓"]) == f"{seconds.mean():.1f} ± {seconds.std():.1f}"
    assert float(row["Memory (MiB) ↓"]) == pytest.approx(3e8 / 2**20)
    assert row["Seeds"] == 2
    retrain = table[table["Method"] == "Retrain"]["Avg. gap ↓"].map(float)
    assert list(retrain) == [0.0, 0.0]


def test_table3_drop_and_excess_by_hand(study):
    table = tables.table3(study, ["pgd"])
    assert set(table["Attack"]) == {"PGD"}
    column = "ε = 2/255"

    def cell(method, quantity):
        row = table[(table["Architecture"] == "SmallViT") & (table["Method"] == method)]
        return float(row[row["Quantity"] == quantity][column].iloc[0])

    def drop(method):
        pick = model(study, architecture="small_vit", method=method, scope="all", progress=1.0)
        robust = pick(study.robust)
        robust = robust[(robust["attack"] == "pgd") & (robust["class_index"] == -1)]
        means = robust.groupby("epsilon")["accuracy"].mean()
        return means.loc[0], means.loc[2 / 255]

    clean, left = drop("scrub")
    assert cell("SCRUB", "Robust accuracy ↑") == pytest.approx(left)
    assert cell("SCRUB", "Drop ↓") == pytest.approx(clean - left)
    other = drop("retrain")
    wanted = (clean - left) - (other[0] - other[1])
    assert cell("SCRUB", "Excess over Retrain (→ 0)") == pytest.approx(wanted)
    assert cell("Retrain", "Excess over Retrain (→ 0)") == 0
    with pytest.raises(UserError, match="unknown measured attack 'square'; known: noise, f"):
        tables.table3(study, ["square"])
    with pytest.raises(UserError, match="unknown quantity"):
        tables.table3(study, quantities=["speed"])


@pytest.mark.parametrize("forgets", [("random:0.1", "class:3"), ("class:3", "random:0.1")])
def test_forget_sets_keep_the_order_of_the_study(forgets):
    s = synthetic(("small_vit",), forgets, scopes=("all", "last"), seeds=(0,), attacks=("pgd",))
    titles = [forget_title(name) for name in forgets]
    for table in (tables.table2(s), tables.table3(s), tables.table4(s)):
        assert list(dict.fromkeys(table["Forget set"])) == titles


def test_table4_ratios_and_layers_by_hand(study):
    table = tables.table4(study)
    row = table[(table["Architecture"] == "ResNet50") & (table["Method"] == "CF")]
    row = row.set_index("Scope")
    assert list(row.index) == list(SCOPES)
    assert row.loc["all", "RTE / all ↓"].mean == 1
    assert row.loc["last", "Memory / all ↓"].mean == pytest.approx(0.35)
    cost = model(study, architecture="resnet50", method="cf")(study.cost)
    seconds = cost.pivot(index="seed", columns="scope", values="seconds")
    ratio = (seconds["last"] / seconds["all"]).mean()
    assert row.loc["last", "RTE / all ↓"].mean == pytest.approx(ratio)
    gap = model(study, architecture="resnet50", method="cf", scope="first")(study.gap)
    by_seed = gap.sort_values("layer_index").groupby("seed")["gap"]
    assert row.loc["first", "Fairness-gap max"].mean == pytest.approx(by_seed.max().mean())
    assert row.loc["first", "Fairness-gap last"].mean == pytest.approx(by_seed.last().mean())
    assert row.loc["first", "Fairness-gap mean"].mean == pytest.approx(by_seed.mean().mean())
    assert row.loc["first", "Avg. gap ↓"].n == 2


def test_summaries_average_the_drop_over_the_epsilons_all_models_share():
    s = small()
    only_finished = (s.robust["epsilon"] > 4 / 255) & (s.robust["progress"] < 1)
    s.robust = s.robust[~only_finished]
    table = summaries(s)
    assert table.duplicated(ID).sum() == 0
    pick = model(s, method="cf", scope="last", seed=1, class_index=-1)
    accuracy = pick(s.robust).set_index("epsilon")["accuracy"]
    wanted = accuracy.loc[0] - accuracy.loc[[e for e in EPSILONS[1:] if e <= 4 / 255]].mean()
    row = model(s, method="cf", scope="last", seed=1)(table)
    assert row["drop"].item() == pytest.approx(wanted)
    at = model(s, method="cf", scope="last", seed=1)(summaries(s, epsilon=1 / 255))
    assert at["drop"].item() == pytest.approx(accuracy.loc[0] - accuracy.loc[1 / 255])


def test_forgotten_class_and_captions():
    s = small(forgets=("class:3",))
    assert "TA forgotten class (→ Retrain)" not in tables.table2(s)
    extra = s.quality[s.quality["metric"] == "TA"].assign(metric="TA_forgotten", value=1.0)
    s.quality = pd.concat([s.quality, extra])
    assert tables.table2(s)["TA forgotten class (→ Retrain)"].map(float).eq(1.0).all()
    assert tables.table1(s).attrs["caption"].endswith("Profile quick, data set digits.")
    s.profile_name, s.dataset = "cifar10", "CIFAR-10, JPEG re-encoding"
    ending = "Profile cifar10, data set CIFAR-10, JPEG re-encoding."
    assert tables.table1(s).attrs["caption"].endswith(ending)
    assert [forget_title(f) for f in ("random:0.1", "class:3", "odd")] == [
        "10 % random",
        "class 3",
        "odd",
    ]


def test_save_table_writes_numbers_display_and_provenance(tmp_path):
    table = pd.DataFrame(
        {
            "Method": ["CF_1", "RL"],
            "UA (→ Retrain)": [Spread(5.0, 0.5, 2), Spread(4.0, float("nan"), 1)],
        }
    )
    table.attrs["caption"] = "50 % & more"
    files = tables.save_table(table, "table_x", tmp_path / "new", {"b": 1, "a": "é"})
    assert [path.suffix for path in files] == [".csv", ".md", ".tex", ".json"]
    csv, md, tex, sidecar = (path.read_text() for path in files)
    assert csv == "Method,UA mean,UA std,UA n\nCF_1,5.0,0.5,2\nRL,4.0,,1\n"
    assert "| CF_1 | 5.00 ± 0.50 |" in md and "| RL | 4.00 |" in md and ":--- | ---:" in md
    assert r"CF\_1 & 5.00 $\pm$ 0.50 \\" in tex
    assert r"UA ($\rightarrow$ Retrain)" in tex
    assert r"\caption{50 \% \& more}\label{tab:table_x}" in tex
    assert sidecar == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in files)
    before = [path.read_bytes() for path in files]
    tables.save_table(table, "table_x", tmp_path / "new", {"a": "é", "b": 1})
    assert [path.read_bytes() for path in files] == before


def test_latex_is_safe_for_every_table(study):
    assert latex_escape("a_b 5% ± ε ≤ {x} \\ ^ ~ # $") == (
        r"a\_b 5\% $\pm$ $\varepsilon$ $\leq$ \{x\} \textbackslash{} "
        r"\textasciicircum{} \textasciitilde{} \# \$"
    )
    for table in (tables.table1(study), tables.table2(study), tables.table4(study)):
        text = latex(table, "t")
        text.encode("ascii")
        body = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
        assert all(line.replace(r"\&", "").count("&") == table.shape[1] - 1 for line in body)
    long = latex(tables.table3(study), "t")
    assert long.count(r"\begin{longtable}") == long.count(r"\end{longtable}") == 1
    assert r"\begin{tabular}" in latex(tables.table1(study), "t")


def test_pipes_and_missing_numbers_in_markdown():
    table = pd.DataFrame({"a|b": ["x|y"], "n": [Spread(float("nan"), float("nan"), 0)]})
    assert markdown(table).splitlines()[2] == r"| x\|y | – |"
    assert list(numeric(table)) == ["a|b", "n mean", "n std", "n n"]


# --- figures ----------------------------------------------------------------------------------


def lines_labelled(ax):
    return [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]


def legend_words(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_fairness_gap_has_the_published_panels_lines_and_legend(study):
    fig = figures.fairness_gap(study)
    titles = [ax.get_title("left") for ax in fig.axes]
    assert titles == [
        "(a) ResNet50, all models",
        "(b) ResNet50 except SalUn, SCRUB",
        "(c) SmallViT",
    ]
    order = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun", "ga"]
    assert lines_labelled(fig.axes[0]) == order
    assert lines_labelled(fig.axes[1]) == [m for m in order if m not in ("scrub", "salun")]
    words = legend_words(fig)
    assert words[:7] == ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn"]
    assert words[-2:] == ["range", "published"]
    assert (fig.axes[0].get_ylabel(), fig.axes[2].get_xlabel()) == ("Fairness-gap", "Layer index")
    assert "over 2 seeds" in fig.get_supxlabel() and "digits" in fig.get_supxlabel()


def test_fairness_gap_data_are_means_ranges_and_published_values(study):
    data = figures.fairness_gap_data(study)
    row = data[(data["architecture"] == "resnet50") & (data["method"] == "scrub")].iloc[-1]
    gap = model(study, architecture="resnet50", method="scrub", scope="all", layer_index=57)
    values = gap(study.gap)["gap"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(
        (values.mean(), values.min(), values.max())
    )
    vit = data[(data["architecture"] == "small_vit") & (data["layer_index"] == 9)]
    published = vit.set_index("method")["published"]
    assert published["rl"] == 0.26 and np.isnan(published["ga"])
    assert figures.fairness_gap_data(study, published=False)["published"].isna().all()


def test_published_values_only_over_the_same_number_of_layers():
    s = small()
    s.gap = s.gap[s.gap["layer_index"] < 9]
    assert figures.fairness_gap_data(s)["published"].isna().all()
    assert "published" not in legend_words(figures.fairness_gap(s))


def test_a_method_looks_the_same_everywhere_and_unlike_the_others():
    names = [*style.LOOKS, "mine", "yours"]
    look = style.looks(names)
    assert style.looks([*names, "third"])["mine"] == look["mine"]
    for field in ("color", "marker"):
        assert len({getattr(kind, field) for kind in look.values()}) == len(names)
    assert len({str(kind.line) for kind in look.values()}) >= len(names) - 1
    fig = figures.robustness(small())
    for ax in fig.axes[:2]:
        drawn = {line.get_label(): line for line in ax.lines}
        assert drawn["salun"].get_color() == look["salun"].color
        assert drawn["salun"].get_marker() == look["salun"].marker


def test_robustness_curves_excess_and_classes():
    s = small()
    fig = figures.robustness(s, epsilon=1 / 255)
    accuracy, excess, classes = fig.axes[:3]
    assert lines_labelled(accuracy) == ["original", "retrain", "cf", "salun"]
    assert lines_labelled(excess) == ["original", "cf", "salun"]
    assert [t.get_text() for t in accuracy.get_xticklabels()] == list("0¼½1248")
    assert classes.images[0].get_array().shape == (4, 3)
    assert classes.get_title("left").endswith("at ε = 1/255")
    data = figures.robustness_data(s)
    cell = model(s, method="cf", quantity="drop", epsilon=1 / 255, class_index=2)(data)
    assert classes.images[0].get_array()[2, 2] == pytest.approx(cell["mean"].item())
    assert len(classes.texts) == 12
    assert [epsilon_label(e / 255) for e in (1.5, 0.3, 8)] == ["1½", "0.3", "8"]


def test_conjectures_draw_every_model_once_and_state_the_correlation():
    s = small(forgets=("random:0.1", "random:0.5"))
    data = figures.conjectures_data(s)
    assert (data["method"] == "original").sum() == 4  # two seeds, one checkpoint and the end
    fig = figures.conjectures(s)
    drawn = sum(len(c.get_offsets()) for c in fig.axes[2].collections)
    assert drawn == len(data) == 4 + 2 * 2 * (1 + 2 + 2)
    stats = figures.conjectures_statistics(s).set_index(["conjecture", "models", "given"])
    rho = stats.loc[("C2", "small_vit", "")]
    assert f"ρ = {rho.rho:+.2f}" in fig.axes[2].get_title("left")
    assert rho.n == len(data)
    assert rho.rho == pytest.approx(data[["gap_mean", "drop"]].corr("spearman").iloc[0, 1])
    assert ("C2", "across", "") not in stats.index


def test_conjectures_across_and_within_architectures():
    s = small(architectures=("resnet50", "small_vit"))
    s.gap.loc[s.gap["architecture"] == "resnet50", "gap"] += 10
    s.robust.loc[
        (s.robust["architecture"] == "resnet50") & (s.robust["epsilon"] > 0), "accuracy"
    ] -= 60
    stats = figures.conjectures_statistics(s).set_index(["models", "given"])
    stats = stats[stats["conjecture"] == "C2"]
    alone = stats.loc[[("resnet50", ""), ("small_vit", "")], "rho"].mean()
    assert stats.loc[("within", ""), "rho"] == pytest.approx(alone, abs=0.05)
    assert stats.loc[("across", ""), "rho"] > stats.loc[("within", ""), "rho"]


def test_layerwise_has_a_dot_for_each_scope(study):
    fig = figures.layerwise(study)
    assert len(fig.axes) == 10
    dots = [line for line in fig.axes[0].lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in dots) == 5 * 4 + 1  # ga: all layers alone
    assert legend_words(fig)[:4] == [f"{scope} layers" for scope in SCOPES]
    data = figures.layerwise_data(study)
    memory = data[(data["measure"] == "relative_memory") & (data["scope"] == "last")]
    assert memory["mean"].to_numpy() == pytest.approx(0.35)


ALL = (figures.fairness_gap, figures.robustness, figures.conjectures, figures.layerwise)
TABLES = (tables.table1, tables.table2, tables.table3, tables.table4)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (0,), "scopes": ("all",), "checkpoints": (), "classes": 2},
        {"methods": ("original", "cf"), "classes": 0},
        {"attacks": (), "profile": "paper"},
        {"architectures": ("convnext",), "scopes": ("all", "modules:net.head")},
        {"architectures": (), "seeds": ()},
    ],
)
def test_what_is_missing_is_said_and_nothing_breaks(changes, tmp_path):
    s = small(**changes)
    for draw in ALL:
        fig = draw(s)
        assert isinstance(fig, Figure)
        assert "digits" in fig.get_supxlabel()
    for build in TABLES:
        tables.save_table(build(s), "t", tmp_path, {})


def test_notes_name_what_is_missing():
    s = small(attacks=("fgsm",), checkpoints=())
    words = " ".join(figures.robustness(s).axes[0].texts[0].get_text().split())
    assert words == "PGD not measured for this forget set; measured: FGSM"
    notes = [ax.texts[0].get_text() for ax in figures.conjectures(s).axes]
    assert "no checkpoint" in notes[0] and "robustness drop" in notes[2]


def test_saved_figure_is_stable_and_complete(tmp_path):
    s = small()
    data = figures.fairness_gap_data(s)
    before = dict(matplotlib.rcParams)
    first = figures.save_figure(
        figures.fairness_gap(s), data, "fig1", tmp_path / "a", {"z": 1, "a": 2}
    )
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "savefig.bbox": "tight"}):
        fig = figures.fairness_gap(s)
        again = figures.save_figure(fig, data, "fig1", tmp_path / "b", {"a": 2, "z": 1})
    assert dict(matplotlib.rcParams) == before
    assert [path.suffix for path in first] == [".png", ".pdf", ".csv", ".json"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    figures.save_figure(fig, data, "fig1", tmp_path / "b", {"a": 2, "z": 1})
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    pdf, png = first[1].read_bytes(), first[0].read_bytes()
    assert b"CreationDate" not in pdf and b"Matplotlib" not in pdf and b"Software" not in png
    assert b"/Type3" not in pdf.replace(b" ", b"")
    pd.testing.assert_frame_equal(pd.read_csv(first[2]), data, check_dtype=False)
    assert json.loads(first[3].read_text()) == {"a": 2, "z": 1}


def test_a_notebook_shows_a_figure_by_itself():
    fig = figures.fairness_gap(small())
    assert fig._repr_png_().startswith(b"\x89PNG")


def test_class_names_are_used_where_they_are_words():
    s = small()
    s.classes = ["cat", "dog", "hippopotamuses"]
    words = [t.get_text() for t in figures.robustness(s).axes[2].get_xticklabels()]
    assert words == ["cat", "dog", "hippopotamus"]
    s.classes = ["0", "1", "2"]
    assert figures.robustness(s).axes[2].get_xlabel() == "Class index"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write "):
        tables.save_table(pd.DataFrame({"a": [1]}), "t", tmp_path / "file", {})
