"""ℓ1-sparse: fine-tuning that prunes."""

from unlearnkit.methods import about, method
from unlearnkit.scopes import trainable
from unlearnkit.training import Run
from unlearnkit.training.recipe import NotNegative


@method("l1_sparse", title="ℓ1-sparse", color="#0077FF", order=11)
@about(paper="Jia et al., NeurIPS 2023", published="γ 1e-4 to 5e-4, SGD 0.01, 10 epochs")
@about(needs_retain="yes", passes="each epoch: retain")
def l1_sparse(run: Run, *, gamma: NotNegative = 5e-4) -> None:
    """Go on training on the retain set under a penalty on the absolute values of the weights.

    Jia et al., *Model Sparsity Can Simplify Machine Unlearning* (NeurIPS 2023): the loss is CE +
    gamma_e |weights|_1 over all weights in scope, with gamma_e = `gamma` (1 - e / epochs) in epoch
    e = 0, 1, ... It needs the retain set and no other; with `gamma` 0 it is CF. Logs `l1_ratio`,
    the norm at the end over the norm at the start.
    """
    weights = [parameter for _, parameter in trainable(run.model)]
    start = sum(run.original.get_parameter(n).abs().sum() for n, _ in trainable(run.model))
    for epoch in run.epochs():
        strength = gamma * (1 - epoch / run.recipe.epochs)
        for images, labels in run.retain(epoch):
            norm = sum(parameter.abs().sum() for parameter in weights)
            run.step(run.cross_entropy(images, labels) + strength * norm)
        norm = sum(parameter.detach().abs().sum() for parameter in weights)
        run.log["l1_ratio"] = float(norm / start)
