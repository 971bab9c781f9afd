"""Running an attack and leaving everything as it was; robust accuracy along ε."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.attacks.registry import attack_options, get_attack
from unlearnkit.errors import UserError
from unlearnkit.metrics import device_of, evaluating, predictions, prefers_channels_last, to_float


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilon: float,
    *,
    options: Mapping[str, Any] | None = None,
    num_classes: int,
    seed: int,
) -> Tensor:
    """Return adversarial images against `model`.

    Parameters
    ----------
    model : Module
        Its modes, `requires_grad`, gradients and the global random state are restored whatever
        happens.
    images : Tensor [B, 3, H, W]
        uint8, or float in [0, 1]; one batch.
    labels : Tensor [B]
        True classes.
    attack : str
        A name in `ATTACKS`.
    epsilon : float
        Pixel units in [0, 1]: L∞ bound, or standard deviation of the noise. 0 returns the images.
    options : mapping
        The attack's, see `attack_options`.

    Returns
    -------
    Tensor [B, 3, H, W]
        float32 in [0, 1], where the model is, within the ball where the attack has one; a pixel
        the attack left non-finite is the clean one.

    Raises
    ------
    UserError
        ε or images outside [0, 1], unknown attack or option, torchattacks missing, labels that do
        not fit.
    """
    chosen, options = get_attack(attack), attack_options(attack, options)
    _check(images, labels, [epsilon], num_classes)
    with torch.inference_mode(False):
        clean = to_float(images, device_of(model)).detach()
        clean = clean.clone(memory_format=torch.contiguous_format)
        labels = labels.detach().to(clean.device, torch.int64, copy=True)
    if epsilon == 0 or len(clean) == 0:
        return clean
    with _borrowed(model, seed):
        victim = _Victim(model, num_classes).eval()
        found = chosen.function(
            victim, clean.clone(), labels, epsilon, num_classes=num_classes, seed=seed, **options
        )
        found = torch.where(found.isfinite(), found, clean).detach()
        if chosen.norm == "linf":
            found = torch.minimum(torch.maximum(found, clean - epsilon), clean + epsilon)
        return found.clamp(0, 1)


def score_images(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 512
) -> Tensor:
    """Return for each image whether `model` classifies it right, bool [N] on the CPU.

    `images` are uint8, or float in [0, 1]. Logits that are not finite count as wrong.
    """
    if not len(images):
        return torch.zeros(0, dtype=torch.bool)
    logits = predictions(model, images, batch_size=batch_size)
    return (logits.argmax(dim=1) == labels.cpu()) & logits.isfinite().all(dim=1)


def robust_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilons: Sequence[float],
    *,
    options: Mapping[str, Any] | None = None,
    num_classes: int,
    batch_size: int = 256,
    seed: int,
) -> Tensor:
    """Return which images are still classified right under the attack at each ε.

    Only images right when clean are attacked; the others stay wrong. For a nested attack (PGD,
    AutoAttack) an image broken at a smaller ε, which lies inside the larger ball, is not attacked
    again: the curve cannot rise, and costs little once most images are broken. FGSM meets each ε
    on its own. What has no norm (noise) is no search for a mistake: it meets every image, and may
    put a wrong one right. Results depend on `batch_size` through the random starts.

    Parameters
    ----------
    images, labels : Tensor [N, 3, H, W] uint8, Tensor [N] int64
    epsilons : sequence of float
        Pixel units, in any order; 0 is clean.
    options, num_classes, seed
        As in `perturb`; each batch has its own seed, the same at every ε.

    Returns
    -------
    Tensor [len(epsilons), N]
        bool, on the CPU, in the order of `epsilons`.
    """
    chosen = get_attack(attack)
    how = {"attack": attack, "options": attack_options(attack, options), "seed": seed}
    how |= {"num_classes": num_classes, "batch_size": batch_size}
    _check(images, labels, epsilons, num_classes)
    clean = score_images(model, images, labels, batch_size=batch_size)
    standing = clean
    right = clean.repeat(len(epsilons), 1)
    for row in sorted(range(len(epsilons)), key=lambda i: epsilons[i]):
        if epsilons[row] == 0:
            continue
        right[row] = standing if chosen.nested else clean
        index = right[row].nonzero()[:, 0] if chosen.norm else torch.arange(len(images))
        for part, found in _attacked(model, images, labels, index, epsilons[row], **how):
            right[row, part] = score_images(model, found, labels[part], batch_size=batch_size)
        standing = right[row]
    return right


def transfer_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilons: Sequence[float],
    *,
    options: Mapping[str, Any] | None = None,
    num_classes: int,
    batch_size: int = 256,
    seed: int,
) -> Tensor:
    """Return adversarial images made on one model, to be scored on others by `score_images`.

    Arguments as in `robust_curve`. Every image is attacked at every ε, whether the source gets it
    right or not; AutoAttack hands back unchanged those it does not break on the source.

    Returns
    -------
    Tensor [len(epsilons), N, 3, H, W]
        float32 in [0, 1], on the CPU (12 bytes for each pixel and ε).
    """
    how = {"attack": attack, "options": attack_options(attack, options), "seed": seed}
    how |= {"num_classes": num_classes, "batch_size": batch_size}
    _check(images, labels, epsilons, num_classes)
    made = torch.empty(len(epsilons), *images.shape)
    every = torch.arange(len(images))
    for row, epsilon in enumerate(epsilons):
        for chosen, found in _attacked(model, images, labels, every, epsilon, **how):
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
    **how: Any,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (positions, adversarial images) batch by batch over the images at `index`."""
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        mixed = (seed * 1_000_003 + start) % 2**63
        yield (
            chosen,
            perturb(model, images[chosen], labels[chosen], epsilon=epsilon, seed=mixed, **how),
        )


