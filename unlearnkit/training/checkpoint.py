"""The state of a training that was cut off."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from unlearnkit.files import set_aside
from unlearnkit.tensors import DamagedFile, load_tensors, save_tensors


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **facts: Any
) -> None:
    """Write model, optimiser and `facts` (JSON values) to `path`, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for entry, value in optimizer.state[parameter].items():
            if value is not None:
                tensors[f"optimizer/{index}/{entry}"] = value
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
    shapes = {name: value.shape for name, value in weights.items()}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    if facts.get("settings") != settings or shapes != wanted:
        set_aside(path, "the checkpoint of another training")
        return {}
    model.load_state_dict(weights)
    for name in tensors.keys() - {f"model/{name}" for name in weights}:
        _, index, entry = name.split("/")
        parameter, value = optimizer.param_groups[0]["params"][int(index)], tensors[name]
        if value.shape == parameter.shape:
            # Fused optimisers walk through memory: it has to lie as the parameter's does.
            value = torch.empty_like(parameter).copy_(value).detach()
        optimizer.state[parameter][entry] = value.to(parameter.device)
    return facts
