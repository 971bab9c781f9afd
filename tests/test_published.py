"""Our curves beside the published ones: copies agree, mirror images do not, gaps leave rows out."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unlearnkit.report.published import _decide, _parts_at, curves, observations, read_published
from unlearnkit.report.readings import nearest, outliers, readings
from unlearnkit.report.tables.saving import latex, markdown, numeric
from unlearnkit.report.tidy import COLUMNS

PAPER = read_published()
NAMES = ["Architecture", "Observation"]


def copied() -> pd.DataFrame:
    """Return the published gaps, hidden ones in the middle of the others."""
    parts = []
    for architecture, part in PAPER.groupby("architecture"):
        wide = part.pivot(index="layer_index", columns="method", values="fairness_gap")
        for here, there in [(50, 51), (51, 50)] if architecture == "resnet50" else []:
            wide.loc[here] = wide.loc[here].fillna(wide.loc[there])
        small = wide.drop(columns=["salun", "scrub"]).median(axis=1).fillna(0.15)
        wide = wide.apply(lambda curve, small=small: curve.fillna(small))
        long = wide.reset_index().melt("layer_index", value_name="gap")
        parts.append(long.assign(architecture=architecture))
    return pd.concat(parts)


COPY = copied()


def invented(*seeds: pd.DataFrame, **readings: pd.DataFrame):
    """Return a study with these gaps for each seed, and for other readings in its only seed."""
    parts = [part.assign(seed=seed, reading="std") for seed, part in enumerate(seeds)]
    parts += [part.assign(seed=0, reading=name) for name, part in readings.items()]
    gap = pd.concat(parts or [COPY.iloc[:0]])
    gap = gap.assign(forget="random:0.1", scope="all", progress=1.0, layer_name="")
    frames = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    frames["gap"] = gap.reindex(columns=COLUMNS["gap"])
    return SimpleNamespace(
        profile=SimpleNamespace(name="quick"), profile_name="quick", dataset="digits", **frames
    )


def trimmed(study):
    """Add half of every gap as its trimmed reading."""
    half = study.gap.assign(reading="trimmed_std", gap=study.gap["gap"] / 2)
    study.gap = pd.concat([study.gap, half])
    return study


def scaled(factor: float) -> pd.DataFrame:
    return COPY.assign(gap=factor * COPY["gap"])


def mirrored() -> pd.DataFrame:
    return COPY.assign(gap=0.01 / COPY["gap"])


def row(table: pd.DataFrame, observation: str, architecture: str = "ResNet50") -> pd.Series:
    chosen = table[(table["Architecture"] == architecture) & (table["Observation"] == observation)]
    assert len(chosen) == 1, table
    return chosen.iloc[0]


# --- observations -------------------------------------------------------------------------------


def test_a_copy_of_the_published_curves_shows_every_observation():
    table = observations(invented(COPY, scaled(1.02), scaled(0.99)))
    assert (table["Holds"] == "yes").all(), table
    assert (table["Seeds"] == 3).all()
    assert not table.duplicated(NAMES).any()
    order = row(table, "Last layer: whole order")
    assert order["Published"] == "SCRUB > SalUn > RL > Retrain > Original > CF > BS"
    assert order["Ours"].startswith("ρ = 1 ")
    order = row(table, "Last layer: whole order", "SmallViT")
    assert order["Published"].startswith("RL > SalUn > ")
    assert order["Published"].endswith(" > Original > CF > BS")
    assert " = " in order["Published"], "SCRUB and Retrain cannot be told apart"


def test_the_numbers_of_a_copy_are_the_published_ones():
    table = observations(invented(COPY, COPY, COPY))
    first = row(table, "Last layer: SCRUB > SalUn")
    assert first["Published"] == first["Ours"] == "17 > 1.9"
    parts = row(table, "Curves part for good: all methods", "SmallViT")
    assert parts["Published"] == parts["Ours"] == "layer 8"
    size = row(table, "Layers 47 to 57: SCRUB / Retrain")
    center = size["Published"].split(" [")[0]
    assert size["Ours"] == f"{center} [{center}, {center}]"


def test_the_size_by_hand():
    wide = PAPER[PAPER["architecture"] == "resnet50"]
    wide = wide.pivot(index="layer_index", columns="method", values="fairness_gap").loc[47:]
    wide.loc[51, "retrain"] = wide.loc[50, "retrain"]  # a container is its BatchNorm
    seen = wide.dropna(subset=["retrain"])
    center = seen["scrub"].sum() / seen["retrain"].sum()
    size = row(observations(invented(COPY, COPY, COPY)), "Layers 47 to 57: SCRUB / Retrain")
    low, high = map(float, size["Published"].split("[")[1].rstrip("]").split(", "))
    assert size["Published"].startswith(f"{center:.3g} [")
    assert low < center < high
    few = COPY.assign(gap=COPY["gap"].where(COPY["method"] != "scrub", COPY["gap"] / 2.1))
    assert row(observations(invented(few, few, few)), size["Observation"])["Holds"] == "no"
    few = COPY.assign(gap=COPY["gap"].where(COPY["method"] != "scrub", COPY["gap"] / 1.9))
    assert row(observations(invented(few, few, few)), size["Observation"])["Holds"] == "yes"


def test_a_mirror_image_shows_no_order():
    table = observations(invented(*3 * [mirrored()]))
    order = table[table["Observation"].str.startswith("Last layer") & (table["Seeds"] == 2)]
    tied = order["Observation"].str.contains(" = ")
    assert (order.loc[~tied, "Holds"] == "no").all()
    assert (order.loc[tied, "Holds"] == "yes").all(), "what is equal stays equal"
    assert " < " in row(table, "Last layer: SCRUB > SalUn")["Ours"]
    assert row(table, "Layers 47 to 57: SalUn / Retrain")["Holds"] == "no"


def test_flat_curves_never_part():
    flat = COPY.assign(gap=0.1)
    table = observations(invented(flat, flat, flat))
    parts = row(table, "Curves part for good: all methods", "SmallViT")
    assert (parts["Ours"], parts["Holds"]) == ("never", "no")


def test_one_seed_and_disagreeing_seeds_decide_nothing():
    one = observations(invented(COPY))
    assert (one["Holds"] == "undecided").all()
    assert (one["Why"] == "fewer than 3 seeds").all()
    table = observations(invented(COPY, mirrored(), COPY))
    assert row(table, "Last layer: whole order")["Ours"].endswith("[-1, 1]")
    two = row(table, "Last layer: RL > Retrain")
    assert (two["Holds"], two["Why"]) == ("undecided", "2 of 3 seeds agree")


@pytest.mark.parametrize("sign, holds", [(1, "yes"), (-1, "no")])
def test_many_seeds_decide_by_their_interval(sign, holds):
    margin = sign * pd.Series([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1, 0.9, -0.1])
    assert _decide(margin) == (holds, "interval over seeds")
    assert _decide(margin.abs() * sign) == (holds, "every seed")


def test_where_curves_part():
    ratio = pd.Series([2.0, 1.4, 1.6, 1.5, 1.6, 3.0], index=range(1, 7))
    assert _parts_at(ratio) == 5
    assert _parts_at(ratio + 1) == 1
    assert _parts_at(ratio - 2) == 7, "one past the last: never"
    assert _parts_at(pd.Series([0.03 / 0.02, 2.0], index=[1, 2])) == 2


def test_a_container_and_its_norm_share_what_is_seen_of_them():
    paper = curves(invented(COPY), "resnet50", None, "std").paper
    for container, norm in [(5, 6), (16, 17), (30, 31), (50, 51)]:
        assert paper.loc[container].isna().equals(paper.loc[norm].isna())
    assert len(paper) == 57


# --- what is missing ----------------------------------------------------------------------------


def test_a_missing_method_leaves_rows_out():
    part = COPY[~COPY["method"].isin(["scrub", "retrain"])]
    table = observations(invented(part, part, part))
    assert not table["Observation"].str.contains("SCRUB >|Retrain").any()
    assert row(table, "Last layer: RL > Original")["Holds"] == "yes"
    assert "Curves part for good: without SalUn, SCRUB" in set(table["Observation"])
    alone = COPY[COPY["method"] == "cf"]
    assert observations(invented(alone, alone, alone)).empty


@pytest.mark.parametrize(
    "gap",
    [
        COPY.assign(architecture="convnext"),
        COPY[COPY["layer_index"] < 5],
        COPY.assign(method="mine"),
        COPY.iloc[:0],
    ],
    ids=["architecture", "depth", "method", "nothing"],
)
def test_what_the_publication_lacks_has_no_rows(gap):
    study = invented(gap, gap, variance=gap)
    for table in (observations(study), readings(study)):
        assert table.empty
        assert markdown(table) and latex(table, "empty") and numeric(table).empty
    assert nearest(readings(study)).empty


def test_another_architecture_and_method_change_nothing():
    other = pd.concat([COPY, COPY[COPY["method"] == "cf"].assign(method="ga", gap=99.0)])
    other = pd.concat([other, COPY.assign(architecture="convnext")])
    study, more = invented(COPY, COPY, COPY), invented(other, other, other)
    pd.testing.assert_frame_equal(observations(study), observations(more))
    assert set(
        observations(invented(COPY[COPY["architecture"] == "small_vit"]))["Architecture"]
    ) == {"SmallViT"}


def test_a_seed_without_a_method_is_left_out_of_its_rows():
    part = COPY[COPY["method"] != "bs"]
    table = observations(invented(COPY, scaled(1.1), part))
    assert row(table, "Last layer: CF > BS")["Seeds"] == 2
    assert row(table, "Last layer: SCRUB > SalUn")["Seeds"] == 3


def test_a_gap_of_zero_is_no_error():
    none = COPY.assign(gap=COPY["gap"].where(COPY["method"] != "retrain", 0.0))
    assert len(observations(invented(none, none, none))) == len(
        observations(invented(COPY, COPY, COPY))
    )


# --- readings -----------------------------------------------------------------------------------


def test_readings_by_hand():
    study = invented(scaled(1.0), scaled(4.0), variance=mirrored(), channel_std=scaled(100.0))
    table = readings(study)
    one = table[(table["Architecture"] == "ResNet50") & (table["Method"] == "Retrain")]
    assert list(one["Reading"]) == ["std", "variance", "channel_std"]
    std = one.iloc[0]
    assert std["Ours / published"] == 2.5, "the mean over both seeds"
    assert std["Distance (decades)"] == pytest.approx(np.log10(2.5), abs=1e-3)
    assert std["ρ over layers"] == 1
    assert std["Ours, median"] == pytest.approx(2.5 * std["Published, median"], rel=0.01)
    assert (std["Layers"], std["Seeds"]) == (42, 2)
    assert list(one["Seeds"]) == [2, 1, 1]
    assert one.iloc[1]["ρ over layers"] == -1


def test_two_visible_layers_have_no_shape():
    table = readings(invented(COPY))
    few = table[(table["Architecture"] == "SmallViT") & (table["Method"] == "Original")].iloc[0]
    assert few["Layers"] == 2
    assert np.isnan(few["ρ over layers"])
    assert few["Ours / published"] == 1


def test_the_nearest_reading_is_named_for_size_and_shape():
    study = invented(scaled(3.0), variance=mirrored(), channel_std=scaled(100.0))
    best = nearest(readings(study)).set_index(["Architecture", "Method"])
    assert best.loc[("ResNet50", "Retrain"), "In shape"] == "std, channel_std"
    assert best.loc[("SmallViT", "Original"), "In shape"] == "–"
    assert (best.loc["ResNet50", "In size"] != "channel_std").all()
    against = nearest(readings(invented(mirrored()))).set_index(["Architecture", "Method"])
    assert against.loc[("ResNet50", "Retrain"), "In shape"] == "–", "no reading has the shape"
    assert list(best.index.names) == ["Architecture", "Method"]


def test_outliers_by_hand():
    """Two seeds: in the first a tenth is left of the last gap, in the second all of it."""
    last = COPY["layer_index"] == COPY.groupby("architecture")["layer_index"].transform("max")
    few = COPY.assign(gap=COPY["gap"] * np.where(last, 0.1, 0.9))
    study = invented(COPY, scaled(2.0), trimmed_std=few)
    second = study.gap[study.gap["seed"] == 1].assign(reading="trimmed_std")
    elsewhere = [
        study.gap.assign(gap=7.0, **{key: value})
        for key, value in (("forget", "class:3"), ("scope", "last"), ("progress", 0.5))
    ]
    study.gap = pd.concat([study.gap, second, *elsewhere])
    table = outliers(study).set_index(["Architecture", "Method"])
    one = table.loc[("SmallViT", "SCRUB")]
    paper = PAPER.query("architecture == 'small_vit' and method == 'scrub' and layer_index == 9")
    paper = paper["fairness_gap"].item()
    assert float(one["Last-layer gap"]) == pytest.approx(1.5 * paper)
    assert float(one["Last-layer gap, trimmed"]) == pytest.approx(1.05 * paper)
    assert float(one["Trimmed / all (%)"]) == pytest.approx(55), "the mean of 10 and 100"
    assert float(one["Layers below 50 % (%)"]) == pytest.approx(100 / 9 / 2)
    assert one["Seeds"] == 2
    assert "10 % random" in outliers(study).attrs["caption"]
    assert len(table) == 14


def test_results_without_the_trimmed_reading_have_no_outliers():
    assert outliers(invented(COPY)).empty
    assert len(outliers(invented(COPY)).columns) == 7


def test_tables_can_be_saved_and_quoted():
    study = invented(COPY, scaled(1.1))
    for table in (observations(study), readings(study), outliers(trimmed(study))):
        assert "Profile quick" in table.attrs["caption"]
        assert latex(table, "name").count("\\\\") > len(table)
        assert markdown(table).count("\n") == len(table) + 4
