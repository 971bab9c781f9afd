"""The state of a training that was interrupted, in the run's `state_file`."""

from typing import Any

import torch

from unlearnkit.errors import Unreadable
from unlearnkit.files import set_aside
from unlearnkit.tensors import load_tensors, save_tensors


def save_state(run: Any, done: int) -> None:
    """Write the run's state after `done` epochs, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in run.model.state_dict().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        entries = {entry: value for entry, value in state.items() if value is not None}
        tensors |= {f"optimizer/{index}/{entry}": value for entry, value in entries.items()}
    facts = {"settings": _settings(run), "done": done, "log": run.log, "seconds": run.seconds}
    save_tensors(run.state_file, tensors, **facts, activations=run.activations)


def load_state(run: Any) -> int:
    """Take up what an earlier run left; return the number of epochs it did, 0 without a file.

    A file that is damaged, or another training's, is set aside with a warning.
    """
    try:
        tensors, facts = load_tensors(run.state_file)
        if facts.get("settings") != _settings(run):
            raise Unreadable("it is of another training")
    except FileNotFoundError:
        return 0
    except Unreadable as error:
        set_aside(run.state_file, f"no usable checkpoint: {error}")
        return 0
    model, optimizer = run.model, run.optimizer
    model.load_state_dict({name: tensors.pop(f"model/{name}") for name in model.state_dict()})
    for name, value in tensors.items():
        _, index, entry = name.split("/")
        parameter = optimizer.param_groups[0]["params"][int(index)]
        if value.shape == parameter.shape:
            # Fused optimisers walk through memory: it has to lie as the parameter's does.
            value = torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][entry] = value.to(parameter.device)
    run.log.update(facts["log"])
    run.activations, run.earlier_seconds = facts["activations"], facts["seconds"]
    return facts["done"]


def _settings(run: Any) -> str:
    """Return what a saved state must agree in; the file's name has the result's key in it."""
    shapes = [tuple(value.shape) for value in run.model.state_dict().values()]
    told = (run.state_file.name, run.name, run.recipe, run.options, run.seed, shapes)
    return " ".join(map(str, told))
