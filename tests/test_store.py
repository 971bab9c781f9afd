"""The store: what a key depends on, whole files only, and files that cannot be trusted."""

import hashlib
import json
import os
import shutil
import warnings
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from helpers_study import (
    CF,
    ORIGINAL,
    PGD,
    VIT,
    keys_of,
    made_data,
    run_all,
    tiny_lab,
    tiny_profile,
)

import unlearnkit
from unlearnkit.errors import UserError
from unlearnkit.files import set_aside, write_atomic
from unlearnkit.methods import METHODS
from unlearnkit.results import Cell
from unlearnkit.study import lab as lab_module
from unlearnkit.study.plan import cells_of
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import STAGE_VERSIONS, Store, canonical, key_of
from unlearnkit.training.recipe import Recipe

SPEC = {"seed": 0, "lr": 0.1, "nested": {"flip": True, "list": [1, 2]}}
VALUE = {"UA": 12.5, "rows": [[1.0, 2.0]]}
TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.empty(0, 3),
}

# ---- Keys that results are committed under: these stay --------------------------------------

GOLDEN = {
    ("original", "{}"): "b41bb07d0d93110ecff7",
    ("unlearn", '{"b":1,"a":[1.5,true,null,"σ"]}'): "7658b324ae89da2a2e58",
    ("quality", '{"model":"00","mia_images":0,"seed":0}'): "c167aab05e32da32f570",
    ("fairness", '{"model":"00","images_per_class":0,"seed":0}'): "2bb6f5dd8306aa4ad838",
    ("robustness", '{"epsilons":[4.0,16.0],"name":"pgd"}'): "75587a4afc4c66bfd28e",
    ("transfer", '{"epsilons":[4.0,16.0],"name":"pgd"}'): "2e52c4255525976509f3",
    ("adversarial", '{"epsilons":[0.06274509803921569]}'): "927480a874b367fefd1c",
}
RECIPE = {
    **{"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "momentum": 0.9, "epochs": 2},
    **{"batch_size": 16, "schedule": "cosine", "warmup": 0.1, "crop": 1, "flip": True},
    **{"precision": "fp32", "clip": 1.0},
}
FROZEN = {
    "validation": 0.1,
    "architectures": ["small_vit"],
    "methods": ["retrain", "cf"],
    "checkpoints": [0.5],
    "forget": [{"set": "random:0.2", "seeds": [3], "scopes": ["all", "first"]}],
    "models": {"small_vit": {"dim": 16, "heads": 2, "depth": 4, "patch": 4}},
    "training": {"small_vit": RECIPE},
    "unlearning": {"small_vit": {**RECIPE, "lr": 0.01}},
    "method": {"cf": {"small_vit": {"lr": 0.02}}},
    "measure": {"batch_size": 64, "mia_images": 0, "fairness_images_per_class": 0},
    "attack": [
        {
            **{"name": "pgd", "epsilons": [8, 4], "test": 5, "retain": 0, "forget": 0},
            **{"transfer": True, "everywhere": False},
            "options": {"steps": 1, "step_ratio": 0.25},
        }
    ],
}
GOLDEN_STUDY = {
    "small_vit_random-0.2_original_all_seed3: original": "cf45c7b1f20499305963",
    "small_vit_random-0.2_original_all_seed3: quality": "b104b1b7b39dca64d787",
    "small_vit_random-0.2_original_all_seed3: fairness": "5c5a3e8d5834ff2d7446",
    "small_vit_random-0.2_original_all_seed3: robustness pgd": "dcd7a77fa7e9aa4a8506",
    "small_vit_random-0.2_original_all_seed3: transfer pgd": "ae84f407b4783058afc7",
    "small_vit_random-0.2_original_all_seed3_at0.5: original": "7098dfebb03f366a2904",
    "small_vit_random-0.2_original_all_seed3_at0.5: quality": "24668583aec8c5350a32",
    "small_vit_random-0.2_original_all_seed3_at0.5: fairness": "5506a83491feedc790be",
    "small_vit_random-0.2_retrain_all_seed3: unlearn": "d2bb18a8ed851cd18d4c",
    "small_vit_random-0.2_retrain_all_seed3: quality": "44ec38d6710466c0249d",
    "small_vit_random-0.2_retrain_all_seed3: fairness": "acd9df6d7b696f762df9",
    "small_vit_random-0.2_retrain_all_seed3: robustness pgd": "ee545e4e134482995ad2",
    "small_vit_random-0.2_retrain_all_seed3: transfer pgd": "9bda632ca02450820109",
    "small_vit_random-0.2_cf_all_seed3: unlearn": "7641abe8c30300958e30",
    "small_vit_random-0.2_cf_all_seed3: quality": "9a33fca3f2550883a1fa",
    "small_vit_random-0.2_cf_all_seed3: fairness": "2922102e22ac7d79c5bd",
    "small_vit_random-0.2_cf_all_seed3: robustness pgd": "ce01018827e74eafcf6a",
    "small_vit_random-0.2_cf_all_seed3: transfer pgd": "c43f5db778d81d5feac4",
    "small_vit_random-0.2_retrain_first_seed3: unlearn": "11854e70770bc2eccc69",
    "small_vit_random-0.2_retrain_first_seed3: quality": "9de9ef1ab5d33574f171",
    "small_vit_random-0.2_retrain_first_seed3: fairness": "9bc35aa468c8266e8d14",
    "small_vit_random-0.2_cf_first_seed3: unlearn": "0b4edb0db026178621f9",
    "small_vit_random-0.2_cf_first_seed3: quality": "9b49a4826bbfa26a0219",
    "small_vit_random-0.2_cf_first_seed3: fairness": "94a0af0652ee3c25ba1f",
}


def frozen_lab(folder, **changes):
    values = deepcopy(FROZEN) | deepcopy(changes)
    return tiny_lab(Profile("frozen", Path("frozen.toml"), values), folder, made_data())


@pytest.mark.parametrize(("stage", "spec"), GOLDEN)
def test_golden_keys_of_specs(stage, spec):
    assert key_of(stage, json.loads(spec)) == GOLDEN[stage, spec]


def test_golden_keys_of_a_study(tmp_path):
    """A difference here means that committed results are no longer found: is it meant?"""
    assert keys_of(frozen_lab(tmp_path)) == GOLDEN_STUDY


def test_golden_keys_cover_all_stages(tmp_path):
    assert {stage for stage, _ in GOLDEN} == set(STAGE_VERSIONS)
    assert {name.split(": ")[1].split()[0] for name in GOLDEN_STUDY} == (
        set(STAGE_VERSIONS) - {"adversarial"}
    )


def test_key_is_the_hash_of_stage_version_and_spec():
    text = '{"spec":{"a":1,"b":[true,0.5]},"stage":"quality","version":1}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:20]
    assert key_of("quality", {"b": [True, 0.5], "a": 1}) == expected


def test_key_of_a_raised_version_is_another(monkeypatch):
    before = key_of("quality", SPEC)
    monkeypatch.setitem(STAGE_VERSIONS, "quality", 2)
    assert key_of("quality", SPEC) != before


def test_not_a_number_has_no_key():
    with pytest.raises(ValueError):
        key_of("quality", {"lr": float("nan")})


# ---- What a key depends on -------------------------------------------------------------------


def edited(path, value):
    """Return FROZEN's table that holds `path`, with `value` put in."""
    table, *inner = path.split(".")
    changed = deepcopy(FROZEN[table])
    place = {table: changed}
    for step in (table, *inner[:-1]):
        place = place[int(step) if step.isdecimal() else step]
    if inner:
        place[inner[-1]] = value
        return {table: changed}
    return {table: value}


def affected(before, after):
    """Return 'method stage' of all keys that are different, of cells in both."""
    names = before.keys() & after.keys()
    assert names
    moved = (name for name in names if before[name] != after[name])
    return {f"{n.split('_')[3]} {n.split(': ')[1].split()[0]}" for n in moved}


EVERY = {"quality", "fairness", "robustness", "transfer"}
ALL = {f"{m} {s}" for m in ("retrain", "cf") for s in {"unlearn", *EVERY}} | {
    f"original {s}" for s in {"original", *EVERY}
}
OF_CF = {name for name in ALL if name.startswith("cf")}


def of(*stages):
    return {name for name in ALL if name.split()[1] in stages}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("training.small_vit.lr", 0.2, ALL),
        ("training.small_vit.epochs", 3, ALL),
        ("models.small_vit.depth", 5, ALL),
        ("validation", 0.2, ALL),
        ("unlearning.small_vit.epochs", 3, OF_CF),
        ("unlearning.small_vit.lr", 0.5, set()),  # CF has a rate of its own
        ("method.cf.small_vit.lr", 0.5, OF_CF),
        ("measure.mia_images", 5, of("quality")),
        ("measure.fairness_images_per_class", 5, of("fairness")),
        ("measure.batch_size", 5, of("robustness", "transfer")),
        ("attack.0.epsilons", [8, 4, 2], of("robustness", "transfer")),
        ("attack.0.test", 6, of("robustness", "transfer")),
        ("attack.0.retain", 6, of("robustness", "transfer")),
        ("attack.0.forget", 6, of("robustness", "transfer")),
        ("attack.0.options", {"steps": 2, "step_ratio": 0.25}, of("robustness", "transfer")),
        # The same said in another way, what is only shown, and what only adds to a study:
        ("attack.0.options", {"step_ratio": 0.25, "steps": 1}, set()),
        ("attack.0.epsilons", [4.0, 8.0], set()),
        ("attack.0.transfer", False, set()),
        ("attack.0.everywhere", True, set()),
        ("description", "another", set()),
        ("dataset", "elsewhere", set()),
        ("report", {"attack": "fgsm"}, set()),
        ("methods", ["retrain", "cf", "ga"], set()),
        ("checkpoints", [0.0, 0.5], set()),
        ("architectures", ["small_vit", "small_vit"], set()),
        ("attack", [*FROZEN["attack"], {**PGD, "name": "fgsm", "options": {}}], set()),
    ],
)
def test_a_key_changes_with_what_changes_the_result(tmp_path, path, value, expected):
    before = keys_of(frozen_lab(tmp_path))
    changes = edited(path, value) if path.split(".")[0] in FROZEN else {path: value}
    assert affected(before, keys_of(frozen_lab(tmp_path, **changes))) == expected


