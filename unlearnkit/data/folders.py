"""Image files in a folder for each class."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unlearnkit.data.arrays import SEED, TEST_FRACTION, Part, filled, fitted
from unlearnkit.data.splits import stratified
from unlearnkit.errors import UserError, one_line

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
)


def folder_path(name: str) -> Path:
    """Return the folder that 'folder:PATH' names."""
    path = name.removeprefix("folder:").strip()
    if not path:
        raise UserError("folder: needs a path, as in folder:PATH with PATH/<class>/<images>")
    return Path(path).expanduser().resolve()


def folder_parts(path: Path, size: int) -> tuple[Part, Part, tuple[str, ...]]:
    """Return train, test and class names of a folder of images in either layout of `load`."""
    layout = "give PATH/train/<class>/ and PATH/test/<class>/, or PATH/<class>/"
    if not path.is_dir():
        raise UserError(f"no folder {path}; {layout}")
    halves = [path / "train", path / "test"]
    if any(half.is_dir() for half in halves):
        for half in halves:
            if not half.is_dir():
                raise UserError(f"no folder {half} beside its other half; {layout}")
        trees = [_listed(half) for half in halves]
        classes = tuple(sorted(set().union(*trees)))
    else:
        tree = _listed(path)
        classes = tuple(sorted(tree))
        trees = _split_tree(path, tree) if len(tree) > 1 else [tree, tree]
    if not any(files for tree in trees for files in tree.values()):
        raise UserError(
            f"no images in {path}; {layout}, with files ending in {' '.join(IMAGE_SUFFIXES)}"
        )
    parts = []
    for tree in trees:
        files = [file for name in classes for file in tree.get(name, [])]
        labels = [c for c, name in enumerate(classes) for _ in tree.get(name, [])]
        parts.append(Part(torch.tensor(labels, dtype=torch.int64), _decoder(files, size)))
    return parts[0], parts[1], classes


def _listed(path: Path) -> dict[str, list[str]]:
    """Return the sorted image files of each class folder in `path`."""
    tree = {}
    try:
        for entry in os.scandir(path):
            if entry.is_dir() and not entry.name.startswith((".", "__")):
                names = (file.path for file in os.scandir(entry) if not file.name.startswith("."))
                files = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES)]
                tree[entry.name] = sorted(files)
    except OSError as error:
        raise UserError(
            f"cannot list folder {error.filename}: {error.strerror}; make it readable"
        ) from error
    return tree


def _split_tree(path: Path, tree: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    """Cut a folder without train/ and test/ in two, a fifth of each class for testing."""
    if not any(tree.values()):
        return [tree, tree]
    for name, files in sorted(tree.items()):
        if len(files) < 2:
            raise UserError(
                f"class {name!r} has {len(files)} images in {path}; two or more are needed to "
                "split them, or give train/ and test/"
            )
    pairs = [(name, file) for name in sorted(tree) for file in tree[name]]
    labels = torch.tensor([c for c, name in enumerate(sorted(tree)) for _ in tree[name]])
    total = max(round(TEST_FRACTION * len(pairs)), len(tree))
    tested = set(stratified(labels, total, seed=SEED, purpose="test", at_least=1).tolist())
    halves = [{name: [] for name in tree}, {name: [] for name in tree}]
    for i, (name, file) in enumerate(pairs):
        halves[i in tested][name].append(file)
    return halves


def _decoder(files: Sequence[str], size: int) -> Callable[[Tensor], Tensor]:
    def fetch(chosen: Tensor) -> Tensor:
        paths = [files[i] for i in chosen.tolist()]
        failed: dict[int, str] = {}

        def decode(i: int) -> np.ndarray:
            try:
                return _decoded(paths[i], size)
            except MemoryError:
                raise
            except Exception as error:  # on damaged files, decoders raise errors of any type
                failed[i] = one_line(error).replace(f" {paths[i]!r}", "")
                return np.zeros((size, size, 3), np.uint8)

        images = filled(len(paths), size, decode)
        if failed:
            named = "; ".join(f"{paths[i]} ({failed[i]})" for i in sorted(failed)[:5])
            more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
            raise UserError(f"cannot read image {named}{more}; replace or remove it")
        return images

    return fetch


def _decoded(path: str, size: int) -> np.ndarray:
    """Read one image of any mode as uint8 [S, S, 3]."""
    with Image.open(path) as image:
        # Large JPEGs are decoded at a fraction of their size, never below twice what is needed.
        image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return fitted(_as_rgb(image), size)


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
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
