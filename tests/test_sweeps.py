"""Choosing rates: on images no result is about, by the gap to a model retrained without them."""

import math
import shutil
from dataclasses import replace
from unittest import mock

import pandas as pd
import pytest
import torch
from helpers_study import CF, ORIGINAL, recipe, tiny_lab, tiny_profile, vit_lab

from unlearnkit import results
from unlearnkit.errors import UserError
from unlearnkit.results import GAP_METRICS, SWEEP_COLUMNS, committed_folder
from unlearnkit.study.lab import load_data
from unlearnkit.study.profile import load_profile, profile_names
from unlearnkit.study.prune import unneeded
from unlearnkit.study.run import hyperparameters
from unlearnkit.study.sweep import run_sweep, sweep_labs

RATES = {"small_vit": {"cf": [1e-3, 1e-2, 0.1], "ga": [1e-4]}}
SWEEP = {"seeds": [0, 1], "forget_seed": 7, "rates": RATES}
SWEPT = {"methods": ["retrain", "cf", "ga"], "sweep": SWEEP}


@pytest.fixture(scope="module", autouse=True)
def one_core():
    with mock.patch("unlearnkit.study.compute.cpu_count", return_value=1):
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the lab of a sweep that was stopped after its first seed, and its table."""
    lab = vit_lab(tmp_path_factory.mktemp("sweep"), **SWEPT)
    first = vit_lab(lab.store.folder.parent, **SWEPT | {"sweep": {**SWEEP, "seeds": [0]}})
    assert run_sweep(first, workers=1, report=print)[1]
    table, whole = run_sweep(lab, workers=1, deadline=1.0, report=print)
    assert not whole and not table["chosen"].any() and set(table["seed"]) == {0, 1}
    table, whole = run_sweep(lab, workers=1, report=print)
    assert whole
    return lab, table


def test_the_first_seed_tries_every_rate_the_others_two_and_the_smallest_mean_is_chosen(swept):
    lab, table = swept
    assert list(table.columns) == SWEEP_COLUMNS
    assert list(table["method"]) == 2 * ["retrain"] + 5 * ["cf"] + 2 * ["ga"]
    retrain = table[table["method"] == "retrain"].set_index("seed")
    assert (retrain["average_gap"] == 0).all() and not retrain["chosen"].any()
    for row in table.itertuples():
        exact = retrain.loc[row.seed, GAP_METRICS]
        gap = (table.loc[row.Index, GAP_METRICS] - exact).abs().mean()
        assert row.average_gap == pytest.approx(gap, abs=1e-4)
    for method, part in table[2:].groupby("method"):
        gaps = part.pivot(index="lr", columns="seed", values="average_gap")
        assert list(gaps.index) == RATES["small_vit"][method]
        assert set(gaps[1].dropna().index) == set(gaps[0].nsmallest(2).index)
        best = gaps.mean(axis=1, skipna=False).idxmin()
        assert list(part["chosen"]) == list(part["lr"] == best)
    kinds = {path.parent.name for path in lab.store.folder.rglob("*.json")}
    assert kinds == {"original", "unlearn", "quality"}
    assert unneeded(lab.store, [lab]) == {}, "a sweep's results are not in the way"


def test_a_second_sweep_computes_nothing_and_no_test_image_is_looked_at(swept):
    lab, table = swept
    data = load_data(lab.profile)
    for images in (data.test_images, 255 - data.test_images):
        again = tiny_lab(lab.profile, lab.store.folder, replace(data, test_images=images))
        report = mock.Mock()
        pd.testing.assert_frame_equal(run_sweep(again, workers=1, report=report)[0], table)
        report.assert_not_called()


def test_the_validation_forget_set_is_another(swept):
    lab = swept[0]
    parts = {part.cells[0].seed: part for part in sweep_labs(lab)}
    assert list(parts) == [0, 1]
    for seed, part in parts.items():
        ours, theirs = part.split("random:0.2", seed), lab.split("random:0.2", seed)
        for name in ("train", "validation"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert not torch.equal(ours.forget, theirs.forget)
        assert len(ours.forget) == len(theirs.forget)
        assert torch.equal(part.data.test_images, lab.data.train_images[theirs.validation])
        assert torch.equal(part.data.test_labels, lab.data.train_labels[theirs.validation])
        # The original is the study's own: nothing is trained twice.
        original, cf = (replace(cell, seed=seed) for cell in (ORIGINAL, CF))
        assert part.model_stage(original).key == lab.model_stage(original).key
        assert part.model_stage(cf).key != lab.model_stage(cf).key


def test_a_rate_that_diverges_is_not_chosen_and_another_failure_is_told(tmp_path):
    changes = recipe("unlearning", clip=0.0, optimizer="sgd", epochs=2)
    changes["sweep"] = {**SWEEP, "rates": {"small_vit": {"cf": [1e30, 1e-3]}}}
    lab = vit_lab(tmp_path, **SWEPT | changes)
    table, whole = run_sweep(lab, workers=1, report=lambda line: None)
    broken = table[table["lr"] == 1e30].iloc[0]
    assert whole and math.isnan(broken["average_gap"]) and not broken["chosen"]
    assert table.loc[table["lr"] == 1e-3, "chosen"].tolist() == [True, True]
    assert list(table["seed"]) == [0, 1, 0, 1, 0], "what diverged is not tried on another seed"
    shutil.rmtree(lab.store.folder / "quality")
    (lab.store.folder / "quality").write_text("")
    with pytest.raises(UserError, match=r"retrain: cannot write .*quality"):
        run_sweep(lab, workers=1, report=lambda line: None)


def test_files_round_trip_and_a_choice_that_the_profile_does_not_follow(swept, tmp_path):
    lab, table = swept
    results.write_sweep(table, tmp_path)
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["small_vit.csv"]
    pd.testing.assert_frame_equal(results.read_sweep(tmp_path), table, check_dtype=False)
    assert list(results.read_sweep(tmp_path / "none").columns) == SWEEP_COLUMNS
    rate = table.loc[table["chosen"] & (table["method"] == "cf"), "lr"].iloc[0]
    lines = results.disagreements(hyperparameters(lab.profile), table)
    told = f"[method.cf] small_vit.lr = {rate:g}, not "
    assert sum(line.startswith(told) for line in lines) == 1
    tables = {**lab.profile["method"], "cf": {"lr": rate}}
    agreed = hyperparameters(lab.profile.with_values(method=tables))
    assert not any("method.cf" in line for line in results.disagreements(agreed, table))


def test_a_rate_leaves_the_rest_of_the_default_table(tmp_path):
    lab = vit_lab(tmp_path, **SWEPT, method={"cf": {"default": {"clip": 0.5}}})
    part = next(sweep_labs(lab))
    found = part.profile.hyperparameters("cf", "small_vit")
    assert (found["lr"], found["clip"]) == (1e-3, 0.5)


def test_errors(tmp_path):
    with pytest.raises(UserError, match=r"has no \[sweep\]"):
        next(sweep_labs(tiny_lab(load_profile("quick"), tmp_path)))
    with pytest.raises(UserError, match="keeps no validation images"):
        run_sweep(tiny_lab(tiny_profile(tmp_path, sweep=SWEEP, validation=0.0), tmp_path))


@pytest.mark.parametrize("name", profile_names())
def test_profiles_follow_their_committed_sweep(name):
    table = results.read_sweep(committed_folder(name))
    assert results.disagreements(hyperparameters(load_profile(name)), table) == []
    if len(table):
        rates = table[table["method"] != "retrain"].groupby(["architecture", "method"])["lr"]
        tried = rates.nunique()
        assert (tried >= 5).all(), "at least five rates each"