def other(value):
    """Return a different value of the same kind."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value} too"


@pytest.mark.parametrize("method", ["original", *sorted(METHODS)])
def test_every_hyperparameter_is_in_the_key(tmp_path, method):
    profile = tiny_profile(tmp_path, methods=sorted(METHODS), architectures=["small_vit"])
    data = replace(made_data(), flip=True)
    cell = replace(ORIGINAL, method=method)

    def key(values):
        lab = tiny_lab(Profile("tiny", profile.path, values), tmp_path, data)
        return lab.model_stage(cell).key

    table = "training" if method in ("original", "retrain") else "unlearning"
    own = profile["method"].get(method, {})
    names = {field.name for field in fields(Recipe)}
    names |= set(METHODS[method].kinds) if method in METHODS else set()
    before = key(profile.values)
    for name in names:
        values = deepcopy(profile.values)
        at = values[table]["small_vit"]
        if name in own.get("small_vit", {}):
            at = values["method"][method]["small_vit"]
        elif name in own:
            at = values["method"][method]
        at[name] = other(at[name])
        assert key(values) != before, name


def test_mirroring_counts_only_where_the_data_allow_it(tmp_path):
    recipe = {"small_vit": {**RECIPE, "flip": False}}
    digits, photos = made_data(), replace(made_data(), flip=True)

    def key(data, **changes):
        values = deepcopy(FROZEN) | changes
        lab = tiny_lab(Profile("frozen", Path("frozen.toml"), values), tmp_path, data)
        return lab.original_stage("small_vit", 0).key

    assert key(digits) == key(digits, training=recipe) == key(photos, training=recipe)
    assert key(photos) != key(digits)


def test_keys_follow_seed_forget_set_and_scope(tmp_path):
    lab = frozen_lab(tmp_path)
    one = Cell("small_vit", "random:0.2", "cf", "all", 3)
    different = [replace(one, seed=4), replace(one, scope="first"), replace(one, method="ga")]
    different += [replace(one, forget="random:0.3"), replace(one, forget="class:0")]
    keys = [set(keys_of(lab, cell).values()) for cell in (one, *different)]
    for number, some in enumerate(keys):
        assert all(not some & others for others in keys[number + 1 :])
    # ... but all forget sets of a seed are forgotten by one and the same original.
    originals = {replace(cell, method="original", scope="all") for cell in (one, *different)}
    models = {(cell.seed, lab.model_stage(cell).key) for cell in originals}
    assert len(models) == 2


def test_a_raised_method_version_changes_that_method_only(tmp_path, monkeypatch):
    before = keys_of(frozen_lab(tmp_path))
    monkeypatch.setitem(METHODS, "cf", replace(METHODS["cf"], version=2))
    assert affected(before, keys_of(frozen_lab(tmp_path))) == OF_CF


def test_keys_follow_the_images_and_not_their_name(tmp_path):
    profile = Profile("frozen", Path("frozen.toml"), FROZEN)
    before = keys_of(frozen_lab(tmp_path))
    named = replace(made_data(), name="another name")
    assert keys_of(tiny_lab(profile, tmp_path, named)) == before
    pixel = made_data()
    pixel.train_images[0, 0, 0, 0] += 1
    assert affected(before, keys_of(tiny_lab(profile, tmp_path, pixel))) == ALL
    classes = replace(made_data(), classes=("dark", "bright"))
    assert affected(before, keys_of(tiny_lab(profile, tmp_path, classes))) == ALL


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Return (profile, store's folder, all (stage, spec) that were asked for) of a whole study."""
    folder, asked = tmp_path_factory.mktemp("computed"), []
    profile = tiny_profile(folder, **VIT)

    def record(stage, spec):
        asked.append((stage, canonical(spec)))
        return key_of(stage, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab_module, "key_of", record)
        outcome, _ = run_all(tiny_lab(profile, folder / "store"))
    assert (outcome.done, outcome.failed) == (3, [])
    return profile, folder / "store", asked


