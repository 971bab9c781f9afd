"""Data sets: what `load` gives for every kind of name, and what it says to bad input."""

import gzip
import hashlib
import os
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
from PIL import EpsImagePlugin, Image

from unlearnkit.data import DATASETS, ImageData, dataset, images, load, write_folder
from unlearnkit.errors import UserError


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """What a test registers is gone after it; no test downloads."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    before = dict(DATASETS)
    yield
    DATASETS.clear()
    DATASETS.update(before)


def register(*arrays, flip=True):
    dataset("mine", flip=flip)(lambda: arrays)


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def grey(count, side=4):
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, side, side))


def folder(root: Path, counts: dict[str, int]) -> Path:
    level = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (6, 6), level % 256).save(root / name / f"{i:03}.png")
            level += 1
    return root


def halves(root: Path, files: dict[str, Image.Image], **options) -> Path:
    """Make both halves of root with class b, of one file, and class a, of `files`."""
    for half in ("train", "test"):
        folder(root / half, {"b": 1, "a": 0})
        for name, image in files.items():
            image.save(root / half / "a" / name, **options)
    return root


def refused(*parts, name="mine", **options):
    with pytest.raises(UserError) as caught:
        load(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message and message.encode()
    for part in parts:
        assert part in message
    return message


def test_digits_are_whole_square_and_stratified():
    data = load("digits")
    assert data.train_images.shape == (1438, 3, 16, 16) and data.train_images.dtype == torch.uint8
    assert data.test_images.shape == (359, 3, 16, 16) and data.test_labels.dtype == torch.int64
    assert data.classes == tuple("0123456789") and data.image_size == 16 and not data.flip
    assert data.train_images.min() == 0 and data.train_images.max() > 240
    tested = data.test_labels.bincount()
    shares = tested / (tested + data.train_labels.bincount())
    assert shares.min() > 0.19 and shares.max() < 0.21
    # New values mean new keys for every stored result: change them knowingly.
    assert data.fingerprint.startswith("076690ff")
    assert data.train_fingerprint.startswith("fb5e95da")
    assert load("digits", train_images=50, test_images=20).fingerprint.startswith("d308b38b")


def test_resizing_is_bilinear_and_antialiased():
    small, large = (load("digits", size=s, train_images=50).train_images.float() for s in (8, 16))
    reference = torch.nn.functional.interpolate(small, size=16, mode="bilinear")
    assert (large - reference).abs().max() <= 1
    stripes = np.zeros((2, 16, 16), np.uint8)
    stripes[:, :, ::2] = 255
    register(stripes, [0, 1], stripes, [0, 1])
    small = load("mine", size=4).train_images
    assert (small.float() - 127.5).abs().max() < 40


def test_caps_are_stratified_and_nested_and_keep_the_rarest_class():
    many, few = (load("digits", train_images=n, test_images=n // 4) for n in (400, 100))
    assert len(many.train_labels) == 400 and len(few.test_labels) == 25
    assert few.train_labels.bincount().tolist() == [10] * 10
    pool = {image.numpy().tobytes() for image in many.train_images}
    assert all(image.numpy().tobytes() in pool for image in few.train_images)
    assert len(load("digits", train_images=10**6).train_labels) == 1438
    register(grey(100), labels(97, 2, 1), grey(3), labels(1, 1, 1))
    assert load("mine", train_images=5).train_labels.bincount().tolist() == [3, 1, 1]
    refused("9 images", "10 classes", name="digits", train_images=9)
    for value in (0, 1.5, "8", True):
        for option in ("size", "train_images", "test_images"):
            refused(option, repr(value), "whole number", name="digits", **{option: value})


def make(pictures, names=("a", "b"), first=0):
    half = torch.tensor([first, 1])
    return ImageData("toy", names, pictures, half, pictures.clone(), half)


def test_mean_and_std_are_exact():
    whole = torch.randint(0, 256, (2, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    made = make(whole.to(torch.uint8))
    flat = whole.permute(1, 0, 2, 3).reshape(3, -1).double() / 255
    assert made.mean == pytest.approx(flat.mean(1).tolist(), abs=1e-12)
    assert made.std == pytest.approx(flat.std(1, correction=0).tolist(), abs=1e-12)
    assert make(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)).std == (1 / 255,) * 3


def test_fingerprint_sees_values_labels_and_class_names_and_nothing_else():
    zeros = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    other = zeros.clone()
    other[1, 2, 3, 3] = 1
    made = [make(zeros), make(other), make(zeros, ("a", "c")), make(zeros, ("ab", ""))]
    made += [make(zeros, first=1), make(zeros.reshape(2, 3, 2, 8))]
    assert len({data.fingerprint for data in made}) == 6
    strided = other.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert make(strided).fingerprint == make(other).fingerprint
    moved = made[0].to("meta")  # where nothing can be read: what is known is kept
    assert moved.train_images.is_meta and moved.test_labels.is_meta and moved.name == "toy"
    assert moved.fingerprint == made[0].fingerprint and not made[0].train_images.is_meta


def test_every_layout_gives_the_same_data():
    one = np.random.default_rng(0).integers(0, 256, (6, 5, 5), dtype=np.uint8)
    rgb = np.stack([one] * 3, axis=1)
    layouts = [one.copy(), rgb.transpose(0, 2, 3, 1).copy(), rgb.copy(), one[..., None].copy()]
    floats = [(one / 255).astype(np.float32), one / 255]
    for given in (*layouts, *floats, torch.from_numpy(one.copy())):
        register(given, labels(3, 3), given[:2], [0, 1])
        loaded = load("mine")
        given[:] = 0  # what was loaded is a copy
        assert torch.equal(loaded.train_images, torch.from_numpy(rgb))
        assert loaded.train_images.is_contiguous() and loaded.train_labels.sum() == 3
        assert loaded.classes == ("0", "1") and loaded.name == "mine" and loaded.image_size == 5


def test_registering_again_replaces(tmp_path):
    wide, square = np.zeros((2, 4, 6, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)
    square[..., 0], square[..., 2] = 200, 50
    register(wide, [0, 1], square, [0, 1], ["cat", "dog"], flip=False)
    refused("4×6 and 8×8", "size=")
    loaded = load("mine", size=5)
    assert loaded.train_images.shape == loaded.test_images.shape == (2, 3, 5, 5)
    assert loaded.test_images[0, :, 1, 1].tolist() == [200, 0, 50]
    assert loaded.classes == ("cat", "dog") and not loaded.flip

    @dataset("mine", size=7)
    def mine(root):
        return grey(4, 6), labels(2, 2), grey(2), [root == tmp_path, 1 - (root == tmp_path)]

    loaded = load("mine", root=tmp_path)
    assert loaded.flip and loaded.test_labels.tolist() == [1, 0]
    assert loaded.train_images.shape == (4, 3, 7, 7) and mine(tmp_path)[3] == [True, False]


OK = (grey(4), labels(2, 2), grey(2), labels(1, 1))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({0: grey(4) / 3 + 0.5}, ["train: ", "float64 in [0.5, 1.5]", "floats in [0, 1]"]),
        ({2: grey(2) - 0.5}, ["test: ", "[-0.5, 0.5]"]),
        ({0: np.full((4, 4, 4), np.nan)}, ["train: ", "nan"]),
        ({0: grey(4).astype(np.uint16)}, ["uint16", "uint8"]),
        ({0: np.zeros((4, 4), np.uint8)}, ["shape [4, 4]", "[N, H, W]"]),
        ({0: np.zeros((4, 4, 4, 2), np.uint8)}, ["C 1 or 3"]),
        ({0: np.zeros((0, 4, 4), np.uint8), 1: labels(0)}, ["N > 0"]),
        ({0: [[1, 2], [3]]}, ["no array of numbers"]),
        ({1: labels(2, 1)}, ["train: labels", "[3]", "one for each of 4 images"]),
        ({1: labels(2, 2) / 2}, ["train: labels", "float64", "whole numbers"]),
        ({1: labels(2, 2) - 1}, ["train: labels", "whole numbers from 0"]),
        ({1: labels(4), 3: labels(2)}, ["one class only (0)"]),
        ({3: labels(2)}, ["no image of class '1' in test"]),
        ({4: ["cat", "dog", "eel"]}, ["no image of class 'eel' in train"]),
        ({4: ["cat"]}, ["label 1", "1 different class names"]),
        ({4: ["cat", "a\nb"]}, [r"'a\nb'", "cannot be shown"]),
        ({4: ["cat", "\udcff"]}, [r"'\udcff'", "cannot be shown"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, parts):
    arrays = [*OK, ["cat", "dog"]] if 4 in change else list(OK)
    for position, value in change.items():
        arrays[position] = value
    register(*arrays)
    refused(*parts)


def test_what_is_no_data_set_is_refused():
    for returned in (OK[:3], (*OK, ["a", "b"], 1), None, grey(4)):
        dataset("mine")(lambda returned=returned: returned)
        refused("must return train_images, train_labels")
    for name in ("folder:x", " ", 3, len):
        with pytest.raises(UserError, match="no colon"):
            dataset(name)
    refused("unknown dataset 'cfar10'", "cifar10", "digits", "folder:PATH", name="cfar10")


def test_a_folder_with_train_and_test(tmp_path):
    folder(tmp_path / "pets" / "train", {"dog": 3, "cat": 2})
    folder(tmp_path / "pets" / "test", {"cat": 1, "dog": 2})
    loaded = load(f"folder:{tmp_path}/pets")
    assert loaded.name == "folder:pets" and loaded.classes == ("cat", "dog") and loaded.flip
    assert loaded.train_images.shape == (5, 3, 32, 32)
    assert loaded.train_labels.tolist() == [0, 0, 1, 1, 1]
    assert loaded.train_images[:, 0, 0, 0].tolist() == [3, 4, 0, 1, 2]
    assert loaded.test_images[:, 2, 31, 31].tolist() == [0, 1, 2]


def test_a_folder_of_classes_is_split_by_class(tmp_path, monkeypatch):
    folder(tmp_path / "flat", {"a": 40, "b": 20, "c": 2, ".cache": 1, "__MACOSX": 1})
    for name in ("a/labels.csv", "a/._000.png", "README.png"):  # passed over
        (tmp_path / "flat" / name).write_text("x")
    loaded = load(f"folder:{tmp_path}/flat", size=4)
    # 7.74, 3.87, 0.39 of 12; each at least one
    assert loaded.test_labels.bincount().tolist() == [7, 4, 1]
    levels = [t[:, 0, 0, 0].tolist() for t in (loaded.train_images, loaded.test_images)]
    assert sorted(levels[0] + levels[1]) == list(range(62)) and levels[1][:7] != list(range(7))
    read, decoded = [], images._read
    monkeypatch.setattr(images, "_read", lambda p, s: read.append(p) or decoded(p, s))
    few = load(f"folder:{tmp_path}/flat", train_images=6, test_images=3)
    assert len(read) == len(set(read)) == 9 and few.test_labels.tolist() == [0, 1, 2]


def test_any_mode_becomes_rgb(tmp_path):
    colour = (10, 20, 30)
    plain, large = Image.new("RGB", (9, 7), colour), Image.new("RGB", (40, 50), colour)
    rows = {
        "00.png": (Image.new("L", (9, 7), 100), [100] * 3),
        "01.png": (Image.new("1", (9, 7), 1), [255] * 3),
        "02.png": (Image.new("RGBA", (9, 7), (*colour, 255)), [*colour]),
        "03.png": (Image.new("RGBA", (9, 7), (*colour, 0)), [255] * 3),
        "04.png": (Image.fromarray(np.full((7, 9), 257 * 100, np.uint16)), [100] * 3),
        "05.tif": (Image.fromarray(np.full((7, 9), 257 * 100, np.int32)), [100] * 3),
        "06.tif": (Image.fromarray(np.full((7, 9), 0.2, np.float32)), [51] * 3),
        "07.jpg": (Image.new("CMYK", (9, 7), (0, 0, 0, 0)), [255] * 3),
        "08.gif": (plain.quantize(4), [*colour]),
        "09.png": (Image.new("LA", (9, 7), (60, 255)), [60] * 3),
    }
    for suffix in ("PNG", "bmp", "jp2", "ppm", "tga", "webp"):
        rows[f"{len(rows)}.{suffix}"] = large, [*colour]
    halves(tmp_path, {name: image for name, (image, _) in rows.items()}, lossless=True)
    loaded = load(f"folder:{tmp_path}", size=8)
    assert loaded.train_images[:-1, :, 4, 4].tolist() == [pixel for _, pixel in rows.values()]


def test_a_large_jpeg_is_resized_faithfully_and_upright(tmp_path):
    ramp = np.linspace(0, 255, 320).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the ramp runs from top to bottom
    halves(tmp_path, {"0.jpg": Image.fromarray(np.tile(ramp, (200, 1)))}, quality=95, exif=exif)
    turned = load(f"folder:{tmp_path}", size=10).train_images[0, 0].int()
    reference = torch.from_numpy(ramp.reshape(10, 32).mean(1)).expand(10, 10).T
    assert (turned - reference).abs().max() <= 6
    stripes = np.tile(np.arange(320) // 8 % 2 * 255, (320, 1)).astype(np.uint8)
    halves(tmp_path / "fine", {"0.jpg": Image.fromarray(stripes)}, quality=95)
    fine = load(f"folder:{tmp_path}/fine", size=80).train_images[0, 0].int()
    assert (fine[:, 2:] - fine[:, :-2]).abs().min() > 150  # stripes of two, still black and white


def cut_off(path):
    Image.effect_noise((40, 40), 99).save(path)
    os.truncate(path, path.stat().st_size // 2)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (cut_off, "truncated"),
        (lambda path: Image.new("L", (50, 41)).save(path), "50x41 is over 2000 pixels"),
        (lambda path: path.write_bytes(EPS), "cannot identify"),
        (os.mkfifo, "no plain file"),
        (lambda path: path.symlink_to("nowhere"), "no plain file"),
    ],
)
def test_damaged_images_are_named(tmp_path, monkeypatch, make, why):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    monkeypatch.setattr(images, "MAX_PIXELS", 2000)
    folder(tmp_path, {"train/a": 8, "train/b": 1, "test/a": 1, "test/b": 1})
    paths = [tmp_path / "train" / "a" / f"{number:03}.png" for number in range(7)]
    for path in paths:
        path.unlink()
        make(path)
    message = refused("cannot read image", why, "remove it", name=f"folder:{tmp_path}", size=8)
    assert not started and all(str(path) in message for path in paths[:5])
    assert message.count(".png") == 5 and "and 2 more" in message


@pytest.mark.parametrize(
    ("counts", "parts"),
    [
        ({"train/a": 2, "train/b": 2, "test/a": 2}, ["no image of class 'b' in test"]),
        ({"train/a": 2, "test/a": 2, "test/b": 1}, ["no image of class 'b' in train"]),
        ({"train/a": 2, "test/a": 2}, ["one class only (a)"]),
        ({"train/a": 0, "train/b": 0, "test/a": 0}, ["no images in", ".jpg"]),
        ({"train/a": 2, "train/b": 2}, ["no folder", "/test", "PATH/test/<class>/"]),
        ({"a": 3}, ["one class only (a)"]),
        ({"a": 3, "b": 1}, ["no image of class 'b' in train"]),
        ({"a": 3, "x\ny": 3}, [r"'x\ny'", "cannot be shown", "rename it"]),
        ({"a": 3, "x\udcff": 3}, [r"'x\udcff'", "cannot be shown", "rename it"]),
    ],
)
def test_bad_folders_are_refused(tmp_path, counts, parts):
    refused(*parts, name=f"folder:{folder(tmp_path, counts)}")
    refused("no folder /none", "PATH/<class>/", name="folder:/none")


def test_what_is_written_can_be_loaded(tmp_path):
    data = load("digits", train_images=30, test_images=20)
    assert write_folder(data, tmp_path / "made") == tmp_path / "made"
    again = load(f"folder:{write_folder(data, tmp_path / 'made')}", size=16)
    order = data.train_labels.sort(stable=True).indices
    assert torch.equal(again.train_images, data.train_images[order])
    assert again.classes == data.classes and len(again.test_labels) == 20
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write images to"):
        write_folder(data, tmp_path / "file")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "key"), [("cifar10", "label_names"), ("cifar100", "fine_label_names")]
)
def test_cifar_is_read_from_its_archive(tmp_path, monkeypatch, name, key):
    cls = getattr(torchvision.datasets, name.upper())
    base = tmp_path / "made" / cls.base_folder
    base.mkdir(parents=True)

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return [file, md5(base / file)]

    def batch(truth):
        pixels = np.repeat(np.array(truth, np.uint8)[:, None], 3072, axis=1)
        return {"data": pixels, "labels" if name == "cifar10" else "fine_labels": truth}

    monkeypatch.setattr(cls, "train_list", [write(cls.train_list[0][0], batch([0, 1, 2] * 2))])
    monkeypatch.setattr(cls, "test_list", [write(cls.test_list[0][0], batch([0, 1, 2]))])
    file, checksum = write(cls.meta["filename"], {key: ["ant", "bee", "cat"]})
    monkeypatch.setattr(cls, "meta", {"filename": file, "key": key, "md5": checksum})
    with tarfile.open(tmp_path / cls.filename, "w:gz") as archive:
        archive.add(base, cls.base_folder)
    monkeypatch.setattr(cls, "tgz_md5", md5(tmp_path / cls.filename))
    monkeypatch.setenv("UNLEARNKIT_DATA", str(tmp_path))
    loaded = load(name)
    assert loaded.train_images.shape == (6, 3, 32, 32) and loaded.classes == ("ant", "bee", "cat")
    assert loaded.train_images[:, 1, 5, 5].tolist() == loaded.train_labels.tolist() == [0, 1, 2] * 2
    assert loaded.test_labels.tolist() == [0, 1, 2] and loaded.flip and loaded.name == name


def test_svhn_is_read_from_its_files(tmp_path, monkeypatch):
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


def test_fashion_mnist_is_read_from_its_checked_archives_alone(tmp_path, monkeypatch):
    cls = torchvision.datasets.FashionMNIST
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    content = {
        "images": struct.pack(">IIII", 2051, 10, 28, 28) + grey(10, 28).tobytes(),
        "labels": struct.pack(">II", 2049, 10) + bytes(range(10)),
    }
    resources = []
    for file, _ in cls.resources:
        whole = content["images" if "images" in file else "labels"]
        (raw / file).write_bytes(gzip.compress(whole))
        resources.append((file, md5(raw / file)))
        (raw / file).with_suffix("").write_bytes(whole.replace(b"\3", b"\4"))  # unpacked, changed
    monkeypatch.setattr(cls, "resources", resources)
    loaded = load("fashion-mnist", root=tmp_path)
    assert loaded.train_images.shape == (10, 3, 32, 32) and loaded.classes[9] == "Ankle boot"
    assert loaded.test_images[:, 2, 16, 16].tolist() == list(range(10)) and loaded.flip
    assert load("fashion-mnist", root=tmp_path, size=28).image_size == 28


FILES = {
    "cifar10": "cifar-10-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "fashion-mnist": "FashionMNIST/raw/",
}


@pytest.mark.parametrize("name", FILES)
def test_offline_names_both_ways_out(tmp_path, name):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"damaged")  # is not read
    whole = f"cannot get dataset '{name}'"
    ways = [FILES[name], str(tmp_path), "--dataset folder:PATH", "--dataset digits"]
    refused(whole, "Name or service not known", *ways, name=name, root=tmp_path)
    refused(whole, "Not a directory", name=name, root=Path(__file__) / "below")
