"""Adversarial attacks: a registry, one way to run them, and robust accuracy along ε.

Conventions: images in [0, 1], normalisation inside the model, L∞; only images still classified
right are attacked, but random noise meets all; robust accuracy is over all images. A new attack is
one decorated function::

    @attack("mine", title="Mine", norm="linf")
    def mine(model, images, labels, epsilon, *, num_classes, seed, steps=3): ...

It gets a frozen model in evaluation mode, images float [B, 3, H, W], and seeded global random
state; `perturb` restores all of these, and brings what it returns back into the ball and the box.
Keyword arguments with defaults are its options.
"""

from unlearnkit.attacks import builtin  # noqa: F401  (it registers the attacks)
from unlearnkit.attacks.curves import perturb, robust_curve, score_images, transfer_images
from unlearnkit.attacks.registry import ATTACKS, Attack, attack, attack_options, get_attack

__all__ = [
    "ATTACKS",
    "Attack",
    "attack",
    "attack_options",
    "get_attack",
    "perturb",
    "robust_curve",
    "score_images",
    "transfer_images",
]
