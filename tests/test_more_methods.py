"""The methods beyond the study's own, held to their papers' rules, and what the registry says."""

import inspect
import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import differing, of_kind, recipe, state_of
from torch import nn

from unlearnkit import scopes
from unlearnkit.data.splits import make_split
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS, amun, ct, lotus, msg, regun
from unlearnkit.models import Classifier
from unlearnkit.study.plan import cells_of
from unlearnkit.study.profile import load_profile
from unlearnkit.training import Run

VIT, RESNET = "small_vit", "resnet50"
PLAIN = {"crop": 0, "flip": False}
STUDY = {"retrain", "cf", "bs", "rl", "scrub", "salun", "ga"}


@pytest.fixture
def checked(monkeypatch):
    """A function that holds every step's loss to one, called with the run before the step."""

    def go(expected):
        step, seen = Run.step, []

        def spied(run, loss):
            seen.append(loss.item())
            assert loss.item() == pytest.approx(expected(run, len(seen) - 1), rel=1e-4, abs=1e-6)
            step(run, loss)

        monkeypatch.setattr(Run, "step", spied)
        return seen

    return go


def ce(model, batch):
    """Return the mean cross-entropy of a fetched batch, the model's modes as they are."""
    _, images, labels = batch
    return F.cross_entropy(model(images), labels).item()


def kl(target, logits):
    """Return KL(target || softmax(logits)), averaged over the batch."""
    terms = target.xlogy(target) - target * logits.log_softmax(1)
    return terms.sum(1).mean().item()


def split_cuts(cuts, split):
    """Return the batches, each as ("forget", "retain" or "mixed", its sorted indices)."""
    forget, named = set(split.forget.tolist()), []
    for index in cuts:
        inside = forget & set(index)
        kind = "retain" if not inside else "forget" if inside == set(index) else "mixed"
        named.append((kind, sorted(index)))
    return named


def joined(batches):
    return sorted(itertools.chain(*(index for _, index in batches)))


def test_msg_looks_at_both_sets_once_and_then_goes_through_the_retain_set(
    forget_with, events, split
):
    forget_with("msg", epochs=3)
    batches = split_cuts(of_kind(events, "cut"), split)
    part, forget, retain = (
        list(group) for _, group in itertools.groupby(batches, key=lambda pair: pair[0])
    )
    assert len(joined(part)) == len(split.forget) and part[0][0] == "retain"
    assert joined(forget) == split.forget.tolist()
    assert joined(retain) == sorted(split.retain.tolist() * 3)


@pytest.mark.parametrize("name", ["neggrad_plus", "regun"])
def test_each_step_has_a_batch_of_either_set(name, forget_with, events, split):
    forget_with(name, epochs=3)
    batches = split_cuts(of_kind(events, "cut"), split)
    assert len(batches) == 2 * len(of_kind(events, "step")) == 2 * 3 * math.ceil(33 / 8)
    assert [kind for kind, _ in batches] == ["retain", "forget"] * 15
    assert joined(batches[0:10:2]) == split.retain.tolist()
    times = Counter(joined(batches[1:10:2]))
    assert times.keys() == set(split.forget.tolist())
    assert set(times.values()) == {4, 5}, "five times eight of nine images"


@pytest.mark.parametrize("name", ["bad_teacher", "lotus"])
def test_a_part_of_the_retain_set_is_mixed_in(name, forget_with, events, split):
    forget_with(name, epochs=2, retain_share=0.3)
    cuts = of_kind(events, "cut")
    first, second = (sorted(itertools.chain(*part)) for part in (cuts[:3], cuts[3:]))
    assert first == second and len(first) == 9 + 10 and len(set(first)) == 19
    assert set(first) > set(split.forget.tolist())
    assert any(kind == "mixed" for kind, _ in split_cuts(cuts, split))