def test_device_and_paths_are_in_no_key(computed, tmp_path):
    _, folder, asked = computed
    assert {stage for stage, _ in asked} == set(STAGE_VERSIONS)
    for _, text in asked:
        assert str(folder.parent) not in text
        assert not any(word in text for word in ("device", "cpu", "workers"))
    assert keys_of(frozen_lab(tmp_path / "here")) == keys_of(frozen_lab(tmp_path / "there"))


# ---- Whole files, or none --------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step, error):
    path = tmp_path / "folder" / "file.json"
    write_atomic(path, "old")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        write_atomic(path, "new")
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert isinstance(caught.value, UserError)
        assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_writing_below_a_file_is_a_user_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*taken"):
        write_atomic(tmp_path / "taken" / "file", b"")
    with pytest.raises(UserError, match="cannot write"):
        Store(tmp_path / "taken").put("quality", SPEC, VALUE, {})
    assert Store(tmp_path / "taken").get("quality", SPEC) is None


def test_entries_come_back_as_they_went(tmp_path):
    store = Store(tmp_path)
    assert store.get("quality", SPEC) is None
    put = store.put("quality", SPEC, VALUE, {"wall": 1.5})
    assert store.get("quality", SPEC) == put
    assert (put.value, put.machine, put.spec) == (VALUE, {"wall": 1.5}, SPEC)
    assert store.get("fairness", SPEC) is None


