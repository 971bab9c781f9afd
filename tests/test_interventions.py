"""Gaps set by hand: the function kept, the penalty by its definition, the command and its table."""

from unittest import mock

import numpy as np
import pytest
import torch
from conftest import MODELS, differing, recipe
from helpers_report import few, invented, model
from helpers_study import CF, ORIGINAL, VIT, tiny_values, vit_lab, write_profile

from unlearnkit import files
from unlearnkit.__main__ import main
from unlearnkit.errors import UserError
from unlearnkit.fairness import class_sigma, fairness_gap
from unlearnkit.interventions import fine_tune, rescaled, spread_penalty
from unlearnkit.models import Classifier, build, norm_layers
from unlearnkit.report import read_study
from unlearnkit.report.interventions import COLUMNS, interventions
from unlearnkit.study import intervene
from unlearnkit.study.compute import _open, _payload
from unlearnkit.study.intervene import bench_of
from unlearnkit.study.prune import unneeded
from unlearnkit.training import train

HAND = {"methods": ["cf"], "seeds": [0], "factors": [3.0], "weights": [1.0]}
HAND |= {"epochs": 2, "images": 12}
SET = {"methods": ["retrain", "cf"], "intervention": HAND}
CHANGES = ["", "~penalty~0", "~penalty~1", "~rescaled~3"]


def sigma_of(model, data):
    images, labels = data.test_images, data.test_labels
    return class_sigma(model, images, labels, num_classes=3, batch_size=16)["std"]


def relative_gap(sigma):
    return fairness_gap(sigma) / sigma.mean(1)


@pytest.mark.parametrize("name", [*MODELS, "convolutional small_vit"])
@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_rescaling_multiplies_every_spread_and_keeps_the_function(original, toy, name, factor):
    if name in MODELS:
        start = original(name)
    else:
        sizes = {"num_classes": 3, "image_size": 8, "mean": toy.mean, "std": toy.std}
        start = build("small_vit", seed=0, dim=16, heads=2, convolutions=2, **sizes)
    start = start.double().eval()
    changed = rescaled(start, factor)
    before, after = sigma_of(start, toy), sigma_of(changed, toy)
    torch.testing.assert_close(after, factor * before, rtol=1e-5, atol=0)
    images = toy.test_images.double() / 255
    with torch.no_grad():
        logits = start(images)
        assert (changed(images) - logits).abs().max() < 1e-10 * logits.abs().max()


def test_what_cannot_be_rescaled(build):
    other = Classifier("resnet18", torch.nn.Identity(), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match="'resnet18'; known: resnet50, small_vit"):
        rescaled(other, 3.0)
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"factor is .* above 0"):
            rescaled(build("small_vit"), factor)


def gaps_by_hand(outputs, labels):
    """Return the mean relative gap of outputs, one for each layer, in float64."""
    found = []
    for output in outputs:
        parts = [output[labels == c].double() for c in labels.unique() if (labels == c).sum() > 1]
        spreads = np.array([part.std(correction=0).item() for part in parts])
        found.append((spreads.max() - spreads.min()) / spreads.mean())
    return np.mean(found)


@pytest.mark.parametrize("name", MODELS)
def test_the_penalty_is_the_mean_relative_gap_and_its_gradient_lowers_it(original, toy, name):
    start, outputs = original(name).train(), {}
    index = torch.tensor([0, 1, 2, 3, 16, 17, 18, 40])  # one of the last class
    images, labels = toy.train_images[index] / 255, toy.train_labels[index]
    layers = norm_layers(start)
    for layer in layers:
        layer.module.register_forward_hook(
            lambda _, __, output, at=layer.index: outputs.update({at: output.detach().clone()})
        )

    with spread_penalty(start) as penalty:
        start(images)
        value = penalty(labels)
        assert len(outputs) == len(layers)
        assert value.item() == pytest.approx(gaps_by_hand(outputs.values(), labels), rel=1e-3)
        value.backward()
        gradients = {p: p.grad for p in start.parameters() if p.grad is not None}
        assert all(gradients[layer.module.weight].abs().sum() > 0 for layer in layers)
        step = 0.01 * value.item() / sum(g.square().sum() for g in gradients.values())
        with torch.no_grad():
            for parameter, gradient in gradients.items():
                parameter -= step * gradient
        start(images)
        assert penalty(labels).item() == pytest.approx(0.99 * value.item(), rel=3e-3)
    hooks = sum(len(module._forward_hooks) for module in start.modules())
    assert hooks == len(layers), "the penalty's own are gone"


