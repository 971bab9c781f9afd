"""The state of a training that was cut off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.files import set_aside
from unlearnkit.tensors import DamagedFile, load_tensors, save_tensors


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write model, optimiser and `facts` (JSON values) to `path`, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
    save_tensors(path, tensors, **facts)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: str
) -> dict[str, Any]:
    """Put the state in `path` into model and optimiser; return the facts saved with it.

    Without a file {} is returned: the training starts at its beginning. So too where the file is
    damaged, or its fact "settings" is not `settings`: it is set aside then, with a warning.
    """
    try:
        tensors, facts = load_tensors(path)
    except FileNotFoundError:
        return {}
    except DamagedFile as error:
        set_aside(path, f"no usable checkpoint: {error}")
        return {}
    weights = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
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