@pytest.mark.parametrize("beside, count", [("retain", 33), ("all", 42), ("forget", 9)])
def test_amun_trains_on_attacked_images_beside_others(
    beside, count, forget_with, original, fetched, events, toy, split
):
    made = forget_with("amun", epochs=2, batch_size=16, beside=beside)
    model, ((index, images, _), *batches) = original(VIT).eval(), fetched
    assert index.tolist() == split.forget.tolist()
    assert torch.equal(images, toy.train_images[index] / 255), "attacked as they are"
    seen = sorted(itertools.chain(*(b[0].tolist() for b in batches)))
    other = {"retain": split.retain, "all": split.train, "forget": split.forget}[beside]
    assert seen == sorted(other.tolist() * 2)
    added, pairs = Counter(), of_kind(events, "loss")
    for (real, _, _), (all_images, all_labels) in zip(batches, pairs, strict=True):
        extra, guess = all_images[len(real) :], all_labels[len(real) :]
        assert torch.equal(model(extra).argmax(1), guess) if len(extra) else True
        added.update(image.numpy().tobytes() for image in extra)
    assert sum(added.values()) == 18 and set(added.values()) == {2}
    assert 0 < made.log["hit_ratio"] <= 1 and made.log["distance"] > 0
    assert sum(map(len, (labels for _, labels in pairs))) == 2 * (count + 9)


def naive_nearest(model, image, label, steps):
    """Return the image, [3, H, W] in [0, 1], once the model gets it wrong."""
    moved, radius = image, 0.04
    while model(moved[None]).argmax() == label:
        moved = image
        for _ in range(steps):
            pixels = moved.clone().requires_grad_(True)
            F.cross_entropy(model(pixels[None]), label[None]).backward()
            away = moved + radius / 10 * pixels.grad / pixels.grad.norm() - image
            moved = (image + away * min(1.0, radius / away.norm().item())).clamp(0, 1)
        radius *= 2
    return moved


