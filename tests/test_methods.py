"""The unlearning methods, held to their papers' rules, and one contract over the registry."""

import copy
import functools
import itertools
import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from conftest import differing, of_kind, recipe, state_of

from unlearnkit import methods, scopes
from unlearnkit.data.splits import make_split
from unlearnkit.errors import UserError
from unlearnkit.methods import METHODS, about, bs, method, parse_hyperparameters, rl, salun
from unlearnkit.metrics import predictions
from unlearnkit.training import Run, train

VIT = "small_vit"
ARCHITECTURES = ("resnet50", VIT)
EVERY = [(n, a) for n in sorted(METHODS) for a in ARCHITECTURES if (n, a) != ("ct", VIT)]


def passes(cuts, split):
    """Sort fetched batches into passes: [("forget" or "retain", sorted indices), ...]."""
    forget, found = set(split.forget.tolist()), []
    for index in cuts:
        assert set(index) <= forget or not set(index) & forget, "a batch of both sets"
        kind = "forget" if set(index) <= forget else "retain"
        if not found or found[-1][0] != kind or len(found[-1][1]) == len(getattr(split, kind)):
            found.append((kind, []))
        found[-1][1].extend(index)
    return [(kind, sorted(index)) for kind, index in found]


@pytest.mark.parametrize(
    "name, changes, kinds",
    [
        ("cf", {}, ["retain"] * 3),
        *((name, {}, ["retain"] * 3) for name in ("retrain", "l1_sparse", "ct")),
        *((name, {}, ["forget"] * 3) for name in ("ga", "bs", "be", "delete")),
        ("rl", {}, ["forget", "retain"] * 3),
        ("salun", {}, ["forget", "forget", "retain", *["forget", "retain"] * 2]),
        ("scrub", {"msteps": 0}, ["retain"] * 3),
        ("scrub", {"msteps": 2}, [*["forget", "retain"] * 2, "retain"]),
        ("scrub", {"msteps": 9}, ["forget", "retain"] * 3),
    ],
)
def test_passes_fetch_each_image_of_their_set_once(
    name, changes, kinds, forget_with, events, split
):
    made = forget_with(name, "resnet50" if name == "ct" else VIT, epochs=3, **changes)
    cuts, losses = of_kind(events, "cut"), of_kind(events, "step")
    assert passes(cuts, split) == [(kind, getattr(split, kind).tolist()) for kind in kinds]
    assert len(set(map(tuple, cuts))) == len(cuts), "epochs are shuffled anew"
    saliency = 2 if name == "salun" else 0
    assert len(losses) == len(cuts) - saliency
    assert all((loss < 0) == (name == "ga") for loss in losses) or name == "scrub", "GA climbs"
    sizes = [len(index) for index in cuts[saliency:] if set(index) <= set(split.forget.tolist())]
    assert set(sizes) <= ({3} if name == "scrub" else {4, 5}), "9 in fours or eights"
    assert made.log.get("max_steps", len(sizes)) == len(sizes)


@pytest.mark.parametrize("name", ["cf", "retrain"])
def test_what_the_forget_images_and_labels_are_makes_no_difference(name, forget_with, toy, split):
    images, labels = toy.train_images.clone(), toy.train_labels.clone()
    unused = torch.cat([split.forget, split.validation])
    images[unused], labels[unused] = 255 - images[unused], 10**9
    poisoned = replace(toy, train_images=images, train_labels=labels)
    kept = forget_with(name).model
    assert not differing(kept, forget_with(name, keywords={"data": poisoned}).model)


def test_retrain_of_everything_is_training_on_the_retain_set(forget_with, build, toy, split):
    trained = train(build(VIT, 1), toy, split.retain, recipe(), seed=0).model
    assert not differing(trained, forget_with("retrain").model)
    assert not differing(trained, forget_with("retrain", of=build(VIT, 7)).model)


