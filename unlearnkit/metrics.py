"""Predictions, accuracy, and membership inference."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from unlearnkit.errors import UserError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module of `model` in evaluation mode, and each back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def to_float(images: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Return `images` on `device` as float32 in [0, 1]; uint8 is divided by 255."""
    images = images.to(device)
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters and buffers of `model` are; the CPU if it has none."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def layout(model: nn.Module) -> torch.memory_format:
    """Return the memory format `model` is fast on: channels last if it is convolutional."""
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    # a single convolution is but a patch embedding
    return torch.channels_last if convolutions > 1 else torch.contiguous_format


def keep_pages() -> None:
    """Ask glibc to keep freed memory instead of returning it after each step.

    The activations of a step are large blocks, which it otherwise maps and zeroes anew every time:
    a ResNet-50 on two cores trains 1.4 times, is attacked 1.6 times as fast without that.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            trim_threshold, mmap_threshold = -1, -3
            libc.mallopt(mmap_threshold, 1 << 30)
            libc.mallopt(trim_threshold, (1 << 31) - 1)


def predictions(model: nn.Module, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """Return the logits of `model` in evaluation mode, float32 [N, C] on the CPU.

    `images` [N, 3, H, W] are uint8, or float in [0, 1], on any device; moved batch by batch.
    """
    return _batched(model, model, images, batch_size)


def features(model: nn.Module, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """Return a `Classifier`'s penultimate features, float32 [N, D]; else as `predictions`."""
    return _batched(model, model.features, images, batch_size)


def _batched(
    model: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int
) -> Tensor:
    device, fast = device_of(model), layout(model)
    with evaluating(model), torch.inference_mode():
        batches = [
            function(to_float(batch, device).contiguous(memory_format=fast)).float().cpu()
            for batch in images.split(batch_size)
        ]
    return torch.cat(batches)


def accuracy(correct: Tensor) -> float:
    """Return the percentage of true entries in a bool tensor; NaN where there is none to count."""
    return 100.0 * correct.double().mean().item()


def true_class_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of each image's true class, float64 [N], from logits [N, C]."""
    probabilities = logits.double().softmax(dim=1)
    return probabilities.gather(1, labels.to(logits.device, torch.int64)[:, None])[:, 0]


def mia_efficacy(
    retain_conf: ArrayLike, test_conf: ArrayLike, forget_conf: ArrayLike, seed: int
) -> float:
    """Return the percentage of the forget set that an attacker takes for non-members.

    An RBF support vector classifier (C = 3, gamma 'auto') on the true class's confidence, arrays
    [N] in [0, 1], learns members (retain) from non-members (test, without a forgotten class),
    equally many of each: the larger side is subsampled by `seed`. The score is best when it matches
    the retrained model's, not when it is high.

    Source: Fan et al., SalUn, ICLR 2024 (MIA-efficacy).
    """
    from sklearn.svm import SVC  # here, since scikit-learn is slow to import

    sides = [np.asarray(side, dtype=np.float64) for side in (retain_conf, test_conf, forget_conf)]
    for name, side in zip(("retain", "test", "forget"), sides, strict=True):
        # Written so that NaN fails too.
        if side.ndim != 1 or not side.size or not ((side >= 0) & (side <= 1)).all():
            raise UserError(
                f"{name} confidences (shape {side.shape}) must be finite numbers in [0, 1], one "
                "for each of at least one image; check that the model's logits are finite"
            )
    generator = np.random.default_rng(seed)
    count = min(len(sides[0]), len(sides[1]))
    chosen = [generator.permutation(side)[:count] for side in sides[:2]]
    attacker = SVC(C=3, gamma="auto", kernel="rbf")
    attacker.fit(np.concatenate(chosen)[:, None], np.repeat([1, 0], count))
    return 100.0 * float(np.mean(attacker.predict(sides[2][:, None]) == 0))
