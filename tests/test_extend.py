"""A method, an attack, a measure and a data set of a user's own, each one function in a module."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers_study import PGD, VIT, tiny_values, write_profile
from matplotlib.colors import to_hex

from unlearnkit.data import load
from unlearnkit.errors import UserError
from unlearnkit.report import display, figures, read_study, tables
from unlearnkit.report.publish import TABLES
from unlearnkit.study.lab import Lab
from unlearnkit.study.plan import make_plan
from unlearnkit.study.profile import load_profile
from unlearnkit.study.store import Store

PROJECT = Path(__file__).parents[1]


def shown_code() -> str:
    text = (PROJECT / "docs/adapt.md").read_text("utf-8")
    return "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Compute a study of docs/adapt.md's code, by the command line; return its results."""
    folder = tmp_path_factory.mktemp("extend")
    (folder / "mine.py").write_text(shown_code())
    values = tiny_values(**VIT | {"methods": ["retrain", "cf", "mine"]})
    values |= {"modules": ["mine"], "dataset": "stripes"}
    values["method"]["mine"] = {"weight": 0.5}
    values["measure"]["extra"] = ["confidence"]
    values["attack"] = [PGD, {"name": "darker", "epsilons": [8], "test": 20}]
    write_profile(folder, values, "own")
    places = {"UNLEARNKIT_STORE": str(folder / "store")}
    places |= {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "unlearnkit", "compute", "--profile", "own.toml", "--workers", "2"],
        cwd=folder,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "store/results/own"


def numbers(made: Path, name: str) -> pd.DataFrame:
    return display.numeric(TABLES[name](read_study(made)))


def test_a_method_a_measure_an_attack_and_a_data_set_are_in_tables_and_figures(made):
    study = read_study(made)
    for draw in (figures.fairness_gap, figures.robustness, figures.layerwise):
        assert "mine" in set(draw(study).data["method"])
    text = display.markdown(tables.table2(study))
    assert "| Mine |" in text and "| Confidence (%) |" in text
    assert text.splitlines()[-1].endswith("Profile own, data set stripes.")
    every = {"Original", "Retrain", "CF", "Mine"}
    found = numbers(made, "table2_unlearning").set_index("Method")["Confidence (%) mean"]
    assert set(found.index) == every and found.between(50, 100).all()  # of two classes
    rows = numbers(made, "table3_robustness").query("Attack == 'Darker'")
    accuracy = rows[rows["Quantity"].str.startswith("Robust")]
    assert set(rows["Method"]) == every and accuracy["ε = 8/255 mean"].between(0, 100).all()


def test_options_colour_and_workers_are_in_the_results(made):
    study = json.loads((made / "study.json").read_text())
    found = study["hyperparameters"]["small_vit"]["mine"]
    assert found["weight"] == 0.5 and found["epochs"] == 1
    assert {"name": "mine", "title": "Mine", "color": "#117733"} in study["methods"]
    machine = json.loads((made / "machine.json").read_text())
    assert machine["workers"] == 2


def test_a_methods_colour_is_drawn(made):
    figure = figures.robustness(read_study(made))
    drawn = [to_hex(line.get_color()) for line in figure.axes[0].lines if len(line.get_xdata())]
    assert drawn == ["#000000", "#0072b2", "#56b4e9", "#117733"]  # own ones come last


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'broken'"),
        ("def", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, text, reason):
    if text:
        (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    path = write_profile(tmp_path, tiny_values(modules=["broken"], methods=["of broken"]))
    line = rf"^profile tiny: modules #1: cannot import module 'broken' \({reason}.*\); it must lie"
    with pytest.raises(UserError, match=line):
        load_profile(path)


def test_a_network_of_timm_that_no_profile_names(tmp_path):
    path = tmp_path / "timm.toml"
    text = 'extends = "smoke"\narchitectures = ["resnet18"]\ntrain_images = 60\ntest_images = 30\n'
    path.write_text(text + "[unlearning]\ndefault.epochs = 1")
    profile = load_profile(path)
    data = load("digits", size=16, train_images=60, test_images=30)
    lab = Lab(profile, data, Store(tmp_path / "store"))
    plan = make_plan(lab)
    scrub = [cell for cell in plan.missing if cell.method == "scrub"]
    assert {cell.scope for cell in scrub} == {"all", "first", "intermediate", "last"}
    assert {cell.architecture for cell in plan.missing} == {"resnet18"}
    found = lab.model_stage(scrub[0]).spec["hyperparameters"]
    assert (found["epochs"], found["msteps"]) == (1, 1)


def test_a_study_knows_the_recipe_of_a_network_without_a_table(made):
    study = read_study(made)
    tables = study.profile["training"]
    assert study.recipe("small_vit") == tables["small_vit"] and study.speed["seconds"].gt(0).all()
    tables["default"] = tables.pop("small_vit")  # as the profile of a timm model has it
    assert study.recipe("small_vit") == tables["default"]
    assert study.speed["images_per_second"].gt(0).all()
