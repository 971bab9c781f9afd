"""Data sets: what `load` gives for every kind of name, and what it says to bad input."""

import gzip
import hashlib
import pickle
import struct
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image

from unlearnkit.data import ImageData, dataset, dataset_names, folders, load, named
from unlearnkit.errors import UserError


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(named, "_SOURCES", dict(named._SOURCES))


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def register(*arrays, name="mine", flip=True):
    dataset(name, flip=flip)(lambda: arrays)
    return name


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def grey(count, side=4):
    """Images of one grey level each: image i is i everywhere."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, side, side))


def paint(path: Path, colour, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def folder(root: Path, counts: dict[str, int]) -> Path:
    """Make root/<class>/<i>.png, one grey level for each file."""
    level = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            paint(root / name / f"{i:03}.png", (level,) * 3)
            level += 1
    return root


def refused(*parts, **options):
    """Return the message of the UserError that `load` raises."""
    with pytest.raises(UserError) as caught:
        load(options.pop("name", "mine"), **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# ---- digits, caps, sizes


def test_digits_is_whole_square_and_the_same_each_time():
    first, again = load("digits"), load("digits")
    assert first.train_images.shape == (1438, 3, 16, 16) and first.train_images.dtype == torch.uint8
    assert first.test_images.shape == (359, 3, 16, 16) and first.test_labels.dtype == torch.int64
    assert first.classes == tuple("0123456789") and first.num_classes == 10
    assert first.image_size == 16 and not first.flip
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.train_images[:, 0], first.train_images[:, 2])
    assert first.train_images.min() == 0 and first.train_images.max() > 240
    shares = first.test_labels.bincount() / (
        first.test_labels.bincount() + first.train_labels.bincount()
    )
    assert shares.min() > 0.19 and shares.max() < 0.21


def test_digits_bytes_do_not_depend_on_the_machine():
    # A new value means a new key for every stored result: change it knowingly.
    assert load("digits").fingerprint.startswith("076690ff")
    assert load("digits", train_images=50, test_images=20).fingerprint.startswith("d308b38b")


def test_digits_upsampled_is_bilinear():
    small, large = load("digits", size=8), load("digits", size=16)
    reference = torch.nn.functional.interpolate(
        small.train_images[:50].float(), size=16, mode="bilinear", align_corners=False
    )
    assert (large.train_images[:50].float() - reference).abs().max() <= 1


def test_caps_are_stratified_nested_and_seeded():
    many = load("digits", train_images=400, test_images=100)
    few = load("digits", train_images=100, test_images=40)
    assert len(many.train_labels) == 400 and len(few.test_labels) == 40
    assert few.train_labels.bincount().tolist() == [10] * 10
    pool = {image.numpy().tobytes() for image in many.train_images}
    assert all(image.numpy().tobytes() in pool for image in few.train_images)
    assert len(load("digits", train_images=10**6).train_labels) == 1438


def test_a_cap_keeps_the_rarest_class():
    name = register(grey(100), labels(97, 2, 1), grey(3), labels(1, 1, 1))
    assert load(name, train_images=5).train_labels.bincount().tolist() == [3, 1, 1]


@pytest.mark.parametrize("option", ["size", "train_images", "test_images"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_options_must_be_whole_numbers(option, value):
    refused(option, repr(value), "whole number", name="digits", **{option: value})


def test_a_cap_below_the_classes_is_refused():
    refused("train_images=9", "10 classes", name="digits", train_images=9)


def test_an_unknown_name_lists_the_known():
    refused("unknown dataset 'cfar10'", "cifar10", "digits", "folder:PATH", name="cfar10")


# ---- ImageData


def make(images, names=("a", "b")):
    half = torch.tensor([0, 1])
    return ImageData("toy", names, images, half, images.clone(), half)


def test_mean_and_std_are_exact():
    images = torch.randint(0, 256, (2, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    made = make(images.to(torch.uint8))
    flat = images.permute(1, 0, 2, 3).reshape(3, -1).double() / 255
    assert made.mean == pytest.approx(flat.mean(1).tolist(), abs=1e-12)
    assert made.std == pytest.approx(flat.std(1, correction=0).tolist(), abs=1e-12)


def test_std_of_a_constant_channel_can_be_divided_by():
    assert make(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)).std == (1 / 255,) * 3


def test_fingerprint_sees_every_pixel_label_and_class_name():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    other = images.clone()
    other[1, 2, 3, 3] = 1
    base = make(images)
    same = ImageData("renamed", ("a", "b"), images, *[base.train_labels, images, base.test_labels])
    relabelled = ImageData(
        "toy", ("a", "b"), images, 1 - base.train_labels, images, same.test_labels
    )
    reshaped = make(images.reshape(2, 3, 2, 8))
    assert same.fingerprint == base.fingerprint
    changed = [
        make(other),
        make(images, ("a", "c")),
        make(images, ("ab", "")),
        relabelled,
        reshaped,
    ]
    assert len({base.fingerprint, *[item.fingerprint for item in changed]}) == 6


def test_fingerprint_sees_strided_tensors_as_their_values():
    images = torch.randint(0, 256, (2, 4, 4, 3)).to(torch.uint8).permute(0, 3, 1, 2)
    assert make(images).fingerprint == make(images.contiguous()).fingerprint


def test_to_moves_all_and_keeps_what_is_known():
    made = make(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    fingerprint = made.fingerprint
    moved = made.to("meta")
    assert moved.train_images.is_meta and moved.test_labels.is_meta and moved.classes == ("a", "b")
    assert moved.fingerprint == fingerprint and not made.train_images.is_meta


# ---- registered arrays


@pytest.mark.parametrize("kind", ["NHW", "NHWC", "NCHW", "NHW1", "float", "float64", "tensor"])
def test_every_layout_gives_the_same_data(kind):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (6, 5, 5), dtype=np.uint8)
    given = {
        "NHW": one,
        "NHWC": np.stack([one] * 3, axis=-1),
        "NCHW": np.stack([one] * 3, axis=1),
        "NHW1": one[..., None],
        "float": (one / 255).astype(np.float32),
        "float64": one / 255,
        "tensor": torch.from_numpy(one),
    }[kind]
    loaded = load(register(given, labels(3, 3), given[:2], [0, 1]))
    expected = torch.from_numpy(np.stack([one] * 3, axis=1))
    assert torch.equal(loaded.train_images, expected)
    assert loaded.train_images.is_contiguous() and loaded.train_labels.tolist() == [0] * 3 + [1] * 3
    assert loaded.classes == ("0", "1") and loaded.name == "mine" and loaded.image_size == 5


def test_colour_channels_keep_their_order():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[..., 0], images[..., 2] = 200, 50
    loaded = load(register(images, [0, 1], images, [1, 0]), size=2)
    assert loaded.test_images[0, :, 1, 1].tolist() == [200, 0, 50]


def test_the_loaded_data_is_a_copy():
    images = np.zeros((2, 4, 4), np.uint8)
    loaded = load(register(torch.from_numpy(images), [0, 1], images, [0, 1]))
    images += 1
    assert loaded.train_images.sum() == 0


def test_registering_again_replaces_and_is_listed():
    name = register(grey(2), [0, 1], grey(2), [0, 1], ["cat", "dog"], flip=False)
    assert load(name).classes == ("cat", "dog") and not load(name).flip and name in dataset_names()
    register(grey(4), labels(2, 2), grey(2), [0, 1])
    assert len(load(name).train_labels) == 4 and load(name).flip


def test_the_decorator_hands_the_function_back():
    @dataset("kept")
    def kept():
        return grey(2), [0, 1], grey(2), [0, 1]

    assert kept()[1] == [0, 1]


def test_unlike_sizes_need_a_size():
    name = register(np.zeros((2, 4, 6), np.uint8), [0, 1], np.zeros((2, 8, 8), np.uint8), [0, 1])
    refused("4×6 and 8×8", "size=")
    loaded = load(name, size=5)
    assert loaded.train_images.shape == loaded.test_images.shape == (2, 3, 5, 5)


def test_resizing_down_is_antialiased():
    stripes = np.zeros((2, 16, 16), np.uint8)
    stripes[:, :, ::2] = 255
    small = load(register(stripes, [0, 1], stripes, [0, 1]), size=4).train_images
    assert (small.float() - 127.5).abs().max() < 40


OK = (grey(4), labels(2, 2), grey(2), labels(1, 1))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({0: grey(4) / 3 + 0.5}, ["train images", "floats in [0.5, 1.5]", "[0, 1]"]),
        ({2: grey(2) - 0.5}, ["test images", "floats in [-0.5, 0.5]"]),
        ({0: np.full((4, 4, 4), np.nan)}, ["train images", "non-finite"]),
        ({2: np.array([[[np.inf]], [[0.0]]])}, ["test images", "non-finite"]),
        ({0: grey(4).astype(np.int64)}, ["int64", "uint8"]),
        ({0: np.zeros((4, 4), np.uint8)}, ["shape [4, 4]", "[N, H, W]"]),
        ({0: np.zeros((4, 4, 4, 2), np.uint8)}, ["C 1 or 3"]),
        ({0: np.zeros((0, 4, 4), np.uint8), 1: labels(0)}, ["N > 0"]),
        ({0: [[1, 2], [3]]}, ["no array of numbers"]),
        ({1: labels(2, 1)}, ["train labels", "[3]", "4 images need [4]"]),
        ({3: labels(1, 1)[:, None]}, ["test labels", "[2, 1]"]),
        ({1: labels(2, 2).astype(float)}, ["train labels", "float64", "whole numbers"]),
        ({1: labels(2, 2) - 1}, ["train labels", "hold -1"]),
        ({1: labels(4), 3: labels(2)}, ["one class only (0)"]),
        ({3: labels(2)}, ["no image of class '1' in test", "1 of 2"]),
        ({1: labels(4)}, ["no image of class '1' in train"]),
        ({4: ["cat", "dog", "eel"]}, ["no image of class 'eel' in train"]),
        ({4: ["cat"]}, ["label 1", "1 different class names"]),
        ({4: ["cat", "cat"]}, ["1 different class names"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, parts):
    arrays = [*OK, ["cat", "dog"]] if 4 in change else list(OK)
    for position, value in change.items():
        arrays[position] = value
    register(*arrays)
    refused(*parts)


@pytest.mark.parametrize("returned", [OK[:3], (*OK, ["a", "b"], 1), None, grey(4)])
def test_a_function_must_return_four_or_five(returned):
    dataset("mine")(lambda: returned)
    refused("must return train_images, train_labels")


@pytest.mark.parametrize("name", ["folder:x", "", " ", 3, len])
def test_names_that_cannot_be_loaded_are_refused(name):
    with pytest.raises(UserError, match="no colon"):
        dataset(name)


# ---- folders


def test_a_folder_with_train_and_test(tmp_path):
    folder(tmp_path / "pets" / "train", {"dog": 3, "cat": 2})
    folder(tmp_path / "pets" / "test", {"cat": 1, "dog": 2})
    loaded = load(f"folder:{tmp_path}/pets")
    assert loaded.name == "folder:pets" and loaded.classes == ("cat", "dog") and loaded.flip
    assert loaded.train_images.shape == (5, 3, 32, 32)
    assert loaded.train_labels.tolist() == [0, 0, 1, 1, 1]
    assert loaded.train_images[:, 0, 0, 0].tolist() == [3, 4, 0, 1, 2]
    assert loaded.test_images[:, 2, 31, 31].tolist() == [0, 1, 2]


def test_a_folder_of_classes_is_split_by_class(tmp_path):
    folder(tmp_path / "flat", {"a": 40, "b": 20, "c": 2})
    loaded, again = load(f"folder:{tmp_path}/flat", size=4), load(f"folder:{tmp_path}/flat", size=4)
    assert loaded.test_labels.bincount().tolist() == [
        7,
        4,
        1,
    ]  # 7.74, 3.87, 0.39 of 12; each at least one
    levels = [t[:, 0, 0, 0].tolist() for t in (loaded.train_images, loaded.test_images)]
    assert sorted(levels[0] + levels[1]) == list(range(62))
    assert loaded.fingerprint == again.fingerprint and levels[1][:7] != list(range(7))


def test_any_mode_becomes_rgb(tmp_path):
    rows = {
        "00.png": Image.new("L", (9, 7), 100),
        "01.png": Image.new("1", (9, 7), 1),
        "02.png": Image.new("RGBA", (9, 7), (10, 20, 30, 255)),
        "03.png": Image.new("RGBA", (9, 7), (10, 20, 30, 0)),
        "04.png": Image.fromarray(np.full((7, 9), 257 * 100, np.uint16)),
        "05.tif": Image.fromarray(np.full((7, 9), 257 * 100, np.int32)),
        "06.tif": Image.fromarray(np.full((7, 9), 0.2, np.float32)),
        "07.jpg": Image.new("CMYK", (9, 7), (0, 0, 0, 0)),
        "08.gif": Image.new("RGB", (9, 7), (10, 20, 30)).quantize(4),
        "09.png": Image.new("LA", (9, 7), (60, 255)),
        "10.bmp": Image.new("RGB", (9, 7), (10, 20, 30)),
        "11.PNG": Image.new("RGB", (40, 50), (10, 20, 30)),
    }
    expected = [
        *([100] * 3, [255] * 3, [10, 20, 30], [255] * 3, [100] * 3, [100] * 3, [51] * 3),
        *([255] * 3, [10, 20, 30], [60] * 3, [10, 20, 30], [10, 20, 30]),
    ]
    for half in ("train", "test"):
        folder(tmp_path / half, {"b": 1})
        (tmp_path / half / "a").mkdir()
        for name, image in rows.items():
            image.save(tmp_path / half / "a" / name)
    loaded = load(f"folder:{tmp_path}", size=8)
    assert loaded.train_images[:12, :, 4, 4].tolist() == expected


def test_a_large_jpeg_is_resized_faithfully_and_upright(tmp_path):
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (200, 1))] * 3, axis=-1))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the ramp runs from top to bottom
    for half in ("train", "test"):
        folder(tmp_path / half, {"b": 1})
        (tmp_path / half / "a").mkdir()
        image.save(tmp_path / half / "a" / "plain.jpg", quality=95)
        image.save(tmp_path / half / "a" / "turned.jpg", quality=95, exif=exif)
    plain, turned = load(f"folder:{tmp_path}", size=10).train_images[:2, 0].int()
    reference = torch.from_numpy(ramp.reshape(10, 30).mean(1)).expand(10, 10)
    assert (plain - reference).abs().max() <= 6
    assert (turned - reference.T).abs().max() <= 6


def test_a_large_jpeg_keeps_its_detail(tmp_path):
    stripes = np.tile(np.arange(320) // 8 % 2 * 255, (320, 1)).astype(np.uint8)
    for half in ("train", "test"):
        folder(tmp_path / half, {"b": 1})
        (tmp_path / half / "a").mkdir()
        Image.fromarray(stripes).save(tmp_path / half / "a" / "0.jpg", quality=95)
    loaded = load(f"folder:{tmp_path}", size=80).train_images[0, 0].int()
    change = loaded[:, 2:] - loaded[:, :-2]  # stripes of two pixels, still black and white
    assert change.abs().min() > 150


def test_files_that_are_no_images_and_hidden_folders_are_passed_over(tmp_path):
    folder(tmp_path, {"a": 5, "b": 5, ".cache": 1, "__MACOSX": 1})
    (tmp_path / "a" / "labels.csv").write_text("x")
    (tmp_path / "a" / "._000.png").write_text("x")
    (tmp_path / "README.png").write_text("x")
    loaded = load(f"folder:{tmp_path}")
    assert loaded.classes == ("a", "b") and len(loaded.train_labels) == 8


def test_a_cap_reads_only_what_it_takes(tmp_path, monkeypatch):
    folder(tmp_path, {"a": 20, "b": 20})
    read, decoded = [], folders._decoded
    monkeypatch.setattr(folders, "_decoded", lambda p, s: read.append(p) or decoded(p, s))
    loaded = load(f"folder:{tmp_path}", train_images=6, test_images=2)
    assert len(read) == 8 and loaded.train_labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_images_are_named(tmp_path, damage):
    folder(tmp_path, {"a": 400, "b": 5})
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for number in ("003", "350"):
        path = tmp_path / "a" / f"{number}.png"
        noise.save(path)
        content = path.read_bytes()
        path.write_bytes({"truncated": content[:-2000], "empty": b"", "text": b"hello"}[damage])
    message = refused("cannot read image", "remove it", name=f"folder:{tmp_path}", size=8)
    assert str(tmp_path / "a" / "003.png") in message and "350.png" in message


def test_many_damaged_images_are_counted(tmp_path):
    folder(tmp_path, {"a": 10, "b": 10})
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(b"")
    message = refused("and 11 more", name=f"folder:{tmp_path}")  # of the 16 in train
    assert message.count(".png") == 5


@pytest.mark.parametrize(
    ("train", "test", "parts"),
    [
        ({"a": 2, "b": 2}, {"a": 2}, ["no image of class 'b' in test"]),
        ({"a": 2, "b": 2}, {"a": 2, "b": 0}, ["no image of class 'b' in test"]),
        ({"a": 2}, {"a": 2, "b": 1}, ["no image of class 'b' in train"]),
        ({"a": 2}, {"a": 2}, ["one class only (a)"]),
        ({"a": 0, "b": 0}, {"a": 0}, ["no images in", ".jpg"]),
        ({"a": 2, "b": 2}, None, ["no folder", "/test", "PATH/test/<class>/"]),
        (None, {"a": 2, "b": 2}, ["no folder", "/train"]),
    ],
)
def test_bad_halves_are_refused(tmp_path, train, test, parts):
    for half, counts in (("train", train), ("test", test)):
        if counts is not None:
            folder(tmp_path / half, counts)
    refused(*parts, name=f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("counts", "parts"),
    [
        ({}, ["no images in"]),
        ({"a": 0, "b": 0}, ["no images in"]),
        ({"a": 3}, ["one class only (a)"]),
        ({"a": 3, "b": 1}, ["class 'b' has 1 images", "two or more"]),
        ({"a": 3, "b": 0}, ["class 'b' has 0 images"]),
    ],
)
def test_bad_folders_are_refused(tmp_path, counts, parts):
    refused(*parts, name=f"folder:{folder(tmp_path, counts)}")


def test_no_folder_is_said(tmp_path):
    refused(f"no folder {tmp_path}/none", "PATH/<class>/", name=f"folder:{tmp_path}/none")
    refused("folder: needs a path", name="folder:")


# ---- torchvision, from tiny archives in the real layout


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar(root: Path, monkeypatch, kind: str, key: str, names: list[str]):
    """Put an archive of two training images a class, one for testing, into root."""
    cls = getattr(torchvision.datasets, kind)
    base = root / "made" / cls.base_folder
    base.mkdir(parents=True)
    label = "labels" if kind == "CIFAR10" else "fine_labels"

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return [file, md5(base / file)]

    def batch(repeats):
        kept = list(range(len(names))) * repeats
        return {"data": np.repeat(np.array(kept, np.uint8)[:, None], 3072, axis=1), label: kept}

    monkeypatch.setattr(cls, "train_list", [write(cls.train_list[0][0], batch(2))])
    monkeypatch.setattr(cls, "test_list", [write(cls.test_list[0][0], batch(1))])
    file, checksum = write(cls.meta["filename"], {key: names})
    monkeypatch.setattr(cls, "meta", {"filename": file, "key": key, "md5": checksum})
    with tarfile.open(root / cls.filename, "w:gz") as archive:
        archive.add(base, cls.base_folder)
    monkeypatch.setattr(cls, "tgz_md5", md5(root / cls.filename))


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [("cifar10", "CIFAR10", "label_names"), ("cifar100", "CIFAR100", "fine_label_names")],
)
def test_cifar_is_read_from_its_archive(tmp_path, monkeypatch, offline, name, kind, key):
    cifar(tmp_path, monkeypatch, kind, key, ["ant", "bee", "cat"])
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    loaded = load(name)
    assert loaded.train_images.shape == (6, 3, 32, 32) and loaded.classes == ("ant", "bee", "cat")
    assert loaded.train_images[:, 1, 5, 5].tolist() == loaded.train_labels.tolist() == [0, 1, 2] * 2
    assert loaded.test_labels.tolist() == [0, 1, 2] and loaded.flip and loaded.name == name


def test_svhn_is_read_from_its_files(tmp_path, monkeypatch, offline):
    lists = dict(torchvision.datasets.SVHN.split_list)
    pixels = np.zeros((32, 32, 3, 10), np.uint8)
    pixels[:, :, 1] = np.arange(10)
    for half in ("train", "test"):
        url, file, _ = lists[half]
        scipy.io.savemat(tmp_path / file, {"X": pixels, "y": np.arange(1, 11)[:, None]})
        lists[half] = [url, file, md5(tmp_path / file)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    loaded = load("svhn", root=tmp_path)
    assert loaded.train_labels.tolist() == [*range(1, 10), 0] and not loaded.flip
    assert loaded.test_images[:, 1, 0, 0].tolist() == list(range(10))
    assert loaded.test_images[:, 0].sum() == 0 and loaded.classes == tuple("0123456789")


def test_fashion_mnist_is_made_32_wide_with_three_channels(tmp_path, monkeypatch, offline):
    cls = torchvision.datasets.FashionMNIST
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.repeat(np.arange(10, dtype=np.uint8), 28 * 28).tobytes()
    contents = {
        "images": struct.pack(">IIII", 2051, 10, 28, 28) + images,
        "labels": struct.pack(">II", 2049, 10) + bytes(range(10)),
    }
    resources = []
    for file, _ in cls.resources:
        content = contents["images" if "images" in file else "labels"]
        (raw / file).write_bytes(gzip.compress(content))
        resources.append((file, md5(raw / file)))
    monkeypatch.setattr(cls, "resources", resources)
    loaded = load("fashion-mnist", root=tmp_path)
    assert loaded.train_images.shape == (10, 3, 32, 32) and loaded.classes[9] == "Ankle boot"
    assert loaded.test_images[:, 2, 16, 16].tolist() == list(range(10)) and loaded.flip
    assert load("fashion-mnist", root=tmp_path, size=28).image_size == 28


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("fashion-mnist", "FashionMNIST/raw/"),
    ],
)
def test_offline_names_both_ways_out(tmp_path, offline, name, archive):
    refused(
        *(f"cannot get dataset '{name}'", "Name or service not known", archive),
        *(str(tmp_path / "new"), "--dataset folder:PATH", "--dataset digits"),
        name=name,
        root=tmp_path / "new",
    )


def test_a_damaged_archive_is_not_read(tmp_path, monkeypatch, offline):
    cifar(tmp_path, monkeypatch, "CIFAR10", "label_names", ["ant", "bee"])
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    refused("cannot get dataset 'cifar10'", "cifar-10-python.tar.gz", name="cifar10", root=tmp_path)


def test_a_root_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    refused("cannot get dataset 'svhn'", "file", name="svhn", root=tmp_path / "file" / "below")
