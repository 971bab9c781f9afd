"""What the figures show, by what is on their axes; their files; and studies that lack something."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers_report import EPSILONS, changed, few, invented, model, realistic
from matplotlib import pyplot as plt
from matplotlib.text import Text

from unlearnkit.report import NothingToDraw, claims, figures
from unlearnkit.report.figures import style

ORDER = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun", "ga"]
TITLES = ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA"]
SCOPES = ["all layers", "first layers", "intermediate layers", "last layers"]
ALL = ("fairness_gap", "robustness", "conjectures", "layerwise")


@pytest.fixture(scope="module")
def study():
    return invented(realistic())


@pytest.fixture(scope="module")
def drawn(study):
    """Return the four figures of the whole study."""
    return {name: getattr(figures, name)(study) for name in ALL}


def legend(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def titles(fig):
    return [text for ax in fig.axes if (text := ax.get_title("left"))]


def curves(ax, color):
    """Return the lines of a colour that join more than two points."""
    found = (line for line in ax.lines if matplotlib.colors.same_color(line.get_color(), color))
    return [line for line in found if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]


def words(fig):
    return " ".join(" ".join(text.get_text() for text in fig.findobj(Text)).split())


def test_figure_1_has_the_published_panels_curves_and_legend(study, drawn):
    fig, colors = drawn["fairness_gap"], style.palette(study)
    panels = ["(a) ResNet50, all models", "(b) ResNet50 except SalUn, SCRUB", "(c) SmallViT"]
    assert titles(fig) == panels
    assert legend(fig) == [*TITLES, "published"]
    for ax, lacking in zip(fig.axes, [(), ("scrub", "salun"), ()], strict=True):
        shown = [method for method in ORDER if curves(ax, colors[method])]
        assert shown == [method for method in ORDER if method not in lacking]
        assert len(ax.collections) == 2, "a range each for Original and Retrain"
    data = figures.fairness_gap_data(study).query("architecture == 'small_vit'")
    mean = data[data["method"] == "salun"]["mean"]
    assert np.allclose(curves(fig.axes[2], colors["salun"])[0].get_ydata(), mean)
    assert (fig.axes[0].get_ylabel(), fig.axes[2].get_xlabel()) == ("Fairness-gap", "Layer index")
    assert [text.get_text() for text in fig.axes[0].texts][1:] == [
        f"stage {i}" for i in range(1, 5)
    ]
    assert "over 2 seeds. Profile quick, data set digits." in words(fig)


def test_figure_1_data_are_means_ranges_and_published_values(study):
    data = figures.fairness_gap_data(study)
    row = data.query("architecture == 'resnet50' and method == 'scrub'").iloc[-1]
    gaps = study.rows("gap", architecture="resnet50", method="scrub", scope="all", layer_index=57)
    expected = gaps["gap"].agg(["mean", "min", "max"])
    assert row[["mean", "low", "high"]].tolist() == pytest.approx(expected.tolist())
    vit = data.query("architecture == 'small_vit' and layer_index == 9").set_index("method")
    assert vit["published"]["rl"] == 0.26 and np.isnan(vit["published"]["ga"])
    assert figures.fairness_gap_data(study, published=False)["published"].isna().all()
    shorter = invented([model("cf", gap={"std": [0.1] * 8})])
    assert figures.fairness_gap_data(shorter)["published"].isna().all(), "another network"
    assert "published" not in legend(figures.fairness_gap(shorter))


def test_a_wide_range_has_a_log_axis_with_plain_ticks(drawn):
    wide = drawn["fairness_gap"].axes[0]
    narrow = figures.fairness_gap(invented(few(methods=("cf",))), published=False).axes[0]
    assert (wide.get_yscale(), narrow.get_yscale()) == ("log", "linear")
    assert {"0.1", "1", "10"} <= {tick.get_text() for tick in wide.get_yticklabels()}
    assert narrow.get_ylim()[0] == 0


def test_a_method_looks_the_same_everywhere_and_unlike_the_others():
    new = few(methods=("original", "retrain", "cf", "salun", "mine", "yours"))
    s = invented(new)
    colors = style.palette(s)
    assert colors["salun"] == "#CC79A7" and len(set(colors.values())) == 6
    assert style.palette(invented(new[::-1]))["cf"] == colors["cf"]
    for name, columns in (("fairness_gap", 1), ("robustness", 2)):
        for ax in getattr(figures, name)(s).axes[:columns]:
            looks = [
                (curves(ax, c)[0].get_marker(), c) for m, c in colors.items() if m != "retrain"
            ]
            assert looks == list(
                zip("o^vDP", [c for m, c in colors.items() if m != "retrain"], strict=True)
            )


def test_figure_2_has_curves_excess_and_classes():
    s = invented(few(), classes=["cat", "dog", "hippopotamuses"])
    fig, colors = figures.robustness(s, epsilon=1 / 255), style.palette(s)
    accuracy, excess, classes = fig.axes[:3]
    shown = [[m for m in s.methods if curves(ax, colors[m])] for ax in (accuracy, excess)]
    assert shown == [["original", "retrain", "cf", "salun"], ["original", "cf", "salun"]]
    ticks = [tick.get_text() for tick in accuracy.get_xticklabels()]
    assert ticks == [f"{epsilon:g}" for epsilon in EPSILONS]
    data = figures.robustness_data(s)
    one = data.query("method == 'cf' and quantity == 'drop' and class_index == 2")
    one = one[np.isclose(one["epsilon"], 1 / 255)]
    assert classes.collections[0].get_array()[2, 2] == pytest.approx(one["mean"].item())
    bars = excess.collections[0].get_segments()
    ranges = data.query("quantity == 'excess' and class_index == -1 and epsilon > 0")
    ranges = ranges[ranges["method"] != "retrain"]
    assert [bar[:, 1].tolist() for bar in bars] == ranges[["low", "high"]].to_numpy().tolist()
    assert [tick.get_text() for tick in classes.get_xticklabels()] == ["cat", "dog", "hippopotamus"]
    assert [tick.get_text() for tick in classes.get_yticklabels()] == legend(fig)
    assert len(classes.texts) == 12 and classes.get_title("left").endswith("at ε = 1/255")


def test_figure_3_draws_every_model_once_and_says_what_table_5_says(study, drawn):
    s = invented(few(forgets=("random:0.1", "random:0.5")))
    data = figures.conjectures_data(s)
    assert (data["method"] == "original").sum() == 4  # two seeds, one checkpoint and the end
    points = [len(dots.get_offsets()) for dots in figures.conjectures(s).axes[2].collections]
    assert points == [len(data) - 2, 2], "models and, hollow, checkpoints"
    fig = drawn["conjectures"]
    assert legend(fig) == ["ResNet50", "SmallViT", *TITLES, *SCOPES, "checkpoint"]
    judged = claims.table5(study).query("Claim == 'C2' and Architecture == 'SmallViT'")
    said = titles(fig)[3].splitlines()
    assert said[0] == "(d) C2, SmallViT" and said[2].startswith("at fixed accuracy: ρ = ")
    for line, row in zip(said[1:], judged.itertuples(), strict=False):
        assert f"ρ = {row.Value:+.2f} [{row.Low:+.2f}, {row.High:+.2f}]: undecided" in line
    progress = curves(fig.axes[0], "black")[0].get_xdata()
    assert progress.tolist() == [0.1, 0.25, 0.5, 0.75, 1.0]


def test_statistics_across_and_within_architectures():
    large = [changed(one, architecture="resnet50") for one in few()]
    s = invented([*few(), *large])
    higher = (s.gap["architecture"] == "resnet50", "gap")
    s.gap.loc[higher] += 10
    lower = (s.robust["architecture"] == "resnet50") & (s.robust["epsilon"] > 0)
    s.robust.loc[lower, "accuracy"] += 30
    rho = figures.conjectures_statistics(s).set_index(["conjecture", "models", "given"])["rho"]
    assert rho["C2", "within", ""] == pytest.approx(rho["C2", "small_vit", ""], abs=0.05)
    assert rho["C2", "across", ""] < 0 < rho["C2", "within", ""]


def test_figure_4_has_a_dot_and_a_bar_for_each_scope(study, drawn):
    fig = drawn["layerwise"]
    assert len(fig.axes) == 10 and titles(fig) == ["(a) ResNet50", "(b) SmallViT"]
    assert legend(fig) == [*SCOPES, "Original (all layers)", "Retrain (all layers)"]
    bars, dots = fig.axes[0].collections
    data = figures.layerwise_data(study).query("architecture == 'resnet50'")
    data = data[(data["measure"] == "average_gap") & ~data["method"].isin(claims.EXACT)]
    assert len(data) == 5 * 4 + 1  # ga: all layers alone
    assert dots.get_offsets()[:, 0].tolist() == data["mean"].tolist()
    assert [bar[:, 0].tolist() for bar in bars.get_segments()] == data[
        ["low", "high"]
    ].to_numpy().tolist()
    assert [tick.get_text() for tick in fig.axes[5].get_yticklabels()] == TITLES[2:]
    last = figures.layerwise_data(study).query("measure == 'relative_memory' and scope == 'last'")
    assert last["mean"].to_numpy() == pytest.approx(0.35)


def test_the_sweep_rings_the_rate_that_was_taken(tmp_path):
    s = invented([model("cf")], folder=tmp_path / "results" / "quick")
    with pytest.raises(NothingToDraw, match="no sweep"):
        figures.sweep(invented([], profile="none"))
    (s.folder / "sweeps").mkdir()
    rows = [("cf", rate, gap, rate == 0.01) for rate, gap in ((0.001, 9), (0.01, 2), (0.1, 40))]
    table = pd.DataFrame(rows, columns=["method", "lr", "average_gap", "chosen"])
    table.assign(architecture="small_vit").to_csv(s.folder / "sweeps" / "0.csv")
    ax = figures.sweep(s).axes[0]
    assert curves(ax, "#56B4E9")[0].get_ydata().tolist() == [9, 2, 40]
    assert ax.collections[0].get_offsets().tolist() == [[0.01, 2]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_samples_are_eight_images_of_each_class_arrays_or_tensors():
    images = np.arange(3 * 20 * 4 * 4 * 3, dtype=np.uint8).reshape(-1, 4, 4, 3)
    labels = np.repeat([0, 1, 2], 20)[:43]  # three of the last class
    fig = figures.samples(images[:43], labels, ["a", r"$\frac$", "c"])
    tensors = torch.from_numpy(images[:43]).permute(0, 3, 1, 2), torch.from_numpy(labels)
    assert style.picture(figures.samples(*tensors, ("a", r"$\frac$", "c")), "png") == style.picture(
        fig, "png"
    )
    assert [ax.get_ylabel() for ax in fig.axes] == ["a", r"$\frac$", "c", ""]
    strip = fig.axes[2].images[0].get_array()
    assert strip.shape == (6, 8 * 6, 3) and (strip[:, 18:] == 255).all()
    assert (strip[1:5, 1:5] == images[40]).all()


MISSING = {
    "one seed, all layers": (few(seeds=(0,), scopes=("all",)), "one seed, no range"),
    "no group of layers": (few(scopes=("all",)), "No run restricted to a group of layers"),
    "no checkpoint": (few(checkpoints=()), "no checkpoint along the original's training stored"),
    "no Retrain": (few(methods=("original", "cf")), "no retrained model to compare with"),
    "no attack": (few(attacks=()), "no model with both a fairness-gap and a robustness drop"),
    "another network": ([changed(one, architecture="new") for one in few()], "(a) new"),
    "another scope": ([*few(), changed(few()[-1], scope="modules:head")], "modules:head"),
    "many": (few(classes=40, methods=(*ORDER, *"abcdef")), "F"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("models, said", MISSING.values(), ids=MISSING)
def test_what_is_missing_is_said_and_nothing_is_cut(models, said):
    s = invented(models, classes=[f"class {index}" for index in range(40)])
    found = ""
    for name in ALL:
        try:
            fig = getattr(figures, name)(s)
        except NothingToDraw as reason:
            assert name == "robustness" and "PGD not measured" in str(reason)
            continue
        found += words(fig)
        assert whole(fig)
        if name == "layerwise":
            assert "CF" in [text.get_text() for text in fig.findobj(Text)]
    assert said in found


def whole(fig):
    """Say whether all that is drawn lies inside the figure."""
    with style.look():
        left, bottom, right, top = fig.get_tightbbox().extents
    width, height = fig.get_size_inches()
    return min(left, bottom) >= 0 and right <= width and top <= height


@pytest.mark.parametrize("name", ALL)
def test_a_study_with_nothing_to_draw_says_so(name):
    with pytest.raises(NothingToDraw, match="measured"):
        getattr(figures, name)(invented([]))


@pytest.mark.parametrize("name", ALL)
def test_names_are_no_formulas(name):
    odd = [r"$\frac$", "$x$ y_^{", "a\\"]
    s = invented(few(), classes=odd, dataset=r"$\frac$ & $\alpha")
    fig = getattr(figures, name)(s)
    assert r"data set $\frac$ & $\alpha." in words(fig) and whole(fig)
    assert style.picture(fig, "pdf").startswith(b"%PDF")


def test_a_figure_is_the_same_bytes_whatever_the_callers_settings(drawn):
    s = invented(few())
    before = dict(matplotlib.rcParams)
    first = [style.picture(figures.fairness_gap(s), kind) for kind in ("png", "pdf")]
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "savefig.bbox": "tight"}):
        fig = figures.fairness_gap(s)
        again = [style.picture(fig, kind) for kind in ("png", "pdf")]
    assert first == again == [style.picture(fig, kind) for kind in ("png", "pdf")]
    assert dict(matplotlib.rcParams) == before
    png, pdf = first
    assert int.from_bytes(png[16:20]) == 1400, "7 inches at 200 dpi"
    assert b"Software" not in png and b"CreationDate" not in pdf and b"Matplotlib" not in pdf
    assert b"/Type3" not in pdf.replace(b" ", b"")
    assert all(whole(fig) for fig in drawn.values())


def test_a_notebook_shows_a_figure_once_as_it_is_in_the_file():
    fig = figures.fairness_gap(invented(few()))
    shown, size = fig._repr_png_()
    assert shown == style.picture(fig, "png")
    assert size == {"width": 770, "height": round(110 * fig.get_figheight())}
    assert plt.get_fignums() == []
