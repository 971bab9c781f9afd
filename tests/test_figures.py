"""What the figures show, by what is on their axes; their bytes; and studies that lack something."""

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
from unlearnkit.results import SWEEP_COLUMNS, write_sweep

METHODS = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun", "ga"]
TITLES = ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA"]
SCOPES = ["all layers", "first layers", "intermediate layers", "last layers"]
STUDY = invented(realistic())
ALL = ("fairness_gap", "robustness", "conjectures", "layerwise")


def texts(artists):
    return [artist.get_text() for artist in artists]


def legend(fig):
    return texts(fig.legends[0].get_texts())


def titles(fig):
    return [text for ax in fig.axes if (text := ax.get_title("left"))]


def curve(ax, color):
    """Return the line of a colour that joins points, None if there is none."""
    for line in ax.lines:
        same = matplotlib.colors.same_color(line.get_color(), color)
        if same and line.get_linestyle() != "None" and len(line.get_xdata()) > 2:
            return line


def has_ranges(collection, axis, data):
    """Say whether the bars end, along an axis, where `data` does."""
    ends = [bar[:, axis].tolist() for bar in collection.get_segments()]
    return ends == data[["low", "high"]].to_numpy().tolist()


def is_whole(fig):
    """Say whether all that is drawn lies inside the figure."""
    with style.look():
        left, bottom, right, top = fig.get_tightbbox().extents
    width, height = fig.get_size_inches()
    return min(left, bottom) >= 0 and right <= width and top <= height


def test_figure_1_has_the_published_panels_curves_legend_and_values():
    fig, colors = figures.fairness_gap(STUDY), style.palette(STUDY)
    panels = ["(a) ResNet50, all models", "(b) ResNet50 except SalUn, SCRUB", "(c) SmallViT"]
    assert titles(fig) == panels and legend(fig) == [*TITLES, "published"] and is_whole(fig)
    for ax, lacking in zip(fig.axes, [[], ["scrub", "salun"], []], strict=True):
        assert [m for m in METHODS if not curve(ax, colors[m])] == lacking
        assert len(ax.collections) == 2, "a range each for Original and Retrain"
    mean = fig.data.query("architecture == 'small_vit' and method == 'salun'")["mean"]
    assert curve(fig.axes[2], colors["salun"]).get_ydata().tolist() == mean.tolist()
    assert texts(fig.axes[0].texts) == ["", *(f"stage {index}" for index in range(1, 5))]
    assert {"0.1", "1", "10"} <= set(texts(fig.axes[0].get_yticklabels())), "wide: logarithmic"
    row = fig.data.query("architecture == 'resnet50' and method == 'scrub'").iloc[-1]
    gaps = STUDY.rows("gap", architecture="resnet50", method="scrub", scope="all", layer_index=57)
    assert row[["mean", "low", "high"]].tolist() == gaps["gap"].agg(["mean", "min", "max"]).tolist()
    last = fig.data.query("architecture == 'small_vit' and layer_index == 9").set_index("method")
    assert last["published"]["rl"] == 0.26 and np.isnan(last["published"]["ga"])


def test_figure_1_without_published_values():
    narrow = figures.fairness_gap(invented(few(methods=("cf",))), published=False)
    assert narrow.axes[0].get_yscale() == "linear" and narrow.axes[0].get_ylim()[0] == 0
    shorter = figures.fairness_gap(invented([model("cf", gap={"std": [0.1] * 8})]))
    for fig in (narrow, shorter):
        assert fig.data["published"].isna().all() and legend(fig) == ["CF"]


def test_a_method_looks_the_same_everywhere_and_unlike_the_others():
    s = invented(few(methods=("original", "retrain", "cf", "salun", "mine", "yours")))
    colors = style.palette(s)
    assert colors["salun"] == "#CC79A7" and len(set(colors.values())) == 6
    axes = [*figures.fairness_gap(s).axes, *figures.robustness(s).axes[:2]]
    for method, marker in zip(("original", "cf", "salun", "mine", "yours"), "o^vDP", strict=True):
        assert [curve(ax, colors[method]).get_marker() for ax in axes] == [marker] * 3


