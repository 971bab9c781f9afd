"""Adversarial attacks: a registry, one way to run them, and robust accuracy along ε.

Conventions: images in [0, 1], normalisation inside the model, L∞; only images still classified
right are attacked, but random noise meets all; robust accuracy is over all images. A new attack is
one decorated function, whose keywords with defaults are its options::

    @attack("mine", title="Mine", norm="linf")
    def mine(model, images, labels, epsilon, *, num_classes, seed, steps=3): ...

It gets a frozen copy of the model in evaluation mode, images float [B, 3, H, W], and seeded global
random state; what it returns is brought back into the ball and the box.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.errors import UserError, unknown
from unlearnkit.metrics import device_of, layout, predictions, to_float
from unlearnkit.plugins import Registry, check_values


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    `norm` is 'linf' for a bounded perturbation, None for one that ε merely scales. `nested` says
    that an image broken at a smaller ε counts as broken at the larger ones.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    defaults: Mapping[str, Any]
    norm: str | None
    nested: bool
    version: int

    @property
    def identity(self) -> dict[str, Any]:
        """What of the registration changes a result, for its key."""
        return {name: getattr(self, name) for name in ("name", "version", "norm", "nested")}


ATTACKS = Registry("attack")


def attack(
    name: str, *, title: str = "", norm: str | None = "linf", nested: bool = False, version: int = 1
) -> Callable:
    """Register a function `(model, images, labels, epsilon, *, num_classes, seed, ...)` -> images.

    Registering a name again replaces it. `version` is part of every stored result's key: raise it
    when the attack's meaning changes.
    """
    if norm not in ("linf", None):
        raise unknown("norm", norm, ("linf", None))

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        signature, given = inspect.signature(function), {"num_classes": 2, "seed": 0}
        try:
            signature.bind("model", "images", "labels", "epsilon", **given)
        except TypeError as error:
            raise UserError(
                f"attack {name} must take (model, images, labels, epsilon, *, num_classes, seed), "
                f"other arguments with a default: {error}"
            ) from None
        options = [o for o in signature.parameters.values() if o.name not in given]
        defaults = {o.name: o.default for o in options if o.default is not o.empty}
        ATTACKS[name] = Attack(name, title or name, function, defaults, norm, nested, version)
        return function

    return register


def attack_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every option of the attack: its defaults, overridden by `options`.

    A value must be of its default's type; a number finite, and above 0 where the default is.
    """
    defaults, options = ATTACKS[name].defaults, options or {}
    kinds: dict[str, Any] = {key: type(value) for key, value in defaults.items()}
    for key in kinds:
        if kinds[key] in (int, float):
            kinds[key] = Annotated[kinds[key], Field(gt=0 if defaults[key] > 0 else None)]
    check_values(options, kinds, f"attack.{name}")
    return {**defaults, **options}


def perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilon: float,
    *,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    seed: int,
) -> Tensor:
    """Return adversarial images against `model`, whether it gets the clean ones right or not.

    The model and the global random state are left alone: a copy is attacked. `images` [N, 3, H, W]
    are uint8 or float in [0, 1], `labels` [N] the true classes, `attack` a name in `ATTACKS`,
    `options` its `attack_options`. `epsilon` is in pixel units in [0, 1]: L∞ bound, or standard
    deviation of the noise; 0 returns the images. Random starts depend on `seed` and `batch_size`,
    as every batch has its own. `UserError` for what does not fit.

    Returns float32 [N, 3, H, W] in [0, 1], on the CPU, within the ball where the attack has one; a
    pixel the attack left non-finite is the clean one. AutoAttack changes only images it breaks.
    """
    chosen, options = ATTACKS[attack], attack_options(attack, options)
    _check(images, labels, [epsilon])
    if epsilon == 0 or not len(images):
        return to_float(images).clone()
    classes = _count_classes(predictions(model, images[:1]), labels)
    device, made = device_of(model), []
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        victim = frozen(model)
        for start in range(0, len(images), batch_size):
            part, mixed = slice(start, start + batch_size), (seed * 1_000_003 + start) % 2**63
            clean = to_float(images[part], device).detach()
            clean = clean.clone(memory_format=torch.contiguous_format)
            truth = labels[part].to(device, torch.int64, copy=True)
            torch.manual_seed(mixed)
            found = chosen.function(
                victim, clean.clone(), truth, epsilon, num_classes=classes, seed=mixed, **options
            )
            found = torch.where(found.isfinite(), found, clean).detach()
            if chosen.norm == "linf":
                found = torch.minimum(torch.maximum(found, clean - epsilon), clean + epsilon)
            made.append(found.clamp(0, 1).cpu())
    return torch.cat(made)


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy to attack: in evaluation mode, without gradients of its own, float logits."""
    victim = copy.deepcopy(model).eval().requires_grad_(False)
    fast = layout(victim)
    victim.register_forward_pre_hook(lambda _, x: x[0].contiguous(memory_format=fast))
    victim.register_forward_hook(lambda *call: _padded(call[-1].float()))
    return victim


def score_images(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 512
) -> Tensor:
    """Return for each image whether `model` classifies it right, bool [N] on the CPU.

    `images` are uint8, or float in [0, 1]. Logits that are not finite count as wrong.
    """
    if not len(images):
        return torch.zeros(0, dtype=torch.bool)
    logits = predictions(model, images, batch_size=batch_size)
    _count_classes(logits, labels)
    return (logits.argmax(dim=1) == labels.cpu()) & logits.isfinite().all(dim=1)


def robust_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    epsilons: Sequence[float],
    *,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    seed: int,
) -> Tensor:
    """Return which images are classified right under the attack, bool [len(epsilons), N].

    Only images right when clean are attacked; the others stay wrong. For a nested attack (PGD,
    AutoAttack) an image broken at a smaller ε, which lies inside the larger ball, is not attacked
    again: the curve cannot rise, and costs little once most images are broken. FGSM meets each ε
    on its own. What has no norm (noise) is no search for a mistake: it meets every image, and may
    put a wrong one right.

    Arguments as in `perturb`; `epsilons` each once, in any order, which the result has; 0 is clean.
    """
    chosen = ATTACKS[attack]
    how = {"options": attack_options(attack, options), "batch_size": batch_size, "seed": seed}
    _check(images, labels, epsilons)
    clean = standing = score_images(model, images, labels, batch_size=batch_size)
    right = clean.repeat(len(epsilons), 1)
    for row in sorted(range(len(epsilons)), key=lambda row: epsilons[row]):
        if epsilons[row] == 0:
            continue
        right[row] = standing if chosen.nested else clean
        index = right[row].nonzero()[:, 0] if chosen.norm else torch.arange(len(images))
        found = perturb(model, images[index], labels[index], attack, epsilons[row], **how)
        right[row, index] = score_images(model, found, labels[index], batch_size=batch_size)
        standing = right[row]
    return right


def _padded(logits: Tensor) -> Tensor:
    """Return logits of at least four classes, as the targeted DLR loss reads the four largest.

    Classes far below all others leave cross-entropy and margins as they are and only rescale that
    loss, whose sign is used.
    """
    floor = logits.detach().min(dim=1, keepdim=True).values - 1e4
    return torch.cat([logits, floor.expand(-1, max(0, 4 - logits.shape[1]))], dim=1)


def _count_classes(logits: Tensor, labels: Tensor) -> int:
    """Return how many classes the model has; refuse labels that are none of them."""
    low, high, count = int(labels.min()), int(labels.max()), logits.shape[1]
    if not 0 <= low <= high < count:
        raise UserError(f"labels run from {low} to {high}; allowed: 0 to {count - 1}, the model's")
    return count


def _check(images: Tensor, labels: Tensor, epsilons: Sequence[float]) -> None:
    for epsilon in epsilons:
        if not 0 <= epsilon <= 1:
            raise UserError(f"epsilon is {epsilon}; allowed: 0 to 1, as pixels are: 8/255, not 8")
        if list(epsilons).count(epsilon) > 1:
            raise UserError(f"epsilons hold {epsilon} twice; name each once")
    # Written so that NaN fails too.
    if images.dtype != torch.uint8 and not ((images >= 0) & (images <= 1)).all():
        raise UserError("images to attack must lie in [0, 1]; the model is to normalise them")
    if len(labels) != len(images):
        raise UserError(f"{len(images)} images but {len(labels)} labels; give one for each")


def _torchattacks() -> ModuleType:
    try:
        import torchattacks
    except ImportError as error:
        raise UserError(
            f"the attacks need torchattacks, which cannot be imported ({error}); "
            "run: pip install --no-deps torchattacks==3.5.1"
        ) from error
    return torchattacks


@attack("noise", title="Gaussian noise", norm=None, version=2)
def _noise(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, **_: Any) -> Tensor:
    """Gaussian noise of standard deviation ε in pixel units, clipped to [0, 1]."""
    return _torchattacks().GN(model, std=epsilon)(images, labels)


@attack("fgsm", title="FGSM")
def _fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, **_: Any) -> Tensor:
    """One signed gradient step of length ε (Goodfellow et al., 2015)."""
    return _torchattacks().FGSM(model, eps=epsilon)(images, labels)


@attack("pgd", title="PGD", nested=True)
def _pgd(model, images, labels, epsilon, *, steps: int = 20, step_ratio: float = 0.25, **_: Any):
    """`steps` projected steps of length `step_ratio`·ε, random start (Madry et al., 2018)."""
    alpha = step_ratio * epsilon
    return _torchattacks().PGD(model, eps=epsilon, alpha=alpha, steps=steps)(images, labels)


@attack("autoattack", title="AutoAttack (torchattacks)", nested=True)
def _autoattack(
    model, images, labels, epsilon, *, num_classes, seed, steps=10, queries=5000, targets=9
) -> Tensor:
    """APGD-CE, targeted APGD, targeted FAB, Square in turn (Croce & Hein, 2020), as torchattacks.

    Only images that break are changed. `steps` is 10 in torchattacks (the official code: 100),
    `queries` are Square's, `targets` bounds the wrong classes aimed at, the likeliest first (the
    official 9 is all of them with ten classes).
    """
    ta = _torchattacks()
    common = {"norm": "Linf", "eps": epsilon, "seed": seed, "n_restarts": 1}
    aimed = {"steps": steps, "n_classes": min(num_classes, targets + 1)}
    members = [
        ta.APGD(model, loss="ce", steps=steps, **common),
        ta.APGDT(model, **aimed, **common),
        ta.FAB(model, multi_targeted=True, **aimed, **common),
        ta.Square(model, n_queries=queries, **common),
    ]
    return ta.MultiAttack(members)(images, labels)
