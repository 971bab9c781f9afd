"""What several methods share: draws of images, gradients, a divergence."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearnkit.seeding import stream
from unlearnkit.training import Run
from unlearnkit.training.batches import batch_sizes


def draw_retain(run: Run, count: int) -> Tensor:
    """Return `count` of the retain set's indices, or all if it has fewer, drawn by the seed."""
    generator = stream(run.seed, "part of retain")
    return run.retain_index[torch.randperm(len(run.retain_index), generator=generator)[:count]]


def marked(run: Run) -> Tensor:
    """Return a bool for each training image: whether it is to be forgotten."""
    forgotten = torch.zeros(len(run.data.train_labels), dtype=torch.bool)
    forgotten[run.forget_index] = True
    return forgotten


def retain_steps(run: Run) -> int:
    """Return the number of batches of a pass over the retain set."""
    return len(batch_sizes(len(run.retain_index), run.recipe.batch_size))


def forget_batches(run: Run, epoch: int, count: int) -> tuple[Tensor, ...]:
    """Return `count` batches of the forget set, which is shuffled again after each pass."""
    index, generator = run.forget_index, stream(run.seed, "order", "forget beside", epoch)
    size = min(run.recipe.batch_size, len(index))
    rounds = -(-count * size // len(index))
    shuffled = [index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[: count * size].split(size)


def loss_gradients(run: Run, batches: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the mean cross-entropy's gradients for each batch of plain images, in eval mode."""
    run.model.eval()
    for index in batches:
        images, labels = run.batch(index, augment=False)
        yield run.gradients(F.cross_entropy(run.model(images), labels))


def fisher(run: Run, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return each weight's diagonal Fisher information, of the trained parameters by name.

    That is the mean over `batches` of the squared gradient of the batch's loss, as in the authors'
    code: with batches of one image it is the diagonal of the empirical Fisher matrix.
    """
    total: dict[str, Tensor] = {}
    for count, gradients in enumerate(loss_gradients(run, batches), 1):
        for name, gradient in gradients.items():
            mean = total.setdefault(name, torch.zeros_like(gradient))
            mean += (gradient.square() - mean) / count
    return total


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """Return KL(target || softmax(logits)), both [B, C], averaged over the batch."""
    return F.kl_div(F.log_softmax(logits, 1), target, reduction="batchmean")