def test_figure_2_has_curves_excess_and_classes():
    s = invented(few(), classes=["cat", "dog", "hippopotamuses"])
    fig, colors = figures.robustness(s, epsilon=1 / 255), style.palette(s)
    accuracy, excess, classes = fig.axes[:3]
    assert all(curve(accuracy, color) for color in colors.values())
    assert [m for m in colors if not curve(excess, colors[m])] == ["retrain"]
    assert texts(accuracy.get_xticklabels()) == [f"{epsilon:g}" for epsilon in EPSILONS]
    drops = fig.data.query("quantity == 'drop' and method == 'cf' and class_index == 2")
    assert classes.collections[0].get_array()[2, 2] == drops["mean"].iloc[3], "at the fourth ε"
    data = fig.data.query("quantity == 'excess' and class_index < 0 and epsilon > 0")
    assert has_ranges(excess.collections[0], 1, data[data["method"] != "retrain"])
    assert texts(classes.get_xticklabels()) == ["cat", "dog", "hippopotamus"]
    assert texts(classes.get_yticklabels()) == legend(fig) and len(classes.texts) == 12
    assert titles(fig)[2] == "(c) SmallViT: drop per class at ε = 1/255"


def test_figure_3_draws_every_model_once_and_says_what_table_5_says():
    twice = figures.conjectures(invented(few(forgets=("random:0.1", "random:0.5"))))
    assert (twice.data["method"] == "original").sum() == 4  # two seeds, one checkpoint and the end
    points = [len(dots.get_offsets()) for dots in twice.axes[2].collections]
    assert points == [len(twice.data) - 2, 2], "models and, hollow, checkpoints"
    fig = figures.conjectures(STUDY)
    assert legend(fig) == ["ResNet50", "SmallViT", *TITLES, *SCOPES, "checkpoint"]
    title, *said = titles(fig)[3].splitlines()
    assert title == "(d) C2, SmallViT" and said[1].startswith("at fixed accuracy: ρ = ")
    judged = claims.table5(STUDY).query("Claim == 'C2' and Architecture == 'SmallViT'")
    for line, row in zip(said, judged.itertuples(), strict=False):
        assert f"ρ = {row.Value:+.2f} [{row.Low:+.2f}, {row.High:+.2f}]: undecided" in line
    assert curve(fig.axes[0], "black").get_xdata().tolist() == [0.1, 0.25, 0.5, 0.75, 1.0]


def test_figure_4_has_a_dot_and_a_bar_for_each_scope():
    fig = figures.layerwise(STUDY)
    assert len(fig.axes) == 10 and titles(fig) == ["(a) ResNet50", "(b) SmallViT"]
    assert legend(fig) == [*SCOPES, "Original (all layers)", "Retrain (all layers)"]
    data = fig.data.query("architecture == 'resnet50' and measure == 'average_gap'")
    data = data[~data["method"].isin(claims.EXACT)]
    assert len(data) == 5 * 4 + 1  # ga: all layers alone
    bars, dots = fig.axes[0].collections
    assert dots.get_offsets()[:, 0].tolist() == data["mean"].tolist()
    assert has_ranges(bars, 0, data)
    assert texts(fig.axes[5].get_yticklabels()) == TITLES[2:]


