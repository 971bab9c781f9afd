"""SSD: selective synaptic dampening, without any training."""

import torch

from unlearnkit.methods import about, method
from unlearnkit.methods.common import fisher
from unlearnkit.scopes import trainable
from unlearnkit.training import Run
from unlearnkit.training.batches import batch_sizes
from unlearnkit.training.recipe import NotNegative, Positive


@method("ssd", title="SSD", color="#770000", order=14)
@about(paper="Foster et al., AAAI 2024", published="α 10, λ 1 (ResNet-18); α 5-10 (ViT)")
@about(needs_retain="statistics", passes="once: all for importances, forget for importances")
def selective_synaptic_dampening(
    run: Run, *, alpha: Positive = 10.0, dampening: NotNegative = 1.0
) -> None:
    """Shrink the weights that matter much more to the forget set than to all training images.

    Foster et al., *Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening*
    (AAAI 2024): where a weight's importance to the forget set is more than `alpha` times that to
    all, it is multiplied by min(`dampening` * all / forget, 1). Of the retain set only importances
    are needed, which can be kept from training. Nothing is trained: the recipe's `batch_size`
    counts, see `fisher` (batches of both sets are of a size, since larger ones have smaller
    gradients); `epochs` only has to be above 0. Logs `dampened`, the share of weights shrunk.
    """
    whole = torch.cat([run.forget_index, run.retain_index])
    size = max(batch_sizes(len(run.forget_index), run.recipe.batch_size))
    for epoch in run.epochs():
        if epoch > 0:
            continue
        known = fisher(run, run.order(whole, "all", epoch, size))
        lost = fisher(run, run.order(run.forget_index, "forget", epoch, size))
        chosen = {name: lost[name] > alpha * known[name] for name in lost}
        with torch.no_grad():
            for name, parameter in trainable(run.model):
                factor = (dampening * known[name] / lost[name]).clamp(max=1)
                parameter.copy_(torch.where(chosen[name], factor * parameter, parameter))
        shrunk = torch.cat([mask.flatten() for mask in chosen.values()])
        run.log["dampened"] = shrunk.double().mean().item()
