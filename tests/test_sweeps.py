"""Choosing rates: on images no result is about, by the gap to a model retrained without them."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers_study import ONE_SET, made_data, tiny_lab, tiny_profile, tiny_values

from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.report import sweep as reading
from unlearnkit.report.frames import average_gap
from unlearnkit.results import Cell, committed_folder
from unlearnkit.study import sweep as sweeps
from unlearnkit.study.lab import load_data
from unlearnkit.study.profile import load_profile, profile_names
from unlearnkit.study.run import hyperparameters

SWEEP = {"seed": 0, "forget_seed": 7, "rates": {"small_vit": {"cf": [1e-3, 1e-2], "ga": [1e-4]}}}
VIT = {
    "architectures": ["small_vit"],
    "methods": ["retrain", "cf", "ga"],
    "checkpoints": [],
    "forget": ONE_SET,
}


@pytest.fixture
def profile(tmp_path):
    """Return a function of changed tables: the tiny profile with a sweep."""
    return lambda **changes: tiny_profile(tmp_path, **VIT | {"sweep": SWEEP} | changes)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the lab of a computed sweep, its table and the lines reported."""
    folder = tmp_path_factory.mktemp("sweep")
    lab = tiny_lab(tiny_profile(folder, **VIT, sweep=SWEEP), folder / "store")
    lines = []
    table, whole = sweeps.run_sweep(lab, workers=1, report=lines.append)
    assert whole
    return lab, table, lines


def test_every_rate_is_tried_and_the_smallest_gap_chosen(swept):
    table = swept[1]
    assert list(table.columns) == reading.COLUMNS
    assert list(table["method"]) == ["retrain", "cf", "cf", "ga"]
    assert list(table["lr"][1:]) == [1e-3, 1e-2, 1e-4]
    assert table["average_gap"][0] == 0 and not table["chosen"][0]
    for _, part in table[1:].groupby("method"):
        assert part["chosen"].sum() == 1
        assert part.loc[part["chosen"], "average_gap"].item() == part["average_gap"].min()


def test_the_gap_is_the_one_of_the_study(swept):
    table = swept[1]
    for row in table[1:].itertuples():
        both = table[(table["method"] == "retrain") | (table.index == row.Index)]
        both = both.drop(columns=["average_gap", "chosen", "lr"]).assign(
            forget="", scope="all", seed=0, progress=1.0
        )
        names = ["architecture", "method", "forget", "scope", "seed", "progress"]
        gap = average_gap(both.melt(names, var_name="metric")).set_index("method")["average_gap"]
        assert gap[row.method] == pytest.approx(row.average_gap)


def test_a_second_sweep_computes_nothing(swept):
    lab, table, _ = swept
    lines = []
    again, _ = sweeps.run_sweep(lab, workers=1, report=lines.append)
    assert lines == []
    pd.testing.assert_frame_equal(again, table)


def test_no_test_image_is_looked_at(swept):
    """With other test images the sweep is the same, from the store alone."""
    lab, table, _ = swept
    data = load_data(lab.profile)
    changed = replace(data, test_images=255 - data.test_images)
    other = tiny_lab(lab.profile, lab.store.folder, changed)
    lines = []
    again, _ = sweeps.run_sweep(other, workers=1, report=lines.append)
    assert lines == []
    pd.testing.assert_frame_equal(again, table)


def test_the_validation_forget_set_is_another(profile, tmp_path):
    settings = profile()
    lab = tiny_lab(settings, tmp_path / "store")
    held = sweeps.held_out(settings, lab.data)
    part = sweeps.SweepLab(settings, held, lab.store)
    ours, theirs = part.split("random:0.2", 0), lab.split("random:0.2", 0)
    assert torch.equal(ours.train, theirs.train) and torch.equal(ours.validation, theirs.validation)
    assert not torch.equal(ours.forget, theirs.forget) and len(ours.forget) == len(theirs.forget)
    assert torch.equal(held.test_images, lab.data.train_images[theirs.validation])
    assert torch.equal(held.test_labels, lab.data.train_labels[theirs.validation])
    # The original is the study's own: nothing is trained twice.
    cell = Cell("small_vit", "random:0.2", "original", "all", 0)
    assert part.model_stage(cell).key == lab.model_stage(cell).key
    cf = replace(cell, method="cf")
    assert part.model_stage(cf).key != lab.model_stage(cf).key