def test_the_sweep_rings_the_rate_taken_and_an_empty_study_has_no_figure(tmp_path):
    for name in (*ALL, "sweep"):
        with pytest.raises(NothingToDraw, match=r"measured|no sweep"):
            getattr(figures, name)(invented([], profile="none"))
    s = invented([model("cf")], folder=tmp_path / "results" / "quick")
    gaps = [(0.001, 0, 9), (0.01, 0, 3), (0.01, 1, 1), (0.1, 0, 2), (0.1, 1, 8), (1.0, 0, 40)]
    table = pd.DataFrame(gaps, columns=["lr", "seed", "average_gap"])
    table["chosen"] = table["lr"] == 0.01
    table = table.assign(architecture="small_vit", method="cf").reindex(columns=SWEEP_COLUMNS)
    write_sweep(table, s.folder)
    fig = figures.sweep(s)
    ax = fig.axes[0]
    assert curve(ax, "#56B4E9").get_ydata().tolist() == [9, 2, 5, 40]
    ring, bars = ax.collections
    assert ring.get_offsets().tolist() == [[0.01, 2]] and has_ranges(bars, 1, fig.data)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_samples_are_eight_images_of_each_class_arrays_or_tensors():
    images = np.arange(43 * 4 * 4 * 3, dtype=np.uint8).reshape(43, 4, 4, 3)
    labels, names = np.repeat([0, 1, 2], 20)[:43], ("a", r"$\frac$", "c")  # three of the last class
    fig = figures.samples(images, labels, names)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    assert figures.samples(*tensors, names).picture("png") == fig.picture("png")
    assert [ax.get_ylabel() for ax in fig.axes] == [*names, ""]
    strip = fig.axes[2].images[0].get_array()
    assert strip.shape == (6, 8 * 6, 3) and (strip[:, 18:] == 255).all()
    assert (strip[1:5, 1:5] == images[40]).all()


ALONE = few(seeds=(0,), methods=("original", "retrain", "cf"), scopes=("all",), checkpoints=())
UNLIKE = [changed(one, architecture="new") for one in few(methods=("original", "cf"))]
CROWD = few(classes=40, methods=(*METHODS, *"abcdef"))
CROWD.append(changed(CROWD[-1], scope="modules:head"))
FGSM = few(attacks=("fgsm",))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("models", "said"),
    [
        (ALONE, ["one seed, no range", "No run restricted to a group", "no checkpoint along"]),
        (UNLIKE, ["(a) new", "no retrained model to compare with"]),
        (FGSM, ["PGD not measured for this forget set; measured: FGSM", "no model with both a"]),
        (CROWD, ["F", "modules:head", "over 2 seeds. Profile quick"]),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_cut_or_a_formula(models, said):
    classes = [r"$\frac$", "$x$ y_^{", "a\\", *(f"class {index}" for index in range(3, 40))]
    s, found = invented(models, classes=classes, dataset=r"$\frac$ & $\alpha"), ""
    for name in ALL:
        try:
            fig = getattr(figures, name)(s)
        except NothingToDraw as reason:
            found += str(reason)
            continue
        assert is_whole(fig)
        found += " ".join(" ".join(texts(fig.findobj(Text))).split())
        # The methods are named although the first panel may be empty.
        assert name != "layerwise" or any("CF" in texts(ax.get_yticklabels()) for ax in fig.axes)
    assert all(part in found for part in (*said, r"data set $\frac$ & $\alpha."))


def test_a_figure_is_the_same_bytes_in_files_and_notebooks_whatever_the_settings():
    s, before = invented(few()), dict(matplotlib.rcParams)
    first = [figures.fairness_gap(s).picture(kind) for kind in ("png", "pdf")]
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "savefig.bbox": "tight"}):
        fig = figures.fairness_gap(s)
        places = [ax.get_position().bounds for ax in fig.axes]
        assert first == [fig.picture(kind) for kind in ("png", "pdf")]
    assert first == [fig.picture(kind) for kind in ("png", "pdf")]
    assert [ax.get_position().bounds for ax in fig.axes] == places, "laid out once"
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == []
    png, pdf = first
    assert int.from_bytes(png[16:20]) == 1400, "7 inches at 200 dpi"
    assert fig._repr_png_() == (png, {"width": 770, "height": round(110 * fig.get_figheight())})
    assert b"Software" not in png and b"CreationDate" not in pdf and b"Matplotlib" not in pdf
    assert b"/Type3" not in pdf.replace(b" ", b"")
