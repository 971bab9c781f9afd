"""Profiles: those that come with the package, what they take over, and how one can be wrong."""

import hashlib
import json
import re

import pytest
from helpers_study import VIT, tiny_values, write_profile

from unlearnkit.errors import UserError
from unlearnkit.measures import MEASURES, Measure
from unlearnkit.methods import METHODS
from unlearnkit.names import MEMBERSHIP
from unlearnkit.results import committed_folder
from unlearnkit.study.plan import cells_of
from unlearnkit.study.profile import FOLDER, load_profile, profile_names

# Of the values: a change of `quick` must not change what extends it without a word.
DIGESTS = {"paper": "b3d6246d", "smoke": "bbb34046", "starter": "f7269c90"}
DIGESTS |= {"methods": "f5302b2f", "cifar10-methods": "8e5c092a", "quick-lira": "a93dbcd1"}


def as_text(values):
    return json.dumps(values, sort_keys=True)  # tells 1 from 1.0


def changed(path, value):
    """Return the tiny values with `value` at `path` ('method.cf.lr'), or without it if None."""
    sweep = {"seeds": [0], "forget_seed": 1, "rates": {"resnet50": {"cf": [0.1]}}}
    values = place = tiny_values(sweep=sweep)
    *outer, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    for step in outer:
        place = place[step]
    place[last] = value
    if value is None:
        del place[last]
    return values


def written(folder, text, name="mine"):
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


@pytest.mark.parametrize("name", profile_names())
def test_shipped_values_are_those_of_the_committed_results_or_as_they_were(name):
    profile = load_profile(name)
    if name in DIGESTS:
        assert hashlib.sha256(as_text(profile.values).encode()).hexdigest()[:8] == DIGESTS[name]
        return
    folder = committed_folder(name) / (MEMBERSHIP if "lira" in profile.values else "")
    study = json.loads((folder / "study.json").read_text())
    ours, theirs = dict(profile.values), dict(study["settings"])
    if name == "cifar10":  # whose rates were chosen on one seed
        assert ours.pop("sweep") != theirs.pop("sweep")
        ours.pop("intervention")  # no cell's result comes of it
        theirs.pop("intervention", None)
        assert ours.pop("distance") == {"test": 0, "steps": 100}  # not measured for them
    assert as_text(ours) == as_text(theirs)
    for architecture, table in study["hyperparameters"].items():
        for method, values in table.items():
            assert as_text(profile.hyperparameters(method, architecture)) == as_text(values)


def test_the_narrower_table_wins_and_the_code_has_the_rest(tmp_path):
    values = tiny_values()
    values["unlearning"]["small_vit"] |= {"lr": 1.0, "epochs": 11, "batch_size": 12}
    values["method"]["cf"] = {"lr": 2, "epochs": 22, "small_vit": {"lr": 3}}
    values["method"]["scrub"] = {"alpha": 0.5}
    del values["training"]["small_vit"]["clip"], values["models"]["small_vit"]["depth"]
    profile = load_profile(write_profile(tmp_path, values))
    cf = profile.hyperparameters("cf", "small_vit")
    assert (cf["lr"], cf["epochs"], cf["batch_size"]) == (3, 22, 12)
    assert type(cf["lr"]) is int and "small_vit" not in cf
    assert profile.hyperparameters("cf", "resnet50")["lr"] == 2
    assert profile.recipe("small_vit") == values["training"]["small_vit"] | {"clip": 0.0}
    assert profile.hyperparameters("retrain", "small_vit") == profile.recipe("small_vit")
    scrub = profile.hyperparameters("scrub", "resnet50")
    assert scrub["alpha"] == 0.5 and scrub["jitter"] == METHODS["scrub"].defaults["jitter"]
    assert profile.model_options("small_vit") == {"dim": 16, "heads": 2, "depth": 4, "patch": 8}
    # Another network needs no tables.
    path = written(tmp_path, 'extends = "quick"\narchitectures = ["resnet18"]\nimage_size = 32')
    profile = load_profile(path)
    recipe = profile.recipe("resnet18")
    assert (recipe["optimizer"], recipe["crop"]) == ("adamw", 0)  # from `default` and the code
    assert profile.hyperparameters("scrub", "resnet18")["jitter"] == 1e-3
    assert profile.model_options("resnet18") == {} and cells_of(profile)


