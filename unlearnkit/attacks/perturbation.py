"""Running an attack on one batch, and leaving everything as it was."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.attacks.registry import attack_params, get_attack
from unlearnkit.errors import UserError
from unlearnkit.metrics import evaluating, prefers_channels_last, to_float


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


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilon: float,
    *,
    params: Mapping[str, Any] | None = None,
    num_classes: int,
    seed: int,
) -> Tensor:
    """Return adversarial images against `model`.

    Parameters
    ----------
    model : Module
        On the images' device; modes, `requires_grad`, gradients and the global random state are
        restored whatever happens.
    images : Tensor [B, 3, H, W]
        float in [0, 1]; one batch.
    labels : Tensor [B]
        True classes.
    attack : str
        A registered attack, see `attack_names`.
    epsilon : float
        Pixel units in [0, 1]: L∞ bound, or standard deviation of the noise. 0 returns the images.
    params : mapping
        The attack's parameters, see `attack_params`.

    Returns
    -------
    Tensor [B, 3, H, W]
        float32 in [0, 1], within the ball where the attack has one; a pixel the attack left
        non-finite is the clean one.

    Raises
    ------
    UserError
        ε outside [0, 1], images outside [0, 1], unknown attack or parameter, torchattacks
        missing, labels that do not fit.
    """
    chosen, settings = get_attack(attack), attack_params(attack, params)
    check(images, labels, [epsilon], num_classes)
    with torch.inference_mode(False):
        clean = to_float(images, images.device).detach()
        clean = clean.clone(memory_format=torch.contiguous_format)
        labels = labels.detach().to(clean.device, torch.int64, copy=True)
    if epsilon == 0 or len(clean) == 0:
        return clean
    with _borrowed(model, seed):
        victim = _Victim(model, num_classes).eval()
        found = chosen.function(
            victim, clean.clone(), labels, epsilon, num_classes=num_classes, seed=seed, **settings
        )
        found = torch.where(found.isfinite(), found, clean).detach()
        if chosen.norm == "linf":
            found = torch.minimum(torch.maximum(found, clean - epsilon), clean + epsilon)
        return found.clamp(0, 1)


def check(images: Tensor, labels: Tensor, epsilons: Sequence[float], num_classes: int) -> None:
    """Refuse, by a `UserError`, what cannot be attacked."""
    for epsilon in epsilons:
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
