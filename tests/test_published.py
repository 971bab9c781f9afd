"""Our curves beside the published ones: copies agree, mirror images do not, gaps leave rows out."""

import numpy as np
import pandas as pd
import pytest
from helpers_report import changed, invented, model

from unlearnkit.report import published
from unlearnkit.report.published import curves, nearest, observations, outliers, readings

PAPER = published.read_published()
ALL = "Curves part for good: all methods"
SIZE = "Layers 47 to 57: SCRUB / Retrain"


def copied():
    """Return the published gaps by architecture and method, hidden ones amid the others."""
    found = {}
    for architecture, part in PAPER.groupby("architecture"):
        wide = part.pivot(index="layer_index", columns="method", values="fairness_gap")
        if architecture == "resnet50":
            wide.loc[[50, 51]] = wide.loc[[50, 51]].ffill().bfill()
        small = wide.drop(columns=["salun", "scrub"]).median(axis=1).fillna(0.15)
        found |= {(architecture, name): wide[name].fillna(small).to_numpy() for name in wide}
    return found


COPY = copied()
MIRROR = {key: 0.01 / gap for key, gap in COPY.items()}


def scaled(factor, methods=None):
    return {k: gap * (factor if k[1] in (methods or k) else 1) for k, gap in COPY.items()}


def without(*names):
    return {key: gap for key, gap in COPY.items() if not set(names) & set(key)}


def models(seed, gaps, **others):
    found = []
    for (architecture, method), gap in gaps.items():
        sizes = {"std": list(gap)}
        sizes |= {name: list(other[architecture, method]) for name, other in others.items()}
        found.append(model(method, seed, architecture=architecture, gap=sizes))
    return found


def study(*seeds, **others):
    first = models(0, seeds[0], **others)
    return invented(first + [m for k, gaps in enumerate(seeds[1:], 1) for m in models(k, gaps)])


def row(table, observation, architecture="ResNet-50"):
    chosen = table[(table["Architecture"] == architecture) & (table["Observation"] == observation)]
    assert len(chosen) == 1, table
    return chosen.iloc[0]


def test_a_copy_of_the_published_curves_shows_every_observation_and_number():
    table = observations(study(COPY, scaled(1.02), scaled(0.99)))
    assert (table["Holds"] == "yes").all(), table
    assert (table["Seeds"] == 3).all()
    assert not table.duplicated(["Architecture", "Observation"]).any()
    table = observations(study(COPY, COPY, COPY))
    order = row(table, "Last layer: whole order")
    assert order["Published"] == "SCRUB > SalUn > RL > Retrain > Original > CF > BS"
    assert order["Ours"].startswith("ρ = 1 ")
    order = row(table, "Last layer: whole order", "SmallViT")["Published"]
    assert order.startswith("RL > SalUn > ") and order.endswith(" > Original > CF > BS")
    assert " = " in order, "SCRUB and Retrain cannot be told apart"
    first, parts = row(table, "Last layer: SCRUB > SalUn"), row(table, ALL, "SmallViT")
    assert first["Published"] == first["Ours"] == "17 > 1.9"
    assert parts["Published"] == parts["Ours"] == "layer 8"
    size = row(table, SIZE)
    center = size["Published"].split(" [")[0]
    assert size["Ours"] == f"{center} [{center}, {center}]"
    seen = PAPER.query("architecture == 'resnet50' and layer_index >= 47")
    seen = seen.pivot(index="layer_index", columns="method", values="fairness_gap")
    seen.loc[51, "retrain"] = seen.loc[50, "retrain"]  # a container is its BatchNorm
    seen = seen.dropna(subset=["retrain"])
    assert center == f"{seen['scrub'].sum() / seen['retrain'].sum():.3g}"
    low, high = map(float, size["Published"].split("[")[1].rstrip("]").split(", "))
    assert low < float(center) < high


@pytest.mark.parametrize(("factor", "holds"), [(1 / 2.1, "no"), (1 / 1.9, "yes")])
def test_a_size_agrees_within_a_factor_of_two(factor, holds):
    few = scaled(factor, ["scrub"])
    assert row(observations(study(few, few, few)), SIZE)["Holds"] == holds


def test_a_mirror_image_shows_no_order_and_flat_curves_never_part():
    table = observations(study(MIRROR, MIRROR, MIRROR))
    order = table[table["Observation"].str.startswith("Last layer")]
    tied = order["Observation"].str.contains(" = ")
    assert (order.loc[~tied, "Holds"] == "no").all()
    assert (order.loc[tied, "Holds"] == "yes").all(), "what is equal stays equal"
    assert " < " in row(table, "Last layer: SCRUB > SalUn")["Ours"]
    assert row(table, "Layers 47 to 57: SalUn / Retrain")["Holds"] == "no"
    flat = {key: np.full_like(gap, 0.1) for key, gap in COPY.items()}
    parts = row(observations(study(flat, flat, flat)), ALL, "SmallViT")
    assert (parts["Ours"], parts["Holds"]) == ("never", "no")


def test_many_seeds_decide_by_their_interval_though_one_disagrees():
    for sign, holds in ((1, "yes"), (-1, "no")):
        margin = sign * pd.Series([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1, 0.9, -0.1])
        assert published._holds(margin) == (holds, "interval over seeds")
        few = sign * pd.Series([0.1, 2.0, 9.0])
        assert published._holds(few) == ("undecided", f"{3 * (sign > 0)} of 3 seeds agree")


def test_one_seed_and_disagreeing_seeds_decide_nothing():
    one = observations(study(COPY))
    assert (one["Holds"] == "undecided").all()
    assert (one["Why"] == "fewer than 3 seeds").all()
    table = observations(study(COPY, MIRROR, COPY))
    assert row(table, "Last layer: whole order")["Ours"].endswith("[-1, 1]")
    two = row(table, "Last layer: RL > Retrain")
    assert (two["Holds"], two["Why"]) == ("undecided", "2 of 3 seeds agree")


