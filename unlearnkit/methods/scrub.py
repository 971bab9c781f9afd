"""SCRUB: a student that obeys its teacher selectively."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearnkit.methods import about, method
from unlearnkit.scopes import trainable
from unlearnkit.seeding import stream
from unlearnkit.training import Run
from unlearnkit.training.recipe import Count, NotNegative, Positive, Size


@method("scrub", title="SCRUB", color="#D55E00", order=5)
@about(
    paper="Kurmanji et al., NeurIPS 2023",
    published="SGD 5e-4, γ 0.99, α 0.001, T 4, msteps 2, 3 epochs",
)
@about(needs_retain="yes", passes="each epoch: forget in the first `msteps`, then retain")
def scrub(
    run: Run,
    *,
    alpha: NotNegative = 0.001,
    gamma: NotNegative = 0.99,
    temperature: Positive = 4.0,
    msteps: Count = 2,
    forget_batch_size: Size = 512,
    jitter: NotNegative = 1e-3,
) -> None:
    """Drive the student away from the frozen original on the forget set, back on the retain set.

    Kurmanji et al., *Towards Unbounded Machine Unlearning* (NeurIPS 2023). Each of the first
    `msteps` epochs starts with a *max* pass over the forget set in batches of `forget_batch_size`,
    loss -T^2 KL(teacher || student) at `temperature` T; every epoch ends with a *min* pass over the
    retain set, gamma CE + alpha T^2 KL. Logs `max_steps`, the number of steps of the max passes.

    `jitter` is the relative size of a Gaussian push given to the weights at the start, 0 for the
    published form. Student and teacher start equal, where the divergence has no gradient: BatchNorm
    in training mode tells them apart, but a ViT without dropout would stay where it is.
    """
    push(run, jitter)
    batches = math.ceil(len(run.forget_index) / forget_batch_size)
    run.log["max_steps"] = min(msteps, run.recipe.epochs) * batches
    for epoch in run.epochs():
        if epoch < msteps:
            for images, _ in run.forget(epoch, forget_batch_size):
                run.step(-divergence(run, images, run.logits(images), temperature))
        for images, labels in run.retain(epoch):
            logits = run.logits(images)
            loss = gamma * F.cross_entropy(logits, labels)
            run.step(loss + alpha * divergence(run, images, logits, temperature))


def divergence(run: Run, images: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student), summed over classes and averaged over the batch."""
    teacher = F.log_softmax(run.original_logits(images) / temperature, 1)
    student = F.log_softmax(logits / temperature, 1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@torch.no_grad()
def push(run: Run, jitter: float) -> None:
    """Move each trainable tensor by Gaussian noise of `jitter` times its own standard deviation."""
    if jitter == 0 or run.recipe.epochs == 0:
        return
    generator = stream(run.seed, "jitter")
    for _, parameter in trainable(run.model):
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
        parameter.add_(jitter * spread * noise)