@pytest.mark.parametrize(
    "architecture, scope",
    [
        *itertools.product(ARCHITECTURES, ("first", "intermediate", "last")),
        ("small_vit", "modules:net.cls_token"),
        ("resnet50", "modules:net.fc.weight"),
    ],
)
def test_retrain_under_scope_starts_its_layers_afresh(
    architecture, scope, forget_with, build, original
):
    made = forget_with("retrain", architecture, keywords={"scope": scope}, epochs=0).model
    inside = {name for name in made.state_dict() if scopes.in_scope(made, name)}
    assert inside & set(differing(made, original(architecture)))
    assert set(differing(made, original(architecture))) <= inside
    assert not inside & set(differing(made, build(architecture, 1)))


def test_shuffled_passes_mix_both_sets_into_one(forget_with, events, split):
    forget_with("rl", epochs=2, passes="shuffled")
    cuts, forget = of_kind(events, "cut"), set(split.forget.tolist())
    assert len(cuts) == 2 * math.ceil(42 / 8)
    for epoch in (cuts[:6], cuts[6:]):
        assert sorted(itertools.chain(*epoch)) == split.train.tolist()
    assert any(0 < len(forget & set(index)) < len(index) for index in cuts)


@pytest.mark.parametrize("often", ["batch", "epoch", "once"])
@pytest.mark.parametrize("passes", ["in turn", "shuffled"])
@pytest.mark.parametrize("exclude", [False, True])
def test_forget_images_alone_get_other_labels_as_often_as_asked(
    often, passes, exclude, forget_with, events, toy, split
):
    forget_with("rl", epochs=4, labels_drawn=often, passes=passes, exclude_true=exclude)
    given = {i: [] for i in split.train.tolist()}
    for index, (_, labels) in zip(of_kind(events, "cut"), of_kind(events, "loss"), strict=True):
        for i, label in zip(index, labels.tolist(), strict=True):
            given[i].append(label)
    lost = split.forget.tolist()
    assert all(given[i] == [toy.train_labels[i]] * 4 for i in given.keys() - set(lost))
    changed = sum(label != toy.train_labels[i] for i in lost for label in given[i])
    assert changed == 36 if exclude else 12 < changed < 36
    assert all(len(set(given[i])) == 1 for i in lost) == (often == "once")


@pytest.mark.parametrize("exclude", [False, True])
def test_label_histogram_is_uniform_for_each_true_class(exclude):
    true = torch.arange(8000) % 4
    drawn = rl.draw(true, 4, exclude, torch.Generator().manual_seed(0))
    for label in range(4):
        counts = torch.bincount(drawn[true == label], minlength=4).double()
        allowed = torch.arange(4) != label if exclude else torch.ones(4, dtype=torch.bool)
        assert counts[~allowed].sum() == 0
        expected = 2000 / allowed.sum()
        assert ((counts[allowed] - expected) ** 2 / expected).sum() < 16.3, "p < 0.001"


def naive_attack(model, image, label, bound):
    """FGSM on whole grey levels, one image at a time: [3, H, W] in [0, 1] -> the same."""
    pixels = image.clone().requires_grad_(True)
    F.cross_entropy(model(pixels[None]), label[None]).backward()
    levels = math.floor(bound * 255 + 1e-4) * pixels.grad.sign()
    return ((image * 255).round() + levels).clamp(0, 255) / 255


@pytest.fixture
def forget_images(toy, split):
    return toy.train_images[split.forget] / 255, toy.train_labels[split.forget]


