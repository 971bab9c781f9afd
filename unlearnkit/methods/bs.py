"""BS: Boundary Shrink."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearnkit.methods import method
from unlearnkit.training import Run, cut
from unlearnkit.training.recipe import NotNegative


@method("bs", title="BS", color="#009E73", order=3)
def boundary_shrink(
    run: Run,
    *,
    bound: NotNegative = 0.1,
    on_failure: Literal["keep", "runner-up", "skip"] = "keep",
    batch_norm: Literal["train", "eval"] = "train",
) -> None:
    """Train each clean forget image towards the class just across its nearest boundary.

    Chen et al., *Boundary Unlearning* (CVPR 2023). That class is the frozen original's prediction
    on a single-step FGSM image. Only the forget set is used, so a large rate destroys the model.

    Options
    -------
    bound : float
        L-infinity size of the FGSM step in [0, 1] pixels; published 0.1.
    on_failure : "keep", "runner-up" or "skip"
        Where the original stays right under the attack: keep the true class and so re-learn the
        image (the published form), take the original's second guess, or leave the image out.
    batch_norm : "train" or "eval"
        Whether the forget batches move the running statistics (the published form) or not.

    Log
    ---
    hit_ratio : share of the forget set that the original gets wrong under the attack, in [0, 1]
    """
    targets, hit = boundary_labels(run, bound, on_failure)
    run.log["hit_ratio"] = hit.float().mean().item()
    index_set = run.forget_index
    if on_failure == "skip":
        index_set = index_set[hit]
    labels = run.labels.clone()
    labels[run.forget_index.to(labels.device)] = targets
    for epoch in run.epochs():
        if batch_norm == "eval":
            run.model.eval()
        for index in run.order(index_set, "forget", epoch):
            images, _ = run.batch(index)
            run.step(run.cross_entropy(images, labels[index.to(labels.device)]))


def boundary_labels(run: Run, bound: float, on_failure: str) -> tuple[Tensor, Tensor]:
    """Return the target class [F] of each forget image, and whether it differs from its own [F].

    The attacked images are the clean ones, so each label is found once, not once an epoch.
    """
    targets, hits = [], []
    for index in run.forget_index.split(run.recipe.batch_size):
        images = cut(run.images, index, crop=0, flip=False, generator=None)
        true = run.labels[index.to(run.device)]
        guess = adversarial_logits(run.original, images, true, bound).argmax(1)
        hit = guess != true
        if on_failure == "runner-up":
            with torch.no_grad():
                others = run.original(images).scatter(1, true[:, None], float("-inf"))
            guess = torch.where(hit, guess, others.argmax(1))
        targets.append(guess)
        hits.append(hit.cpu())
    return torch.cat(targets), torch.cat(hits)


def fgsm_image(model: torch.nn.Module, images: Tensor, labels: Tensor, bound: float) -> Tensor:
    """Return single-step FGSM images on the 1/255 grid, within `bound` of `images` in [0, 1]."""
    images = images.detach().clone().requires_grad_(True)
    gradient = torch.autograd.grad(F.cross_entropy(model(images), labels), images)[0]
    moved = (images.detach() + bound * gradient.sign()).clamp(0, 1)
    # Rounded towards the clean image, itself on the grid, so never beyond the bound; the small
    # number keeps a whole step whole where float32 falls just short of it.
    steps = (moved - images.detach()) * 255
    steps = steps.sign() * (steps.abs() + 1e-3).floor()
    return ((images.detach() * 255).round() + steps).div(255)


def adversarial_logits(
    model: torch.nn.Module, images: Tensor, labels: Tensor, bound: float
) -> Tensor:
    """Return the frozen model's logits [B, C] on the FGSM images."""
    attacked = fgsm_image(model, images, labels, bound)
    with torch.no_grad():
        return model(attacked)
