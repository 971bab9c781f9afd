"""CF: catastrophic forgetting, also called fine-tuning."""

from unlearnkit.methods import about, method
from unlearnkit.training import Run


@method("cf", title="CF", color="#56B4E9", order=2)
@about(paper="Goel et al. 2022; Golatkar et al., CVPR 2020", published="SGD 0.01, 10 epochs")
@about(needs_retain="yes", passes="each epoch: retain")
def finetune(run: Run) -> None:
    """Go on training on the retain set alone, and trust that the rest is forgotten.

    Under a scope this is CF-k of Goel et al., *Towards Adversarial Evaluations for Inexact Machine
    Unlearning* (2022).
    """
    for epoch in run.epochs():
        for images, labels in run.retain(epoch):
            run.step(run.cross_entropy(images, labels))
