"""SFR-on: saliency forgetting in the geometry that the retain set leaves."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from unlearnkit.methods import about, method
from unlearnkit.methods.common import draw_retain, fisher, forget_batches, retain_steps
from unlearnkit.scopes import trainable
from unlearnkit.training import Run
from unlearnkit.training.recipe import NotNegative, Positive, Size


@method("sfr_on", title="SFR-on", color="#BBAAFF", order=19)
@about(
    paper="Huang et al., NeurIPS 2024",
    published="1,500 steps, SGD 0.01, batches of 128, weight 25, clipped at 7",
    needs_retain="yes",
    passes="once: forget and retain, for the mask; each epoch: retain, a forget batch per 5 steps",
)
def sfr_on(
    run: Run,
    *,
    weight: NotNegative = 25.0,
    exponent: NotNegative = 0.5,
    threshold: NotNegative = 1.0,
    every: Size = 5,
    max_norm: Positive = 7.0,
) -> None:
    """Climb the forget loss where it matters more than the retain loss, and mend on retain.

    Huang et al., *Unified Gradient-Based Machine Unlearning with Remain Geometry Enhancement*
    (NeurIPS 2024). Every step is one down the retain set's cross-entropy; before `every` fifth
    comes one up the sum of w CE over a forget batch, w proportional to CE to the minus `exponent`
    with sum 1, times `weight`, which falls to 0 along half a cosine. That step's gradient is kept
    only where the forget set's Fisher information is at least `threshold` times the retain set's
    (see `fisher`), then clipped to a norm of `max_norm`. It needs the retain set. The published
    moving average of the weights does nothing as configured, and is left out. Logs `mask_density`,
    the share of the weights that the ascent may move.
    """
    shuffled, size = draw_retain(run, len(run.retain_index)), run.recipe.batch_size
    kept, lost = fisher(run, shuffled.split(size)), fisher(run, run.forget_index.split(size))
    masks = {name: lost[name] >= threshold * kept[name] for name in lost}
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    run.log["mask_density"] = flat.double().mean().item()

    def guard() -> None:
        for name, parameter in trainable(run.model):
            if parameter.grad is not None:
                parameter.grad.mul_(masks[name])
        nn.utils.clip_grad_norm_(run.model.parameters(), max_norm)

    steps = retain_steps(run)
    for epoch in run.epochs():
        batches = iter(forget_batches(run, epoch, -(-steps // every)))
        for number, (images, labels) in enumerate(run.retain(epoch), epoch * steps):
            if number % every == 0:
                lost_images, true = run.batch(next(batches))
                losses = F.cross_entropy(run.logits(lost_images), true, reduction="none")
                share = losses.detach().clamp_min(1e-8) ** -exponent
                along = math.cos(math.pi * number / (steps * run.recipe.epochs))
                run.before_step.append(guard)
                run.step(-weight * (1 + along) / 2 * (share / share.sum() * losses).sum())
                run.before_step.remove(guard)
            run.step(run.cross_entropy(images, labels))
