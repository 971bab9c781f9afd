"""Splits: disjoint, stratified, seeded."""

import pytest
import torch

from unlearnkit.data import ImageData, make_split
from unlearnkit.data.splits import apportion, stratified
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


def test_apportion_by_largest_remainder():
    for of, total, at_least, expected in (
        ([5, 3, 2], 5, 0, [3, 1, 1]),  # 2.5, 1.5, 1: the tie goes to the first
        ([7, 2, 1], 5, 0, [4, 1, 0]),  # 3.5, 1, 0.5: likewise
        ([98, 1, 1], 4, 0, [4, 0, 0]),
        ([98, 1, 1], 4, 1, [2, 1, 1]),
        ([3, 0, 2], 5, 1, [3, 0, 2]),
        ([4, 4], 1, 1, [1, 0]),
    ):
        assert apportion(of, total, at_least) == expected


def test_stratified_is_seeded_and_nested():
    labels = torch.arange(5).repeat(40)
    before = torch.get_rng_state()
    few, again, other_seed, other_purpose = (
        stratified(labels, 20, seed=seed, purpose=purpose)
        for seed, purpose in ((3, "x"), (3, "x"), (4, "x"), (3, "y"))
    )
    assert set(few.tolist()) < set(stratified(labels, 100, seed=3, purpose="x").tolist())
    assert torch.equal(few, again) and torch.equal(few, few.sort().values)
    assert not torch.equal(few, other_seed) and not torch.equal(few, other_purpose)
    assert torch.equal(before, torch.get_rng_state())


def test_parts_are_disjoint_sorted_whole_and_stratified():
    data = toy(500, 300, 200)
    split = cut(data)
    parts = [split.retain, split.forget, split.validation]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    assert all(torch.equal(part, part.sort().values) for part in parts)
    assert torch.equal(split.train, torch.cat(parts[:2]).sort().values)
    assert split.test.tolist() == list(range(7)) and split.forget.dtype == torch.int64
    assert counts(data, split.validation) == [50, 30, 20]
    assert counts(data, split.forget) == [45, 27, 18]
    assert len(cut(data, "random:0.333", validation=0).forget) == 333


def test_each_seed_chooses_its_part():
    data = toy(50, 30, 20)
    # New values mean new keys for every stored result: change them knowingly.
    assert cut(data).hash[:8] == "321620c9"
    assert cut(data, "class:1", seed=1).hash[:8] == "cf9d5ddb"
    one = cut(data)
    for other in (cut(data, "random:0.5"), cut(data, "class:1"), cut(data, forget_seed=9)):
        assert torch.equal(one.validation, other.validation)
        assert not torch.equal(one.forget, other.forget)
    assert not torch.equal(one.validation, cut(data, seed=1).validation)
    assert one.hash == cut(data, forget_seed=0).hash
    first, second = (cut(data, seed=s, forget_seed=5, validation=0) for s in (1, 2))
    assert torch.equal(first.forget, second.forget) and len(first.validation) == 0


@pytest.mark.parametrize(
    ("names", "forget", "label"),
    [
        (("ant", "cat", "dog"), "class:1", 1),
        (("ant", "cat", "dog"), " class: cat ", 1),
        (("1", "2", "3"), "class:1", 0),  # a name comes before a position
        (("1", "2", "3"), "class:3", 2),
        (("1", "2", "3"), "class:0", 0),
    ],
)
def test_a_class_is_forgotten_whole(names, forget, label):
    data = toy(20, 30, 50, names=names)
    split = cut(data, forget)
    assert split.forgotten_class == label
    left = [18, 27, 45]
    assert counts(data, split.forget)[label] == left[label] == len(split.forget)
    assert len(split.retain) == sum(left) - left[label]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"forget": f"random:{f}"}, f"fraction {f} is out of range") for f in (0, 1, "nan")),
        *(
            ({"forget": text}, f"malformed forget set '{text}'; write random:F with 0 < F < 1")
            for text in ("random", "random:10%", "class:", "Random:0.1", "")
        ),
        ({"forget": "class:owl"}, r"unknown class 'owl'; known: 0 \(c0\), 1 \(c1\)"),
        *(({"forget": f"class:{c}"}, f"unknown class '{c}'") for c in ("2", "-1", "9" * 5000)),
        ({"forget": "random:0.001"}, "fraction 0.001 .* at least one of 47"),
        ({"forget": "random:0.9"}, "leaves no image of class 'c1' to retain"),
        ({"validation": 0.9}, "validation fraction 0.9 leaves no image of class 'c1' to train on"),
        ({"validation": 1}, "validation fraction 1 is out of range; give 0 <= fraction < 1"),
        ({"validation": -0.1}, "out of range"),
        ({"validation": float("nan")}, "out of range"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        cut(toy(50, 2), **options)
    assert "\n" not in str(caught.value)
