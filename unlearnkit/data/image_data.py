"""What a loaded data set is."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_CACHED = ("fingerprint", "train_fingerprint", "_moments")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory.

    Attributes
    ----------
    name : what it is called in tables.
    classes : class names, in the order of the labels.
    train_images, test_images : uint8 [N, 3, S, S].
    train_labels, test_labels : int64 [N], 0 ≤ label < len(classes).
    flip : whether a horizontally mirrored image keeps its class (not so for digits).
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
        return self._digest(
            self.train_images, self.train_labels, self.test_images, self.test_labels
        )

    @cached_property
    def train_fingerprint(self) -> str:
        """The same over the training images alone: all that a trained model depends on."""
        return self._digest(self.train_images, self.train_labels)

    def _digest(self, *tensors: Tensor) -> str:
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for tensor in tensors:
            array = np.ascontiguousarray(tensor.cpu().numpy())
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(memoryview(array).cast("B"))
        return digest.hexdigest()

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

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, in [1/255, 1]; one grey level where it is less."""
        return self._moments[1]

    def first(self, each: int, most: int) -> "ImageData":
        """Return the first `each` training images of every class, of `most` classes at the most."""
        labels = self.train_labels.cpu()
        found = [(labels == label).nonzero()[:each, 0] for label in range(len(self.classes))[:most]]
        index = torch.cat(found).to(self.train_images.device)
        images, labels = self.train_images[index], self.train_labels[index]
        return ImageData(self.name, self.classes, images, labels, images[:0], labels[:0], self.flip)

    def to(self, device: torch.device | str) -> "ImageData":
        """Return the same data on `device`; what was computed about it is kept."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        moved = replace(self, **{name: getattr(self, name).to(device) for name in names})
        cached = {k: v for k, v in vars(self).items() if k in _CACHED}
        vars(moved).update(cached)
        return moved
