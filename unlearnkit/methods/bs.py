"""BS: Boundary Shrink."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods import about, method
from unlearnkit.training import Run
from unlearnkit.training.recipe import NotNegative


@method("bs", title="BS", color="#009E73", order=3, version=2)
@about(paper="Chen et al., CVPR 2023", published="SGD 1e-6 to 1e-5, 10 epochs")
@about(needs_retain="no", passes="each epoch: forget")
def boundary_shrink(
    run: Run,
    *,
    bound: NotNegative = 0.1,
    on_failure: Literal["keep", "runner-up", "skip"] = "keep",
    batch_norm: Literal["train", "eval"] = "train",
) -> None:
    """Train each forget image towards the class just across its nearest boundary.

    Chen et al., *Boundary Unlearning* (CVPR 2023). That class is the frozen original's prediction
    on a single-step FGSM image, found for each batch as it is trained on, mirrored and cropped.
    Only the forget set is used, so a large rate destroys the model.

    `bound` is the L-infinity size of the step in [0, 1] pixels. `on_failure` is for images that the
    original gets right even so: keep the true class and so re-learn the image (published), take the
    original's second guess, or leave the image out. `batch_norm` is "train" if the forget batches
    move the running statistics (published). Logs `hit_ratio`, the share of the forget images, over
    all epochs, that the original gets wrong under the attack, in [0, 1].
    """
    run.consults_original = True
    for epoch in run.epochs():
        if batch_norm == "eval":
            run.model.eval()
        hits = 0
        for images, true in run.forget(epoch):
            targets, hit = boundary_labels(run.original, images, true, bound, on_failure)
            hits = hits + hit.sum()
            if on_failure == "skip":
                images, targets = images[hit], targets[hit]
            if len(images) > 1:  # BatchNorm can do nothing with one
                run.step(run.cross_entropy(images, targets))
        share = float(hits) / len(run.forget_index)
        run.log["hit_ratio"] = (run.log.get("hit_ratio", 0.0) * epoch + share) / (epoch + 1)


def boundary_labels(
    original: nn.Module, images: Tensor, true: Tensor, bound: float, on_failure: str
) -> tuple[Tensor, Tensor]:
    """Return the target class [B] of each image, and whether the attack changed the guess [B].

    `original` is in evaluation mode, `images` are float [B, 3, H, W] in [0, 1], `true` int64 [B].
    """
    attacked = fgsm_image(original, images, true, bound)
    with torch.no_grad():
        guess = original(attacked).argmax(1)
        hit = guess != true
        if on_failure == "runner-up":
            others = original(images).scatter(1, true[:, None], float("-inf"))
            guess = torch.where(hit, guess, others.argmax(1))
    return guess, hit


def fgsm_image(model: nn.Module, images: Tensor, labels: Tensor, bound: float) -> Tensor:
    """Return single-step FGSM images on the 1/255 grid, within `bound` of `images` in [0, 1]."""
    images = images.detach().clone().requires_grad_(True)
    gradient = torch.autograd.grad(F.cross_entropy(model(images), labels), images)[0]
    moved = (images.detach() + bound * gradient.sign()).clamp(0, 1)
    # Rounded towards the clean image, itself on the grid, so never beyond the bound; the small
    # number keeps a whole step whole where float32 falls just short of it.
    steps = (moved - images.detach()) * 255
    steps = steps.sign() * (steps.abs() + 1e-3).floor()
    return ((images.detach() * 255).round() + steps).div(255)
