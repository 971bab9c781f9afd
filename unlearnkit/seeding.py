"""Random numbers by name: each draw has its own generator, so call order does not matter."""

import hashlib

import torch


def derive(seed: int, *names: object) -> int:
    """Return a 63-bit seed that depends on `seed` and all `names`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: object) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. `stream(0, "order", epoch)`.

    On the CPU whatever the device computes on: the same seed draws the same order everywhere.
    """
    return torch.Generator().manual_seed(derive(seed, *names))