class _Victim(nn.Module):
    """The model as an attack sees it: fast layout, float32 logits, never fewer than 4 classes."""

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.num_classes = num_classes
        convolutional = prefers_channels_last(net)
        self.layout = torch.channels_last if convolutional else torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images.contiguous(memory_format=self.layout)).float()
        if logits.shape[1] != self.num_classes:
            raise UserError(
                f"the model has {logits.shape[1]} classes but num_classes is {self.num_classes}; "
                "give the number of the model's outputs"
            )
        if self.num_classes >= 4:
            return logits
        # The targeted DLR loss reads the four largest logits. Classes far below all others leave
        # cross-entropy and margins as they are and only rescale that loss, whose sign is used.
        floor = logits.detach().min(dim=1, keepdim=True).values - 1e4
        return torch.cat([logits, floor.expand(-1, 4 - self.num_classes)], dim=1)


@contextmanager
def _borrowed(model: nn.Module, seed: int) -> Iterator[None]:
    """Freeze and seed everything an attack touches, and put all of it back."""
    parameters = list(model.parameters())
    before = [(p, p.requires_grad, p.grad) for p in parameters]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with evaluating(model), torch.random.fork_rng(devices), torch.inference_mode(False):
        torch.manual_seed(seed)
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            with torch.enable_grad():
                yield
        finally:
            for parameter, requires_grad, grad in before:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


def _check(images: Tensor, labels: Tensor, epsilons: Sequence[float], num_classes: int) -> None:
    """Refuse, by a `UserError`, what cannot be attacked."""
    for epsilon in epsilons:
        if list(epsilons).count(epsilon) > 1:
            raise UserError(f"epsilons hold {epsilon} twice; name each once")
        if not 0 <= epsilon <= 1:
            raise UserError(
                f"epsilon is {epsilon}; allowed: 0 to 1, in units of pixels scaled to [0, 1]; "
                "give 8/255, not 8"
            )
    # Written so that NaN fails too.
    if images.dtype != torch.uint8 and not ((images >= 0) & (images <= 1)).all():
        raise UserError(
            "images to attack must lie in [0, 1]; give pixels / 255 and normalise in the model"
        )
    if len(labels) != len(images):
        raise UserError(f"{len(images)} images but {len(labels)} labels; give one for each")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise UserError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; "
            f"allowed with num_classes={num_classes}: 0 to {num_classes - 1}"
        )
