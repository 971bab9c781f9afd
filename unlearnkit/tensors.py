"""Named tensors on disk: safetensors with a checksum, no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unlearnkit.errors import Unreadable
from unlearnkit.files import write_atomic


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **meta: Any) -> None:
    """Write `tensors` and `meta` (JSON values) to `path` as `write_atomic` does."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(meta)
    write_atomic(path, save(whole, {"meta": text, "checksum": _checksum(whole, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors [on the CPU] and the meta values that `save_tensors` wrote to `path`.

    `FileNotFoundError` if there is nothing, `Unreadable` if it is not what was written there.
    """
    if path.exists() and not path.is_file():  # a named pipe would never end
        raise Unreadable("not a plain file")
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise Unreadable(f"damaged ({type(error).__name__})") from None
    text = head.get("meta", "")  # none in a file of an earlier version of this package
    if not text or head.get("checksum") != _checksum(tensors, text):
        raise Unreadable("damaged: its checksum does not fit")
    return tensors, json.loads(text)


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