@pytest.mark.parametrize("bound", [0.0, 0.1, 8 / 255, 0.2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fgsm_image_is_in_bounds_and_on_the_grid_and_climbs(
    architecture, bound, original, forget_images
):
    model, (clean, labels) = original(architecture).eval(), forget_images
    attacked = bs.fgsm_image(model, clean, labels, bound)
    assert attacked.min() >= 0 and attacked.max() <= 1
    assert torch.equal(attacked, (attacked * 255).round() / 255)
    moved = ((attacked - clean) * 255).round().abs()
    assert moved.max() == math.floor(bound * 255 + 1e-4), "whole steps are taken, none beyond"
    before, after = (F.cross_entropy(model(x), labels, reduction="none") for x in (clean, attacked))
    assert architecture == "resnet50" or bound == 0 or (after > before).all()


@pytest.mark.parametrize("on_failure", ["keep", "runner-up", "skip"])
@pytest.mark.parametrize("architecture, bound", [("resnet50", 0.1), ("small_vit", 0.2)])
def test_boundary_labels_against_a_naive_implementation(
    architecture, bound, on_failure, original, forget_images
):
    model = original(architecture).eval()
    targets, hit = bs.boundary_labels(model, *forget_images, bound, on_failure)
    assert 0 < hit.sum() < len(hit), "the test wants both cases"
    for image, label, target, was_hit in zip(*forget_images, targets, hit, strict=True):
        guess = model(naive_attack(model, image, label, bound)[None]).argmax(1)[0]
        assert was_hit == (guess != label)
        if not was_hit and on_failure == "runner-up":
            second = model(image[None])[0].topk(2).indices
            guess = second[0] if second[0] != label else second[1]
        assert target == guess


@pytest.mark.parametrize("on_failure", ["keep", "skip"])
def test_bs_labels_the_very_images_it_trains_on(
    on_failure, forget_with, original, fetched, events, toy
):
    made, model = forget_with("bs", bound=0.2, on_failure=on_failure, epochs=3), original(VIT)
    plain = [toy.train_images[index] / 255 for index, _, _ in fetched]
    assert any((x != y[1]).any() for x, y in zip(plain, fetched, strict=True)), "cropped, mirrored"
    expected, hits = [], 0
    for _, images, true in fetched:
        targets, hit = bs.boundary_labels(model.eval(), images, true, 0.2, on_failure)
        chosen = hit if on_failure == "skip" else torch.ones_like(hit)
        hits += int(hit.sum())
        if chosen.sum() > 1:
            expected.append((images[chosen], targets[chosen]))
    for pair, wanted in zip(of_kind(events, "loss"), expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(pair, wanted, strict=True))
    assert made.log["hit_ratio"] == pytest.approx(hits / 27) and 0 < hits < 27


def test_bs_skip_with_no_hit_at_all_changes_nothing(forget_with, original):
    made = forget_with("bs", bound=0.0, on_failure="skip")
    assert made.log["hit_ratio"] == 0
    assert not differing(made.model, original(VIT))


@pytest.fixture
def held(monkeypatch):
    """The (run, masks) of each SalUn run."""
    found, hold = [], salun.hold
    monkeypatch.setattr(salun, "hold", lambda *a: (found.append(a[:2]), hold(*a))[1])
    return found


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.333, 1.0])
def test_mask_count_is_exact_and_global(fraction):
    generator = torch.Generator().manual_seed(0)
    scores = {
        "large": 100 + torch.rand(7, 11, generator=generator),
        "small": torch.rand(5, 3, 2, generator=generator),
        "one": torch.tensor([50.0]),
    }
    masks = salun.top_fraction(scores, fraction)
    count = round(fraction * 108)
    assert sum(int(mask.sum()) for mask in masks.values()) == count
    assert int(masks["large"].sum()) == min(77, count)
    assert {n: m.shape for n, m in masks.items()} == {n: s.shape for n, s in scores.items()}
    kept, left = (
        torch.cat([scores[name][masks[name] == inside] for name in scores])
        for inside in (True, False)
    )
    assert count in (0, 108) or kept.min() >= left.max()
    tied = salun.top_fraction({"a": torch.zeros(10), "b": torch.zeros(3)}, fraction)
    flat, count = torch.cat([tied["a"], tied["b"]]), round(fraction * 13)
    assert flat[:count].all() and not flat[count:].any(), "of ties the first ones"


