"""What training costs: memory counted and measured, and what its speed is held against."""

import copy
import math
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class MemoryCount:
    """Bytes one training step needs, counted: `total` is the sum of the other four."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations

    def counts(self) -> dict[str, int]:
        """Return all five by name."""
        return {**asdict(self), "total": self.total}


class SavedBytes(saved_tensors_hooks):
    """Counts what autograd saves for the backward pass of the forward passes inside the block.

    `total` is known when the block ends, which has to be before the backward pass: the bytes of
    the storages held then, each once and whole, without those of `model`'s parameters and buffers,
    which are there anyway.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(self._pack, lambda kept: kept)
        self.total = 0
        self._known = [*model.parameters(), *model.buffers()]
        self._saved: list[weakref.ref[Tensor]] = []

    def __enter__(self) -> "SavedBytes":
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        # Detached: an output would hold the node that holds it, and neither would ever be freed.
        kept = tensor.detach()
        self._saved.append(weakref.ref(kept))  # dies with the graph node that saved it
        return kept

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        known = {tensor.untyped_storage().data_ptr() for tensor in self._known}
        storages = [kept.untyped_storage() for ref in self._saved if (kept := ref()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.total = sum(size for pointer, size in sizes.items() if pointer not in known)


@contextmanager
def peak_memory(device: str | torch.device = "cpu") -> Iterator[SimpleNamespace]:
    """Measure the peak of the device's memory while the block runs, in `bytes` of what it yields.

    On CUDA the peak of what torch allocated on `device`; on a Linux CPU the peak resident size of
    the whole process, interpreter included; elsewhere NaN. Blocks do not nest: the inner one
    resets the outer one's mark.
    """
    peak, kind, resettable = SimpleNamespace(bytes=math.nan), torch.device(device).type, False
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif kind == "cpu":
        with suppress(OSError):
            resettable = Path("/proc/self/clear_refs").write_text("5") > 0
    yield peak
    if kind == "cuda":
        peak.bytes = float(torch.cuda.max_memory_allocated(device))
    elif resettable:
        mark = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
        peak.bytes = 1024.0 * int(mark.split()[0]) if mark else math.nan


def has_bf16(device: torch.device) -> bool:
    """Tell whether `device` computes in bfloat16 itself rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and supported()


def training_flops(model: nn.Module, image_size: int) -> float:
    """Return the FLOP of one image's forward and backward pass, multiply and add counted apart.

    Matrix products and convolutions alone, as torch's counter has them, on a copy of `model`.
    """
    device = next(model.parameters()).device
    # Two images: a BatchNorm in training mode has no statistics of a single one.
    images = torch.zeros(2, 3, image_size, image_size, device=device)
    counted = copy.deepcopy(model).train()
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        counted(images).sum().backward()
    return counter.get_total_flops() / len(images)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Return the FLOP/s at which `device` multiplies large square matrices: the best of 0.3 s.

    `precision` is "fp32" or "bf16" as in a recipe: bf16 only where the hardware computes in it.
    """
    side = 8192 if device.type == "cuda" else 1024
    bf16 = precision == "bf16" and has_bf16(device)
    square = torch.ones(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    # Not torch.utils.benchmark, which looks for a CUDA compiler when it is imported, and warns.
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: list[float] = []
    while sum(seconds) < 0.3:
        wait()
        began = time.perf_counter()
        torch.mm(square, square)
        wait()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)
