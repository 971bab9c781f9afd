"""GA: gradient ascent, the simplest baseline (NegGrad)."""

from unlearnkit.methods import about, method
from unlearnkit.training import Run


@method("ga", title="GA", color="#7A5C00", order=7)
@about(paper="Golatkar et al., CVPR 2020", published="SGD 1e-4, 5 epochs")
@about(needs_retain="no", passes="each epoch: forget")
def gradient_ascent(run: Run) -> None:
    """Climb the cross-entropy on the forget set; nothing holds the retain set in place.

    Golatkar et al., *Eternal Sunshine of the Spotless Net* (CVPR 2020) describe it as a baseline.
    """
    for epoch in run.epochs():
        for images, labels in run.forget(epoch):
            run.step(-run.cross_entropy(images, labels))
