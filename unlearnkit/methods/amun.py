"""AMUN: adversarial machine unlearning."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods import about, method
from unlearnkit.training import Run
from unlearnkit.training.recipe import Positive, Size


@method("amun", title="AMUN", color="#DD1199", order=18)
@about(
    paper="Ebrahimpour-Boroojeny et al., ICML 2025",
    published="ε from 0.04, SGD 0.01, times 0.1 every epoch or five, 10 epochs",
    needs_retain="option",
    passes="once: forget, attacked; each epoch: retain, the attacked images among it",
)
def adversarial_unlearning(
    run: Run,
    *,
    beside: Literal["retain", "all", "forget"] = "retain",
    first_radius: Positive = 0.04,
    steps: Size = 50,
) -> None:
    """Train on each forget image's nearest adversarial one, with the wrong class it is taken for.

    Ebrahimpour-Boroojeny et al., *Not All Wrong is Bad: Using Adversarial Examples for Unlearning*
    (ICML 2025). The images, see `nearest`, are made once on the frozen original, and neither
    cropped nor mirrored. They are shuffled with those `beside` them: the retain set, all training
    images, or the forget set, where there is no other. The published steps down in the rate are
    left to the recipe's `schedule`. Logs `hit_ratio`, the share of forget images that were
    misled (the others keep their class), and `distance`, the mean L2 distance in [0, 1] pixels.
    """
    run.consults_original = True
    images, labels = run.batch(run.forget_index, augment=False)
    size = run.recipe.batch_size
    pairs = zip(images.split(size), labels.split(size), strict=True)
    attacked = torch.cat([nearest(run.original, *pair, first_radius, steps) for pair in pairs])
    with torch.no_grad():
        wrong = torch.cat([run.original(part).argmax(1) for part in attacked.split(size)])
    run.log["hit_ratio"] = (wrong != labels).double().mean().item()
    run.log["distance"] = (attacked - images).flatten(1).norm(dim=1).mean().item()

    retain, forget = run.retain_index, run.forget_index
    parts = {"retain": [retain], "forget": [forget], "all": [retain, forget]}[beside]
    first = len(run.data.train_labels)  # the attacked images are counted from here
    mixed = torch.cat([*parts, torch.arange(first, first + len(attacked))])
    for epoch in run.epochs():
        for index in run.order(mixed, "mixed", epoch):
            images, labels = run.batch(index[index < first])
            chosen = (index[index >= first] - first).to(run.device)
            images = torch.cat([images, attacked[chosen]])
            run.step(run.cross_entropy(images, torch.cat([labels, wrong[chosen]])))


def nearest(model: nn.Module, images: Tensor, labels: Tensor, radius: float, steps: int) -> Tensor:
    """Return L2 adversarial images [B, 3, H, W] in [0, 1] that `model` gets wrong, close by.

    By projected gradient ascent on the cross-entropy from the image itself, `steps` of a tenth of
    `radius`; for those still right the radius is doubled, as long as the cube of pixels is wider.
    """
    found, left = images.clone(), torch.arange(len(images), device=images.device)
    while radius < 2 * math.sqrt(images[0].numel()):
        with torch.no_grad():
            left = left[model(found[left]).argmax(1) == labels[left]]
        if not len(left):
            break
        start = moved = images[left]
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            gradient = torch.autograd.grad(F.cross_entropy(model(moved), labels[left]), moved)[0]
            step = F.normalize(gradient.flatten(1)).view_as(start) * radius / 10
            away = moved.detach() + step - start
            shrink = (radius / away.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp(max=1)
            moved = (start + away * shrink[:, None, None, None]).clamp(0, 1)
        found[left], radius = moved, 2 * radius
    return found