def test_tensors_come_back_as_they_went(tmp_path):
    store = Store(tmp_path)
    assert store.get_tensors("original", "00") is None
    store.put_tensors("original", "00", TENSORS)
    read = store.get_tensors("original", "00")
    assert read.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert read[name].dtype == value.dtype and torch.equal(read[name], value)


# ---- Files that cannot be trusted ------------------------------------------------------------


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"12.5", b"13.5"),
        lambda data: data.replace(b'"lr":0.1', b'"lr":0.2'),
        lambda data: data.replace(b'"wall":1', b'"wall":2'),
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[]",
        lambda data: b"12",
        lambda data: data.replace(b"12.5", b"NaN"),
        lambda data: data.replace(b'"checksum"', b'"checksome"'),
    ],
)
def test_a_damaged_entry_is_named_and_set_aside(tmp_path, damage):
    store = Store(tmp_path)
    entry = store.put("quality", SPEC, VALUE, {"wall": 1})
    path = store.path("quality", entry.key)
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged"):
        assert store.get("quality", SPEC) is None
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").read_bytes() == bad
    store.put("quality", SPEC, VALUE, {"wall": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get("quality", SPEC) == entry


def test_a_foreign_entry_is_named_and_set_aside(tmp_path):
    store = Store(tmp_path)
    theirs = store.put("quality", {**SPEC, "seed": 1}, VALUE, {})
    ours = store.path("quality", key_of("quality", SPEC))
    ours.write_bytes(store.path("quality", theirs.key).read_bytes())
    with pytest.warns(UserWarning, match=f"{ours.name} is another"):
        assert store.get("quality", SPEC) is None
    assert store.get("quality", {**SPEC, "seed": 1}) == theirs
    other_stage = store.path("fairness", key_of("fairness", SPEC))
    other_stage.parent.mkdir()
    other_stage.write_bytes(store.path("quality", theirs.key).read_bytes())
    with pytest.warns(UserWarning, match="another stage"):
        assert store.get("fairness", SPEC) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: flipped(data, len(data) - 3),
        lambda data: flipped(data, 3),
        lambda data: data.replace(b"weight", b"wrights"[:6]),
        lambda data: data.replace(b"checksum", b"checksam"),
        lambda data: b"PK\x03\x04" + data,
    ],
)
def test_damaged_tensors_are_named_and_set_aside(tmp_path, damage):
    store = Store(tmp_path)
    store.put_tensors("original", "00", TENSORS)
    path = store.path("original", "00", "safetensors")
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    with pytest.warns(UserWarning, match=r"00\.safetensors is damaged"):
        assert store.get_tensors("original", "00") is None
    assert path.with_name(path.name + ".damaged").read_bytes() == bad and not path.exists()


