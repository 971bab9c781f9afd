"""What a loaded data set is, and how arrays and files of any kind become its images."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from PIL import Image, ImageOps
from torch import Tensor

from unlearnkit.errors import UserError, one_line

# By format, not by any that Pillow knows: some of them start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")
MAX_PIXELS = 50_000_000  # of one image file: 150 MB in RGB, in each of up to eight threads


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory: images uint8 [N, 3, S, S], labels int64 [N], 0 ≤ label < classes.

    `name` is what it is called in tables; `classes` are named in the order of the labels; `flip`
    tells whether a horizontally mirrored image keeps its class (not so for digits).
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    flip: bool = True

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Height, which is the width, in pixels."""
        return self.train_images.shape[-1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class names, shapes, pixels and labels; not over name and device."""
        return self._digest("train_images", "train_labels", "test_images", "test_labels")

    @cached_property
    def train_fingerprint(self) -> str:
        """The same over the training images alone: all that a trained model depends on."""
        return self._digest("train_images", "train_labels")

    def _digest(self, *names: str) -> str:
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for name in names:
            array = np.ascontiguousarray(getattr(self, name).cpu().numpy())
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(memoryview(array).cast("B"))
        return digest.hexdigest()

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, in [1/255, 1]; one grey level where it is less."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        # Sums of whole numbers are exact: the same on every machine, in any order.
        total = torch.zeros(2, 3, dtype=torch.int64)
        for part in self.train_images.split(4096):
            wide = part.to(torch.int32)
            total[0] += wide.sum((0, 2, 3), dtype=torch.int64).cpu()
            total[1] += (wide * wide).sum((0, 2, 3), dtype=torch.int64).cpu()
        first, second = (total.double() / (self.train_images.numel() // 3)).unbind()
        std = (second - first**2).clamp_min(1.0).sqrt()
        return tuple((first / 255).tolist()), tuple((std / 255).tolist())

    def to(self, device: torch.device | str) -> "ImageData":
        """Return the same data on `device`; what was computed about it is kept."""
        moved = copy(self)
        for name, value in vars(self).items():
            vars(moved)[name] = value.to(device) if isinstance(value, Tensor) else value
        return moved


def checked(what: str, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return images in any layout that `dataset` allows as uint8 [N, 3, H, W]; labels int64 [N]."""
    try:
        # Arrays are copied: torch takes neither read-only ones nor negative strides.
        images, labels = (
            value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            for value in (images, labels)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: no array of numbers ({one_line(error)})") from error
    if images.dim() == 3:
        images = images[:, None]
    elif images.dim() == 4 and images.shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        layouts = "[N, H, W], [N, H, W, C] or [N, C, H, W] with N > 0 and C 1 or 3"
        raise UserError(f"{what}: images of shape {list(images.shape)}; give {layouts}")
    if images.is_floating_point() and 0 <= images.min() <= images.max() <= 1:  # nor NaN
        images = (images.float() * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        low, high = images.double().aminmax()
        found = f"{images.dtype} in [{low:g}, {high:g}]"
        raise UserError(f"{what}: images of {found}; give uint8, or floats in [0, 1]")
    whole = labels.long()
    if labels.shape != images.shape[:1] or (whole != labels).any() or whole.min() < 0:
        found = f"labels of {labels.dtype}, shape {list(labels.shape)}"
        wanted = f"whole numbers from 0, one for each of {len(images)} images"
        raise UserError(f"{what}: {found}; give {wanted}")
    return images.expand(-1, 3, -1, -1), whole


def resized(images: Tensor, index: Tensor, size: int | None) -> Tensor:
    """Return uint8 [N, 3, H, W] at the positions of `index`, as squares unless size is None.

    By Pillow, whose integer arithmetic gives the same bytes, so the same fingerprint, on any CPU.
    """
    images = images[index]
    if size is None or images.shape[2:] == (size, size):
        return images.contiguous()
    pictures = [Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).numpy()]
    return drawn(pictures, torch.arange(len(pictures)), size)


def decoded(paths: Sequence[str], index: Tensor, size: int) -> Tensor:
    """Return the image files of any mode at the positions of `index`: uint8 [N, 3, size, size].

    A `UserError` names up to five that cannot be read and counts the others.
    """
    chosen, failed = [paths[i] for i in index.tolist()], {}
    out = np.empty((len(chosen), 3, size, size), np.uint8)

    def decode(i: int) -> None:
        try:
            out[i] = _read(chosen[i], size).transpose(2, 0, 1)
        except Exception as error:  # on damaged files, decoders raise errors of any type
            failed[chosen[i]] = one_line(error).replace(f" {chosen[i]!r}", "")

    # Threads suffice: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(min(8, cpu_count())) as pool:
        list(pool.map(decode, range(len(chosen))))
    if failed:
        named = "; ".join(f"{path!r} ({failed[path]})" for path in sorted(failed)[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise UserError(f"cannot read image {named}{more}; replace or remove it")
    return torch.from_numpy(out)


def drawn(pictures: Sequence[Image.Image], index: Tensor, size: int) -> Tensor:
    """Return Pillow's images of any mode at the positions of `index`: uint8 [N, 3, size, size]."""
    squares = np.stack([_fitted(_as_rgb(pictures[i]), size) for i in index.tolist()])
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


def _read(path: str, size: int) -> np.ndarray:
    """Return one image file as uint8 [S, S, 3]."""
    if not os.path.isfile(path):
        raise OSError("no plain file")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is over {MAX_PIXELS} pixels")
        # Large JPEGs are decoded at a fraction of their size, never below twice what is needed.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return _fitted(_as_rgb(image), size)


def _fitted(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: 16 bit scaled to 8, transparency over white."""
    if image.mode == "RGB":
        return image
    if image.mode[0] in "IF":
        array = np.asarray(image).astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError("non-finite pixels")
        top = 65535 if image.mode[0] == "I" else 1 if array.max(initial=0) <= 1 else 255
        grey = np.rint(array.clip(0, top) * (255 / top)).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
