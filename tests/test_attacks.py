"""Attacks: closed forms, invariants over the registry, and nothing left changed."""

import math
import sys
from copy import copy

import pytest
import torch
from conftest import differing, state_of
from torch import nn
from torch.nn import functional as F

from unlearnkit import attacks, measures
from unlearnkit.attacks import ATTACKS, attack_options, perturb, robust_curve, score_images
from unlearnkit.errors import UserError

QUICK = {"pgd": {"steps": 10}, "autoattack": {"steps": 5, "queries": 30}}
BUILT_IN = ["noise", "fgsm", "pgd", "autoattack"]
EPSILON = 0.05
SIGNATURE = r"attack bare must take \(model, images, labels, epsilon, \*, num_classes, seed\)"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(attacks, "ATTACKS", copy(ATTACKS))


class Margin(nn.Module):
    """Two classes, logits ±(w·x + b): robust accuracy has a closed form."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.1 * torch.randn(48, generator=generator))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum())

    def forward(self, images):
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


def linear_toy(count=60):
    """Margins, and images of which one in seven is wrong; no pixel near 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(90, 166, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    model = Margin()
    labels = model(images / 255).argmax(1)
    labels[::7] = 1 - labels[::7]
    return model, images, labels


def holds(model, images, labels, epsilon):
    """Say which images no perturbation of size ε turns wrong."""
    score = (images / 255).flatten(1) @ model.weight.detach() + model.bias.detach()
    return score * (2 * labels - 1) > epsilon * model.weight.detach().abs().sum()


def toy_net(classes=5, count=24):
    """A random net and images it classifies right, by taking its own answers as the labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes))
    with torch.no_grad():
        labels = model.eval()(images / 255).argmax(1)
    return model, images, labels


def curve(model, images, labels, name, epsilons, *, batch_size=10):
    how = {"options": QUICK.get(name), "seed": 0, "batch_size": batch_size}
    return robust_curve(model, images, labels, name, epsilons, **how)


@pytest.mark.parametrize("name", ATTACKS)
def test_box_ball_reproducible_and_epsilon_zero(name):
    model, images, labels = toy_net()
    clean, how = images / 255, {"options": QUICK.get(name), "seed": 1}
    found = perturb(model, clean, labels, name, EPSILON, **how)
    assert found.shape == clean.shape and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1 and not torch.equal(found, clean)
    if ATTACKS[name].norm == "linf":
        assert (found - clean).abs().max() <= EPSILON + 1e-6
    assert torch.equal(perturb(model, clean, labels, name, 0.0, **how), clean)
    assert torch.equal(clean, images / 255)
    for context in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(perturb(model, images, labels, name, EPSILON, **how), found)
    assert perturb(model, clean, (labels + 1) % 5, name, EPSILON, **how).isfinite().all()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_everything_is_as_it_was_and_nothing_is_printed(name, fails, capsys):
    def fail(*_):
        raise RuntimeError("no")

    model, images, labels = toy_net()
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = gradient = torch.ones_like(model[0].weight)
    modes = [module.training for module in model.modules()]
    state, rng = state_of(model), torch.get_rng_state()
    if fails:
        model[-1].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="no"):
            perturb(model, images, labels, name, EPSILON, options=QUICK.get(name), seed=0)
    else:
        curve(model, images, labels, name, [0.0, EPSILON])
    assert [module.training for module in model.modules()] == modes
    assert not differing(model, state) and torch.equal(torch.get_rng_state(), rng)
    assert [key for key, p in model.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert model[0].weight.grad is gradient and (gradient == 1).all()
    assert model[1].weight.grad is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("classes", "count"), [(2, 1), (3, 3), (5, 1)])
def test_few_classes_and_small_batches(name, classes, count):
    model, images, labels = toy_net(classes, count)
    right = curve(model, images, labels, name, [0.0, 0.3])
    assert right.shape == (2, count) and right.dtype == torch.bool
    wrong = curve(model, images, (labels + 1) % classes, name, [0.0, 0.3])
    assert not wrong[0].any() and (name == "noise" or not wrong[1].any())
    assert curve(model, images[:0], labels[:0], name, [0.1]).shape == (1, 0)


@pytest.mark.parametrize("name", BUILT_IN)
def test_zero_is_clean_and_the_order_of_epsilons_is_kept(name):
    model, images, labels = toy_net()
    labels[::4] = (labels[::4] + 1) % 5
    right = curve(model, images, labels, name, [0.1, 0.0, 0.02])
    assert torch.equal(right[1], score_images(model, images, labels))
    assert name == "noise" or not right[:, ::4].any()
    assert torch.equal(right, curve(model, images, labels, name, [0.0, 0.02, 0.1])[[2, 0, 1]])
    with pytest.raises(UserError, match=r"epsilons hold 0\.1 twice"):
        curve(model, images, labels, name, [0.1, 0.0, 0.1])


@pytest.mark.parametrize("nested", [True, False])
def test_only_survivors_are_attacked(nested):
    attacked = []

    @attacks.attack("spy", nested=nested)
    def spy(model, images, labels, epsilon, **how):
        assert not any(p.requires_grad for p in model.parameters()), "weights need no gradient"
        attacked.append((epsilon, len(images)))
        return ATTACKS["fgsm"].function(model, images, labels, epsilon, **how)

    model, images, labels = toy_net(count=40)
    labels[:4] = (labels[:4] + 1) % 5
    right = curve(model, images, labels, "spy", [0.05, 0.01], batch_size=20)
    left = int(right[1].sum())
    assert 20 < left < 36
    assert attacked[:3] == [(0.01, 20), (0.01, 16), (0.05, 20)]
    assert attacked[3:] == [(0.05, left - 20 if nested else 16)]


def test_an_attack_that_leaves_the_ball_is_brought_back():
    @attacks.attack("wild")
    def wild(model, images, labels, epsilon, *, num_classes, seed, factor=9.0):
        found = images + factor * epsilon
        found[0, 0, 0, 0] = torch.nan
        return found

    model, images, labels = toy_net()
    expected = (images / 255 + 0.1).clamp(0, 1)
    expected[0, 0, 0, 0] = images[0, 0, 0, 0] / 255
    assert torch.allclose(perturb(model, images, labels, "wild", 0.1, seed=0), expected)


def test_fgsm_is_a_naive_one_and_noise_differs_by_seed_and_batch():
    model, images, labels = toy_net()
    clean = (images / 255).requires_grad_()
    F.cross_entropy(model(clean), labels).backward()
    expected = (clean + EPSILON * clean.grad.sign()).clamp(0, 1).detach()
    assert (perturb(model, images, labels, "fgsm", EPSILON, seed=0) - expected).abs().max() < 1e-6
    images, labels = images[:1].expand(20, -1, -1, -1), labels[:1].expand(20)
    how = {"attack": "noise", "epsilon": 0.1, "batch_size": 10}
    first, second = (perturb(model, images, labels, seed=seed, **how) for seed in (0, 1))
    assert not torch.equal(first, second) and not torch.equal(first[:10], first[10:])


def test_what_has_no_ball_meets_every_image():
    """Random noise may put a wrong image right: that counts as well."""

    @attacks.attack("mirror", norm=None)
    def mirror(model, images, labels, epsilon, **_):
        return 1 - images if epsilon > 0.5 else images

    model, images, labels = linear_toy()
    clean = score_images(model, images, labels)
    mirrored = score_images(model, 1 - images / 255, labels)
    right = curve(model, images, labels, "mirror", [0.0, 0.1, 0.9])
    assert torch.equal(right, torch.stack([clean, clean, mirrored]))
    right = curve(model, images, labels, "noise", [0.3])[0]
    shown = perturb(model, images, labels, "noise", 0.3, seed=0, batch_size=10)
    assert torch.equal(right, score_images(model, shown, labels))
    assert (right & ~clean).any() and (clean & ~right).any() and (mirrored & ~clean).any()


@pytest.mark.parametrize("name", ["fgsm", "pgd", "autoattack"])
def test_linear_model_closed_form(name):
    toy, epsilons = linear_toy(), [0.0, 0.01, 0.02, 0.05, 0.2]
    expected = torch.stack([holds(*toy, epsilon) for epsilon in epsilons])
    assert 0.1 < expected[1:4].float().mean() < 0.9
    assert torch.equal(curve(*toy, name, epsilons), expected)


def test_few_class_padding_lets_every_member_attack(monkeypatch):
    """With two classes the targeted DLR loss alone must break what the closed form breaks."""
    import torchattacks

    alone = torchattacks.MultiAttack.__init__
    monkeypatch.setattr(
        torchattacks.MultiAttack, "__init__", lambda self, members: alone(self, 2 * members[1:2])
    )
    toy = linear_toy()
    assert torch.equal(curve(*toy, "autoattack", [0.02])[0], holds(*toy, 0.02))


def test_attacks_rank_as_they_should_and_nested_curves_never_rise():
    toy, left = toy_net(count=100), {}
    for name in BUILT_IN:
        right = curve(*toy, name, [0.02, 0.3], batch_size=50).float()
        left[name] = right[0].mean()
        assert (right[1] <= right[0]).all() or not ATTACKS[name].nested
    assert 0 < left["autoattack"] <= left["pgd"] <= left["fgsm"] < left["noise"]
    assert right.mean(1)[1] < 0.5


def test_transfer_attacks_only_what_is_right_when_clean(build, toy, split):
    """As everywhere: an image that the model gets wrong stays wrong, whatever is done to it."""
    how = {"options": {}, "epsilons": [64.0, 8.0], "seed": 0, "batch_size": 16}
    how |= {"images": {"test": 30, "retain": 20, "forget": 0}}
    pictures = measures.adversarial(build("small_vit"), toy, split, attack="fgsm", **how)
    assert pictures.shape == (2, 50, 3, 8, 8)
    other, shown = build("small_vit", seed=1), pictures.flip(-1)
    every = measures.transfer(other, shown, toy, split, attack="noise", **how)
    bounded = measures.transfer(other, shown, toy, split, attack="fgsm", **how)
    assert bounded["epsilons"] == [0.0, 8.0, 64.0] and list(bounded["sets"]) == ["test", "retain"]
    more = 0
    for name, counts in bounded["sets"].items():
        clean, *rows = torch.tensor(counts["right"])
        assert counts["n"] == every["sets"][name]["n"]
        assert all((row <= clean).all() for row in rows)
        more += (torch.tensor(every["sets"][name]["right"][1:]) > clean).sum()
    assert more > 0, "without that some images would become right"


def test_scores_that_are_not_finite_are_wrong():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.constant_(model[1].weight, torch.nan)
    assert not score_images(model, torch.zeros(2, 3, 2, 2), torch.tensor([0, 1])).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1; allowed"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"epsilon": 8}, "8/255, not 8"),
        ({"images": torch.full((24, 3, 8, 8), 1.5)}, r"lie in \[0, 1\]"),
        ({"images": torch.full((24, 3, 8, 8), math.nan)}, r"lie in \[0, 1\]"),
        ({"attack": "cw"}, "unknown attack 'cw'; known: noise, fgsm, pgd, autoattack"),
        ({"options": {"step": 3}}, "hyper-parameter of attack.pgd 'step'; known: steps"),
        ({"labels": torch.arange(24)}, "labels run from 0 to 23; allowed: 0 to 4, the model's"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "24 images but 3 labels"),
    ],
)
def test_errors_say_what_is_allowed(change, message):
    model, images, labels = toy_net()
    call = {"images": images, "labels": labels, "attack": "pgd", "epsilon": 0.1, "seed": 0}
    call |= change
    with pytest.raises(UserError, match=message):
        perturb(model, **call)
    with pytest.raises(UserError, match=message):
        robust_curve(model, epsilons=[0.0, call.pop("epsilon")], **call)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgd", {"steps": 0}, "^attack.pgd.steps must be greater than 0, not 0$"),
        ("pgd", {"steps": True}, "must be a valid integer, not True"),
        ("pgd", {"step_ratio": -0.1}, "step_ratio must be greater than 0, not -0.1"),
        ("pgd", {"step_ratio": math.nan}, "must be a finite number, not nan"),
        ("free", {"shift": math.nan}, "shift must be a finite number, not nan"),
        ("free", {"flag": "no"}, "flag must be a valid boolean, not 'no'"),
        ("free", {"mode": 3.5}, "mode must be a valid string, not 3.5"),
    ],
)
def test_what_an_option_may_be_follows_from_its_default(name, options, message):
    @attacks.attack("free")
    def free(
        model, images, labels, epsilon, *, num_classes=9, seed=0, shift=0.0, flag=True, mode="a"
    ):
        return images

    assert attack_options("free", {"shift": -1}) == {"shift": -1, "flag": True, "mode": "a"}
    assert attack_options("pgd", {"steps": 3}) == {"steps": 3, "step_ratio": 0.25}
    with pytest.raises(UserError, match=message):
        attack_options(name, options)


def test_a_bad_attack_and_a_missing_library_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(UserError, match=r"pip install --no-deps torchattacks==3\.5\.1"):
        perturb(*toy_net(), "fgsm", 0.1, seed=0)
    for bare in (lambda model, images, labels, epsilon: images, lambda images, **_: images):
        with pytest.raises(UserError, match=SIGNATURE):
            attacks.attack("bare")(bare)
    with pytest.raises(UserError, match="unknown norm 'l2'; known: linf, None"):
        attacks.attack("bare", norm="l2")
