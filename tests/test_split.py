"""Splits: disjoint, stratified, seeded, and the same again from their file."""

import json

import pytest
import torch

from unlearnkit.data import ImageData
from unlearnkit.data.splits import Split, apportion, make_split, stratified
from unlearnkit.errors import UserError


def toy(*counts, names=None):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    images = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    names = names or tuple(f"c{i}" for i in range(len(counts)))
    return ImageData("toy", names, images, labels, images[:7], labels[:7])


def cut(data, forget="random:0.1", validation=0.1, seed=0, **rest):
    return make_split(data, forget=forget, validation=validation, seed=seed, **rest)


def counts(data, indices):
    return data.train_labels[indices].bincount(minlength=data.num_classes).tolist()


def sets(split):
    return [set(getattr(split, n).tolist()) for n in ("retain", "forget", "validation")]


@pytest.mark.parametrize(
    ("of", "total", "at_least", "expected"),
    [
        ([10, 10], 4, 0, [2, 2]),
        ([10, 10], 3, 0, [2, 1]),
        ([5, 3, 2], 5, 0, [3, 1, 1]),  # 2.5, 1.5, 1: the tie goes to the first
        ([7, 2, 1], 5, 0, [4, 1, 0]),  # 3.5, 1, 0.5: likewise
        ([98, 1, 1], 4, 0, [4, 0, 0]),
        ([98, 1, 1], 4, 1, [2, 1, 1]),
        ([3, 0, 2], 5, 1, [3, 0, 2]),
        ([4, 4], 0, 0, [0, 0]),
        ([4, 4], 1, 1, [1, 0]),
    ],
)
def test_apportion_by_largest_remainder(of, total, at_least, expected):
    assert apportion(of, total, at_least) == expected


def test_stratified_is_seeded_and_nested():
    labels = torch.arange(5).repeat(40)
    few = stratified(labels, 20, seed=3, purpose="x")
    many = stratified(labels, 100, seed=3, purpose="x")
    assert set(few.tolist()) < set(many.tolist()) and torch.equal(few, few.sort().values)
    assert torch.equal(few, stratified(labels, 20, seed=3, purpose="x"))
    assert not torch.equal(few, stratified(labels, 20, seed=4, purpose="x"))
    assert not torch.equal(few, stratified(labels, 20, seed=3, purpose="y"))


def test_parts_are_disjoint_sorted_and_whole():
    data = toy(50, 30, 20)
    split = cut(data)
    retain, forget, validation = sets(split)
    assert not (retain & forget or retain & validation or forget & validation)
    assert retain | forget | validation == set(range(100))
    assert split.train.tolist() == sorted(retain | forget)
    assert all(torch.equal(t, t.sort().values) for t in (split.retain, split.forget))
    assert split.test.tolist() == list(range(7)) and split.forget.dtype == torch.int64
    assert split.forget_spec == "random:0.1" and split.seed == 0 and split.forgotten_class is None


def test_sizes_are_exact_and_stratified():
    data = toy(500, 300, 200)
    split = cut(data)
    assert counts(data, split.validation) == [50, 30, 20]
    assert counts(data, split.forget) == [45, 27, 18]
    assert len(cut(data, "random:0.333", validation=0).forget) == 333
    assert len(cut(data, validation=0).validation) == 0


def test_validation_depends_on_the_seed_alone():
    data = toy(50, 50)
    one = cut(data)
    for other in (cut(data, "random:0.5"), cut(data, "class:1"), cut(data, forget_seed=9)):
        assert torch.equal(one.validation, other.validation)
        assert not torch.equal(one.forget, other.forget)
    assert not torch.equal(one.validation, cut(data, seed=1).validation)


def test_the_forget_seed_chooses_the_forget_set():
    data = toy(50, 50)
    assert cut(data).hash == cut(data, forget_seed=0).hash
    assert torch.equal(
        cut(data, seed=1, forget_seed=5, validation=0).forget,
        cut(data, seed=2, forget_seed=5, validation=0).forget,
    )


def test_the_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    cut(toy(50, 50))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("forget", ["class:1", "class:cat", "class: cat ", " class:1"])
def test_a_class_is_forgotten_whole(forget):
    data = toy(20, 30, 50, names=("ant", "cat", "dog"))
    split = cut(data, forget)
    assert split.forgotten_class == 1 and split.forget_spec == forget.strip()
    assert counts(data, split.forget) == [0, 27, 0] and counts(data, split.retain)[1] == 0


def test_a_name_comes_before_a_position():
    data = toy(10, 20, 30, names=("1", "2", "3"))
    assert cut(data, "class:1").forgotten_class == 0
    assert cut(data, "class:3").forgotten_class == 2
    assert cut(data, "class:0").forgotten_class == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget": "random:0"}, "forget fraction 0 is out of range; give 0 < fraction < 1"),
        ({"forget": "random:1"}, "out of range"),
        ({"forget": "random:-0.1"}, "out of range"),
        ({"forget": "random:nan"}, "out of range"),
        ({"forget": "random:10%"}, "malformed forget set 'random:10%'; write random:F"),
        ({"forget": "random"}, "malformed"),
        ({"forget": "class:"}, "malformed"),
        ({"forget": "0.1"}, "malformed"),
        ({"forget": "Random:0.1"}, "malformed"),
        ({"forget": "class:owl"}, r"unknown class 'owl'; known: 0 \(c0\), 1 \(c1\)"),
        ({"forget": "class:2"}, "unknown class '2'"),
        ({"forget": "class:-1"}, "unknown class '-1'"),
        ({"forget": "random:0.001"}, "forgets none of 47"),
        ({"forget": "random:0.9"}, "leaves no image of class 'c1' to retain"),
        ({"validation": 0.9}, "validation fraction 0.9 leaves no image of class 'c1' to train on"),
        ({"validation": 1}, "validation fraction 1 is out of range; give 0 <= fraction < 1"),
        ({"validation": -0.1}, "out of range"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        cut(toy(50, 2), **options)
    assert "\n" not in str(caught.value)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    split = cut(toy(50, 30), "class:1")
    split.save(tmp_path / "deep" / "split.json")
    again = Split.load(tmp_path / "deep" / "split.json")
    assert again.hash == split.hash and torch.equal(again.retain, split.retain)
    assert (again.forget_spec, again.seed, again.forgotten_class) == ("class:1", 0, 1)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["split.json"]


def test_the_hash_tells_which_list_an_image_is_in():
    one, two = torch.tensor([1]), torch.tensor([2])
    made = [Split(one, two, one[:0], one, "s", 0), Split(one, one[:0], two, one, "s", 0)]
    assert made[0].hash != made[1].hash and len(made[0].hash) == 64


def moved(content):
    content["indices"]["forget"].append(content["indices"]["retain"].pop())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (moved, "do not match its hash"),
        (lambda c: c["indices"].pop("test"), "not a sound split file"),
        (lambda c: c.update(format="other"), "format is 'other'"),
        (lambda c: c["indices"].update(test=["x"]), "not a sound split file"),
        (lambda c: c["indices"].update(test=[2**70]), "not a sound split file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    path = tmp_path / "split.json"
    cut(toy(50, 30)).save(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        Split.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"{"])
def test_a_foreign_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is not a sound split file"):
        Split.load(tmp_path / "x.json")


def test_no_file_and_no_place_are_said(tmp_path):
    with pytest.raises(UserError, match="cannot read split file"):
        Split.load(tmp_path / "none.json")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        cut(toy(50, 30)).save(tmp_path / "file" / "split.json")
