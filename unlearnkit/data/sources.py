"""The data sets that have a name, folders of images, and loading any of them."""

import gzip
import inspect
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unlearnkit.data.images import ImageData, checked, decoded, drawn, resized
from unlearnkit.data.splits import stratified
from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import source_folder

SEED = 0  # of the test images of a set without them, and of the fewer images of a cap
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jp2")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm", ".tga")
_LAYOUT = "give PATH/train/<class>/ and PATH/test/<class>/, or PATH/<class>/"

DATASETS: dict[str, tuple[Callable, bool, int | None]] = {}  # name: function, flip, size


def dataset(name: str, flip: bool = True, size: int | None = None) -> Callable:
    """Register the arrays a function returns as a data set; registering again replaces it.

    The function, given the folder of downloads if it has a parameter `root`, returns train_images,
    train_labels, test_images, test_labels and, if they are not '0', '1', …, the class names. Images
    are uint8 or float in [0, 1], [N, H, W, C], [N, C, H, W] or [N, H, W]; labels integers [N].

    `name` has no colon; `flip` tells whether a mirrored image keeps its class; `size` is the side
    in pixels where `load` is given none, None for the images' own.
    """
    if not isinstance(name, str) or not name.strip() or ":" in name:
        raise UserError(f'data set name {name!r} is not allowed; write @dataset("name"), no colon')

    def register(function: Callable) -> Callable:
        DATASETS[name] = function, flip, size
        return function

    return register


def find(name: str) -> Path | None:
    """Return the folder of 'folder:PATH', None for another known name; `UserError` if unknown."""
    folder = source_folder(name)
    if folder is None and name not in DATASETS and not name.startswith("hf:"):
        raise unknown("dataset", name, [*DATASETS, "folder:PATH", "hf:owner/name"])
    if folder and not folder.is_dir():
        raise UserError(f"no folder {folder}; {_LAYOUT}")
    return folder


def load(
    name: str,
    *,
    size: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    root: str | Path | None = None,
) -> ImageData:
    """Load a data set by name.

    `name` is one of `DATASETS`, or 'folder:PATH', or 'hf:NAME' of the Hugging Face hub, which needs
    the package datasets. A folder has images in PATH/{train,test}/<class>/ or in PATH/<class>/. In
    the second case a fifth of each class, by a fixed seed, is the test set. `size` is the side in
    pixels to resize every image to (square, antialiased bilinear). None keeps the images' own size,
    and is 16 for digits, 32 for fashion-mnist, folders and the hub. `train_images` and
    `test_images` are the most to take, stratified, by a fixed seed. `root` is where downloads are
    kept, by default $UNLEARNKIT_DATA or ~/.cache/unlearnkit. `UserError` unless there are two
    classes or more, each in train and test.
    """
    limits = {"train_images": train_images, "test_images": test_images}
    for key, value in {"size": size, **limits}.items():
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{key}={value!r} is not allowed; give a whole number from 1, or None")
    if folder := find(str(name)):
        title, flip, size, fetch = f"folder:{folder.name}", True, size or 32, decoded
        *halves, classes = _from_folder(folder)
    elif str(name).startswith("hf:"):
        title, flip, size, fetch = name, True, size or 32, drawn
        *halves, classes = _from_hub(name.removeprefix("hf:"))
    else:
        function, flip, own = DATASETS[name]
        title, size, fetch = name, size or own, resized
        root = Path(root or os.environ.get("UNLEARNKIT_DATA") or "~/.cache/unlearnkit").expanduser()
        *halves, classes = _from_function(f"dataset {name!r}", function, root, size)
    for text in (str(folder or name), *classes):
        if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text):
            raise UserError(f"name {text!r} has characters that cannot be shown; rename it")
    if len(classes) < 2:
        raise UserError(f"{title} has one class only ({', '.join(classes)}); give two or more")
    for half, (_, labels) in zip(("train", "test"), halves, strict=True):
        for label, known in enumerate(classes):
            if label not in labels:
                raise UserError(f"{title}: no image of class {known!r} in {half}; both need some")
    tensors = []
    for limit, (items, labels) in zip(limits.values(), halves, strict=True):
        index = torch.arange(len(labels))
        if limit is not None and limit < len(labels):
            if limit < len(classes):
                raise UserError(f"{limit} images do not show {len(classes)} classes; give more")
            index = stratified(labels, limit, seed=SEED, purpose="cap", at_least=1)
        tensors += [fetch(items, index, size), labels[index]]
    return ImageData(title, classes, *tensors, flip=flip)


