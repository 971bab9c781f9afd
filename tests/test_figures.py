"""What the figures show, by what is on their axes; their bytes; and studies that lack something."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers_report import EPSILONS, changed, few, invented, model, realistic
from matplotlib import pyplot as plt
from matplotlib.text import Text
from PIL import Image

from unlearnkit.report import NothingToDraw, claims, figures
from unlearnkit.report.figures import style
from unlearnkit.results import SWEEP_COLUMNS, write_sweep

METHODS = ["original", "retrain", "cf", "bs", "rl", "scrub", "salun", "ga"]
TITLES = ["Original", "Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA"]
SCOPES = ["all layers", "first layers", "intermediate layers", "last layers"]
STUDY = invented(realistic(), dataset="CIFAR-10")
OWN = ("fairness_gap", "conjectures", "layerwise", "sigma_by_class", "tradeoff")
ALL = (*OWN, "robustness")
TRIMMED = invented(
    [
        model(
            "retrain",
            gap={"std": [9.0, 0.1] * 28 + [20.0], "trimmed_std": [0.3] * 57},
            architecture="resnet50",
        ),
        model(
            "salun", gap=dict.fromkeys(("std", "trimmed_std"), [5.0] * 57), architecture="resnet50"
        ),
        model("retrain", gap={"std": [0.2] * 9, "trimmed_std": [0.1] * 9}),
    ],
    dataset="cifar10",
)


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
    panels = ["(a) ResNet-50, all models", "(b) ResNet-50, without SalUn, SCRUB", "(c) SmallViT"]
    panels += ["(d) published, all models", "(e) published, without SalUn, SCRUB", "(f) published"]
    assert titles(fig) == panels and legend(fig) == TITLES
    for ax, lacking in zip(fig.axes[:3], [[], ["scrub", "salun"], []], strict=True):
        assert [m for m in METHODS if not curve(ax, colors[m])] == lacking
        assert len(ax.collections) == 2, "a range each for Original and Retrain"
    trimmed = figures.fairness_gap(TRIMMED, reading="trimmed_std", published=False).axes
    whole = figures.fairness_gap(TRIMMED).axes
    assert len({ax.get_ylim() for ax in [*whole[:2], *whole[3:5], *trimmed[:2]]}) == 1
    assert len({whole[2].get_ylim(), whole[5].get_ylim(), trimmed[2].get_ylim()}) == 1
    mean = fig.data.query("architecture == 'small_vit' and method == 'salun'")["mean"]
    assert curve(fig.axes[2], colors["salun"]).get_ydata().tolist() == mean.tolist()
    assert texts(fig.axes[0].texts) == ["", *(f"stage {index}" for index in range(1, 5))]
    assert {"0.1", "1", "10"} <= set(texts(fig.axes[0].get_yticklabels())), "wide: logarithmic"
    row = fig.data.query("architecture == 'resnet50' and method == 'scrub'").iloc[-1]
    gaps = STUDY.rows("gap", architecture="resnet50", method="scrub", scope="all", layer_index=57)
    assert row[["mean", "low", "high"]].tolist() == gaps["gap"].agg(["mean", "min", "max"]).tolist()
    last = fig.data.query("architecture == 'small_vit' and layer_index == 9").set_index("method")
    assert last["published"]["rl"] == 0.26 and np.isnan(last["published"]["ga"])
    ends = [curve(ax, colors["rl"]).get_ydata()[-1] for ax in fig.axes[5:]]
    assert ends == [0.26] and not curve(fig.axes[5], colors["ga"])


def test_figure_1_without_published_values():
    narrow = figures.fairness_gap(invented(few(methods=("cf",))), published=False)
    assert narrow.axes[0].get_yscale() == "linear" and narrow.axes[0].get_ylim()[0] == 0
    shorter = figures.fairness_gap(invented([model("cf", gap={"std": [0.1] * 8})]))
    digits = figures.fairness_gap(invented(few(methods=("cf",))))
    assert len(digits.axes) == 1, "of other data the publication says nothing"
    for fig in (narrow, shorter, digits):
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
    fig, colors = figures.robustness(s), style.palette(s)
    accuracy, excess, classes = fig.axes[:3]
    assert all(curve(accuracy, color) for color in colors.values())
    assert [m for m in colors if not curve(excess, colors[m])] == ["retrain"]
    assert texts(accuracy.get_xticklabels()) == [f"{epsilon:g}" for epsilon in EPSILONS]
    drops = fig.data.query("quantity == 'drop' and method == 'cf' and class_index == 2")
    assert classes.collections[0].get_array()[2, 2] == drops["mean"].iloc[4]
    data = fig.data.query("quantity == 'excess' and class_index < 0 and epsilon > 0")
    assert has_ranges(excess.collections[0], 1, data[data["method"] != "retrain"])
    assert texts(classes.get_xticklabels()) == ["cat", "dog", "hippopotamus"]
    assert texts(classes.get_yticklabels()) == legend(fig) and len(classes.texts) == 12
    assert titles(fig)[2] == "(c) SmallViT: drop per class at ε = 2/255"


def test_figure_2_draws_minimal_distances_and_the_attack_on_them():
    curve_of = {"pgd": {0: 80, 1: 60, 2: 40}}
    exact = model("retrain", robust=curve_of, distances=[0.0, 1.5, 2.5, 0.3])
    cf = model("cf", robust=curve_of, distances=[3.0, 1.0, 2.0, 0.0])
    fig = figures.robustness(invented([exact, cf]))
    accuracy, distance, _ = fig.axes[:3]
    line = curve(accuracy, style.palette(STUDY)["retrain"])
    assert line.get_xdata()[[0, -1]].tolist() == [0.5, 2] and accuracy.get_xscale() == "log"
    assert line.get_ydata()[[0, -1]].tolist() == [75, 25], "the share with a distance above ε"
    assert texts(accuracy.get_xticklabels()) == ["0", "1", "2"], "clean stands left of the rest"
    assert texts(distance.get_yticklabels()) == ["CF"]
    middle = distance.collections[-1].get_offsets().tolist()
    assert middle == [[-0.5, 0]], "of the two images that both get right"


def test_figure_3_draws_every_model_once_and_says_what_table_5_says():
    twice = figures.conjectures(invented(few(forgets=("random:0.1", "random:0.5"))))
    assert (twice.data["method"] == "original").sum() == 4  # two seeds, one checkpoint and the end
    hollow, solid, _ = twice.axes[2].collections[:3]  # Original's: checkpoints and the end
    assert [len(dots.get_offsets()) for dots in (hollow, solid)] == [2, 2]
    assert not len(hollow.get_facecolor()) and len(solid.get_facecolor())
    points = sum(len(dots.get_offsets()) for dots in twice.axes[2].collections)
    assert points == len(twice.data) and twice.axes[2].get_xscale() == "log"
    fig = figures.conjectures(STUDY)
    assert legend(fig) == ["ResNet-50", "SmallViT", *TITLES]
    title, *said = titles(fig)[3].splitlines()
    assert title == "(d) C2, SmallViT" and said[0].startswith("at fixed accuracy: ρ = ")
    judged = claims.table5(STUDY).query("Claim == 'C2' and Architecture == 'SmallViT'")
    for line, row in zip(said, judged.itertuples(), strict=False):
        words = f"ρ = {row.Value:+.2f} [{row.Low:+.2f}, {row.High:+.2f}]: undecided"
        assert words.replace("-", "−") in line and line in fig.alt
    assert curve(fig.axes[0], "black").get_xdata().tolist() == [0.1, 0.25, 0.5, 0.75, 1.0]


def test_figure_4_has_a_dot_and_a_bar_for_each_scope():
    fig = figures.layerwise(STUDY)
    assert len(fig.axes) == 10 and titles(fig) == ["(a) ResNet-50", "(b) SmallViT"]
    assert legend(fig) == [*SCOPES, "Original (all layers)", "Retrain (all layers)"]
    data = fig.data.query("architecture == 'resnet50' and measure == 'average_gap'")
    data = data[~data["method"].isin(claims.EXACT)]
    assert len(data) == 5 * 4 + 1  # ga: all layers alone
    bars, dots = fig.axes[0].collections
    assert dots.get_offsets()[:, 0].tolist() == data["mean"].tolist()
    assert has_ranges(bars, 0, data)
    assert texts(fig.axes[5].get_yticklabels()) == TITLES[2:]
    labels = [ax.get_xlabel() for ax in fig.axes]
    assert labels[:5] == labels[5:] and all(labels), "under both rows"
    mean = data[data["scope"] == "last"]["mean"].mean()
    assert f"last layers {mean:.3g}" in fig.alt


def test_the_heat_map_marks_the_classes_that_make_the_gap():
    sizes = [[2.0, 4.0, 6.0], [5.0, 1.0, 3.0]]  # by layer and class
    sigma = {"layers": ["net.a", "net.b"], "std": sizes}
    record, facts = model("retrain")
    record.stages.append({"stage": "fairness", "key": "0", "value": sigma})
    fig = figures.sigma_by_class(invented([(record, facts)], classes=["cat", "dog", "ship"]))
    ax = fig.axes[0]
    largest, smallest = (dots.get_offsets().tolist() for dots in ax.collections[1:])
    assert largest == [[1, 2], [2, 0]] and smallest == [[1, 0], [2, 1]]
    assert texts(ax.get_yticklabels()) == ["cat", "dog", "ship"]
    assert fig.data["mean"].tolist() == [0.5, 1, 1.5, 5 / 3, 1 / 3, 1]
    assert "Retrain, last layer: largest class cat (1.667), smallest class dog (0.333)" in fig.alt


def test_the_trade_off_has_a_dot_a_model_and_the_mean_of_each_method():
    def one(method, seed, ua, clean, robust):
        numbers = {"UA": ua, "RA": 90.0, "TA": 80.0, "MIA": 10.0}
        return model(method, seed, quality=numbers, robust={"pgd": {0: clean, 8: robust}})

    exact = [one("retrain", seed, 20.0, 80, 50) for seed in (0, 1)]
    both = one("cf", 0, 24.0, 64, 32), one("cf", 1, 28.0, 80, 70)
    fig = figures.tradeoff(invented([*exact, *both]))
    ax = fig.axes[0]
    points = [dots.get_offsets().tolist() for dots in ax.collections if len(dots.get_offsets())]
    assert points == [[[1, 12.5]], [[2, -25]], [[1.5, -6.25]]]
    assert legend(fig) == ["CF"] and "SmallViT: CF 1.5 and −6.2" in fig.alt
    assert texts(ax.texts)[0] == "less robust than Retrain ↑"


def judged(*rows):
    columns = ["Claim", "Architecture", "Measured", "Unit", "Value", "Low", "High", "Bound"]
    return pd.DataFrame(rows, columns=[*columns, "Verdict"])


def test_the_forest_has_a_panel_a_unit_and_a_marker_and_word_a_verdict():
    rows = [
        ("C1", "ResNet-50", "ρ of both", "ρ", -0.5, -0.9, -0.1, 0, "supported"),
        ("C1", "SmallViT", "ρ of both", "ρ", 0.2, -0.4, 0.8, 0, "undecided"),
        ("C4", "SmallViT", "ρ of others", "ρ", 0.95, 0.92, 0.98, np.nan, "described"),
        ("C5", "SmallViT", "seconds " * 20, "ratio", 0.5, np.nan, np.nan, 1, "undecided"),
        ("C5", "ResNet-50", "seconds " * 20, "ratio", np.nan, np.nan, np.nan, 1, "undecided"),
    ]
    for column in (False, True):
        fig = figures.forest(STUDY, judged(*rows), column=column)
        assert titles(fig) == ["(a) ρ", "(b) ratio"] and is_whole(fig)
        ax, ratio = fig.axes
        assert [line.get_xdata()[0] for line in ax.lines] == [-0.5, 0.2, 0.95]
        assert len({(line.get_marker(), line.get_mfc()) for line in ax.lines}) == 3
        said = [text for text in texts(ax.texts) if text in claims.VERDICTS]
        assert said == ["supported", "undecided", "described"]
        bars = [bar.get_segments()[0][:, 0].tolist() for bar in ax.collections]
        assert bars[:5] == [[-0.9, -0.1], [0, 0], [-0.4, 0.8], [0, 0], [0.92, 0.98]]
        assert len(ratio.lines) == 1 and texts(ax.get_yticklabels())[0] == "ResNet-50"
    assert "C4 described: 1" in fig.alt
    with pytest.raises(NothingToDraw):
        figures.forest(STUDY, judged(*rows[4:]))


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
    assert strip.shape == (6, 8 * 6, 3) and (strip[:, 18:] == 1).all()
    assert (strip[1:5, 1:5] == images[40] / 255).all()


def test_the_strip_shows_what_was_changed_and_what_the_models_say():
    images = torch.full((9, 3, 4, 4), 0.5)
    images[0, :, 0, 0] += 0.05
    labels, names = torch.tensor([0, 1, 2] * 3), ["cat", "dog", "ship"]
    said = {"Original": torch.zeros(9, dtype=int), "Retrain": labels}
    for column, shown in ((False, 8), (True, 4)):
        fig = figures.adversarial_strip(
            torch.full((9, 3, 4, 4), 0.5), images, labels, said, names, "Original", column=column
        )
        ax = fig.axes[0]
        grid = ax.images[0].get_array()
        assert grid.shape == (18, 6 * shown, 3)
        assert np.allclose(grid[[1, 7, 13], 1], [[0.5], [0.95], [0.55]])  # 0.05 nine times
        rows = ["image", "change × 9", "attacked", "Original says", "Retrain says"]
        assert texts(ax.get_yticklabels()) == rows
        bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
        wrong = sum(name != "cat" for name in texts(ax.get_xticklabels()))
        assert bold == ["cat"] * wrong and wrong and len(fig.data) == 2 * shown
        assert f"Original {wrong} of {shown}; Retrain 0 of {shown}" in fig.alt and is_whole(fig)


def test_the_embedding_rings_the_forget_set_and_names_each_class():
    points, labels = np.arange(24.0).reshape(12, 2), np.repeat([0, 2], 6)
    forget = np.arange(12) % 3 == 0
    fig = figures.embedding({"A": points, "B": -points}, labels, forget, ["cat", "dog", "ship"])
    for ax, sign in zip(fig.axes, (1, -1), strict=True):
        assert texts(ax.texts) == ["cat", "ship"]
        kept, gone, *_ = (dots.get_offsets() for dots in ax.collections)
        assert (gone == sign * points[:6][forget[:6]]).all() and len(kept) == 4
    assert [ax.get_title("left") for ax in fig.axes] == ["A", "B"] and len(fig.data) == 24
    assert legend(fig) == ["forget set"] and "12 images, 4 of them" in fig.alt


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
        (
            FGSM,
            [
                "PGD (white-box) not measured for this forget set; measured: FGSM",
                "no model with both a",
            ],
        ),
        (CROWD, ["F", "modules:head", "over 2 seeds. Profile quick"]),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_cut_or_a_formula(models, said):
    classes = [r"$\frac$", "$x$ y_^{", "a\\", *(f"class {index}" for index in range(3, 40))]
    s, found = invented(models, classes=classes, dataset=r"$\frac$ & $\alpha"), ""
    for name in ALL:
        try:
            fig = getattr(figures, name)(s)
            if name in OWN:
                narrow = getattr(figures, name)(s, column=True)
                assert narrow.get_figwidth() == style.COLUMN and is_whole(narrow), name
                assert narrow.alt == fig.alt and narrow.data.equals(fig.data)
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
    shown = {"width": 700, "height": round(100 * fig.get_figheight()), "alt": fig.alt}
    assert fig._repr_png_() == (png, shown)
    assert Image.open(io.BytesIO(png)).text == {"Description": fig.alt} and "Retrain 0." in fig.alt
    assert b"Software" not in png and b"CreationDate" not in pdf and b"Matplotlib" not in pdf
    assert b"/Type3" not in pdf.replace(b" ", b"")
