"""Attacks: closed forms, invariants over the registry, and nothing left changed."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearnkit import attacks, measures
from unlearnkit.attacks import (
    ATTACKS,
    attack_options,
    perturb,
    registry,
    robust_curve,
    score_images,
    transfer_images,
)
from unlearnkit.errors import UserError

QUICK = {"pgd": {"steps": 10}, "autoattack": {"steps": 5, "queries": 30}}
BUILT_IN = ["noise", "fgsm", "pgd", "autoattack"]
EPSILON = 0.05


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "ATTACKS", dict(ATTACKS))


@pytest.fixture(autouse=True)
def one_thread():
    """Thousands of tiny steps: threads that wait for a busy core cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Margin(nn.Module):
    """Two classes, logits ±(w·x + b): robust accuracy has a closed form."""

    def __init__(self, seed=0, size=4):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.1 * torch.randn(3 * size * size, generator=generator))
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum())

    def forward(self, images):
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


def conv_net(classes=5, seed=0, width=6):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )


def toy(classes=5, count=24, size=8, seed=0):
    """A random net and images it classifies right, by taking its own answers as the labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    model = conv_net(classes, seed)
    with torch.no_grad():
        labels = model.eval()(images / 255).argmax(1)
    return model, images, labels


def linear_toy(count=60):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(90, 166, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    model = Margin()
    labels = model(images / 255).argmax(1)
    labels[::7] = 1 - labels[::7]
    return model, images, labels


def curve(model, images, labels, name, epsilons, *, classes=5, seed=0, batch_size=10):
    return robust_curve(
        model,
        images,
        labels,
        name,
        epsilons,
        options=QUICK.get(name),
        num_classes=classes,
        seed=seed,
        batch_size=batch_size,
    )


# --- contract of every registered attack -----------------------------------------------------


def test_registry_holds_the_built_in_attacks():
    assert set(BUILT_IN) <= set(ATTACKS)
    assert attacks.get_attack("autoattack").title == "AutoAttack (torchattacks)"
    assert attack_options("pgd", {"steps": 3}) == {"steps": 3, "step_ratio": 0.25}


@pytest.mark.parametrize("name", ATTACKS)
def test_box_ball_reproducible_and_epsilon_zero(name):
    model, images, labels = toy()
    clean = images / 255
    options = {"options": QUICK.get(name), "num_classes": 5}
    found = perturb(model, clean, labels, name, EPSILON, seed=1, **options)
    again = perturb(model, clean, labels, name, EPSILON, seed=1, **options)
    assert found.shape == clean.shape and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert not torch.equal(found, clean)
    assert torch.equal(found, again)
    if attacks.get_attack(name).norm == "linf":
        assert (found - clean).abs().max() <= EPSILON + 1e-6
    assert torch.equal(perturb(model, clean, labels, name, 0.0, seed=1, **options), clean)
    assert torch.equal(clean, images / 255)


@pytest.mark.parametrize("name", ATTACKS)
def test_everything_is_restored(name):
    model, images, labels = toy()
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = gradient = torch.ones_like(model[0].weight)
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    curve(model, images, labels, name, [0.0, EPSILON])
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [
        key != "0.bias" for key, _ in model.named_parameters()
    ]
    assert model[0].weight.grad is gradient and (gradient == 1).all()
    assert model[1].weight.grad is None
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_few_classes_and_small_batches(name, classes, count):
    model, images, labels = toy(classes, count)
    right = curve(model, images, labels, name, [0.0, 0.3], classes=classes)
    assert right.shape == (2, count) and right.dtype == torch.bool
    wrong = curve(model, images, (labels + 1) % classes, name, [0.0, 0.3], classes=classes)
    assert not wrong.any()
    empty = curve(model, images[:0], labels[:0], name, [0.1], classes=classes)
    assert empty.shape == (1, 0)


@pytest.mark.parametrize("name", ATTACKS)
def test_all_wrong_batch_and_callers_without_gradients(name):
    model, images, labels = toy()
    options = {"options": QUICK.get(name), "num_classes": 5, "seed": 0}
    found = perturb(model, images / 255, (labels + 1) % 5, name, EPSILON, **options)
    assert found.isfinite().all()
    expected = perturb(model, images / 255, labels, name, EPSILON, **options)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(
                perturb(model, images / 255, labels, name, EPSILON, **options), expected
            )


@pytest.mark.parametrize("name", ATTACKS)
def test_a_failing_model_leaves_no_trace(name):
    model, images, labels = toy()
    model.train()

    def fail(*_):
        raise RuntimeError("no")

    handle = model[-1].register_forward_hook(fail)
    rng = torch.get_rng_state()
    if name != "noise":  # never asks the model
        with pytest.raises(RuntimeError, match="no"):
            perturb(model, images / 255, labels, name, EPSILON, num_classes=5, seed=0)
    handle.remove()
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


# --- the curve -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_zero_is_clean_and_the_order_of_epsilons_is_kept(name):
    model, images, labels = toy()
    labels = torch.where(torch.arange(len(labels)) % 4 == 0, (labels + 1) % 5, labels)
    epsilons = [0.1, 0.0, 0.02]
    right = curve(model, images, labels, name, epsilons)
    assert torch.equal(right[1], score_images(model, images, labels))
    assert not right[:, ::4].any()
    assert torch.equal(right, curve(model, images, labels, name, sorted(epsilons))[[2, 0, 1]])


@pytest.mark.parametrize("name", ["pgd", "autoattack"])
def test_nested_curves_never_rise_and_fall_somewhere(name):
    model, images, labels = toy()
    right = curve(model, images, labels, name, [0.0, 0.01, 0.02, 0.3], batch_size=24).int()
    assert (right.diff(dim=0) <= 0).all()
    assert 0 < right[1:3].float().mean() < 1
    assert right[-1].float().mean() < 0.5


@pytest.mark.parametrize("nested", [True, False])
def test_only_survivors_are_attacked(nested):
    attacked = []

    @attacks.attack("spy", nested=nested)
    def spy(model, images, labels, epsilon, *, num_classes, seed):
        attacked.append((epsilon, len(images)))
        model.zero_grad()
        options = {"num_classes": num_classes, "seed": seed}
        return attacks.get_attack("fgsm").function(model, images, labels, epsilon, **options)

    model, images, labels = toy(count=40)
    labels = torch.where(torch.arange(40) < 4, (labels + 1) % 5, labels)
    model[0].weight.grad = gradient = torch.ones_like(model[0].weight)
    right = curve(model, images, labels, "spy", [0.05, 0.01], batch_size=20)
    left = int(right[1].sum())
    assert 20 < left < 36
    assert attacked[:3] == [(0.01, 20), (0.01, 16), (0.05, 20)]
    assert attacked[3:] == [(0.05, left - 20 if nested else 16)]
    assert model[0].weight.grad is gradient


def test_an_attack_that_leaves_the_ball_is_brought_back():
    @attacks.attack("wild")
    def wild(model, images, labels, epsilon, *, num_classes, seed, factor=9.0):
        found = images + factor * epsilon
        found[0, 0, 0, 0] = torch.nan
        return found

    model, images, labels = toy()
    clean = images / 255
    found = perturb(model, clean, labels, "wild", 0.1, num_classes=5, seed=0)
    expected = (clean + 0.1).clamp(0, 1)
    expected[0, 0, 0, 0] = clean[0, 0, 0, 0]
    assert torch.allclose(found, expected)


def test_different_seeds_differ_and_batches_are_not_alike():
    model, images, labels = toy()
    images = images[:1].expand(20, -1, -1, -1)
    labels = labels[:1].expand(20)
    options = {"num_classes": 5, "batch_size": 10}
    first, second = (
        transfer_images(model, images, labels, "noise", [0.1], seed=seed, **options)[0]
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)
    assert not torch.equal(first[:10], first[10:])


def test_what_has_no_ball_meets_every_image():
    """Random noise may put a wrong image right: that counts as well."""

    @attacks.attack("mirror", norm=None)
    def mirror(model, images, labels, epsilon, *, num_classes, seed):
        return 1 - images if epsilon > 0.5 else images

    model, images, labels = linear_toy()
    clean = score_images(model, images, labels)
    mirrored = score_images(model, 1 - images / 255, labels)
    assert (mirrored & ~clean).any()
    right = curve(model, images, labels, "mirror", [0.0, 0.1, 0.9], classes=2)
    assert torch.equal(right, torch.stack([clean, clean, mirrored]))
    right = curve(model, images, labels, "noise", [0.3], classes=2)[0]
    shown = transfer_images(
        model, images, labels, "noise", [0.3], num_classes=2, seed=0, batch_size=10
    )
    assert torch.equal(right, score_images(model, shown[0], labels))
    assert (right & ~clean).any() and (clean & ~right).any()


# --- strength --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fgsm", "pgd", "autoattack"])
def test_linear_model_closed_form(name):
    model, images, labels = linear_toy()
    score = (images / 255).flatten(1) @ model.weight.detach() + model.bias.detach()
    margin = score * (2 * labels - 1)
    # No pixel is near 0 or 1, so the box cuts nothing off the ball.
    epsilons = [0.0, 0.01, 0.02, 0.05, 0.2]
    expected = torch.stack([margin > e * model.weight.detach().abs().sum() for e in epsilons])
    assert 0.1 < expected[1:4].float().mean() < 0.9
    assert torch.equal(curve(model, images, labels, name, epsilons, classes=2), expected)


def test_fgsm_equals_a_naive_one():
    model, images, labels = toy()
    clean = (images / 255).requires_grad_()
    F.cross_entropy(model.eval()(clean), labels).backward()
    expected = (clean + EPSILON * clean.grad.sign()).clamp(0, 1).detach()
    found = perturb(model, clean.detach(), labels, "fgsm", EPSILON, num_classes=5, seed=0)
    assert (found - expected).abs().max() < 1e-6


def test_attacks_rank_as_they_should():
    model, images, labels = toy(count=100)
    left = {
        name: curve(model, images, labels, name, [0.02], batch_size=50).float().mean().item()
        for name in BUILT_IN
    }
    assert left["autoattack"] <= left["pgd"] <= left["fgsm"] < left["noise"]


def test_few_class_padding_lets_every_member_attack(monkeypatch):
    """With two classes the targeted DLR loss alone must break what the closed form breaks."""
    import torchattacks

    model, images, labels = linear_toy()
    alone = torchattacks.MultiAttack.__init__

    def keep_apgdt(self, members, verbose=False):
        alone(self, [members[1], members[1]], verbose)

    monkeypatch.setattr(torchattacks.MultiAttack, "__init__", keep_apgdt)
    score = (images / 255).flatten(1) @ model.weight.detach() + model.bias.detach()
    expected = score * (2 * labels - 1) > 0.02 * model.weight.detach().abs().sum()
    right = curve(model, images, labels, "autoattack", [0.02], classes=2)[0]
    assert torch.equal(right, expected)


def test_weights_get_no_gradient_during_the_attack():
    model, images, labels = toy()
    seen = []
    model.register_forward_pre_hook(
        lambda module, _: seen.append(any(p.requires_grad for p in module.parameters()))
    )
    perturb(model, images / 255, labels, "pgd", EPSILON, num_classes=5, seed=0)
    assert seen and not any(seen)


# --- transfer, scoring, worst case -----------------------------------------------------------


def test_transfer_hurts_the_source_most():
    source, images, labels = toy(count=40)
    target = conv_net(5, seed=9)
    made = transfer_images(
        source, images, labels, "pgd", [0.0, 0.1], options=QUICK["pgd"], num_classes=5, seed=0
    )
    assert made.shape == (2, 40, 3, 8, 8)
    assert torch.equal(made[0], images / 255)
    assert (made[1] - made[0]).abs().max() <= 0.1 + 1e-6
    own = score_images(target.eval(), images, labels)
    target_labels = target(images / 255).argmax(1)
    assert score_images(target, images, target_labels).all() and not own.all()
    broken_source = score_images(source, made[1], labels).float().mean()
    broken_target = score_images(target, made[1], target_labels).float().mean()
    assert broken_source < broken_target


def test_scores_that_are_not_finite_are_wrong():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.constant_(model[1].weight, torch.nan)
    images = torch.zeros(2, 3, 2, 2)
    assert not score_images(model, images, torch.tensor([0, 1])).any()


def test_transfer_attacks_only_what_is_right_when_clean(build, toy, split):
    """As everywhere: an image that the model gets wrong stays wrong, whatever is done to it."""
    model = build("small_vit")
    how = {"options": {}, "epsilons": [64.0, 8.0], "seed": 0, "batch_size": 16}
    how |= {"images": {"test": 30, "retain": 20, "forget": 0}}
    pictures = measures.adversarial(model, toy, split, attack="fgsm", **how)
    assert pictures.shape == (2, 50, 3, 8, 8)
    other = build("small_vit", seed=1)
    every, bounded = (
        measures.transfer(other, pictures.flip(-1), toy, split, attack=attack, **how)
        for attack in ("noise", "fgsm")
    )
    assert bounded["epsilons"] == [0.0, 8.0, 64.0] and list(bounded["sets"]) == ["test", "retain"]
    more = 0
    for name, counts in bounded["sets"].items():
        clean, *rows = torch.tensor(counts["right"])
        assert counts["n"] == every["sets"][name]["n"]
        assert all((row <= clean).all() for row in rows)
        more += (torch.tensor(every["sets"][name]["right"][1:]) > clean).sum()
    assert more > 0, "without that some images would become right"


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1; allowed"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": 8}, "8/255, not 8"),
        ({"images": torch.full((24, 3, 8, 8), 1.5)}, r"lie in \[0, 1\]"),
        ({"images": torch.full((24, 3, 8, 8), torch.nan)}, r"lie in \[0, 1\]"),
        ({"attack": "cw"}, "unknown attack 'cw'; known: noise, fgsm, pgd, autoattack"),
        ({"options": {"step": 3}}, "unknown option of attack 'pgd' 'step'; known: steps"),
        ({"options": {"steps": 0}}, "steps of attack pgd is 0; it must be a finite int above 0"),
        ({"options": {"steps": -3}}, "steps of attack pgd is -3"),
        ({"options": {"steps": 2.5}}, "steps of attack pgd is 2.5"),
        ({"options": {"steps": True}}, "steps of attack pgd is True"),
        ({"options": {"step_ratio": -0.1}}, "step_ratio of attack pgd is -0.1; .* float above 0"),
        ({"options": {"step_ratio": float("nan")}}, "step_ratio of attack pgd is nan"),
        ({"options": {"step_ratio": float("inf")}}, "step_ratio of attack pgd is inf"),
        ({"options": {"step_ratio": "x"}}, "step_ratio of attack pgd is 'x'"),
        ({"attack": "autoattack", "options": {"queries": 0}}, "queries of attack autoattack is 0"),
        ({"attack": "autoattack", "options": {"targets": 0}}, "targets of attack autoattack is 0"),
        ({"num_classes": 7}, "the model has 5 classes but num_classes is 7"),
        ({"num_classes": 2}, "labels run from 0 to 4; allowed with num_classes=2: 0 to 1"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "24 images but 3 labels"),
    ],
)
def test_errors_say_what_is_allowed(change, message):
    model, images, labels = toy()
    labels[:2] = torch.tensor([0, 4])
    call = {
        "images": images / 255,
        "labels": labels,
        "attack": "pgd",
        "epsilon": 0.1,
        "options": None,
        "num_classes": 5,
    }
    with pytest.raises(UserError, match=message):
        perturb(model, **{**call, **change}, seed=0)
    change = {("epsilons" if k == "epsilon" else k): v for k, v in change.items()}
    call["epsilons"] = call.pop("epsilon")
    merged = {**call, **change}
    merged["epsilons"] = [0.0, merged["epsilons"]]
    with pytest.raises(UserError, match=message):
        robust_curve(model, **merged, seed=0)


def test_what_an_option_may_be_follows_from_its_default():
    @attacks.attack("free")
    def free(model, images, labels, epsilon, *, num_classes, seed, shift=0.0, aim="near"):
        return images

    assert attack_options("free", {"shift": -1}) == {"shift": -1, "aim": "near"}
    with pytest.raises(UserError, match=r"free is nan; it must be a finite float$"):
        attack_options("free", {"shift": float("nan")})


def test_an_epsilon_is_named_once():
    with pytest.raises(UserError, match=r"epsilons hold 0\.1 twice"):
        curve(*toy(), "pgd", [0.1, 0.0, 0.1])


def test_missing_torchattacks_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    model, images, labels = toy()
    with pytest.raises(UserError, match=r"pip install --no-deps torchattacks==3\.5\.1"):
        perturb(model, images / 255, labels, "fgsm", 0.1, num_classes=5, seed=0)
    assert all(p.requires_grad for p in model.parameters())


def test_nothing_is_printed(capsys):
    model, images, labels = toy()
    curve(model, images, labels, "autoattack", [EPSILON])
    assert capsys.readouterr() == ("", "")


def test_num_classes_and_seed_are_no_options_and_kinds_are_checked():
    @attacks.attack("kinds")
    def kinds(model, images, labels, epsilon, *, num_classes=10, seed=0, flag=True, mode="a"):
        return images

    assert attack_options("kinds") == {"flag": True, "mode": "a"}
    for wrong in ({"flag": "no"}, {"mode": 3.5}):
        with pytest.raises(UserError, match="it must be a"):
            attack_options("kinds", wrong)
    with pytest.raises(UserError, match="must take the keywords num_classes and seed"):
        attacks.attack("bare")(lambda model, images, labels, epsilon: images)
