"""Tables and figures of an invented study: numbers by hand, files byte for byte, missing data."""

import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from unlearnkit.report.figures.robustness import epsilon_label

from unlearnkit.report import figures, tables
from unlearnkit.report.figures import style
from unlearnkit.report.study import COLUMNS

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
