"""Arrays of any usual layout as images, and images as squares of one size."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unlearnkit.errors import UserError

# How the test images of a set without them, and the fewer images of a cap, are chosen.
SEED = 0
TEST_FRACTION = 0.2
_CHUNK = 256
_HALVES = (("train", 0), ("test", 2))


@dataclass(frozen=True)
class Part:
    """Train or test before anything is decoded: labels, and `fetch` for the chosen images."""

    labels: Tensor
    fetch: Callable[[Tensor], Tensor]


def array_parts(name: str, arrays: Any, size: int | None) -> tuple[Part, Part, tuple[str, ...]]:
    """Return train, test and class names from what a function given to `dataset` returned."""
    if not isinstance(arrays, tuple | list) or len(arrays) not in (4, 5):
        raise UserError(
            f"dataset {name!r} must return train_images, train_labels, test_images, test_labels "
            "and, if you like, class names"
        )
    images = [_as_images(f"dataset {name!r}: {w} images", arrays[i]) for w, i in _HALVES]
    labels = [
        _as_labels(f"dataset {name!r}: {w} labels", arrays[i + 1], len(half))
        for (w, i), half in zip(_HALVES, images, strict=True)
    ]
    shapes = {tuple(half.shape[2:]) for half in images}
    if size is None and (len(shapes) > 1 or any(h != w for h, w in shapes)):
        found = " and ".join(f"{h}×{w}" for h, w in sorted(shapes))
        raise UserError(f"dataset {name!r} has images of {found}; give size=… to make them square")
    top = max(int(half.max()) for half in labels) + 1
    classes = tuple(map(str, arrays[4] if len(arrays) == 5 else range(top)))
    if top > len(classes) or len(set(classes)) < len(classes):
        raise UserError(
            f"dataset {name!r}: label {top - 1} with {len(set(classes))} different class names; "
            f"give one name for each label from 0"
        )
    train, test = (
        Part(lab, lambda chosen, im=im: _resized(im[chosen], size))
        for im, lab in zip(images, labels, strict=True)
    )
    return train, test, classes


def _as_tensor(what: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        # A copy: torch takes neither read-only arrays nor negative strides.
        return torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} are no array of numbers ({error}); give a NumPy array") from error


def _as_images(what: str, images: Any) -> Tensor:
    """Return uint8 [N, 3, H, W] from any of the layouts of `dataset`."""
    images = _as_tensor(what, images)
    if images.dim() == 3:
        images = images[:, None]
    elif images.dim() == 4 and images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"{what} have shape {list(images.shape)}; give [N, H, W], [N, H, W, C] or "
            "[N, C, H, W] with N > 0 and C 1 or 3"
        )
    if images.is_floating_point():
        low, high = images.min().item(), images.max().item()
        if not (low >= 0 and high <= 1):
            found = "non-finite" if not np.isfinite(low + high) else f"in [{low:g}, {high:g}]"
            raise UserError(f"{what} are floats {found}; give floats in [0, 1], or uint8")
        images = (images.float() * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise UserError(f"{what} are {images.dtype}; give uint8, or floats in [0, 1]")
    return images.expand(-1, 3, -1, -1)


def _as_labels(what: str, labels: Any, length: int) -> Tensor:
    labels = _as_tensor(what, labels)
    if labels.shape != (length,):
        raise UserError(f"{what} have shape {list(labels.shape)}; {length} images need [{length}]")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"{what} are {labels.dtype}; give whole numbers from 0")
    if labels.min() < 0:
        raise UserError(f"{what} hold {labels.min()}; give whole numbers from 0")
    return labels.to(torch.int64)


def _resized(images: Tensor, size: int | None) -> Tensor:
    """Resize uint8 [N, 3, H, W] to a square.

    By Pillow, whose integer arithmetic gives the same bytes, so the same fingerprint, on any CPU.
    """
    if size is None or images.shape[2:] == (size, size):
        return images.contiguous()
    array = images.permute(0, 2, 3, 1).numpy()

    return filled(
        len(array),
        size,
        lambda i: fitted(Image.fromarray(np.ascontiguousarray(array[i])), size),
    )


def fitted(image: Image.Image, size: int) -> np.ndarray:
    """Return the pixels of an image resized to a square."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def filled(count: int, size: int, make: Callable[[int], np.ndarray]) -> Tensor:
    """Return uint8 [count, 3, S, S] of what `make`, [S, S, 3], gives for each position.

    Threads suffice: Pillow lets go of the interpreter while it decodes and resizes.
    """
    out = np.empty((count, 3, size, size), np.uint8)

    def work(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            out[i] = make(i).transpose(2, 0, 1)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(work, range(0, count, _CHUNK)))
    return torch.from_numpy(out)
