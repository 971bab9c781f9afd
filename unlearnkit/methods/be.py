"""BE: Boundary Expand."""

import torch
from torch import nn

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.seeding import derive
from unlearnkit.training import Run


def classifier(model: nn.Module) -> nn.Linear:
    """Return the model's last linear layer; `UserError` if it has none."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError("method be adds a class to the last linear layer; this model has none")
    return layers[-1]


@method("be", title="BE", color="#114400", order=12, check=classifier)
@about(paper="Chen et al., CVPR 2023", published="SGD 1e-5, 10 epochs")
@about(needs_retain="no", passes="each epoch: forget")
def boundary_expand(run: Run) -> None:
    """Train the forget images to a shadow class, then drop that class.

    Chen et al., *Boundary Unlearning* (CVPR 2023): the classifier, the model's last linear layer,
    gets one more row, drawn at random as any fresh layer's; the loss is the cross-entropy of the
    widened model with that class for every forget image. Only the forget set is used, so a large
    rate destroys the model. Under a scope without the classifier the new row is trained all the
    same, as it is no part of the model. Logs nothing.
    """
    head, classes = classifier(run.model), run.data.num_classes
    if head.out_features != classes:
        told = f"the last linear layer has {head.out_features} outputs, not {classes} classes"
        raise UserError(f"method be widens the classifier, but {told}")
    torch.manual_seed(derive(run.seed, "shadow"))
    # Part of the model meanwhile, and so of its checkpoints.
    run.model.shadow = shadow = nn.Linear(head.in_features, 1).to(run.device)
    run.optimizer.param_groups[0]["params"] += shadow.parameters()
    hook = head.register_forward_hook(
        lambda _, inputs, logits: torch.cat([logits, shadow(inputs[0])], 1)
    )
    for epoch in run.epochs():
        for images, labels in run.forget(epoch):
            run.step(run.cross_entropy(images, torch.full_like(labels, classes)))
    hook.remove()
    del run.model.shadow