def test_a_profile_extends_another(tmp_path):
    written(tmp_path, 'extends = "quick"\n[measure]\nbatch_size = 7\n[training.resnet50]\nlr = 1')
    text = 'extends = "mine.toml"\ncheckpoints = [0.2]\ntrain_images = 9\n[measure]\nmia_images = 5'
    expected = load_profile("quick").values | {"checkpoints": [0.2], "train_images": 9}
    expected["measure"] |= {"batch_size": 7, "mia_images": 5}
    expected["training"]["resnet50"]["lr"] = 1
    assert as_text(load_profile(written(tmp_path, text, "child")).values) == as_text(expected)


def test_a_measure_of_ones_own(tmp_path, monkeypatch):
    path = write_profile(tmp_path, changed("measure.extra", ["sureness"]))
    with pytest.raises(UserError, match=r"measure.extra #1: unknown measure 'sureness'; known"):
        load_profile(path)
    monkeypatch.setitem(MEASURES, "sureness", Measure("sureness", "", 1, 1, None))
    assert load_profile(path)["measure"]["extra"] == ["sureness"]


def test_another_forget_set_is_another_study_everywhere():
    profile = load_profile("cifar10")
    assert profile.with_forget("random:0.1") is profile
    assert profile.with_forget("class:1").with_forget("class:a b/c").name == "cifar10+class-a-b-c"
    other = profile.with_forget("class:5")
    assert [entry["set"] for entry in other["forget"]] == ["class:5", "class:5", "class:3"]


def test_a_transformer_of_convolutional_patches_needs_no_patch_size_that_fits(tmp_path):
    text = 'extends = "quick"\n[models]\nsmall_vit.convolutions = 3\n'
    (tmp_path / "mine.toml").write_text(text)
    assert load_profile(tmp_path / "mine.toml")["models"]["small_vit"]["patch"] == 4


