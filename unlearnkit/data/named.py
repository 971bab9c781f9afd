"""The data sets that have a name, how to register more, and loading any of them."""

import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlearnkit.data.arrays import SEED, TEST_FRACTION, array_parts
from unlearnkit.data.folders import folder_parts, folder_path
from unlearnkit.data.image_data import ImageData
from unlearnkit.data.splits import stratified
from unlearnkit.errors import UserError, one_line, unknown

_FOLDER_SIZE = 32
_TIMEOUT = 30.0
_DOWNLOAD_ERRORS = (
    *(OSError, RuntimeError, ValueError, AssertionError, EOFError),
    *(HTTPException, tarfile.TarError),
)


@dataclass(frozen=True)
class _Source:
    """Where a named data set comes from: arrays, whether it mirrors, its size if not its own."""

    read: Callable[[Path], tuple]
    flip: bool
    size: int | None = None


_SOURCES: dict[str, _Source] = {}


def dataset(name: str, flip: bool = True) -> Callable[[Callable[[], tuple]], Callable[[], tuple]]:
    """Register the arrays a function returns as a data set; registering again replaces it.

    The function takes nothing and returns (train_images, train_labels, test_images, test_labels),
    with the class names as a fifth item if they are not '0', '1', …. Images are arrays or tensors,
    uint8 or float in [0, 1], [N, H, W, C], [N, C, H, W] or grey [N, H, W]; labels integers [N].

    Parameters
    ----------
    name : what to `load` it by; without a colon.
    flip : whether a mirrored image keeps its class.

    Examples
    --------
    >>> @dataset("noise", flip=False)
    ... def noise():
    ...     return images[:80], labels[:80], images[80:], labels[80:]
    """
    if not isinstance(name, str) or not name.strip() or ":" in name:
        raise UserError(f'data set name {name!r} is not allowed; write @dataset("name"), no colon')

    def register(function: Callable[[], tuple]) -> Callable[[], tuple]:
        _SOURCES[name] = _Source(lambda root: function(), flip)
        return function

    return register


def dataset_names() -> list[str]:
    """Return the names `load` knows, beside 'folder:PATH'."""
    return list(_SOURCES)


def load(
    name: str,
    *,
    size: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    root: str | Path | None = None,
) -> ImageData:
    """Load a data set by name.

    Parameters
    ----------
    name : one of `dataset_names`, or 'folder:PATH' with images in PATH/{train,test}/<class>/ or
        in PATH/<class>/ (then a fifth of each class, by a fixed seed, is the test set).
    size : side in pixels to resize every image to (square, antialiased bilinear). None keeps the
        images' own size; 16 for digits, 32 for fashion-mnist and folders.
    train_images, test_images : at most this many, stratified, by a fixed seed; a folder's other
        images are not read.
    root : where downloads are kept; $UNLEARNKIT_DATA or ~/.cache/unlearnkit by default.

    Raises
    ------
    UserError : unknown name, missing or empty folder, fewer than two classes, a class missing from
        train or test, unreadable images, arrays that do not fit, no network.
    """
    _check_whole(size=size, train_images=train_images, test_images=test_images)
    if str(name).startswith("folder:"):
        title, flip = f"folder:{folder_path(name).name}", True
        train, test, classes = folder_parts(folder_path(name), size or _FOLDER_SIZE)
    elif name in _SOURCES:
        source, title = _SOURCES[name], name
        flip = source.flip
        root = root or os.environ.get("UNLEARNKIT_DATA") or "~/.cache/unlearnkit"
        arrays = source.read(Path(root).expanduser())
        train, test, classes = array_parts(name, arrays, size or source.size)
    else:
        raise unknown("dataset", name, [*dataset_names(), "folder:PATH"])
    for where, part in (("train", train), ("test", test)):
        _check_classes(title, part.labels, classes, where)
    chosen = _cap(train.labels, train_images, "train_images", classes)
    tested = _cap(test.labels, test_images, "test_images", classes)
    return ImageData(
        name=title,
        classes=classes,
        train_images=train.fetch(chosen),
        train_labels=train.labels[chosen],
        test_images=test.fetch(tested),
        test_labels=test.labels[tested],
        flip=flip,
    )


def _check_whole(**values: int | None) -> None:
    for key, value in values.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise UserError(f"{key}={value!r} is not allowed; give a whole number from 1, or None")


def _check_classes(title: str, labels: Tensor, classes: Sequence[str], where: str) -> None:
    if len(classes) < 2:
        raise UserError(f"{title} has one class only ({', '.join(classes)}); give two or more")
    missing = [classes[c] for c in sorted(set(range(len(classes))) - set(labels.tolist()))]
    if missing:
        raise UserError(
            f"{title}: no image of class {missing[0]!r} in {where} ({len(missing)} of "
            f"{len(classes)} classes missing); every class needs images in both train and test"
        )


def _cap(labels: Tensor, limit: int | None, key: str, classes: Sequence[str]) -> Tensor:
    if limit is None or limit >= len(labels):
        return torch.arange(len(labels))
    if limit < len(classes):
        raise UserError(f"{key}={limit} is less than one image for each of {len(classes)} classes")
    return stratified(labels, limit, seed=SEED, purpose="cap", at_least=1)


# ---- the built-in ones


def _digits(root: Path) -> tuple:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    total = round(TEST_FRACTION * len(labels))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(labels, total, seed=SEED, purpose="test")] = True
    return images[~test], labels[~test], images[test], labels[test]


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Bound how long a download may hang: torchvision has no setting for it."""
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(former)


def _torchvision(name: str, kind: str, archive: str) -> Callable[[Path], tuple]:
    """Return the reader of a torchvision data set; `archive` is what a user can put in place."""

    def read(root: Path) -> tuple:
        from torchvision import datasets

        halves = ({"split": "train"}, {"split": "test"})
        if kind != "SVHN":
            halves = ({"train": True}, {"train": False})
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _network_timeout(_TIMEOUT):
                sets = [getattr(datasets, kind)(root, download=True, **h) for h in halves]
        except _DOWNLOAD_ERRORS as error:
            raise UserError(
                f"cannot get dataset {name!r} ({one_line(error)}); put {archive} into {root} "
                "and run again, or use --dataset folder:PATH (your own images) or --dataset digits"
            ) from error
        classes = tuple(getattr(sets[0], "classes", None) or map(str, range(10)))
        labels = [getattr(s, "targets", None) for s in sets]
        labels = [s.labels if t is None else t for s, t in zip(sets, labels, strict=True)]
        return sets[0].data, labels[0], sets[1].data, labels[1], classes

    return read


_SOURCES["digits"] = _Source(_digits, flip=False, size=16)
for _name, _kind, _archive, _flip, _size in (
    ("cifar10", "CIFAR10", "cifar-10-python.tar.gz", True, None),
    ("cifar100", "CIFAR100", "cifar-100-python.tar.gz", True, None),
    ("svhn", "SVHN", "train_32x32.mat and test_32x32.mat", False, None),
    ("fashion-mnist", "FashionMNIST", "the four *-ubyte.gz (under FashionMNIST/raw/)", True, 32),
):
    _SOURCES[_name] = _Source(_torchvision(_name, _kind, _archive), _flip, _size)
