"""DELETE: decoupled distillation to erase."""

from unlearnkit.methods import about, method
from unlearnkit.methods.common import divergence
from unlearnkit.training import Run


@method("delete", title="DELETE", color="#FF3366", order=15)
@about(
    paper="Zhou et al., CVPR 2025",
    published="SGD 1e-4 (ResNet-18), 5e-5 (ViT-S), 20 epochs, batches of 128",
)
@about(needs_retain="no", passes="each epoch: forget")
def delete(run: Run) -> None:
    """Teach each forget image what the original thinks of it, its own class left out.

    Zhou et al., *Decoupled Distillation to Erase* (CVPR 2025): the target is the softmax of the
    frozen original's logits, that of the true class at -1e10; the loss is KL(target || student).
    Only the forget set is used. Logs nothing.
    """
    for epoch in run.epochs():
        for images, labels in run.forget(epoch):
            others = run.original_logits(images).scatter(1, labels[:, None], -1e10)
            run.step(divergence(others.softmax(1), run.logits(images)))
