"""Who is retained, forgotten, held out: seeded, stratified index lists."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from unlearnkit.data.images import ImageData
from unlearnkit.errors import UserError, unknown
from unlearnkit.seeding import stream

LISTS = ("retain", "forget", "validation", "test")


def apportion(counts: list[int], total: int, at_least: int = 0) -> list[int]:
    """Share out `total` ≤ sum(counts) over classes in proportion to `counts`.

    By largest remainder. A class that has as many gets `at_least`, taken from the largest shares.
    """
    size = max(sum(counts), 1)
    shares = [total * count // size for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda c: -(total * counts[c] % size))
    for c in by_remainder[: total - sum(shares)]:
        shares[c] += 1
    for c, count in enumerate(counts):
        while shares[c] < min(at_least, count) and max(shares) > at_least:
            shares[shares.index(max(shares))] -= 1
            shares[c] += 1
    return shares


def stratified(labels: Tensor, total: int, *, seed: int, purpose: str, at_least: int = 0) -> Tensor:
    """Return sorted positions, int64 [total], of items of `labels`, int64 [N]; see `apportion`.

    A larger `total` with equal shares contains the smaller choice of the same seed and purpose.
    """
    generator = stream(seed, purpose)
    chosen = []
    for c, share in enumerate(apportion(torch.bincount(labels).tolist(), total, at_least)):
        members = (labels == c).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(chosen).sort().values


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted int64 index lists into one `ImageData`.

    `retain`, `forget` and `validation` are disjoint positions among the training images, `test`
    all those among the test images. `forgotten_class` is the label of 'class:C', else None.
    """

    retain: Tensor
    forget: Tensor
    validation: Tensor
    test: Tensor
    forgotten_class: int | None = None

    @property
    def train(self) -> Tensor:
        """Retain and forget together, sorted: what the original model is trained on."""
        return torch.cat([self.retain, self.forget]).sort().values

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the four index lists."""
        digest = hashlib.sha256()
        for name in LISTS:
            indices = getattr(self, name).cpu().numpy().astype("<i8")
            digest.update(f"{name}:{len(indices)}:".encode() + indices.tobytes())
        return digest.hexdigest()


def make_split(
    data: ImageData, *, forget: str, validation: float, seed: int, forget_seed: int | None = None
) -> Split:
    """Cut a data set, by its labels and class names alone, into retain, forget, validation, test.

    `forget` is 'random:F', the fraction 0 < F < 1 of the training images (validation ones left
    out), stratified; or 'class:C', all of one class: its name or, where none is called so, its
    position. `validation` is the fraction of the training images held out, in [0, 1), chosen by
    `seed` alone; `forget_seed` chooses the forget set, by default `seed`. `UserError` on any other
    value, or a fraction that leaves a class without images to train on or retain.
    """
    if not 0 <= validation < 1:
        raise UserError(f"validation fraction {validation} is out of range; give 0 <= fraction < 1")
    labels, forget = data.train_labels.cpu(), str(forget).strip()
    fraction, label = _parsed(forget, data.classes)
    held = stratified(labels, round(validation * len(labels)), seed=seed, purpose="validation")
    pool = torch.from_numpy(np.setdiff1d(np.arange(len(labels)), held))
    _check_classes(labels[pool], data.classes, f"validation fraction {validation}", "train on")
    if label is None:
        total = round(fraction * len(pool)) if 0 < fraction < 1 else 0
        if total == 0:
            wanted = f"0 < fraction < 1 that is at least one of {len(pool)} training images"
            raise UserError(f"forget fraction {fraction:g} is out of range; give {wanted}")
        forget_seed = seed if forget_seed is None else forget_seed
        forgotten = pool[stratified(labels[pool], total, seed=forget_seed, purpose="forget")]
    else:
        forgotten = pool[labels[pool] == label]
    retain = torch.from_numpy(np.setdiff1d(pool, forgotten))
    if label is None:
        _check_classes(labels[retain], data.classes, f"forget {forget!r}", "retain")
    test = torch.arange(len(data.test_labels))
    return Split(retain, forgotten, held, test, label)


def _parsed(forget: str, classes: tuple[str, ...]) -> tuple[float, int | None]:
    """Return the fraction to forget, or the class."""
    kind, _, value = forget.partition(":")
    value = value.strip()
    if kind == "class" and value:
        known = [*classes, *map(str, range(len(classes)))]
        if value not in known:
            raise unknown("class", value, [f"{i} ({name})" for i, name in enumerate(classes)])
        return 0.0, known.index(value) % len(classes)
    try:
        return float(value if kind == "random" else ""), None
    except ValueError:
        ways = "random:F with 0 < F < 1, as in random:0.1, or class:C, a name or number, as class:3"
        raise UserError(f"malformed forget set {forget!r}; write {ways}") from None


def _check_classes(labels: Tensor, classes: tuple[str, ...], cause: str, purpose: str) -> None:
    for label, name in enumerate(classes):
        if label not in labels:
            why = f"{cause} leaves no image of class {name!r} to {purpose}"
            raise UserError(f"{why}; use a smaller fraction or more images")
