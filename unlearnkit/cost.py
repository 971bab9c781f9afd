"""What a training's speed is held against: the FLOP of an image, the FLOP/s of the hardware."""

import copy
import time

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unlearnkit.training.batches import has_bf16

SIDES = {"cuda": 8192, "cpu": 1024}  # of the square matrices multiplied
SECONDS = 0.3


def matmul_rate(device: torch.device, precision: str) -> float:
    """Return the FLOP/s at which `device` multiplies large square matrices: the best in 0.3 s.

    Parameters
    ----------
    precision : "fp32" or "bf16"
        As in a recipe: bf16 only where the hardware computes in it.
    """
    side = SIDES.get(device.type, SIDES["cpu"])
    bf16 = precision == "bf16" and has_bf16(device)
    square = torch.ones(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    seconds = [_seconds_of_matmul(square)]
    while sum(seconds) < SECONDS:
        seconds.append(_seconds_of_matmul(square))
    return 2 * side**3 / min(seconds)


def _seconds_of_matmul(square: torch.Tensor) -> float:
    _wait(square.device)
    began = time.perf_counter()
    torch.mm(square, square)
    _wait(square.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def hardware_facts(model: nn.Module, image_size: int, precision: str) -> dict[str, float]:
    """Return what a training's images per second are held against.

    Returns
    -------
    dict
        `flop_per_image`, see `training_flops`; `matmul_rate` (FLOP/s) of the model's device.
    """
    device = next(model.parameters()).device
    return {
        "flop_per_image": training_flops(model, image_size),
        "matmul_rate": matmul_rate(device, precision),
    }
