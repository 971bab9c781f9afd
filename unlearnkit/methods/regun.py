"""ReGUn: reference-guided unlearning."""

import torch
from torch import Tensor

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.methods.common import divergence, forget_batches, retain_steps
from unlearnkit.metrics import predictions
from unlearnkit.seeding import stream
from unlearnkit.training import Run
from unlearnkit.training.recipe import NotNegative


@method("regun", title="ReGUn", color="#AABB99", order=21, needs_validation=True)
@about(paper="Mirlach et al., ICLR 2026", published="not known to us")
@about(
    needs_retain="yes",
    passes="once: validation; each epoch: retain, in each step a forget batch beside",
)
def reference_guided(run: Run, *, weight: NotNegative = 1.0) -> None:
    """Teach the forget images what the original thinks of images it has never seen.

    Mirlach et al., *Reference-Guided Machine Unlearning* (2026). Each step has a batch of either
    set: cross-entropy on the retain batch, and `weight` KL(target || student) on the forget batch.
    The target, one for the batch, is the mean of the frozen original's softmax over as many
    validation images as the batch has of each class, taken again where there are too few. How the
    two sets take turns, and `weight`, are our guess. It needs the retain set; with `weight` 0 it is
    CF. Logs nothing.
    """
    labels = run.data.train_labels.cpu()[run.validation_index]
    lacking = set(run.data.train_labels.cpu()[run.forget_index].tolist()) - set(labels.tolist())
    if lacking:
        raise UserError(f"method regun needs validation images of class {min(lacking)} as well")
    unseen = run.data.train_images[run.validation_index.to(run.device)]
    reference = predictions(run.original, unseen).softmax(1).to(run.device)
    for epoch in run.epochs():
        generator = stream(run.seed, "reference", epoch)
        lost = forget_batches(run, epoch, retain_steps(run))
        for retained, index in zip(run.retain(epoch), lost, strict=True):
            images, true = run.batch(index)
            chosen = alike(labels, true.cpu(), generator).to(run.device)
            target = reference[chosen].mean(0).expand(len(images), -1)
            loss = run.cross_entropy(*retained)
            run.step(loss + weight * divergence(target, run.logits(images)))


def alike(labels: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """Return positions in `labels` with as many of each class as `wanted`, drawn at random."""
    chosen = []
    for label, count in enumerate(torch.bincount(wanted).tolist()):
        members = (labels == label).nonzero().flatten()
        if count:
            shuffled = members[torch.randperm(len(members), generator=generator)]
            chosen.append(shuffled[torch.arange(count) % len(members)])
    return torch.cat(chosen)
