"""The built-in attacks: the one place where torchattacks is called."""

from types import ModuleType

from torch import Tensor, nn

from unlearnkit.attacks.registry import attack
from unlearnkit.errors import UserError

INSTALL = "pip install --no-deps torchattacks==3.5.1"


def _torchattacks() -> ModuleType:
    try:
        import torchattacks
    except ImportError as error:
        raise UserError(
            f"the attacks need torchattacks, which cannot be imported ({error}); run: {INSTALL}"
        ) from error
    return torchattacks


@attack("noise", title="Gaussian noise", norm=None, version=2)
def _noise(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, num_classes: int, seed: int
) -> Tensor:
    """Gaussian noise of standard deviation ε in pixel units, clipped to [0, 1]."""
    return _torchattacks().GN(model, std=epsilon)(images, labels)


@attack("fgsm", title="FGSM")
def _fgsm(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, num_classes: int, seed: int
) -> Tensor:
    """One signed gradient step of length ε (Goodfellow et al., 2015)."""
    return _torchattacks().FGSM(model, eps=epsilon)(images, labels)


@attack("pgd", title="PGD", nested=True)
def _pgd(model, images, labels, epsilon, *, num_classes, seed, steps=20, step_ratio=0.25) -> Tensor:
    """`steps` projected steps of length `step_ratio`·ε, random start (Madry et al., 2018)."""
    adversary = _torchattacks().PGD(
        model, eps=epsilon, alpha=step_ratio * epsilon, steps=steps, random_start=True
    )
    return adversary(images, labels)


@attack("autoattack", title="AutoAttack (torchattacks)", nested=True)
def _autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    num_classes: int,
    seed: int,
    steps: int = 10,
    queries: int = 5000,
    targets: int = 9,
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