def test_weight_0_is_plain_training_and_a_larger_one_lowers_the_gap(original, toy, split):
    how = recipe(optimizer="adamw", lr=2e-3, epochs=6, batch_size=42, crop=0)

    def tuned(weight):
        return fine_tune(original("small_vit"), toy, split.train, how, weight=weight, seed=0).model

    free, pressed = tuned(0.0), tuned(10.0)
    assert not differing(train(original("small_vit"), toy, split.train, how, seed=0).model, free)
    gaps = [relative_gap(sigma_of(one, toy)).mean() for one in (free, pressed)]
    assert gaps[1] < 0.8 * gaps[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a function that runs the command, and its folder, where it was run once."""
    folder = tmp_path_factory.mktemp("hand")
    path = str(write_profile(folder, tiny_values(**VIT | SET)))

    def command(*options):
        with (
            mock.patch.dict("os.environ", {"UNLEARNKIT_STORE": str(folder / "artifacts")}),
            mock.patch.object(files, "project_folder", lambda: folder),
            mock.patch("unlearnkit.study.compute.cpu_count", return_value=1),
        ):
            return main(["intervene", "--profile", path, "--workers", "1", *options])

    assert command("--accept") == 0
    return command, folder


def test_the_command_measures_every_intervention_and_commits_it(done, tmp_path):
    _, folder = done
    ours, committed = (
        read_study(place / "results/tiny/interventions") for place in (folder / "artifacts", folder)
    )
    assert ours.results.records == committed.results.records
    names = sorted(record.cell.method for record in ours.results.records)
    assert names == sorted(start + change for start in ("cf", "original") for change in CHANGES)
    kinds = [stage["stage"] for stage in ours.results.records[-1].stages]
    assert kinds == ["unlearn", "quality", "fairness", "robustness/pgd", "distance"]
    # Beside the results of a study, the table is drawn from them.
    study = invented(few(), folder=tmp_path / "results/tiny")
    assert interventions(study).empty and "interventions" not in study.provenance
    (folder / "results/tiny/interventions").rename(tmp_path / "results/tiny/interventions")
    study = read_study(study.folder)
    table = interventions(study)
    (tmp_path / "results/tiny/interventions").rename(folder / "results/tiny/interventions")
    assert len(study.provenance["interventions"]) == 8
    assert list(table["Start"]) == 3 * ["Original"] + 3 * ["CF"]
    assert list(table["Intervention"])[:3] == ["rescaled × 3", "fine-tuned", "penalty × 1"]
    assert list(table["Against"])[:3] == ["unchanged", "unchanged", "fine-tuned"]
    for at in (0, 3):
        row = table.iloc[at]
        assert float(row["Gap (%)"]) == pytest.approx(200, abs=1)  # σ has six digits
        for name in ("Relative gap (%)", "TA (points)", "Clean (points)", "Robust (points)"):
            assert float(row[name]) == pytest.approx(0, abs=0.3)
        assert float(row["Minimal distance (%)"]) == pytest.approx(0, abs=0.1)
        assert 0 < float(row["Largest change of a logit"]) < 1e-4
    assert (table.loc[[2, 5], "Relative gap (%)"].map(float) != 0).all()


def lab_of(folder):
    """Return the lab whose store the command has filled."""
    lab = vit_lab(folder, **SET)
    lab.store.folder = folder / "artifacts"
    return lab


def test_they_start_from_the_studys_models_and_nothing_of_them_is_pruned(done):
    lab = lab_of(done[1])
    bench = bench_of(lab)
    assert [cell.method for cell in bench.cells[:2]] == ["original", "original~rescaled~3"]
    for cell in (ORIGINAL, CF):
        kept = [stage for stage in bench.stages(cell) if stage in lab.stages(cell)]
        assert {stage.name for stage in kept} >= {"quality", "fairness"}
        assert bench.stages(cell)[0] == lab.model_stage(cell)
    worker, _ = _open(_payload(bench, "cpu", 1, 1, None))
    for cell in bench.cells:
        assert worker.stages(cell) == bench.stages(cell), "as a worker process sees them"
    made = {bench.model_stage(cell).key for cell in bench.cells}
    assert len(made) == 8 and unneeded(lab.store, [lab]) == {}


def test_what_is_stored_is_not_done_again_and_a_cut_off_one_goes_on(done, capsys):
    command, folder = done
    bench = bench_of(lab_of(folder))
    stage = bench.model_stage(bench.cells[-1])
    weights = bench.store.get_tensors(stage.name, stage.key)
    bench.store.path(stage.name, stage.key).unlink()

    def cut_off(*of, **how):  # after the first of two epochs
        return fine_tune(*of, **{**how, "deadline": 1.0})

    with mock.patch.object(intervene, "fine_tune", side_effect=cut_off) as tuned:
        assert command() == 0 and tuned.call_count == 1
    assert "Stopped at the time limit" in capsys.readouterr().out
    assert bench.store.state_file(stage.name, stage.key).exists()
    assert command() == 0
    assert "8 identical" in capsys.readouterr().out
    assert not differing(weights, bench.store.get_tensors(stage.name, stage.key))


def change(method, seed, gap, near, **more):
    """Return an invented model with two layers, whose images are `near` their boundary."""
    quality = {"RA": 90.0, "TA": 60.0 + seed}
    one = model(method, seed, quality=quality, robust={"pgd": {0: 60, 4: 30}}, distances=near)
    one[0].stages[0]["value"].update(more)
    sigma = {"layers": ["a", "b"], "std": [[1.0, 1.0 + gap], [2.0, 2.0 + gap]]}
    one[0].stages.append({"stage": "fairness", "key": method, "value": sigma})
    return one


def test_the_table_pairs_seeds_and_images_that_both_models_get_right(tmp_path):
    folder = tmp_path / "results/quick"
    made = []
    for seed in (0, 1, 2):
        made.append(change("cf", seed, 0.2, [10.0, 0.0, 20.0, None, 30.0]))
        made.append(change("cf~rescaled~3", seed, 0.6, [10.0, 1.0, 0.0], logit_error=seed * 1e-6))
        made.append(change("cf~penalty~0", seed, 0.2, [20.0, 30.0, 40.0, None]))
        if seed:  # one diverged
            near = [x * (1 + seed / 10) for x in (20, 30)]
            made.append(change("cf~penalty~10", seed, 0.1, [*near, 0.0, None]))
    invented(few(), folder=folder)
    invented(made, folder=folder / "interventions")
    table = interventions(read_study(folder))
    assert list(table) == COLUMNS and list(table["Seeds"]) == [3, 3, 2]
    scaled, free, pressed = (table.iloc[at] for at in (0, 1, 2))
    assert str(scaled["Gap (%)"]) == "200.00 ± 0.00"
    ratio = (0.6 / 1.3 + 0.6 / 2.3) / (0.2 / 1.1 + 0.2 / 2.1)
    assert float(scaled["Relative gap (%)"]) == pytest.approx(100 * (ratio - 1))
    assert scaled["Largest change of a logit"] == "2.0e-06"
    assert float(scaled["Minimal distance (%)"]) == 0, "the second and third image do not count"
    assert float(free["Minimal distance (%)"]) == pytest.approx(100)  # and 0 beyond reach
    # 10 and 20 %, beside the image at no distance: medians 10 and 20
    assert float(pressed["Minimal distance (%)"]) == pytest.approx(15)
    assert (pressed["Low"], pressed["High"]) == pytest.approx((15 - 63.53, 15 + 63.53), abs=0.01)
    assert float(pressed["Gap (%)"]) == pytest.approx(-50)
    assert free["Largest change of a logit"] == "–"