@pytest.mark.parametrize("scope", ["all", "last"])
def test_mask_ranks_all_trainable_weights(scope, forget_with, held):
    made = forget_with("salun", "resnet50", keywords={"scope": scope}, mask_fraction=0.3, epochs=1)
    ((run, masks),) = held
    assert masks.keys() == dict(scopes.trainable(run.model)).keys()
    assert any("bn" in name for name in masks), "those of normalisation layers included"
    assert sum(m.numel() for m in masks.values()) == made.parameters
    assert sum(int(m.sum()) for m in masks.values()) == round(0.3 * made.parameters)
    groups = {name.split(".")[1] for name in masks}
    assert made.log.keys() == {f"mask_density/{group}" for group in groups}
    for group in groups:
        inside = torch.cat([m.flatten() for n, m in masks.items() if n.split(".")[1] == group])
        density = made.log[f"mask_density/{group}"]
        assert density == pytest.approx(inside.double().mean().item())


def test_saliency_is_the_absolute_value_of_the_summed_signed_gradients(
    toy, split, original, forget_images
):
    model = original(VIT).eval()
    run = Run(model, toy, split.retain, recipe(), seed=0, name="x", forget_index=split.forget)
    signed = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    unsigned = copy.deepcopy(signed)
    for batch in zip(*(x.split(8) for x in forget_images), strict=True):
        for image, label in zip(*batch, strict=True):
            model.zero_grad()
            (F.cross_entropy(model(image[None]), label[None]) / len(batch[0])).backward()
            for name, parameter in model.named_parameters():
                signed[name] += parameter.grad
                unsigned[name] += parameter.grad.abs()
    found = salun.saliency(run)
    for name, value in found.items():
        torch.testing.assert_close(value, signed[name].abs(), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(found["net.head.weight"], unsigned["net.head.weight"], rtol=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_masked_weights_stay_bit_identical(architecture, optimizer, forget_with, original, held):
    changes = {"optimizer": optimizer, "weight_decay": 0.1, "clip": 1.0, "epochs": 1}
    end = state_of(forget_with("salun", architecture, mask_fraction=0.3, **changes).model)
    ((run, masks),) = held
    start, moved = state_of(original(architecture)), 0
    for name, parameter in scopes.trainable(run.model):
        mask = masks[name]
        assert torch.equal(end[name][~mask], start[name][~mask]), name
        moved += int((end[name] != start[name]).sum())
        state = run.optimizer.state[parameter]
        memories = [value for value in state.values() if value.shape == mask.shape]
        assert len(memories) == (1 if optimizer == "sgd" else 2)
        assert all((memory[~mask] == 0).all() for memory in memories), name
    assert moved > 0.9 * sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize(
    "name, options, statistics, weights",
    [
        ("bs", {"batch_norm": "train"}, 3 * 53, True),
        ("bs", {"batch_norm": "eval"}, 0, True),
        ("salun", {"mask_fraction": 0.0}, 3 * 53, False),
    ],
)
def test_running_statistics_move_or_not_whatever_is_masked(
    name, options, statistics, weights, forget_with, original
):
    made = forget_with(name, "resnet50", epochs=1, **options).model
    changed, trained = set(differing(made, original("resnet50"))), dict(made.named_parameters())
    assert len(changed - trained.keys()) == statistics
    assert bool(changed & trained.keys()) == weights


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_leak_compat_masks_the_gradient_and_leaks_weight_decay(decay, forget_with, original, held):
    made = forget_with("salun", mask_fraction=0.3, weight_decay=decay, leak_compat=True).model
    ((_, masks),) = held
    start, end = original(VIT).net.head.weight, made.net.head.weight
    mask = masks["net.head.weight"]
    assert (start != end)[mask].any() and (~mask).any()
    assert ((start != end)[~mask] == (decay > 0)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", [{}, {"passes": "shuffled", "labels_drawn": "epoch"}])
def test_a_mask_of_all_ones_is_rl_bit_for_bit(architecture, options, forget_with):
    plain = forget_with("rl", architecture, epochs=1, **options).model
    masked = forget_with("salun", architecture, epochs=1, mask_fraction=1.0, **options).model
    assert not differing(plain, masked)


@pytest.mark.parametrize(
    "architecture, jitter, moves",
    # Without dropout a ViT computes the same in both modes: student = teacher, where the divergence
    # is at its minimum and has no gradient. What is left without jitter is rounding.
    [("small_vit", 0.0, False), ("small_vit", 0.05, True), ("resnet50", 0.0, True)],
)
def test_the_first_max_pass_moves_a_batch_norm_network_but_a_vit_only_with_jitter(
    architecture, jitter, moves, forget_with
):
    idle = {"alpha": 0.0, "gamma": 0.0, "momentum": 0.0, "weight_decay": 0.0}
    before, after = (
        forget_with("scrub", architecture, epochs=1, lr=lr, jitter=jitter, **idle).model
        for lr in (0.0, 0.1)
    )
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    drift = max((p - q).abs().max().item() for p, q in pairs)
    assert drift > 1e-4 if moves else drift < 1e-6


def test_jitter_is_relative_and_stays_in_scope(forget_with, original):
    made = forget_with("scrub", keywords={"scope": "last"}, jitter=0.01, lr=0.0, epochs=1).model
    trained, start = dict(scopes.trainable(made)), dict(original(VIT).named_parameters())
    assert set(differing(made, original(VIT))) <= trained.keys()
    for name, end in trained.items():
        ratio = ((end - start[name]).std() / start[name].std()).item()
        assert ratio == pytest.approx(0.01, rel=0.2) or (ratio < 0.03 and end.numel() < 200)


@pytest.mark.parametrize(
    "name, architecture, scope",  # the start is frozen, and both ends are
    [(n, a, "intermediate" if a == VIT else "last") for n, a in EVERY],
)
def test_scope_keeps_frozen_parameters_and_buffers_bit_identical(
    name, architecture, scope, forget_with, original
):
    changes = {"lr": 0.05, "weight_decay": 0.01, "epochs": 1, "batch_size": 16}
    made = forget_with(name, architecture, keywords={"scope": scope}, **changes)
    changed = differing(made.model, original(architecture))
    assert all(scopes.in_scope(made.model, name) for name in changed)
    assert dict(made.model.named_parameters()).keys() & set(changed)
    assert made.parameters == sum(p.numel() for _, p in scopes.trainable(made.model))
    assert made.parameters < sum(p.numel() for p in made.model.parameters())


@pytest.mark.parametrize("name, architecture", EVERY)
def test_contract(name, architecture, toy, split, original, build, forget_with, events):
    model = original(architecture)
    model.net.train()
    next(model.parameters()).requires_grad_(False)
    before, random_state = state_of(model), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    grads = [(p.requires_grad, p.grad) for p in model.parameters()]
    data = {n: getattr(toy, n).clone() for n in ("train_images", "train_labels")}

    def go(seed):
        changes = {"lr": 0.01, "epochs": 1, "batch_size": 16}
        return forget_with(name, architecture, of=model, keywords={"seed": seed}, **changes)

    first = go(0)
    assert torch.equal(torch.get_rng_state(), random_state), "the global random state moved"
    torch.rand(5)  # and the result does not depend on it
    again, other = go(0), go(2)

    assert not differing(before, model)
    for run in of_kind(events, "run"):
        assert not differing(before, run.original)
        assert all(p.grad is None for p in run.original.parameters())
    assert modes == [module.training for module in model.modules()]
    assert grads == [(p.requires_grad, p.grad) for p in model.parameters()]
    assert all(torch.equal(getattr(toy, n), value) for n, value in data.items())
    fetched = set(itertools.chain(*of_kind(events, "cut")))
    assert fetched <= set(split.train.tolist()), "validation images are never trained on"
    end = state_of(first.model)
    assert not differing(end, again.model), "same seed, same result"
    assert differing(end, other.model), "other seed, other result"
    assert differing(end, before)
    assert all(value.isfinite().all() for value in end.values())
    assert first.log == again.log and all(math.isfinite(v) for v in first.log.values())
    counted = {k: v for k, v in vars(first.memory).items() if (name, k) != ("ssd", "optimizer")}
    assert first.memory == again.memory and min(counted.values()) > 0
    assert first.seconds > 0
    assert first.parameters == sum(p.numel() for p in model.parameters())
    assert not any(module.training for module in first.model.modules())
    addresses = ({p.data_ptr() for p in m.parameters()} for m in (model, first.model))
    assert set.isdisjoint(*addresses)
    start = build(architecture, 1) if name == "retrain" else before
    assert not differing(start, forget_with(name, architecture, epochs=0).model)


def test_order_of_merit_on_a_toy_problem(toy, original, forget_with):
    """Forgetting a whole class: what each method must do to its accuracy and loss."""
    split = make_split(toy, forget="class:b", validation=0.125, seed=0)
    own = {"scrub": {"jitter": 0.05}, "bs": {"bound": 0.3}}
    how = {"optimizer": "adamw", "lr": 5e-3, "epochs": 8}
    made = {
        name: forget_with(name, keywords={"split": split}, **how, **own.get(name, {})).model
        for name in ("retrain", "cf", "rl", "bs", "salun", "scrub", "ga")
    }
    accuracy, loss = {}, {}
    for name, model in {"original": original(VIT), **made}.items():
        for kind, index in (("lost", split.forget), ("kept", split.retain)):
            logits, labels = predictions(model, toy.train_images[index]), toy.train_labels[index]
            accuracy[name, kind] = (logits.argmax(1) == labels).double().mean().item()
            loss[name, kind] = F.cross_entropy(logits, labels).item()
    assert accuracy["original", "lost"] == accuracy["retrain", "kept"] == 1
    assert accuracy["retrain", "lost"] == 0
    for name in ("rl", "bs", "salun", "ga", "scrub"):
        assert loss[name, "lost"] > 2 * loss["original", "lost"], name
    for name in ("cf", "rl", "salun"):
        assert accuracy[name, "kept"] > 0.85, name
    assert loss["ga", "lost"] > loss["cf", "lost"]
    assert loss["ga", "kept"] > loss["rl", "kept"], "nothing holds GA's retain set in place"


@pytest.fixture
def registry(monkeypatch):
    """A registry for the test alone."""
    monkeypatch.setattr(methods, "METHODS", copy.copy(METHODS))


def test_a_method_of_ones_own(forget_with, original, registry):
    @method("mine", title="Mine", version=3)
    def mine(run, *, weight: float = 0.5, kind: Literal["a", "b"] = "a", plain=True):
        for epoch in run.epochs():
            pairs = zip(run.retain(epoch), run.forget(epoch), strict=False)
            for (kept, labels), (lost, wrong) in pairs:
                loss = run.cross_entropy(kept, labels)
                run.step(loss - weight * run.cross_entropy(lost, wrong))
        run.log["weight"] = weight

    entry = methods.METHODS["mine"]
    assert (entry.title, entry.version, entry.order, entry.color) == ("Mine", 3, 100, "")
    assert entry.defaults == {"weight": 0.5, "kind": "a", "plain": True}
    assert entry.kinds == {"weight": float, "kind": Literal["a", "b"], "plain": bool}
    made = forget_with("mine", keywords={"scope": "last"}, weight=0.1)
    assert made.log == {"weight": 0.1}
    assert differing(made.model, original(VIT)) == [
        name for name, _ in scopes.trainable(made.model)
    ]


@pytest.mark.parametrize(
    "name, function, says",
    [
        ("mine", lambda run, weight: None, "method mine: option weight needs a default"),
        ("mine", lambda run, **options: None, "option options needs a default"),
        ("mine", lambda run, lr=0.1: None, "option lr needs .* not among optimizer, lr"),
        ("mine", lambda run, weight=-math.inf: None, "weight must be a finite number"),
        ("original", lambda run: None, "cannot be called original"),
    ],
)
def test_an_option_needs_a_default_and_names_must_be_free(name, function, says, registry):
    with pytest.raises(UserError, match=says):
        method(name)(function)


def test_facts_stand_below_the_method_and_stay_with_it(registry):
    @method("own")
    @about(paper="Ours")
    def own(run):
        """Do nothing."""

    method("other")(functools.wraps(own)(lambda run: own(run)))
    assert [methods.METHODS[name].paper for name in ("own", "other")] == ["Ours", ""]
    for facts, says in (({"paper": "Late"}, "below @method"), ({"papr": ""}, "'papr'; known: pap")):
        with pytest.raises(UserError, match=says):
            about(**facts)(own if "paper" in facts else lambda run: None)


def test_a_failing_method_leaves_no_hook_and_no_random_state_behind(forget_with, events, registry):
    @method("broken")
    def broken(run):
        for epoch in run.epochs():
            for images, _ in run.retain(epoch):
                run.logits(images)
                raise KeyError("oops")

    random_state = torch.get_rng_state()
    with pytest.raises(KeyError) as caught:  # which holds on to the frames, as Jupyter does
        forget_with("broken")
    assert torch.equal(torch.get_rng_state(), random_state)
    (run,) = of_kind(events, "run")
    run.activations = 0
    F.relu(torch.ones(3, requires_grad=True)).sum().backward()
    run._stop_counting()
    assert run.activations == 0, "memory was still being counted"
    assert caught.value.args == ("oops",)


def test_hyperparameters_that_are_not_given_have_the_published_values():
    how, options = parse_hyperparameters({"lr": 1, "msteps": 3}, "scrub")
    assert (how.lr, type(how.lr), how.momentum) == (1.0, float, 0.9)
    assert options == METHODS["scrub"].defaults | {"msteps": 3}
    assert options["alpha"] == 0.001 and options["temperature"] == 4.0


@pytest.mark.parametrize(
    "name, values, says",
    [
        ("cf", {"learning_rate": 1.0}, "unknown hyper-parameter of method.cf 'learning_rate'"),
        ("cf", {"mask_fraction": 0.5}, "known: optimizer, lr, .*clip$"),
        ("cf", {"lr": "0.1"}, "method.cf.lr must be a valid number, not '0.1'"),
        ("cf", {"lr": math.nan}, "lr must be a finite number, not nan"),
        ("cf", {"lr": True}, "lr must be a valid number, not True"),
        ("cf", {"lr": -0.1}, "lr must be greater than or equal to 0, not -0.1"),
        ("cf", {"epochs": 2.0}, "epochs must be a valid integer, not 2.0"),
        ("cf", {"batch_size": 0}, "batch_size must be greater than or equal to 1"),
        ("cf", {"momentum": 1.0}, "momentum must be less than 1, not 1.0"),
        ("cf", {"flip": 1}, "flip must be a valid boolean"),
        ("cf", {"optimizer": "rms"}, "optimizer must be 'sgd', 'adam' or 'adamw', not 'rms'"),
        ("cf", {"schedule": "onecycle"}, "onecycle needs a warmup above 0"),
        ("rl", {"labels_drawn": "step"}, "labels_drawn must be 'batch', 'epoch' or 'once'"),
        ("salun", {"mask_fraction": 1.5}, "mask_fraction must be less than or equal to 1"),
    ],
)
def test_bad_hyperparameters(name, values, says):
    with pytest.raises(UserError, match=says):
        parse_hyperparameters(values, name)
    with pytest.raises(UserError, match="here"):
        parse_hyperparameters(values, name, "here")
