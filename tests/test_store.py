"""The store: what a key depends on, whole files only, and files that cannot be trusted."""

import hashlib
import json
import os
import shutil
import time
from copy import deepcopy
from dataclasses import replace
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
from unlearnkit.files import write_atomic
from unlearnkit.methods import METHODS
from unlearnkit.results import Cell
from unlearnkit.study.plan import cells_of
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import STAGE_VERSIONS, Store, canonical, key_of
from unlearnkit.training import OutOfTime

SPEC = {"seed": 0, "lr": 0.1, "nested": {"flip": True, "list": [1, 2]}}
VALUE = {"UA": 12.5, "rows": [[1.0, 2.0]]}
TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.empty(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}

# ---- Keys that results are committed under: these stay --------------------------------------

QUALITY = '{"model":"00","mia_images":0,"seed":0}'
GOLDEN = {
    ("original", "{}"): "b41bb07d0d93110ecff7",
    ("unlearn", '{"b":1,"a":[1.5,true,null,"σ"]}'): "7658b324ae89da2a2e58",
    ("quality", QUALITY): "c167aab05e32da32f570",
    ("fairness", '{"model":"00","images_per_class":0,"seed":0}'): "2bb6f5dd8306aa4ad838",
    ("robustness", '{"epsilons":[4.0,16.0],"name":"pgd"}'): "75587a4afc4c66bfd28e",
    ("transfer", '{"epsilons":[4.0,16.0],"name":"pgd"}'): "d12a04a213f8040f78d5",
    ("adversarial", '{"epsilons":[0.06274509803921569]}'): "927480a874b367fefd1c",
    ("distance", '{"steps":100,"test":20}'): "b4dfc431495d9af899f2",
    ("margins", '{"model":"00","split":"0"}'): "35122a77647b884795d2",
    ("measure", '{"name":"own","version":1}'): "151ab3444930ab5665c6",
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
    "distance": {"test": 0},
    "attack": [
        {
            **{"name": "pgd", "epsilons": [8, 4], "test": 5, "retain": 0, "forget": 0},
            **{"transfer": True, "everywhere": False},
            "options": {"steps": 1, "step_ratio": 0.25},
        }
    ],
}
GOLDEN_STUDY = "b3cb35c21b59f3bb891a"  # of all keys of FROZEN


pytestmark = pytest.mark.filterwarnings("error::UserWarning:unlearnkit")


def frozen_lab(folder, data=None, **changes):
    values = deepcopy(FROZEN) | deepcopy(changes)
    return tiny_lab(Profile("frozen", Path("frozen.toml"), values), folder, data or made_data())


def test_golden_keys(tmp_path, monkeypatch):
    """A difference here means that committed results are no longer found: is it meant?"""
    assert {(stage, spec): key_of(stage, json.loads(spec)) for stage, spec in GOLDEN} == GOLDEN
    assert {stage for stage, _ in GOLDEN} == set(STAGE_VERSIONS)
    keys = keys_of(frozen_lab(tmp_path))
    assert len(keys) == 24
    assert hashlib.sha256(canonical(keys).encode()).hexdigest()[:20] == GOLDEN_STUDY
    with pytest.raises(ValueError):
        key_of("quality", {"lr": float("nan")})
    monkeypatch.setitem(STAGE_VERSIONS, "quality", 2)
    assert key_of("quality", json.loads(QUALITY)) != GOLDEN["quality", QUALITY]
    monkeypatch.setitem(METHODS, "cf", replace(METHODS["cf"], version=2))
    assert affected(keys, keys_of(frozen_lab(tmp_path))) == OF_CF | of("quality")


def edited(path, value):
    """Return FROZEN's table that holds `path`, with `value` put in."""
    table, *steps = path.split(".")
    place = changed = {table: deepcopy(FROZEN.get(table))}
    for step in (table, *steps)[:-1]:
        place = place[int(step) if step.isdecimal() else step]
    place[(table, *steps)[-1]] = value
    return changed


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
    after = keys_of(frozen_lab(tmp_path, **edited(path, value)))
    assert affected(keys_of(frozen_lab(tmp_path)), after) == expected