def _for_testing(labels: Tensor) -> Tensor:
    """Return a mask of the fifth of each class that is for testing."""
    total = max(round(0.2 * len(labels)), len(labels.unique()))
    chosen = stratified(labels, total, seed=SEED, purpose="test", at_least=1)
    return torch.isin(torch.arange(len(labels)), chosen)


def _from_function(what: str, function: Callable, root: Path, size: int | None) -> tuple:
    """Return (images, labels) of train and test, and the classes, of a registered function."""
    arrays = function(root=root) if "root" in inspect.signature(function).parameters else function()
    if not isinstance(arrays, tuple | list) or len(arrays) not in (4, 5):
        wanted = "train_images, train_labels, test_images, test_labels[, class names]"
        raise UserError(f"{what} must return {wanted}")
    train = checked(f"{what}, train", *arrays[:2])
    test = checked(f"{what}, test", *arrays[2:4])
    shapes = {tuple(images.shape[2:]) for images, _ in (train, test)}
    if size is None and (len(shapes) > 1 or any(h != w for h, w in shapes)):
        found = " and ".join(f"{h}×{w}" for h, w in sorted(shapes))
        raise UserError(f"{what} has images of {found}; give size=… to make them square")
    top = max(int(train[1].max()), int(test[1].max()))
    classes = tuple(map(str, arrays[4] if len(arrays) == 5 else range(top + 1)))
    if top >= len(classes) or len(set(classes)) < len(classes):
        found = f"label {top} with {len(set(classes))} different class names"
        raise UserError(f"{what}: {found}; give one name for each label from 0")
    return train, test, classes


def _from_folder(path: Path) -> tuple:
    """Return (files, labels) of train and test, and the classes, of a folder in either layout."""
    folders = [path / "train", path / "test"]
    if not any(map(os.path.isdir, folders)):
        folders = [path]
    try:
        names = {e.name for folder in folders for e in os.scandir(folder) if e.is_dir()}
    except OSError as error:
        where = f"no folder {error.filename} can be listed ({error.strerror})"
        raise UserError(f"{where}; {_LAYOUT}") from error
    classes = tuple(sorted(name for name in names if not name.startswith((".", "__"))))
    halves = []
    for folder in folders:
        listed = [(sorted((folder / name).glob("[!.]*")), c) for c, name in enumerate(classes)]
        pairs = [(str(f), c) for files, c in listed for f in files if f.suffix.lower() in SUFFIXES]
        labels = torch.tensor([c for _, c in pairs], dtype=torch.int64)
        halves.append(([file for file, _ in pairs], labels))
    if not any(files for files, _ in halves):
        suffixes = " ".join(SUFFIXES)
        raise UserError(f"no images in {path}; {_LAYOUT}, with files ending in {suffixes}")
    if len(halves) == 1:
        files, labels = halves[0]
        test = _for_testing(labels)
        halves = [(list(compress(files, mask)), labels[mask]) for mask in (~test, test)]
    return *halves, classes