@pytest.mark.parametrize(
    ("ratios", "layer"),
    [
        ([2.0, 1.4, 1.6, 1.5, 1.6, 3.0], 5),
        ([3.0, 2.4], 1),
        ([1.6, 1.0], 3),  # one past the last: never
        ([0.03 / 0.02, 2.0], 2),
    ],
)
def test_where_curves_part(ratios, layer):
    index = range(1, len(ratios) + 1)
    assert published._parts_at(pd.DataFrame({"a": ratios, "b": 1.0}, index)) == layer


def test_a_container_and_its_norm_share_what_is_seen_of_them():
    paper = curves(study(COPY), "resnet50", "std")[1]
    seen = PAPER[PAPER["architecture"] == "resnet50"].set_index(["layer_index", "method"])
    for container, norm in [(5, 6), (16, 17), (30, 31), (50, 51)]:
        assert paper.loc[container].isna().equals(paper.loc[norm].isna())
    assert len(paper) == 57
    assert paper.count().sum() > len(seen)
    for (layer, method), value in seen["fairness_gap"].items():
        assert paper.loc[layer, method] == value


def test_a_missing_method_leaves_rows_out():
    part = without("scrub", "retrain")
    table = observations(study(part, part, part))
    assert not table["Observation"].str.contains("SCRUB >|Retrain").any()
    assert row(table, "Last layer: RL > Original")["Holds"] == "yes"
    assert "Curves part for good: without SalUn" in set(table["Observation"])
    assert observations(study({key: gap for key, gap in COPY.items() if key[1] == "cf"})).empty
    table = observations(study(COPY, scaled(1.1), without("bs")))
    assert row(table, "Last layer: CF > BS")["Seeds"] == 2
    assert row(table, "Last layer: SCRUB > SalUn")["Seeds"] == 3


@pytest.mark.parametrize(
    "gaps",
    [
        {("convnext", key[1]): gap for key, gap in COPY.items()},
        {key: gap[:4] for key, gap in COPY.items()},
        {(key[0], "mine"): gap for key, gap in COPY.items()},
        {},
    ],
)
def test_what_the_publication_lacks_has_no_rows(gaps):
    s = study(gaps, gaps, variance=gaps)
    assert observations(s).empty and readings(s).empty and nearest(readings(s)).empty


def test_another_architecture_and_method_and_a_gap_of_zero_change_no_rows():
    other = COPY | {(key[0], "ga"): np.full_like(gap, 99.0) for key, gap in COPY.items()}
    other |= {("convnext", key[1]): gap for key, gap in COPY.items()}
    table = observations(study(COPY))
    pd.testing.assert_frame_equal(table, observations(study(other)))
    assert set(observations(study(without("resnet50")))["Architecture"]) == {"SmallViT"}
    assert len(observations(study(scaled(0.0, ["retrain"])))) == len(table)


def test_readings_by_hand_and_the_nearest():
    s = study(COPY, scaled(4.0), variance=MIRROR, channel_std=scaled(100.0))
    table = readings(s)
    one = table[(table["Architecture"] == "ResNet-50") & (table["Method"] == "Retrain")]
    assert list(one["Reading"]) == ["std", "variance", "channel_std"]
    std = one.iloc[0]
    assert std["Ours / published"] == 2.5, "the mean over both seeds"
    assert std["Distance (decades)"] == pytest.approx(np.log10(2.5), abs=1e-3)
    assert std["Ours, median"] == pytest.approx(2.5 * std["Published, median"], rel=0.01)
    assert (std["ρ over layers"], std["Layers"]) == (1, 42)
    assert list(one["Seeds"]) == [2, 1, 1]
    assert one.iloc[1]["ρ over layers"] == -1
    few = table[(table["Architecture"] == "SmallViT") & (table["Method"] == "Original")].iloc[0]
    assert few["Layers"] == 2 and np.isnan(few["ρ over layers"]), "two layers have no shape"
    best = nearest(table).set_index(["Architecture", "Method"])
    assert (best.loc["ResNet-50", "Reading"] != "channel_std").all()


def test_outliers_by_hand():
    """Two seeds: in the first a tenth is left of the last gap, in the second all of it."""
    few = {key: gap * np.r_[np.full(len(gap) - 1, 0.9), 0.1] for key, gap in COPY.items()}
    double = scaled(2.0)
    both = models(0, COPY, trimmed_std=few) + models(1, double, trimmed_std=double)
    elsewhere = ({"forget": "class:3"}, {"scope": "last"}, {"progress": 0.5})
    more = [changed(m, **place) for m in models(0, MIRROR) for place in elsewhere]
    s = invented(both + more)
    table = outliers(s).set_index(["Architecture", "Method"])
    one = table.loc[("SmallViT", "SCRUB")]
    paper = PAPER.query("architecture == 'small_vit' and method == 'scrub' and layer_index == 9")
    paper = paper["fairness_gap"].item()
    assert float(one["Last-layer gap"]) == pytest.approx(1.5 * paper)
    assert float(one["Last-layer gap, trimmed"]) == pytest.approx(1.05 * paper)
    assert float(one["Trimmed / all (%)"]) == pytest.approx(55), "the mean of 10 and 100"
    assert float(one["Layers below 50 % (%)"]) == pytest.approx(100 / 9 / 2)
    assert one["Seeds"] == 2
    assert "10 % random" in table.attrs["caption"]
    assert len(table) == 14
    assert outliers(study(COPY)).empty, "without the trimmed reading"