def test_the_nearest_adversarial_images_against_a_naive_implementation(original, toy, split):
    model = original(VIT).eval()
    index = split.forget[:5]
    images, labels = toy.train_images[index] / 255, toy.train_labels[index]
    labels[0] = (labels[0] + 1) % 3  # so that one is wrong when clean
    found = amun.nearest(model, images, labels, 0.04, 8)
    assert (model(found).argmax(1) != labels).all() and torch.equal(found[0], images[0])
    for image, label, near in zip(images, labels, found, strict=True):
        wanted = naive_nearest(model, image, label, 8)
        torch.testing.assert_close(near, wanted, rtol=0, atol=1e-3)
    assert (found - images).flatten(1).norm(dim=1).max() > 0.1, "the radius was doubled"
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    nn.init.zeros_(flat[1].weight)
    flat[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
    stuck = amun.nearest(flat, images[:3], torch.zeros(3, dtype=torch.long), 0.04, 2)
    assert torch.equal(stuck, images[:3]), "without a gradient left as it is, and it ends"


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_neggrad_plus_goes_down_one_loss_and_up_the_other(beta, checked, forget_with, fetched):
    def expected(run, number):
        kept, lost = fetched[-2:]
        return beta * ce(run.model, kept) - (1 - beta) * ce(run.model, lost)

    assert len(checked(expected)) == 0
    forget_with("neggrad_plus", beta=beta)
    assert len(fetched) == 2 * 2 * 5


@pytest.mark.parametrize("heat", [1.0, 3.0])
def test_scrub_losses_and_their_signs(heat, checked, forget_with, fetched, split):
    def expected(run, number):
        index, images, labels = fetched[-1]
        logits = run.model(images)
        far = heat**2 * kl((run.original(images) / heat).softmax(1), logits / heat)
        if set(index.tolist()) <= set(split.forget.tolist()):
            return -far
        return 0.7 * F.cross_entropy(logits, labels).item() + 0.3 * far

    seen = checked(expected)
    forget_with("scrub", alpha=0.3, gamma=0.7, temperature=heat)
    assert len(seen) == 3 + 5 + 5


def test_l1_sparse_adds_a_norm_that_fades(checked, forget_with, fetched):
    def expected(run, number):
        weights = dict(scopes.trainable(run.model))
        norm = sum(w.abs().sum().item() for w in weights.values())
        return ce(run.model, fetched[-1]) + 0.01 * (1 - number // 5 / 3) * norm

    seen = checked(expected)
    made = forget_with("l1_sparse", epochs=3, gamma=0.01, keywords={"scope": "last"})
    assert len(seen) == 15 and 0 < made.log["l1_ratio"] < 1


def test_delete_takes_the_true_class_out_of_the_original_s_guess(checked, forget_with, fetched):
    def expected(run, number):
        _, images, labels = fetched[-1]
        target = run.original(images).exp() * (1 - F.one_hot(labels, 3))
        return kl(target / target.sum(1, keepdim=True), run.model(images))

    checked(expected)
    forget_with("delete")


def test_bad_teacher_follows_an_untrained_network_and_the_original(
    checked, forget_with, fetched, build, split
):
    bad, lost = build(VIT, 1).eval(), set(split.forget.tolist())

    def expected(run, number):
        index, images, _ = fetched[-1]
        forget = torch.tensor([i in lost for i in index.tolist()])[:, None]
        target = torch.where(forget, bad(images), run.original(images)).softmax(1)
        return kl(target, run.model(images))

    checked(expected)
    forget_with("bad_teacher")


def test_lotus_targets_and_temperature(checked, forget_with, fetched, monkeypatch, toy, split):
    noise, lost = [], set(split.forget.tolist())
    gumbel = F.gumbel_softmax

    def spied(logits, tau):
        noise.append((logits, tau, gumbel(logits, tau)))
        return noise[-1][2]

    monkeypatch.setattr(F, "gumbel_softmax", spied)

    def expected(run, number):
        index, images, labels = fetched[-1]
        logits, tau, smooth = noise[-1]
        assert torch.equal(logits, run.original(images))
        assert tau == pytest.approx(math.exp(3 * run.log["delta"]))
        forget = torch.tensor([i in lost for i in index.tolist()])[:, None]
        target = torch.where(forget, smooth, F.one_hot(labels, 3).float())
        return -(target * run.model(images).log_softmax(1)).sum(1).mean().item()

    seen = checked(expected)
    made = forget_with("lotus", alpha=3.0)
    assert len(seen) == 2 * 3 and made.log["epochs_trained"] == 2


def test_lotus_stops_when_the_forget_set_looks_unseen(forget_with, original, toy, split):
    labels = toy.train_labels.clone()
    labels[split.forget] = (labels[split.forget] + 1) % 3  # so that all are wrong
    wrong = replace(toy, train_labels=labels)
    made = forget_with("lotus", keywords={"data": wrong}, overshoot=0.01)
    right = lotus.accuracy(
        Run(original(VIT), toy, split.retain, recipe(), 0, "x"), original(VIT), split.validation
    )
    assert made.log["delta"] == pytest.approx(-right, abs=0.12) and right > 0.5
    assert made.log["epochs_trained"] == 0
    assert not differing(made.model, original(VIT))


def test_regun_s_target_is_the_original_s_mean_on_images_never_seen(
    checked, forget_with, fetched, monkeypatch, toy, split
):
    held, labels = toy.train_images[split.validation] / 255, toy.train_labels[split.validation]
    drawn, alike = [], regun.alike
    monkeypatch.setattr(regun, "alike", lambda *a: (drawn.append(alike(*a)), drawn[-1])[1])

    def expected(run, number):
        kept, (_, images, true) = fetched[-2:]
        assert labels[drawn[-1]].bincount(minlength=3).equal(true.bincount(minlength=3))
        target = run.original(held[drawn[-1]]).softmax(1).mean(0).expand(len(images), -1)
        return ce(run.model, kept) + 0.5 * kl(target, run.model(images))

    checked(expected)
    forget_with("regun", weight=0.5)
    assert len({tuple(chosen.tolist()) for chosen in drawn}) > 1, "drawn anew for each batch"


def test_alike_draws_the_same_class_histogram():
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    for wanted in ([1, 1], [0, 0, 0, 2], [2, 2, 2, 1]):
        chosen = regun.alike(labels, torch.tensor(wanted), torch.Generator().manual_seed(0))
        assert sorted(labels[chosen].tolist()) == sorted(wanted)
    assert sorted(chosen.tolist())[-3:] == [3, 4, 5], "no image twice before all were taken"


def test_sfr_on_ascends_every_fifth_step_where_the_mask_lets_it(
    monkeypatch, forget_with, fetched, original
):
    step, signs, moved, norms = Run.step, [], [], []

    def spied(run, loss):
        signs.append("-" if loss < 0 else "+")
        before = state_of(run.model)
        if loss < 0:
            _, images, labels = fetched[-1]
            losses = F.cross_entropy(run.model(images), labels, reduction="none")
            shares = losses**-0.5 / (losses**-0.5).sum()
            along = math.cos(math.pi * signs.count("+") / 15)
            value = 12.5 * (1 + along) * (shares * losses).sum().item()
            assert loss.item() == pytest.approx(-value, rel=1e-3)
        else:
            fetches = fetched[-2:] if signs[-2:-1] == ["-"] else fetched[-1:]
            assert loss.item() == pytest.approx(
                F.cross_entropy(run.model(fetches[0][1]), fetches[0][2]).item(), rel=1e-3
            )
        step(run, loss)
        if loss < 0:
            weights = [p for _, p in scopes.trainable(run.model)]
            norms.append(torch.cat([p.grad.flatten() for p in weights]).norm().item())
            named = dict(scopes.trainable(run.model))
            moved.append(torch.cat([(named[n] != before[n]).flatten() for n in named]))

    monkeypatch.setattr(Run, "step", spied)
    made = forget_with("sfr_on", epochs=3, lr=1.0, max_norm=0.5, momentum=0.0, weight_decay=0.0)
    assert "".join(signs) == "-+++++" * 3
    assert max(norms) == pytest.approx(0.5, rel=1e-3)
    free = made.log["mask_density"]
    assert 0.1 < free < 0.99 and torch.stack(moved).any(0).double().mean() <= free + 1e-9
    assert moved[0].double().mean() > 0.8 * free


def naive_fisher(model, toy, index):
    """Return the mean over images of the squared gradient of each one's loss."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in index.tolist():
        model.zero_grad()
        F.cross_entropy(
            model(toy.train_images[i : i + 1] / 255), toy.train_labels[i : i + 1]
        ).backward()
        for name, parameter in model.named_parameters():
            total[name] += parameter.grad**2 / len(index)
    return total


def test_ssd_dampens_what_matters_more_to_the_forget_set(forget_with, original, events, toy, split):
    made = forget_with("ssd", epochs=3, batch_size=1, alpha=1.5, dampening=1.2)
    model = original(VIT).eval()
    lost, whole = (naive_fisher(model, toy, index) for index in (split.forget, split.train))
    shrunk = total = unsure = 0
    for name, end in dict(made.model.named_parameters()).items():
        start = model.get_parameter(name)
        ratio = lost[name] / whole[name].clamp_min(1e-30)
        clear = (ratio - 1.5).abs() > 0.01
        chosen = ratio > 1.5
        wanted = torch.where(chosen, (1.2 / ratio).clamp(max=1) * start, start)
        torch.testing.assert_close(end[clear], wanted[clear], rtol=2e-3, atol=1e-7)
        shrunk, total = shrunk + int(chosen.sum()), total + chosen.numel()
        unsure += int((~clear).sum())
    assert abs(made.log["dampened"] - shrunk / total) <= unsure / total and shrunk > 0.02 * total
    assert not of_kind(events, "step")
    assert Counter(itertools.chain(*of_kind(events, "cut"))) == {
        i: 1 + (i in split.forget.tolist()) for i in split.train.tolist()
    }


def test_be_trains_to_a_shadow_class_and_drops_it(checked, forget_with, original, fetched):
    def expected(run, number):
        _, images, _ = fetched[-1]
        logits = run.model(images)
        assert logits.shape == (len(images), 4)
        return F.cross_entropy(logits, torch.full((len(images),), 3)).item()

    seen = checked(expected)
    made = forget_with("be", lr=0.05, epochs=3)
    assert len(seen) == 6 and seen[-1] < seen[0]
    assert made.model.state_dict().keys() == original(VIT).state_dict().keys()
    assert made.model(fetched[0][1]).shape[1] == 3
    assert made.parameters == sum(p.numel() for p in original(VIT).parameters())
    assert "net.head.weight" in differing(made.model, original(VIT))


@pytest.mark.parametrize("architecture", [VIT, RESNET])
def test_msg_starts_the_smallest_gradients_afresh(architecture, forget_with, original, toy, split):
    idle = {"lr": 0.0, "epochs": 1, "fraction": 0.3}
    made, start = forget_with("msg", architecture, **idle).model, original(architecture)
    kind = nn.Conv2d if architecture == RESNET else nn.Linear
    weights = {f"{n}.weight": m for n, m in start.named_modules() if isinstance(m, kind)}
    changed = {n for n in differing(made, start) if n in dict(start.named_parameters())}
    assert changed == weights.keys(), "nothing else moves at a rate of 0"
    run = Run(start, toy, split.retain, recipe(), 0, "x", forget_index=split.forget)
    for name, mask in msg.smallest(run, 0.3).items():
        end = made.get_parameter(name)
        assert mask.sum() == round(0.3 * mask.numel())
        assert torch.equal(end != start.get_parameter(name), mask), "those, and drawn anew"
    name, layer = max(weights.items(), key=lambda pair: pair[1].weight.numel())
    fan_out = layer.weight[:, 0].numel()
    fresh = made.get_parameter(name)[made.get_parameter(name) != layer.weight]
    assert fresh.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


def test_msg_s_other_weights_learn_at_a_tenth(forget_with, original, monkeypatch):
    idle = {"momentum": 0.0, "weight_decay": 0.0, "epochs": 1, "batch_size": 64, "fraction": 0.3}
    monkeypatch.setattr(msg, "finetune", lambda run: None)
    start = forget_with("msg", **idle).model
    monkeypatch.undo()
    ends = [forget_with("msg", others_scale=scale, **idle).model for scale in (1.0, 0.1)]
    for name, begin in start.named_parameters():
        full, tenth = (end.get_parameter(name) - begin for end in ends)
        fresh = (begin != original(VIT).get_parameter(name)) & (begin.dim() == 2)
        torch.testing.assert_close(tenth, torch.where(fresh, full, full / 10), rtol=0.01, atol=1e-7)


def test_ct_turns_every_kernel_in_scope(forget_with, original):
    for scope in ("all", "last"):
        made = forget_with("ct", RESNET, keywords={"scope": scope}, lr=0.0, epochs=1).model
        for name, module in original(RESNET).named_modules():
            if isinstance(module, nn.Conv2d):
                end = made.get_parameter(f"{name}.weight")
                turned = scopes.in_scope(made, name)
                assert torch.equal(end, module.weight.transpose(2, 3) if turned else module.weight)


@pytest.mark.parametrize(
    "name, architecture, options",
    [
        ("neggrad_plus", VIT, {"beta": 1.0}),
        ("regun", VIT, {"weight": 0.0}),
        ("l1_sparse", RESNET, {"gamma": 0.0}),
        ("msg", RESNET, {"fraction": 0.0, "others_scale": 1.0}),
    ],
)
def test_limits_that_are_cf(name, architecture, options, forget_with):
    made = forget_with(name, architecture, **PLAIN, **options)
    assert not differing(made.model, forget_with("cf", architecture, **PLAIN).model)


def test_limits_that_are_the_original_or_others(forget_with, original, build, monkeypatch):
    assert not differing(forget_with("ssd", RESNET, alpha=1e30).model, original(RESNET))
    symmetric = original(RESNET)
    for module in ct.kernels(symmetric).values():
        module.weight.data = module.weight.data + module.weight.data.transpose(2, 3)
    made = forget_with("ct", RESNET, of=symmetric)
    assert not differing(made.model, forget_with("cf", RESNET, of=symmetric).model)
    # A teacher that is the original has nothing to teach but rounding.
    same = forget_with("bad_teacher", keywords={"fresh": lambda: original(VIT)}, weight_decay=0.0)
    pairs = zip(same.model.parameters(), original(VIT).parameters(), strict=True)
    assert max((p - q).abs().max().item() for p, q in pairs) < 1e-5


def plain(*layers):
    """Return a classifier of 8x8 images in three classes."""
    return Classifier("plain", nn.Sequential(*layers), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    "name, changes, says",
    [
        ("ct", {"of": VIT}, "beyond its stem, as transformers"),
        ("ct", {"of": RESNET, "scope": "modules:net.fc"}, "this scope has none above 1x1"),
        ("msg", {"of": RESNET, "scope": "modules:net.fc"}, "starts Conv2d weights .* has none"),
        ("msg", {"of": VIT, "scope": "modules:net.cls_token"}, "starts Linear weights"),
        ("lotus", {"held": False}, "method lotus needs validation images"),
        ("regun", {"held": False}, "method regun needs validation images"),
        *((name, {"fresh": None}, "needs `fresh`") for name in ("retrain", "bad_teacher")),
        ("be", {"of": plain(nn.Conv2d(3, 3, 8), nn.Flatten())}, "last linear layer; .* has none"),
        (
            "be",
            {"of": plain(nn.Flatten(), nn.Linear(192, 6), nn.AdaptiveAvgPool1d(3))},
            "has 6 outputs, not 3 classes",
        ),
        (
            "ct",
            {"of": plain(nn.Conv2d(3, 3, (1, 3)), nn.Flatten(), nn.Linear(144, 3))},
            "have to be square",
        ),
    ],
)
def test_what_is_undefined_is_refused_before_any_step(
    name, changes, says, forget_with, original, events, toy
):
    of = changes.get("of", VIT)
    keywords = {k: v for k, v in changes.items() if k in ("scope", "fresh")}
    if "held" in changes:
        keywords["split"] = make_split(toy, forget="random:0.2", validation=0.0, seed=0)
    with pytest.raises(UserError, match=says):
        forget_with(name, of=original(of) if isinstance(of, str) else of, keywords=keywords)
    assert not of_kind(events, "cut")


def test_regun_needs_every_forgotten_class_held_out(forget_with, toy, split):
    lacking = replace(split, validation=split.validation[toy.train_labels[split.validation] > 0])
    with pytest.raises(UserError, match="validation images of class 0 as well"):
        forget_with("regun", keywords={"split": lacking})


def profile_of(tmp_path, text):
    (tmp_path / "mine.toml").write_text(f'extends = "quick"\n{text}\n')
    return load_profile(tmp_path / "mine.toml")


def test_a_profile_leaves_out_or_refuses_what_is_undefined(tmp_path):
    profile = profile_of(tmp_path, 'methods = ["retrain", "ct", "msg"]')
    assert {c.architecture for c in cells_of(profile) if c.method == "ct"} == {RESNET}
    assert {c.architecture for c in cells_of(profile) if c.method == "msg"} == {RESNET, VIT}
    for text, says in (
        ('methods = ["ct"]\narchitectures = ["small_vit"]', "beyond its stem"),
        ('methods = ["ct"]\narchitectures = ["vit_tiny_patch16_224"]', "beyond its stem"),
        ('methods = ["regun"]\nvalidation = 0', "regun needs validation images; set validation"),
    ):
        with pytest.raises(UserError, match=says):
            profile_of(tmp_path, text)
    profile_of(tmp_path, 'methods = ["ct"]\narchitectures = ["convnext_tiny", "resnet18"]')


def test_profile_methods_runs_all_and_is_swept_where_there_is_a_rate():
    study, sweep = load_profile("methods"), load_profile("cifar10-methods")
    assert set(study["methods"]) == set(sweep["methods"]) == METHODS.keys()
    assert {c.method for c in cells_of(study) if c.architecture == RESNET} > METHODS.keys()
    new = METHODS.keys() - STUDY - {"ssd"}
    for network, lacking in ((RESNET, set()), (VIT, {"ct"})):
        rates = sweep["sweep"]["rates"][network]
        assert {n for n, tried in rates.items() if len(tried) == 3} == new - lacking
        assert all(sweep.hyperparameters(n, network)["lr"] in rates[n] for n in rates)
    assert not set(load_profile("quick")["methods"]) - STUDY


def test_the_registry_has_what_a_table_of_methods_shows():
    for entry in METHODS.values():
        assert all((entry.paper, entry.needs_retain, entry.passes, entry.published)), entry.name
        parameters = list(inspect.signature(entry.function).parameters.values())[1:]
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
        assert entry.name in STUDY or "Logs " in entry.function.__doc__
    assert len(METHODS) == 19 and METHODS.keys() > STUDY
    for what in ("order", "color", "title"):
        assert len({getattr(entry, what) for entry in METHODS.values()}) == 19
    shown = sorted(METHODS.values(), key=lambda entry: entry.order)
    titles = ["Retrain", "CF", "BS", "RL", "SCRUB", "SalUn", "GA"]
    assert [entry.title for entry in shown[:7]] == titles and METHODS["bs"].version == 2