def _from_hub(name: str) -> tuple:
    """Return (pictures, labels) of train and test, and the classes, of a data set of the hub."""
    try:
        from datasets import ClassLabel, Image, load_dataset
    except ImportError:
        raise UserError("hf: needs the package datasets; pip install 'unlearnkit[hub]'") from None
    try:
        found = load_dataset(name)
    except Exception as error:  # of the network, of the hub, of a name that is none
        raise UserError(f"cannot get dataset hf:{name} ({one_line(error)[:200]})") from error
    columns = found["train"].features if "train" in found else {}
    images, labels = (
        next((c for c, kind in columns.items() if isinstance(kind, wanted)), None)
        for wanted in (Image, ClassLabel)
    )
    test = next((half for half in ("test", "validation", "valid") if half in found), None)
    if not (images and labels and test):
        has = f"halves {', '.join(found)} with columns {', '.join(columns) or '–'}"
        wanted = "train and test or validation, with a column of images and one of class labels"
        raise UserError(f"dataset hf:{name} has {has}; expected {wanted}")
    halves = [found[half] for half in ("train", test)]
    pairs = [(half[images], torch.tensor(list(half[labels]))) for half in halves]
    return *pairs, tuple(columns[labels].names)


def write_folder(data: ImageData, folder: Path | str) -> Path:
    """Write `data` as FOLDER/{train,test}/<class>/NNNNN.png, for `load`, and return FOLDER.

    Files that are there already are left alone; `UserError` if the folder cannot be written to.
    """
    try:
        for half in ("train", "test"):
            pixels = getattr(data, f"{half}_images").permute(0, 2, 3, 1).cpu().numpy()
            for number, label in enumerate(getattr(data, f"{half}_labels").tolist()):
                path = Path(folder) / half / data.classes[label] / f"{number:05d}.png"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels[number]).save(path)
    except OSError as error:
        raise UserError(f"cannot write images to {folder}: {error.strerror or error}") from None
    return Path(folder)


@dataset("digits", flip=False, size=16)
def _digits() -> tuple:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    test = _for_testing(torch.from_numpy(bunch.target)).numpy()
    return images[~test], bunch.target[~test], images[test], bunch.target[test]


@contextmanager
def _downloading(name: str, files: str, root: Path) -> Iterator[None]:
    """Bound how long a download may hang, and say what to do where it fails."""
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:  # damaged archives raise errors of any type
        ways = f"put {files} into {root}, or use --dataset folder:PATH or --dataset digits"
        raise UserError(f"cannot get dataset {name!r} ({one_line(error)}); {ways}") from error
    finally:
        socket.setdefaulttimeout(former)


def _torchvision(name: str, files: str, halves: tuple, labels: str, root: Path) -> tuple:
    from torchvision import datasets

    with _downloading(name, files, root):
        kind = getattr(datasets, name.upper())
        train, test = (kind(root, half, download=True) for half in halves)
    classes = getattr(train, "classes", range(10))
    return train.data, getattr(train, labels), test.data, getattr(test, labels), classes


for _name in ("cifar10", "cifar100"):
    _archive = f"cifar-{_name.removeprefix('cifar')}-python.tar.gz"
    dataset(_name)(partial(_torchvision, _name, _archive, (True, False), "targets"))
_files = "train_32x32.mat and test_32x32.mat"
dataset("svhn", flip=False)(partial(_torchvision, "svhn", _files, ("train", "test"), "labels"))


@dataset("fashion-mnist", size=32)
def _fashion_mnist(root: Path) -> tuple:
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    arrays, raw = [], root / "FashionMNIST" / "raw"
    with _downloading("fashion-mnist", "the four *-ubyte.gz (under FashionMNIST/raw/)", root):
        for file, md5 in FashionMNIST.resources:  # unpacked files would have no checksum
            download_url(FashionMNIST.mirrors[0] + file, raw, file, md5)
            content = gzip.decompress((raw / file).read_bytes())
            array = np.frombuffer(content, np.uint8, offset=16 if "images" in file else 8)
            arrays.append(array.reshape(-1, 28, 28) if "images" in file else array)
    return *arrays, FashionMNIST.classes