def other(value):
    """Return a different value of the same kind."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value} too"


@pytest.mark.parametrize("method", ["original", *sorted(METHODS)])
def test_every_hyperparameter_is_in_the_key(tmp_path, method):
    profile = tiny_profile(tmp_path, methods=sorted(METHODS))
    data, cell, keys = replace(made_data(), flip=True), replace(ORIGINAL, method=method), set()
    first = method == "original"
    values = profile.recipe("small_vit") if first else profile.hyperparameters(method, "small_vit")
    for change in ({}, *({option: other(value)} for option, value in values.items())):
        table = {"small_vit": values | change}
        changed = {"training": table} if first else {"method": {method: table}}
        lab = tiny_lab(profile.with_values(**changed), tmp_path, data)
        keys.add(lab.model_stage(cell).key)
    assert len(keys) == 1 + len(values)


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


def test_keys_follow_the_images_and_not_their_name(tmp_path):
    before = keys_of(frozen_lab(tmp_path))
    named, pixel = replace(made_data(), name="another name"), made_data()
    assert keys_of(frozen_lab(tmp_path, named)) == before
    pixel.train_images[0, 0, 0, 0] += 1
    # To be mirrored counts only where the data allow it.
    recipe = {"small_vit": {**RECIPE, "flip": False}}
    assert keys_of(frozen_lab(tmp_path, training=recipe)) == before
    photos = replace(made_data(), flip=True)
    still = keys_of(frozen_lab(tmp_path, photos, training=recipe))
    assert affected(before, still) == OF_CF
    for data in (pixel, replace(made_data(), classes=("dark", "bright")), photos):
        assert affected(before, keys_of(frozen_lab(tmp_path, data))) == ALL


def test_nothing_stored_is_a_pickle_or_tells_of_device_or_paths(whole):
    words = ("torch.save(", "torch.load(", "import pickle", "pickle.load", "np.load(")
    for path in Path(unlearnkit.__file__).parent.rglob("*.py"):
        assert not [word for word in words if word in path.read_text()], path
    files = [path for path in whole.store.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".lock"}
    asked = [json.loads(path.read_text()) for path in files if path.suffix == ".json"]
    specs = [(entry["stage"], canonical(entry["spec"])) for entry in asked if "spec" in entry]
    elsewhere = {"adversarial", "distance", "margins", "measure"}
    assert {stage for stage, _ in specs} == set(STAGE_VERSIONS) - elsewhere
    for _, text in specs:
        assert not any(word in text for word in ("device", "cpu", "workers", "/tmp"))


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
        assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_entries_and_tensors_come_back_as_they_went(tmp_path):
    store = Store(tmp_path)
    assert store.get("quality", SPEC) is store.get_tensors("original", "00") is None
    store.put("quality", SPEC, VALUE, {"wall": 1.5})
    put = store.get("quality", SPEC)
    assert (put.value, put.machine) == (VALUE, {"wall": 1.5})
    assert store.get("fairness", SPEC) is None
    store.put_tensors("original", "00", TENSORS)
    read = store.get_tensors("original", "00")
    assert {n: v.dtype for n, v in read.items()} == {n: v.dtype for n, v in TENSORS.items()}
    assert all(torch.equal(read[name], value) for name, value in TENSORS.items())


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


OTHERS = {"folder": Path.mkdir, "pipe": os.mkfifo}
SHARED = {"cut": lambda data: data[: len(data) // 2], "empty": lambda data: b"", **OTHERS}
ENTRY = SHARED | {
    "value": lambda data: data.replace(b"12.5", b"13.5"),
    "spec": lambda data: data.replace(b'"lr":0.1', b'"lr":0.2'),
    "machine": lambda data: data.replace(b'"wall":1', b'"wall":2'),
    "list": lambda data: b"[]",
    "nan": lambda data: data.replace(b"12.5", b"NaN"),
    "no checksum": lambda data: data.replace(b'"checksum"', b'"checksome"'),
    "less deep": lambda data: data.replace(b"12.5", b"[" * 990 + b"]" * 990),
}
TENSOR = SHARED | {
    "head alone": lambda data: data[:20],
    "a bit": lambda data: flipped(data, len(data) - 3),
    "a bit of the head": lambda data: flipped(data, 3),
    "a name": lambda data: data.replace(b"weight", b"wright"),
    "no checksum": lambda data: data.replace(b"checksum", b"checksam"),
    "zip": lambda data: b"PK\x03\x04" + data,
}


HOWS = [("json", how) for how in ENTRY] + [("safetensors", how) for how in TENSOR]


@pytest.mark.parametrize(("ending", "how"), HOWS)
def test_what_is_damaged_is_named_and_set_aside(tmp_path, ending, how):
    store, key = Store(tmp_path), key_of("quality", SPEC)
    path = store.path("quality", key, ending)

    def put():
        store.put("quality", SPEC, VALUE, {"wall": 1})
        store.put_tensors("quality", key, TENSORS)

    def read():
        if ending == "json":
            return store.get("quality", SPEC)
        return store.get_tensors("quality", key)

    put()
    sound, function = path.read_bytes(), (ENTRY if ending == "json" else TENSOR)[how]
    path.unlink()
    if how in OTHERS:
        function(path)
    else:
        path.write_bytes(function(sound))
        assert path.read_bytes() != sound
    if ending == "json":
        assert store.get("quality", SPEC, repair=False) is None and path.exists()
    with pytest.warns(UserWarning, match=f"{path.name} is "):
        assert read() is None
    assert not path.exists() and path.with_name(path.name + ".damaged").exists()
    put()
    # The names of a header come in any order.
    assert read() and sorted(path.read_bytes()) == sorted(sound)


@pytest.mark.parametrize(
    ("stage", "ending"), [("quality", "json"), ("fairness", "json"), ("quality", "safetensors")]
)
def test_what_is_another_stages_is_set_aside(tmp_path, stage, ending):
    store, other = Store(tmp_path), {**SPEC, "seed": 1}
    key, ours = key_of("quality", other), key_of(stage, SPEC)
    store.put("quality", other, VALUE, {})
    store.put_tensors("quality", key, TENSORS)
    path = store.path(stage, ours, ending)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(store.path("quality", key, ending), path)
    with pytest.warns(UserWarning, match=f"{path.name} is another stage's"):
        read = store.get(stage, SPEC) if ending == "json" else store.get_tensors(stage, ours)
    assert read is None
    assert store.get("quality", other) and store.get_tensors("quality", key)


def test_a_lock_tells_who_has_it(tmp_path):
    store = Store(tmp_path)
    late = store.lock("original", "00", deadline=time.time() + 0.1)
    with store.lock("original", "00"), pytest.raises(OutOfTime, match="another process"), late:
        pass
    assert store.path("locks", "original-00", "lock").read_text().endswith(f" {os.getpid()}\n")
    with store.lock("original", "00", deadline=0.0):
        pass


def test_what_is_damaged_is_computed_again(vit):
    """To the same values, and with its time as at first; a split that is damaged, too."""
    lab = vit()
    cells, stages = lab.cells, lab.stages(CF)
    before = {cell: [entry.value for entry in lab.run(cell)] for cell in cells}
    made, weights = lab.done(stages[0]).machine, lab.model(CF).state_dict()
    entry = lab.store.path("quality", stages[1].key)
    entry.write_bytes(flipped(entry.read_bytes(), 300))
    tensors = lab.store.path("unlearn", stages[0].key, "safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-9])
    cut = lab.split(CF.forget, 0)
    split = lab.store.path("splits", cut.hash[:20], "safetensors")
    split.write_bytes(split.read_bytes()[:-1] + b"1")
    again = tiny_lab(lab.profile, lab.store.folder)
    with pytest.warns(UserWarning) as caught:
        outcome, _ = run_all(again)
    assert {str(w.message).split()[0] for w in caught} == {entry.name, tensors.name, split.name}
    assert (outcome.done, outcome.failed) == (1, [])
    assert torch.equal(again.store.get_tensors("splits", cut.hash[:20])["forget"], cut.forget)
    assert {cell: [entry.value for entry in again.run(cell)] for cell in cells} == before
    assert all(torch.equal(v, weights[n]) for n, v in again.model(CF).state_dict().items())
    assert again.done(stages[0]).machine.keys() == made.keys() > {"wall", "commit", "seconds"}


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
