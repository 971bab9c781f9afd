"""MSG: masked small gradients."""

import torch
from torch import Tensor, nn

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.methods.cf import finetune
from unlearnkit.methods.common import draw_retain, loss_gradients
from unlearnkit.methods.ct import kernels
from unlearnkit.methods.salun import top_fraction
from unlearnkit.scopes import in_scope, trainable
from unlearnkit.seeding import stream
from unlearnkit.training import Run
from unlearnkit.training.recipe import Share


def layers(model: nn.Module) -> list[str]:
    """Return the names of the weights to choose from: those of convolutions in scope.

    Of linear layers in a model without convolutions beyond its stem; `UserError` if there are none.
    """
    kind = nn.Conv2d if kernels(model) else nn.Linear
    found = [f"{name}.weight" for name, m in model.named_modules() if isinstance(m, kind)]
    found = [name for name in found if in_scope(model, name)]
    if not found:
        raise UserError(f"method msg starts {kind.__name__} weights afresh; this scope has none")
    return found


@method("msg", title="MSG", color="#443366", order=16, check=layers)
@about(
    paper="Cadet et al. 2024, from the NeurIPS 2023 challenge",
    published="SGD 1e-3, batches of 64, 5 epochs, rate up for the first half, then down",
    needs_retain="yes",
    passes="once: forget and as many of retain, for the mask; each epoch: retain",
)
def masked_small_gradients(run: Run, *, fraction: Share = 0.3, others_scale: Share = 0.1) -> None:
    """Start afresh the weights on which retaining and forgetting agree most, then train on retain.

    An entry of the NeurIPS 2023 unlearning challenge, described by Cadet et al., *Deep Unlearn:
    Benchmarking Machine Unlearning for Image Classification* (2024). The gradients of CE on as many
    retain images as there are forget images and of -CE on the forget set are summed; in each
    convolution the `fraction` of weights with the smallest absolute sum is drawn anew (Kaiming, fan
    out). All other weights then learn with gradients times `others_scale`, which Adam would undo.
    It needs the retain set. A transformer's linear layers take the place of convolutions: our
    extension. With `fraction` 0 and `others_scale` 1 it is CF. Logs nothing.
    """
    masks = smallest(run, fraction)

    def scale() -> None:
        for name, parameter in trainable(run.model):
            if name in masks:
                parameter.grad.mul_(torch.where(masks[name], 1, others_scale))
            elif parameter.grad is not None:
                parameter.grad.mul_(others_scale)

    with torch.no_grad():
        for name, mask in masks.items() if run.recipe.epochs else ():
            weight = run.model.get_parameter(name)
            how = {"mode": "fan_out", "generator": stream(run.seed, "fresh", name)}
            fresh = nn.init.kaiming_normal_(torch.empty(weight.shape), **how)
            weight.copy_(torch.where(mask, fresh.to(weight.device), weight))
    run.before_step.append(scale)
    finetune(run)


def smallest(run: Run, fraction: float) -> dict[str, Tensor]:
    """Return for each layer a mask of the weights with the smallest summed gradients, by rank."""
    total = {name: torch.zeros_like(run.model.get_parameter(name)) for name in layers(run.model)}
    parts = {1: draw_retain(run, len(run.forget_index)), -1: run.forget_index}
    for sign, index in parts.items():
        for gradients in loss_gradients(run, index.split(run.recipe.batch_size)):
            for name in total:
                total[name] += sign * gradients[name]
    return {n: top_fraction({n: -value.abs()}, fraction)[n] for n, value in total.items()}
