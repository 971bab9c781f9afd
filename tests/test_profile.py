"""Profiles: those that come with the package, and every way one of your own can be wrong."""

import re
from copy import deepcopy

import pytest
from helpers_study import VIT, tiny_profile, tiny_values, write_profile

from unlearnkit.attacks import ATTACKS, attack_options
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS, parse_hyperparameters
from unlearnkit.results import study_name
from unlearnkit.study.plan import cells_of
from unlearnkit.study.profile import FOLDER, TOP, load_profile, profile_names


def changed(path, value):
    """Return the tiny values with `value` at `path` ('method.cf.lr'), or without it if None."""
    values = deepcopy(tiny_values())
    *outer, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    place = values
    for step in outer:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


# ---- The shipped ones ------------------------------------------------------------------------


def test_every_shipped_file_is_a_known_profile():
    assert {"quick", "smoke"} <= set(profile_names())
    assert set(profile_names()) == {path.stem for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_load(name):
    profile = load_profile(name)
    assert profile.name == name and set(TOP) <= set(profile.values)
    assert set(profile["methods"]) == set(METHODS) - {"original"} & set(profile["methods"])
    for architecture in profile["architectures"]:
        for method in profile["methods"]:
            recipe, _ = parse_hyperparameters(profile.hyperparameters(method, architecture), method)
            assert recipe.epochs >= 1
    for entry in profile["attack"]:
        # Every hyper-parameter is in the profile, none left to the code's defaults.
        assert set(entry["options"]) == set(attack_options(entry["name"]))
    assert len(cells_of(profile)) == len(set(cells_of(profile)))
    assert profile.minutes in profile["description"]


@pytest.mark.parametrize("name", ["quick", "smoke"])
def test_shipped_studies_are_whole(name):
    """All that the tables and figures show: both networks, all methods, scopes and attacks."""
    profile = load_profile(name)
    assert profile["architectures"] == ["resnet50", "small_vit"]
    assert {"retrain", "cf", "rl", "bs", "salun", "scrub", "ga"} <= set(profile["methods"])
    assert set(profile["forget"][0]["scopes"]) == {"all", "first", "intermediate", "last"}
    names = [entry["name"] for entry in profile["attack"]]
    assert set(names) == set(ATTACKS) & set(names) and len(names) == 4
    shown = next(e for e in profile["attack"] if e["name"] == profile["report"]["attack"])
    assert shown["everywhere"] and shown["transfer"]


# ---- Where a value comes from ----------------------------------------------------------------


def test_hyperparameters_the_narrower_table_wins(tmp_path):
    values = tiny_values()
    values["unlearning"]["small_vit"] |= {"lr": 1.0, "epochs": 11, "batch_size": 12}
    values["method"]["cf"] = {"lr": 2.0, "epochs": 22, "small_vit": {"lr": 3.0}}
    profile = load_profile(write_profile(tmp_path, values))
    cf = profile.hyperparameters("cf", "small_vit")
    assert (cf["lr"], cf["epochs"], cf["batch_size"]) == (3.0, 22, 12)
    assert profile.hyperparameters("cf", "resnet50")["lr"] == 2.0
    assert "small_vit" not in cf
    retrain = profile.hyperparameters("retrain", "small_vit")
    assert retrain == profile.recipe("small_vit") == values["training"]["small_vit"]
    cf["lr"] = 9.0
    assert profile.hyperparameters("cf", "small_vit")["lr"] == 3.0


def test_an_architecture_without_a_table(tmp_path):
    with pytest.raises(UserError, match=r"no \[training.vgg\]; it has resnet50, small_vit; copy"):
        tiny_profile(tmp_path).recipe("vgg")


def test_a_path_is_a_profile(tmp_path, monkeypatch):
    path = write_profile(tmp_path, tiny_values(**VIT), "my study")
    assert load_profile(path).name == load_profile(str(path)).name == "my study"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_profile("~/my study.toml").path == path


def test_a_copy_may_not_pose_as_a_shipped_profile(tmp_path):
    """Its results would replace those of the package's profile."""
    path = write_profile(tmp_path, tiny_values(), "quick")
    with pytest.raises(UserError, match=r"quick.toml is called like .* rename"):
        load_profile(path)
    path.write_bytes((FOLDER / "quick.toml").read_bytes())
    assert load_profile(path).values == load_profile("quick").values


# ---- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # a name that is not known, and those that are
        ("learning_rate", 1, r"unknown key of profile tiny 'learning_rate'; known: description"),
        ("measure.batchsize", 1, r"unknown key of .*\[measure\] 'batchsize'; known: batch_size"),
        ("report.eps", 1, r"unknown key of .*\[report\] 'eps'; known: attack, tolerance"),
        ("forget.0.seed", 1, r"unknown key of .*\[\[forget\]\] 1 'seed'; known: set, seeds"),
        ("attack.0.eps", [1], r"unknown key of .*\[\[attack\]\] 1 'eps'; known: name, epsilons"),
        ("attack.0.options.step", 3, r"unknown key of .*options 'step'; known: steps"),
        ("training.resnet50.rate", 1.0, r"unknown hyper-parameter of .*'rate'; known: optimizer"),
        ("method.cf.rate", 1.0, r"unknown hyper-parameter of .*\[method.cf\].*'rate'; known"),
        ("method.cf.alpha", 1.0, r"unknown hyper-parameter of .*'alpha'"),
        ("method.cf.resnet5O", {"lr": 1.0}, r"unknown architecture .*'resnet5O'; known: resnet50"),
        ("method.fc", {}, r"unknown method 'fc'; known: .*cf"),
        ("models.small_vit.size", 3, r"unknown key of .*\[models.small_vit\] 'size'; known: dim"),
        ("methods", ["cf", "forgetful"], r"unknown method 'forgetful'; known: .*retrain"),
        ("attack.0.name", "gpd", r"unknown attack 'gpd'; known: noise, fgsm, pgd"),
        ("forget.0.scopes", ["al"], r"unknown scope 'al'; known: all, first, intermediate, last"),
        ("architectures", ["vgg"], r"no \[training.vgg\]; it has resnet50, small_vit"),
        ("report.attack", "fgsm", r"unknown attack of \[report\] 'fgsm'; known: pgd"),
        # a value that is not allowed
        (
            "training.resnet50.optimizer",
            "sdg",
            r"unknown value of .*'sdg'; known: sgd, adam, adamw",
        ),
        ("training.resnet50.schedule", "step", r"unknown value .*'step'; known: constant, cosine"),
        ("training.resnet50.precision", "fp16", r"unknown value .*'fp16'; known: fp32, bf16"),
        ("training.resnet50.lr", -1.0, r"lr must be >= 0"),
        ("training.resnet50.batch_size", 0, r"batch_size must be >= 1"),
        ("training.resnet50.warmup", 1.0, r"warmup must be in \[0, 1\)"),
        ("checkpoints", [1.0], r"checkpoints must be fractions .*\[0, 1\)"),
        ("checkpoints", [-0.1], r"checkpoints must be fractions"),
        ("attack.0.epsilons", [4, -1], r"epsilons must be numbers above 0"),
        ("attack.0.epsilons", [], r"epsilons must be numbers above 0"),
        ("attack.0.epsilons", [400], r"at most 255"),
        ("attack.0.options", {"steps": "x", "step_ratio": 1.0}, r"steps must be a int, not 'x'"),
        ("attack.0.epsilons", [4, 2, 4.0], r"epsilons hold 4.* twice"),
        ("attack.0.options", {"steps": 0, "step_ratio": 1.0}, r"steps of attack pgd is 0; it must"),
        ("attack.0.options", {"steps": 1, "step_ratio": -0.5}, r"step_ratio .* is -0.5"),
        ("attack.0.options", {"steps": 1}, r"options lacks step_ratio"),
        ("models.small_vit", {"dim": 16, "heads": 2, "patch": 4}, r"lacks depth"),
        ("attack.0.test", -1, r"test must be at least 0, not -1"),
        ("measure.batch_size", 0, r"batch_size must be at least 1, not 0"),
        ("measure.mia_images", -5, r"mia_images must be at least 0"),
        ("train_images", -1, r"train_images must be at least 0"),
        ("report.tolerance_points", 0, r"tolerances must be above 0"),
        ("architectures", [], r"architectures must name at least one"),
        ("forget", [], r"needs at least one \[\[forget\]\] table"),
        ("forget.0.seeds", [], r"seeds must be a list of whole numbers"),
        ("forget.0.seeds", [0.5], r"seeds must be a list of whole numbers"),
        # a value of a wrong kind
        ("image_size", "16", r"image_size must be a int, not '16'"),
        ("train_images", True, r"train_images must be a int, not True"),
        ("validation", "0.1", r"validation must be a float"),
        ("methods", "cf", r"methods must be a list"),
        ("methods", [["cf"]], r"methods must be a list of names"),
        ("architectures", [3], r"architectures must be a list of names"),
        ("forget", ["random:0.1"], r"forget must hold tables"),
        ("attack", ["pgd"], r"attack must hold tables"),
        ("method", {"cf": 3}, r"method must hold tables"),
        ("training", {"resnet50": "sgd"}, r"training must hold tables"),
        ("models", {"resnet50": 0.5}, r"models must hold tables"),
        ("models.small_vit.dim", 16.5, r"\[models.small_vit\]: dim must be a int, not 16.5"),
        ("forget.0.scopes", "all", r"scopes must be a list"),
        ("training.resnet50.epochs", 1.5, r"epochs must be a whole number, not 1.5"),
        ("training.resnet50.flip", 1, r"flip must be a bool, true or false, not 1"),
        # something missing
        ("measure", None, r"profile tiny lacks measure"),
        ("attack.0.options", None, r"\[\[attack\]\] 1 lacks options"),
        ("training.small_vit", None, r"no \[training.small_vit\]; it has resnet50"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, path, value, message):
    file = write_profile(tmp_path, changed(path, value))
    with pytest.raises(UserError) as caught:
        load_profile(file)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_attack_is_named_once(tmp_path):
    twice = tiny_values()["attack"] * 2
    with pytest.raises(UserError, match=r"\[\[attack\]\] 2: pgd is there already"):
        tiny_profile(tmp_path, attack=twice)


@pytest.mark.parametrize("text", [b"dataset = ", b"[a]\n[a]\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_broken_toml(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"broken.toml is not valid TOML: "):
        load_profile(path)


@pytest.mark.parametrize("name", ["quik", "", "nowhere/else.toml", "../profiles"])
def test_an_unknown_profile_names_the_known(name):
    with pytest.raises(UserError, match=r"unknown profile .*; known: .*quick, smoke.*path of a"):
        load_profile(name)


def test_a_folder_is_no_profile(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match="unknown profile"):
        load_profile(tmp_path / "folder.toml")


def test_another_forget_set_is_another_study(tmp_path):
    profile = tiny_profile(tmp_path)
    other = profile.with_forget("class:a cat/dog")
    assert other["forget"][0]["set"] == "class:a cat/dog" != profile["forget"][0]["set"]
    assert study_name(other, None) == f"{profile.name}+class-a-cat-dog"
    assert profile.with_forget(profile["forget"][0]["set"]) is profile
    assert study_name(other.with_forget("class:1"), None) == f"{profile.name}+class-1"


def test_another_forget_set_takes_the_first_ones_place_everywhere():
    other = load_profile("cifar10").with_forget("class:5")
    assert [entry["set"] for entry in other["forget"]] == ["class:5", "class:5", "class:3"]
    assert {cell.forget for cell in cells_of(other)} == {"class:5", "class:3"}
