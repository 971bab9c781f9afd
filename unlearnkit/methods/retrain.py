"""Retrain: exact unlearning, the yardstick of all others."""

from unlearnkit.errors import UserError
from unlearnkit.methods import method
from unlearnkit.scopes import apply_scope, scope_modules
from unlearnkit.training import Run


@method("retrain", title="Retrain", color="#0072B2", order=1)
def retrain(run: Run) -> None:
    """Train a fresh model with the original's recipe on the retain set; no forget image is fetched.

    Under a scope only the layers in it start afresh and are trained, the others keep the
    original's weights: EU-k of Goel et al., *Towards Adversarial Evaluations for Inexact Machine
    Unlearning* (2022).
    """
    if run.fresh is None:
        raise UserError("method retrain needs `fresh`, a function that builds an untrained model")
    fresh = run.fresh()
    apply_scope(fresh, run.scope)
    if run.scope != "all":
        prefixes = scope_modules(fresh, run.scope)
        kept = {
            name: value
            for name, value in run.model.state_dict().items()
            if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
        }
        fresh.load_state_dict(kept, strict=False)
    run.replace_model(fresh)
    for epoch in run.epochs():
        for images, labels in run.retain(epoch):
            run.step(run.cross_entropy(images, labels))