def test_a_rate_that_diverges_is_not_chosen(profile, tmp_path):
    values = tiny_values()
    values["unlearning"]["small_vit"] |= {"clip": 0.0, "optimizer": "sgd", "epochs": 2}
    sweep = {**SWEEP, "rates": {"small_vit": {"cf": [1e30, 1e-3]}}}
    settings = profile(sweep=sweep, unlearning=values["unlearning"])
    lab = tiny_lab(settings, tmp_path / "store")
    table, whole = sweeps.run_sweep(lab, workers=1, report=lambda line: None)
    broken = table[table["lr"] == 1e30].iloc[0]
    assert whole and math.isnan(broken["average_gap"]) and not broken["chosen"]
    assert table.loc[table["lr"] == 1e-3, "chosen"].item()


def test_files_round_trip(swept, tmp_path):
    table = reading.rounded(swept[1])
    assert table["lr"].min() == 1e-4
    table.loc[1, "lr"] = 1e-6
    sweeps.write_sweep(table, tmp_path)
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["small_vit.csv"]
    pd.testing.assert_frame_equal(reading.read_sweep(tmp_path), table, check_dtype=False)
    assert list(reading.read_sweep(tmp_path / "none").columns) == reading.COLUMNS


def test_a_choice_that_the_profile_does_not_follow_is_named(swept):
    lab, table, _ = swept
    rate = table.loc[table["chosen"] & (table["method"] == "cf"), "lr"].item()
    lines = reading.disagreements(lab.profile, table)
    assert any(line.startswith(f"[method.cf] small_vit.lr = {rate:g}, not ") for line in lines)
    tables = {**lab.profile["method"], "cf": {"lr": rate}}
    agreed = reading.disagreements(lab.profile.with_values(method=tables), table)
    assert not any("method.cf" in line for line in agreed)


def test_errors(profile, tmp_path):
    data = made_data("x")
    with pytest.raises(UserError, match=r"has no \[sweep\]"):
        sweeps.held_out(load_profile("quick"), data)
    with pytest.raises(UserError, match="keeps no validation images"):
        sweeps.held_out(profile(validation=0.0), data)
    for rates, message in (
        ({"vgg": {}}, "vgg"),
        ({"small_vit": {"mine": [0.1]}}, "mine"),
        ({"small_vit": {"cf": []}}, "must not be empty"),
        ({"small_vit": {"cf": [0.0]}}, "greater than 0"),
    ):
        with pytest.raises(UserError, match=message):
            profile(sweep={**SWEEP, "rates": rates})


def test_the_command(profile, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNKIT_STORE", str(tmp_path / "store"))
    settings = profile()
    assert main(["sweep", "--profile", str(settings.path), "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert "average_gap" in told and "The sweep's choice for profile tiny" in told
    assert len(reading.read_sweep(tmp_path / "store/results/tiny")) == 4
    assert main(["sweep", "--profile", str(settings.path), "--minutes", "1e-9"]) == 0
    assert "Stopped for the time limit" not in capsys.readouterr().out, "all of it is stored"


@pytest.mark.parametrize("name", profile_names())
def test_profiles_follow_their_committed_sweep(name):
    settings, table = load_profile(name), reading.read_sweep(committed_folder(name))
    assert reading.disagreements(hyperparameters(settings), table) == []
    if len(table):
        tried = table[table["method"] != "retrain"].groupby(["architecture", "method"]).size()
        assert (tried >= 5).all(), "at least five rates each"
