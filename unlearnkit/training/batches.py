"""Batches cut from tensors that stay on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cut(
    images: Tensor, index: Tensor, *, crop: int, flip: bool, generator: torch.Generator | None
) -> Tensor:
    """Return the batch `index` [B] of uint8 `images` [N, 3, H, W], cropped and mirrored at random.

    As float [B, 3, H, W] in [0, 1], channels-last in memory, on the device of `images`. `crop`
    pixels of zeros are added on each side, and the offset is uniform in [0, 2 * crop]; without a
    `generator` the pixels are left as they are.
    """
    batch = images[index.to(images.device)]
    count, _, height, width = batch.shape
    if generator is not None and (crop or flip):
        top, left = torch.randint(0, 2 * crop + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
        rows = top[:, None] + torch.arange(height)
        columns = torch.arange(width).expand(count, width)
        columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
        padded = F.pad(batch, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
        where = (torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
        batch = padded[tuple(part.to(batch.device) for part in where)].permute(0, 3, 1, 2)
    return batch.float().div_(255).contiguous(memory_format=torch.channels_last)


def batch_sizes(count: int, size: int) -> list[int]:
    """Return the sizes of ceil(count / size) batches, which differ by one image at the most.

    Not full ones and a rest: BatchNorm's statistics over a rest of two images can spoil a model.
    """
    number = -(-count // size)
    return [count // number + (batch < count % number) for batch in range(number)]
