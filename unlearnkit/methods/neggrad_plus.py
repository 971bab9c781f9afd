"""NegGrad+: gradient ascent on the forget set, held in place by the retain set."""

import torch
from torch import Tensor

from unlearnkit.methods import method
from unlearnkit.seeding import stream
from unlearnkit.training import Run
from unlearnkit.training.batches import batch_sizes
from unlearnkit.training.recipe import Share


@method(
    "neggrad_plus",
    title="NegGrad+",
    color="#55CC44",
    order=10,
    paper="Kurmanji et al., NeurIPS 2023",
    needs_retain="yes",
    passes="each epoch: retain, in each step a forget batch beside",
    published="β 0.95-0.999, SGD 0.01, 5-10 epochs",
)
def neggrad_plus(run: Run, *, beta: Share = 0.95) -> None:
    """Go down the cross-entropy of the retain set and up that of the forget set, in one step.

    Kurmanji et al., *Towards Unbounded Machine Unlearning* (NeurIPS 2023) describe it as a
    baseline: each step has a batch of either set, loss beta CE(retain) - (1 - beta) CE(forget). An
    epoch is a pass over the retain set, which it needs; the smaller forget set comes round again
    and again. With `beta` 1 it is CF. Logs nothing.
    """
    for epoch in run.epochs():
        lost = forget_batches(run, epoch, retain_steps(run))
        for (images, labels), index in zip(run.retain(epoch), lost, strict=True):
            loss = beta * run.cross_entropy(images, labels)
            run.step(loss - (1 - beta) * run.cross_entropy(*run.batch(index)))


def retain_steps(run: Run) -> int:
    """Return the number of batches of a pass over the retain set."""
    return len(batch_sizes(len(run.retain_index), run.recipe.batch_size))


def forget_batches(run: Run, epoch: int, count: int) -> tuple[Tensor, ...]:
    """Return `count` batches of the forget set, which is shuffled anew whenever it is through."""
    index, generator = run.forget_index, stream(run.seed, "order", "forget beside", epoch)
    size = min(run.recipe.batch_size, len(index))
    rounds = -(-count * size // len(index))
    shuffled = [index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[: count * size].split(size)
