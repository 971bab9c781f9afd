"""SalUn: saliency unlearning, random labels on the weights that matter to the forget set."""

import torch
from torch import Tensor

from unlearnkit.methods import about, method
from unlearnkit.methods.common import loss_gradients
from unlearnkit.methods.rl import Draws, Passes, random_labels
from unlearnkit.scopes import trainable
from unlearnkit.training import Run
from unlearnkit.training.recipe import Share


@method("salun", title="SalUn", color="#CC79A7", order=6)
@about(paper="Fan et al., ICLR 2024", published="SGD 5e-3 to 0.013, mask 0.5, 10 epochs")
@about(needs_retain="yes", passes="once: forget, for the mask; each epoch: forget, then retain")
def saliency_unlearning(
    run: Run,
    *,
    mask_fraction: Share = 0.5,
    leak_compat: bool = False,
    labels_drawn: Draws = "batch",
    exclude_true: bool = False,
    passes: Passes = "in turn",
) -> None:
    """Do random labels, changing only the weights with the largest forget gradient.

    Fan et al., *SalUn* (ICLR 2024). The mask is ranked once, on the original, over all trainable
    parameters together, those of the normalisation layers included; running statistics are free.

    `mask_fraction` is the share of the weights that may change, published 0.5. `leak_compat` masks
    the gradient alone, as the published numbers did: weight decay and momentum then still move the
    masked weights, which otherwise stay bit-identical, as with the authors' fix of 2026. The other
    options are RL's. Logs `mask_density/NAME`, the share that may change in each group of layers.
    """
    masks = top_fraction(saliency(run), mask_fraction)
    for group, density in densities(masks).items():
        run.log[f"mask_density/{group}"] = density
    hold(run, masks, leak_compat)
    random_labels(run, labels_drawn=labels_drawn, exclude_true=exclude_true, passes=passes)


def saliency(run: Run) -> dict[str, Tensor]:
    """Return |sum over the forget set of the loss gradient| of each parameter, in eval mode."""
    total = {name: torch.zeros_like(parameter) for name, parameter in trainable(run.model)}
    for gradients in loss_gradients(run, run.forget_index.split(run.recipe.batch_size)):
        for name, gradient in gradients.items():
            total[name] += gradient
    return {name: value.abs() for name, value in total.items()}


def top_fraction(scores: dict[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Return masks that are True for exactly round(fraction * count) of all weights, by rank."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    keep = torch.zeros_like(flat, dtype=torch.bool)
    # A stable sort, so that ties fall the same way on every device.
    order = torch.argsort(flat, descending=True, stable=True)
    keep[order[: round(fraction * len(flat))]] = True
    parts = keep.split([score.numel() for score in scores.values()])
    return {n: part.view_as(scores[n]) for n, part in zip(scores, parts, strict=True)}


def densities(masks: dict[str, Tensor]) -> dict[str, float]:
    """Return the share of True weights per group of layers, e.g. 'layer3' or 'blocks.1'."""
    groups: dict[str, list[Tensor]] = {}
    for name, mask in masks.items():
        parts = name.removeprefix("net.").split(".")
        group = ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]
        groups.setdefault(group, []).append(mask.flatten())
    return {group: torch.cat(parts).float().mean().item() for group, parts in groups.items()}


def hold(run: Run, masks: dict[str, Tensor], leak: bool) -> None:
    """Make the run hold masked weights: their gradient before a step, with momentum after it."""
    held = [
        (parameter, masks[name], parameter.detach().clone())
        for name, parameter in trainable(run.model)
        if not masks[name].all()
    ]

    def mask_gradients() -> None:
        for parameter, mask, _ in held:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def restore() -> None:
        for parameter, mask, start in held:
            parameter.copy_(torch.where(mask, parameter, start))
            for value in run.optimizer.state[parameter].values():
                if torch.is_tensor(value) and value.shape == mask.shape:
                    value.mul_(mask)

    run.before_step.append(mask_gradients)
    if not leak:
        run.after_step.append(restore)
