"""Bad Teacher: one competent teacher, one that knows nothing."""

import torch

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.methods.common import divergence, draw_retain, marked
from unlearnkit.training import Run
from unlearnkit.training.recipe import Share


@method("bad_teacher", title="Bad Teacher", color="#DD77FF", order=13)
@about(paper="Chundawat et al., AAAI 2023", published="Adam 1e-4, 1-4 epochs")
@about(needs_retain="30 %", passes="each epoch: forget and 30 % of retain, shuffled together")
def bad_teacher(run: Run, *, retain_share: Share = 0.3) -> None:
    """Follow an untrained network on the forget set, the original on a part of the retain set.

    Chundawat et al., *Can Bad Teaching Induce Forgetting?* (AAAI 2023): both sets are shuffled into
    one, the loss is KL(teacher || student) at temperature 1, averaged over the images (the authors'
    code divides by the number of classes as well). `retain_share` of the retain set is drawn at the
    start. The untrained teacher is in training mode, which is ours: with BatchNorms that know of no
    images yet, in evaluation mode, a deep ResNet is sure of one class for all. Logs nothing.
    """
    if run.fresh is None:
        raise UserError("method bad_teacher needs `fresh`, which builds an untrained model")
    bad = run.fresh().to(run.device).train()
    kept = draw_retain(run, round(retain_share * len(run.retain_index)))
    forgotten = marked(run)
    for epoch in run.epochs():
        for index in run.order(torch.cat([run.forget_index, kept]), "mixed", epoch):
            images, _ = run.batch(index)
            with torch.no_grad():
                wrong = bad(images).float()
            lost = forgotten[index].to(run.device)[:, None]
            target = torch.where(lost, wrong, run.original_logits(images)).softmax(1)
            run.step(divergence(target, run.logits(images)))
