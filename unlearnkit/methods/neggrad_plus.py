"""NegGrad+: gradient ascent on the forget set, held in place by the retain set."""

from unlearnkit.methods import about, method
from unlearnkit.methods.common import forget_batches, retain_steps
from unlearnkit.training import Run
from unlearnkit.training.recipe import Share


@method("neggrad_plus", title="NegGrad+", color="#55CC44", order=10)
@about(paper="Kurmanji et al., NeurIPS 2023", published="β 0.95-0.999, SGD 0.01, 5-10 epochs")
@about(needs_retain="yes", passes="each epoch: retain, in each step a forget batch beside")
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
