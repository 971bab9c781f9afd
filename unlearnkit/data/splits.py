"""Who is retained, forgotten, held out: seeded, stratified index lists, saved and checked."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlearnkit.errors import UserError, unknown
from unlearnkit.files import write_atomic
from unlearnkit.seeding import stream

if TYPE_CHECKING:
    from unlearnkit.data import ImageData

_LISTS = ("retain", "forget", "validation", "test")
_FORMAT = "unlearnkit-split-1"


def apportion(counts: list[int], total: int, at_least: int = 0) -> list[int]:
    """Share out `total` over classes in proportion to `counts`, by largest remainder.

    Parameters
    ----------
    counts : how many there are of each class.
    total : how many to take, 0 ≤ total ≤ sum(counts).
    at_least : the smallest share of a class that has as many; taken from the largest shares.

    Returns
    -------
    One share per class, 0 ≤ share ≤ count; they sum to `total`.
    """
    size = max(sum(counts), 1)
    shares = [total * count // size for count in counts]
    remainders = [total * count % size for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda c: (-remainders[c], c))
    for c in by_remainder[: total - sum(shares)]:
        shares[c] += 1
    for c, count in enumerate(counts):
        while shares[c] < min(at_least, count):
            largest = max(range(len(shares)), key=shares.__getitem__)
            if shares[largest] <= at_least:
                break
            shares[largest] -= 1
            shares[c] += 1
    return shares


def stratified(labels: Tensor, total: int, *, seed: int, purpose: str, at_least: int = 0) -> Tensor:
    """Choose `total` of the labelled items, each class in its proportion.

    A larger `total` with equal shares contains the smaller choice of the same seed and purpose.

    Parameters
    ----------
    labels : int64 [N].
    total : 0 ≤ total ≤ N.
    seed, purpose : what the random stream is made from.
    at_least : see `apportion`.

    Returns
    -------
    int64 [total], sorted positions into `labels`.
    """
    generator = stream(seed, purpose)
    counts = torch.bincount(labels).tolist()
    chosen = []
    for c, share in enumerate(apportion(counts, total, at_least)):
        members = (labels == c).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(chosen).sort().values if chosen else torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Index lists into one `ImageData`.

    Attributes
    ----------
    retain, forget, validation : sorted, disjoint int64 positions among the training images.
    test : sorted int64 positions among the test images (all of them).
    forget_spec : what was asked to be forgotten, 'random:0.1' or 'class:3'.
    seed : the seed of the validation images.
    forgotten_class : the class of a 'class:' split, else None.
    """

    retain: Tensor
    forget: Tensor
    validation: Tensor
    test: Tensor
    forget_spec: str
    seed: int
    forgotten_class: int | None = None

    @property
    def train(self) -> Tensor:
        """Retain and forget together, sorted: what the original model is trained on."""
        return torch.cat([self.retain, self.forget]).sort().values

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the four index lists."""
        digest = hashlib.sha256()
        for name in _LISTS:
            indices = getattr(self, name).cpu().numpy().astype("<i8")
            digest.update(f"{name}:{len(indices)}:".encode() + indices.tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, in one step: `path` holds the whole file or the former one.

        Raises
        ------
        UserError : the file cannot be written there.
        """
        content = {
            "format": _FORMAT,
            "forget_spec": self.forget_spec,
            "seed": self.seed,
            "forgotten_class": self.forgotten_class,
            "hash": self.hash,
            "indices": {name: getattr(self, name).tolist() for name in _LISTS},
        }
        write_atomic(Path(path), json.dumps(content))

    @staticmethod
    def load(path: str | Path) -> "Split":
        """Read what `save` wrote.

        Raises
        ------
        UserError : the file is missing, is no split file, or its lists do not match its hash.
        """
        hint = "make the split again with make_split and save it"
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {_FORMAT!r}")
            lists = {n: torch.tensor(content["indices"][n], dtype=torch.int64) for n in _LISTS}
            rest = {n: content[n] for n in ("forget_spec", "seed", "forgotten_class")}
            split, expected = Split(**lists, **rest), content["hash"]
        except OSError as error:
            raise UserError(
                f"cannot read split file {path}: {error.strerror or error}; {hint}"
            ) from error
        except (ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
            raise UserError(f"{path} is not a sound split file ({error}); {hint}") from error
        if split.hash != expected:
            raise UserError(
                f"split file {path} is damaged: its lists do not match its hash; {hint}"
            )
        return split


def make_split(
    data: "ImageData",
    *,
    forget: str,
    validation: float,
    seed: int,
    forget_seed: int | None = None,
) -> Split:
    """Cut a data set into retain, forget, validation and test.

    Parameters
    ----------
    data : the images; only labels and class names are used.
    forget : 'random:F', the fraction 0 < F < 1 of the training images (validation ones left out),
        stratified; or 'class:C', all of one class, C its name or, where no class is called so,
        its position.
    validation : fraction of the training images held out, 0 ≤ validation < 1. Which they are
        follows from `seed` alone.
    seed, forget_seed : the second, by default the first, chooses the forget set.

    Raises
    ------
    UserError : a malformed `forget`, an unknown class, a fraction out of range, or one that
        leaves a class without images to train on or retain.
    """
    if not 0 <= validation < 1:
        raise UserError(f"validation fraction {validation} is out of range; give 0 <= fraction < 1")
    kind, value = _parse_forget(forget, data.classes)
    labels = data.train_labels.cpu()
    held = stratified(labels, round(validation * len(labels)), seed=seed, purpose="validation")
    pool = _without(len(labels), held)
    _check_classes(labels[pool], data.classes, f"validation fraction {validation}", "train on")
    if kind == "class":
        forgotten = pool[labels[pool] == value]
    else:
        total = round(value * len(pool))
        if total == 0:
            raise UserError(
                f"forget {forget!r} forgets none of {len(pool)} training images; use a larger one"
            )
        forget_seed = seed if forget_seed is None else forget_seed
        forgotten = pool[stratified(labels[pool], total, seed=forget_seed, purpose="forget")]
    retain = _without(len(labels), torch.cat([held, forgotten]))
    if kind == "random":
        _check_classes(labels[retain], data.classes, f"forget {forget!r}", "retain")
    return Split(
        retain=retain,
        forget=forgotten,
        validation=held,
        test=torch.arange(len(data.test_labels)),
        forget_spec=forget.strip(),
        seed=seed,
        forgotten_class=value if kind == "class" else None,
    )


def _parse_forget(forget: str, classes: tuple[str, ...]) -> tuple[str, float | int]:
    """Return ('random', fraction) or ('class', index)."""
    kind, _, value = str(forget).strip().partition(":")
    value = value.strip()
    if kind == "random":
        try:
            fraction = float(value)
        except ValueError:
            fraction = None
        if fraction is not None:
            if 0 < fraction < 1:
                return kind, fraction
            raise UserError(f"forget fraction {value} is out of range; give 0 < fraction < 1")
    if kind == "class" and value:
        if value in classes:
            return kind, classes.index(value)
        if value.isdecimal() and int(value) < len(classes):
            return kind, int(value)
        raise unknown("class", value, [f"{i} ({name})" for i, name in enumerate(classes)])
    raise UserError(
        f"malformed forget set {forget!r}; write random:F with 0 < F < 1, as in random:0.1, "
        "or class:C with a class name or number, as in class:3"
    )


def _without(size: int, indices: Tensor) -> Tensor:
    """Return the sorted positions below `size` that are not among `indices`."""
    keep = torch.ones(size, dtype=torch.bool)
    keep[indices] = False
    return keep.nonzero().flatten()


def _check_classes(labels: Tensor, classes: tuple[str, ...], cause: str, purpose: str) -> None:
    missing = set(range(len(classes))) - set(labels.tolist())
    if missing:
        raise UserError(
            f"{cause} leaves no image of class {classes[min(missing)]!r} to {purpose}; "
            "use a smaller fraction or more images"
        )
