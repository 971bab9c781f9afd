"""Predictions, accuracies, and what a training step costs in memory."""

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


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


def prefers_channels_last(model: nn.Module) -> bool:
    """Say whether `model` is convolutional; a single convolution is but a patch embedding."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 1


def predictions(model: nn.Module, images: Tensor, *, batch_size: int = 512) -> Tensor:
    """Return the logits of `model` in evaluation mode, float32 [N, C] on the CPU.

    Parameters
    ----------
    model : Module
        Taking float images in [0, 1]. Its modes are restored.
    images : Tensor [N, 3, H, W]
        uint8, or float in [0, 1], on any device; moved batch by batch.
    """
    device = device_of(model)
    layout = torch.channels_last if prefers_channels_last(model) else torch.contiguous_format
    with evaluating(model), torch.inference_mode():
        batches = [
            model(to_float(batch, device).contiguous(memory_format=layout)).float().cpu()
            for batch in images.split(batch_size)
        ]
    return torch.cat(batches)


def accuracy(correct: Tensor) -> float:
    """Return the percentage of true entries in a bool tensor; NaN where there is none to count."""
    return 100.0 * correct.double().mean().item() if correct.numel() else math.nan


# --- memory ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryCount:
    """Bytes one training step needs, counted: `total` is the sum of the other four."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of the parts, in bytes."""
        return self.parameters + self.gradients + self.optimizer + self.activations


class _Saved:
    """What autograd keeps instead of the tensor; dies with the graph node that saved it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedBytes:
    """Counts what autograd saves for the backward pass of the forward passes inside the block.

    `total` is known when the block ends, which has to be before the backward pass: the bytes of
    the storages held then, each once and whole, without those of `model`'s parameters and buffers
    and of `others`, which are there anyway.
    """

    def __init__(self, model: nn.Module, others: Iterable[Tensor] = ()) -> None:
        self.total = 0
        self._known = [*model.parameters(), *model.buffers(), *others]
        self._saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
        self._hooks = saved_tensors_hooks(self._pack, lambda handle: handle.tensor)

    def _pack(self, tensor: Tensor) -> _Saved:
        # Detached: an output would hold the node that holds it, and neither would ever be freed.
        handle = _Saved(tensor.detach())
        self._saved.add(handle)
        return handle

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__(*exception)
        self.total = _storage_bytes((handle.tensor for handle in self._saved), self._known)
        self._known = []


def _storage_bytes(tensors: Iterable[Tensor], known: Iterable[Tensor]) -> int:
    skip = {tensor.untyped_storage().data_ptr() for tensor in known}
    storages = (tensor.untyped_storage() for tensor in tensors)
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for pointer, size in sizes.items() if pointer not in skip)


@dataclass
class Peak:
    """Filled in when `peak_memory` ends: bytes, NaN where the device cannot say."""

    bytes: float = math.nan


@contextmanager
def peak_memory(device: str | torch.device = "cpu") -> Iterator[Peak]:
    """Measure the peak of the device's memory while the block runs.

    On CUDA the peak of what torch allocated on `device`; on a Linux CPU the peak resident size of
    the whole process, interpreter included; elsewhere NaN. Blocks do not nest: the inner one
    resets the outer one's mark.

    Examples
    --------
    >>> with peak_memory("cpu") as peak:
    ...     train()
    >>> peak.bytes
    """
    device = torch.device(device)
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    resettable = device.type == "cpu" and _reset_resident_peak()
    try:
        yield peak
    finally:
        if device.type == "cuda":
            peak.bytes = float(torch.cuda.max_memory_allocated(device))
        elif resettable:
            peak.bytes = _resident_peak()


def _reset_resident_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * int(line.split()[1])
    return math.nan