def test_foreign_tensors_are_set_aside(tmp_path):
    store = Store(tmp_path)
    store.put_tensors("original", "00", TENSORS)
    path = store.path("original", "01", "safetensors")
    path.write_bytes(store.path("original", "00", "safetensors").read_bytes())
    with pytest.warns(UserWarning, match=r"01\.safetensors"):
        assert store.get_tensors("original", "01") is None
    assert store.get_tensors("original", "00") is not None


def test_two_workers_may_find_the_same_damage(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.warns(UserWarning):
        set_aside(path, "damaged")
    assert set_aside(path, "damaged").read_text() == "{"


def test_what_is_damaged_is_computed_again(computed, tmp_path):
    profile, folder, _ = computed
    shutil.copytree(folder, tmp_path / "store")
    lab = tiny_lab(profile, tmp_path / "store")
    before = {cell: [entry.value for entry in lab.run_cell(cell)] for cell in cells_of(profile)}
    weights = lab.model(CF).state_dict()
    stages = {stage.name: stage for stage in lab.stages(CF)}
    entry = lab.store.path("quality", stages["quality"].key)
    entry.write_bytes(flipped(entry.read_bytes(), 300))
    tensors = lab.store.path("unlearn", stages["unlearn"].key, "safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-9])
    again = tiny_lab(profile, tmp_path / "store")
    with pytest.warns(UserWarning) as caught:
        outcome, _ = run_all(again)
    assert {str(w.message).split()[0] for w in caught} == {entry.name, tensors.name}
    assert (outcome.done, outcome.failed) == (1, [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = {c: [entry.value for entry in again.run_cell(c)] for c in cells_of(profile)}
    assert after == before
    for name, value in again.model(CF).state_dict().items():
        assert torch.equal(value, weights[name])


def test_no_pickle(computed):
    words = ("torch.save(", "torch.load(", "import pickle", "pickle.load", "np.load(")
    for path in Path(unlearnkit.__file__).parent.rglob("*.py"):
        assert not [word for word in words if word in path.read_text()], path
    endings = {path.suffix for path in computed[1].rglob("*") if path.is_file()}
    assert endings == {".json", ".safetensors"}


# ---- Names -----------------------------------------------------------------------------------


def test_cell_names_are_safe_and_told_apart():
    specs = ["random:0.1", "class:3", "class:cat", "class:a/b", "class:a-b", "class:a b"]
    specs += ["class:..", "class:a_b", "class:a:b", "class:a%2Fb", "class:σ", "class:a\\b"]
    cells = [replace(CF, forget=spec) for spec in specs]
    cells += [replace(CF, progress=0.25), replace(CF, scope="modules:net.layer4,net.fc")]
    cells += [replace(CF, architecture="hf_hub:timm/x"), replace(CF, method="my method/2")]
    names = [cell.name for cell in cells]
    assert len({name.casefold() for name in names}) == len(cells)
    for name in names:
        assert name.isascii() and not set(name) & set('/\\: "<>|?*') and len(name) < 120
    assert CF.name == "small_vit_random-0.2_cf_all_seed0"
    assert replace(CF, forget="class:cat", progress=0.5).name.endswith("cat_cf_all_seed0_at0.5")


def test_cells_are_listed_once(tmp_path):
    sets = [
        {"set": "random:0.2", "seeds": [0, 1], "scopes": ["all"]},
        {"set": "random:0.2", "seeds": [0], "scopes": ["all", "last"]},
    ]
    cells = cells_of(tiny_profile(tmp_path, **VIT | {"forget": sets}))
    assert len(set(cells)) == len(cells) == 2 + 2 + 1
    assert [cell.method for cell in cells[:2]] == ["original"] * 2
