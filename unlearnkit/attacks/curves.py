"""Robust accuracy along ε, and adversarial images to carry to other models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.attacks.perturbation import check, perturb
from unlearnkit.attacks.registry import attack_params, get_attack
from unlearnkit.metrics import predictions, to_float


def score_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 512,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return for each image whether `model` classifies it right, bool [N] on the CPU.

    `images` are uint8, or float in [0, 1]. Logits that are not finite count as wrong.
    """
    if not len(images):
        return torch.zeros(0, dtype=torch.bool)
    logits = predictions(model, images, batch_size=batch_size, device=device)
    return (logits.argmax(dim=1) == labels.cpu()) & logits.isfinite().all(dim=1)


def robust_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilons: Sequence[float],
    *,
    params: Mapping[str, Any] | None = None,
    num_classes: int,
    batch_size: int = 256,
    seed: int,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return which images are still classified right under the attack at each ε.

    Only images right when clean are attacked; the others stay wrong. For a nested attack (PGD,
    AutoAttack) an image broken at a smaller ε, which lies inside the larger ball, is not attacked
    again: the curve cannot rise, and costs little once most images are broken. Noise and FGSM
    meet each ε on their own. Results depend on `batch_size` through the random starts.

    Parameters
    ----------
    images, labels : Tensor [N, 3, H, W] uint8, Tensor [N] int64
    epsilons : sequence of float
        Pixel units, in any order; 0 is clean.
    params, num_classes, seed
        As in `perturb`; each batch has its own seed, the same at every ε.

    Returns
    -------
    Tensor [len(epsilons), N]
        bool, on the CPU, in the order of `epsilons`.
    """
    nested = get_attack(attack).nested
    options = {"attack": attack, "params": attack_params(attack, params), "seed": seed}
    options |= {"num_classes": num_classes, "batch_size": batch_size, "device": device}
    check(images, labels, epsilons, num_classes)
    clean = score_images(model, images, labels, batch_size=batch_size, device=device)
    standing = clean
    right = clean.repeat(len(epsilons), 1)
    for row in sorted(range(len(epsilons)), key=lambda i: epsilons[i]):
        if epsilons[row] == 0:
            continue
        survivors = (standing if nested else clean).clone()
        index = survivors.nonzero()[:, 0]
        for chosen, found in _attacked(model, images, labels, index, epsilons[row], **options):
            survivors[chosen] = score_images(
                model, found, labels[chosen], batch_size=batch_size, device=device
            )
        right[row] = standing = survivors
    return right


def transfer_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilons: Sequence[float],
    *,
    params: Mapping[str, Any] | None = None,
    num_classes: int,
    batch_size: int = 256,
    seed: int,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return adversarial images made on one model, to be scored on others by `score_images`.

    Arguments as in `robust_curve`. Every image is attacked at every ε, whether the source gets it
    right or not; AutoAttack hands back unchanged those it does not break on the source.

    Returns
    -------
    Tensor [len(epsilons), N, 3, H, W]
        float32 in [0, 1], on the CPU (12 bytes for each pixel and ε).
    """
    options = {"attack": attack, "params": attack_params(attack, params), "seed": seed}
    options |= {"num_classes": num_classes, "batch_size": batch_size, "device": device}
    check(images, labels, epsilons, num_classes)
    made = torch.empty(len(epsilons), *images.shape)
    every = torch.arange(len(images))
    for row, epsilon in enumerate(epsilons):
        for chosen, found in _attacked(model, images, labels, every, epsilon, **options):
            made[row, chosen] = found.cpu()
    return made


def _attacked(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    epsilon: float,
    *,
    batch_size: int,
    seed: int,
    device: str | torch.device,
    **options: Any,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (positions, adversarial images) batch by batch over the images at `index`."""
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        batch, truth = to_float(images[chosen], device), labels[chosen].to(device)
        mixed = (seed * 1_000_003 + start) % 2**63
        yield chosen, perturb(model, batch, truth, epsilon=epsilon, seed=mixed, **options)