def refused(path, message):
    with pytest.raises(UserError) as caught:
        load_profile(path)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("learning_rate", 1, "unknown key 'learning_rate'; known: description"),
        ("forget.0.seed", 1, "forget #1: unknown key 'seed'; known: set, seeds"),
        ("attack.0.options.step", 3, "attack #1: unknown .* of attack.pgd 'step'; known: steps"),
        ("training.resnet50.rate", 1.0, "of training.resnet50 'rate'; known: optimizer"),
        ("method.cf.default", 3, "of method.cf.resnet50 'default'; known: optimizer"),
        ("method.cf.resnet5O", {"lr": 1.0}, "unknown architecture 'resnet5O'; known: resnet50"),
        ("method.fc", {}, "method.fc: unknown method 'fc'; known: .*cf"),
        ("methods", ["cf", "fc"], "methods #2: unknown method 'fc'; known: .*retrain"),
        ("attack.0.name", "gpd", "unknown attack 'gpd'; known: noise, fgsm, pgd"),
        ("forget.0.scopes", ["al"], "forget #1.scopes #1: must be 'all', 'first'.* not 'al'"),
        ("forget.0.methods", ["cf"], "forget #1 is for all methods"),
        ("report.attack", "fgsm", "unknown attack of report 'fgsm'; known: pgd"),
        ("unlearning.resnet50.lr", -1.0, "unlearning.resnet50.lr must be greater than or eq"),
        ("training.resnet50.epochs", 10**6, "epochs must be less than or equal to 100000, not"),
        ("attack.0.epsilons", [4, -1], "epsilons #2: must be greater than 0, not -1"),
        ("attack.0.epsilons", [4, 4.0], "epsilons: 4 is there twice"),
        ("method.cf.batch_size", 10**7, "method.cf.resnet50.batch_size must be less than or"),
        ("training.resnet50.crop", 4097, "crop must be less than or equal to 4096, not 4097"),
        ("attack.0.options.steps", 0, "attack.pgd.steps must be greater than 0"),
        ("attack.0.options.step_ratio", float("nan"), "attack.pgd.step_ratio must be a fin"),
        ("attack.0.options.steps", 10**400, "options.steps must be at most"),
        ("image_size", "16", "image_size: must be a valid integer, not '16'"),
        ("image_size", 15, "small_vit needs .* the image size one of patch"),
        ("models.small_vit.heads", 3, "small_vit needs .* dim a multiple of heads"),
        ("forget.0.seeds", [-1], "seeds #1: must be greater than or equal to 0, not -1"),
        ("measure", None, "measure: Field required"),
        ("sweep.seeds", [], "sweep.seeds: List should have at least 1 item"),
        ("sweep.seeds", [1, 1], "sweep.seeds: 1 is there twice"),
        ("sweep.rates.resnet50.cf", [float("inf")], "cf #1: must be a finite number, not inf"),
        ("sweep.rates.resnet50", {}, "rates.resnet50: Dictionary should have at least 1 item"),
        ("intervention", {"methods": ["original"]}, "methods #1: unknown method 'original'"),
        ("intervention", {"methods": [], "seeds": [0], "factors": [0.0]}, "must be greater than 0"),
        ("lira", {"models": 2, "forget_seed": 0}, "models: must be greater than or equal to 3"),
        ("attack", [*tiny_values()["attack"] * 2], "pgd is there twice"),
    ],
)
def test_a_wrong_value(tmp_path, path, value, message):
    file = write_profile(tmp_path, changed(path, value))
    file.write_text(file.read_text().replace("NaN", "nan").replace("Infinity", "inf"))
    refused(file, f"^profile tiny: .*{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"dataset = ", "not valid TOML"),
        (b"a = 0x1" + b"0" * 9999, "not valid TOML"),
        (b"a = " + b"[" * 200_000, "nested too deeply"),
        (b'extends = "quick"\n[' + b"a." * 50_000 + b"a]", "nested too deeply"),
        (b"#" * (2**26 + 1), "not a plain file of at most 67108864 bytes"),
        (b'extends = "mine.toml"', "mine.toml extends itself"),
        (b'extends = "loop.toml"', "mine.toml extends itself"),
        (b'extends = "quik"', "unknown profile 'quik'; known: .*quick"),
        (b"extends = 3", "extends must be a profile's name or path, not 3"),
    ],
)
def test_a_wrong_file(tmp_path, text, message):
    written(tmp_path, 'extends = "mine.toml"', "loop")
    path = written(tmp_path, "")
    path.write_bytes(text)
    refused(path, f"^profile mine: .*{message}")


def test_a_path_is_a_profile_whose_name_its_results_may_have(tmp_path, monkeypatch):
    path = write_profile(tmp_path, tiny_values(**VIT), "my study")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = load_profile("~/my study.toml")
    assert (found.name, found.path, found.values) == ("my study", path, load_profile(path).values)
    for name in ("..", ".hidden", "a\\b", "a\nb", "quick"):  # quick's results would be replaced
        refused(write_profile(tmp_path, tiny_values(), name), "rename")
    (tmp_path / "quick.toml").write_bytes((FOLDER / "quick.toml").read_bytes())
    assert load_profile(tmp_path / "quick.toml").values == load_profile("quick").values


@pytest.mark.parametrize("name", ["quik", "", "no/x.toml", "~nobody/x.toml", "x" * 5000, "\0", "/"])
def test_an_unknown_profile_names_the_known(name):
    refused(name, r"unknown profile .*; known: .*quick, quick-lira, smoke.*path of a")
