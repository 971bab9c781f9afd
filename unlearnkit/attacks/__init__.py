"""Adversarial attacks: a registry, one way to run them, and robust accuracy along ε.

Conventions: images in [0, 1], normalisation inside the model, L∞; only images still classified
right are attacked; robust accuracy is over all images. A new attack is one decorated function::

    @attack("mine", title="Mine", norm="linf")
    def mine(model, images, labels, epsilon, *, num_classes, seed, steps=3): ...

It gets a frozen model in evaluation mode, images float [B, 3, H, W], and seeded global random
state; `perturb` restores all of these, and brings what it returns back into the ball and the box.
Keyword arguments with defaults are its parameters.
"""

from unlearnkit.attacks.adapter import INSTALL
from unlearnkit.attacks.curves import robust_curve, score_images, transfer_images
from unlearnkit.attacks.perturbation import perturb
from unlearnkit.attacks.registry import Attack, attack, attack_names, attack_params, get_attack

__all__ = [
    "INSTALL",
    "Attack",
    "attack",
    "attack_names",
    "attack_params",
    "get_attack",
    "perturb",
    "robust_curve",
    "score_images",
    "transfer_images",
]
