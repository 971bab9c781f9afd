"""Retrain: exact unlearning, the yardstick of all others."""

from unlearnkit.errors import UserError
from unlearnkit.methods import about, method
from unlearnkit.methods.cf import finetune
from unlearnkit.scopes import in_scope
from unlearnkit.training import Run


@method("retrain", title="Retrain", color="#0072B2", order=1)
@about(paper="exact; EU-k: Goel et al. 2022", published="the original's own recipe")
@about(needs_retain="yes", passes="each epoch: retain")
def retrain(run: Run) -> None:
    """Train a fresh model with the original's recipe on the retain set; no forget image is fetched.

    Under a scope only its layers start afresh and are trained, which is EU-k of Goel et al.,
    *Towards Adversarial Evaluations for Inexact Machine Unlearning* (2022).
    """
    if run.fresh is None:
        raise UserError("method retrain needs `fresh`, a function that builds an untrained model")
    fresh = run.fresh().state_dict()
    inside = {name: value for name, value in fresh.items() if in_scope(run.model, name)}
    run.model.load_state_dict(inside, strict=False)
    finetune(run)
