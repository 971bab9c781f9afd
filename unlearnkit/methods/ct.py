"""CT: convolution transpose."""

import torch
from torch import nn

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.methods.cf import finetune
from unlearnkit.scopes import depths, in_scope
from unlearnkit.training import Run


def kernels(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions with kernels above 1x1, by name; none for a transformer.

    A transformer's only ones embed its patches, in the stem.
    """
    depth = depths(model)
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    found = {name: module for name, module in found.items() if max(module.kernel_size) > 1}
    return found if any(depth[f"{name}.weight"] for name in found) else {}


def check(model: nn.Module) -> None:
    """Refuse a model whose kernels cannot be turned, or a scope without any."""
    if not (found := kernels(model)):
        what = "this model has none beyond its stem, as transformers"
        raise UserError(f"method ct turns convolution kernels; {what}: use another method")
    if any(module.kernel_size[0] != module.kernel_size[1] for module in found.values()):
        raise UserError("method ct turns convolution kernels, which have to be square")
    if not any(in_scope(model, f"{name}.weight") for name in found):
        raise UserError("method ct turns convolution kernels; this scope has none above 1x1")


@method("ct", title="CT", color="#EEAA88", order=17, check=check)
@about(
    paper="Cadet et al. 2024, from the NeurIPS 2023 challenge",
    published="SGD 1e-3, 3 epochs, cosine",
)
@about(needs_retain="yes", passes="each epoch: retain")
def convolution_transpose(run: Run) -> None:
    """Swap height and width of every convolution kernel, then train on the retain set.

    An entry of the NeurIPS 2023 unlearning challenge, described by Cadet et al., *Deep Unlearn:
    Benchmarking Machine Unlearning for Image Classification* (2024). It needs the retain set and no
    other. Kernels outside the scope stay. Undefined, and refused, for a transformer and for kernels
    that are not square. Logs nothing.
    """
    with torch.no_grad():
        for name, module in kernels(run.model).items() if run.recipe.epochs else ():
            if in_scope(run.model, f"{name}.weight"):
                module.weight.copy_(module.weight.transpose(2, 3).clone())
    finetune(run)
