"""The state of a training that was cut off: safetensors, no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unlearnkit.files import set_aside, write_atomic
from unlearnkit.tensors import tensor_checksum


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write model, optimiser and `facts` (JSON values) to `path`, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(facts)
    write_atomic(path, save(tensors, {"facts": text, "checksum": _checksum(tensors, text)}))


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: str
) -> dict[str, Any]:
    """Put the state in `path` into model and optimiser; return the facts saved with it.

    A file that is damaged, or whose fact "settings" is not `settings`, is set aside with a
    warning; nothing is changed then, and {} is returned: the training starts over.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        set_aside(path, f"an unusable checkpoint ({error.__class__.__name__})")
        return {}
    if meta.get("checksum") != _checksum(tensors, meta.get("facts", "")):
        set_aside(path, "a damaged checkpoint")
        return {}
    facts = json.loads(meta["facts"])
    weights = {n[6:]: value for n, value in tensors.items() if n.startswith("model/")}
    if facts.get("settings") != settings or _shapes(weights) != _shapes(model.state_dict()):
        set_aside(path, "the checkpoint of another training")
        return {}
    model.load_state_dict(weights)
    _load_optimizer(optimizer, tensors)
    return facts


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, entry = name.split("/")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # Fused optimisers walk through memory: it has to lie as the parameter's does.
                value = torch.empty_like(parameter).copy_(value).detach()
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.sha256((tensor_checksum(tensors) + text).encode()).hexdigest()
