"""LoTUS: large-scale unlearning with a taste of uncertainty."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.methods import about, method
from unlearnkit.methods.common import draw_retain, marked
from unlearnkit.metrics import predictions
from unlearnkit.training import Run
from unlearnkit.training.recipe import NotNegative, Share


@method("lotus", title="LoTUS", color="#AACC11", order=20, needs_validation=True)
@about(paper="Spartalis et al., CVPR 2025", published="α 8, AdamW, batches of 512, 10 epochs")
@about(
    needs_retain="30 %",
    passes="each epoch: forget for its accuracy; forget and 30 % of retain, shuffled together",
)
def lotus(
    run: Run, *, alpha: NotNegative = 8.0, retain_share: Share = 0.3, overshoot: NotNegative = 0.01
) -> None:
    """Smooth the original's predictions on the forget set until it looks as if never seen.

    Spartalis et al., *LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty* (CVPR
    2025). At the start of each epoch Δ is the student's accuracy on the forget set less the
    original's on the validation images, and the temperature exp(`alpha` Δ). Forget images have
    Gumbel-softmax targets from the frozen original's logits at that temperature, `retain_share` of
    the retain set, drawn at the start, its own labels; the loss is the cross-entropy with these.
    Once Δ is -`overshoot` or less nothing more is done. Logs `delta`, Δ in [-1, 1] at the start of
    the last epoch, and `epochs_trained`.
    """
    kept, forgotten = draw_retain(run, round(retain_share * len(run.retain_index))), marked(run)
    run.log["epochs_trained"] = 0
    unseen = accuracy(run, run.original, run.validation_index)
    for epoch in run.epochs():
        delta = run.log["delta"] = accuracy(run, run.model, run.forget_index) - unseen
        if delta <= -overshoot:
            continue
        run.log["epochs_trained"] = epoch + 1
        for index in run.order(torch.cat([run.forget_index, kept]), "mixed", epoch):
            images, labels = run.batch(index)
            smooth = F.gumbel_softmax(run.original_logits(images), math.exp(alpha * delta))
            sharp = F.one_hot(labels, run.data.num_classes).float()
            lost = forgotten[index].to(run.device)[:, None]
            run.step(F.cross_entropy(run.logits(images), torch.where(lost, smooth, sharp)))


def accuracy(run: Run, model: nn.Module, index: Tensor) -> float:
    """Return the share of the training images `index` that `model` gets right."""
    index = index.to(run.device)
    guess = predictions(model, run.data.train_images[index]).argmax(1)
    return (guess == run.data.train_labels[index].cpu()).double().mean().item()
