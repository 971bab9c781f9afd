import copy

import pytest
import torch
from test_models import SMALL, build, images
from torch import nn

from unlearnkit import scopes
from unlearnkit.errors import UserError


@pytest.fixture(scope="module")
def built():
    return {name: build(name) for name in SMALL}


@pytest.fixture(params=SMALL)
def model(request, built):
    return copy.deepcopy(built[request.param])


def test_every_parameter_is_in_exactly_one_group(model):
    names = [name for name, _ in model.named_parameters()]
    prefixes = {scope: scopes.scope_modules(model, scope) for scope in scopes.SCOPES}
    held = {s: {n for n in names if scopes._inside(n, prefixes[s])} for s in scopes.SCOPES}
    parts = [held[s] for s in ("first", "intermediate", "last")]
    assert all(parts)
    assert sum(map(len, parts)) == len(held["all"]) == len(names)
    assert set.union(*parts) == held["all"]


def test_groups_of_the_study(built):
    parts = ("first", "intermediate", "last")
    assert [scopes.scope_modules(built["resnet50"], s) for s in parts] == [
        ["net.conv1", "net.bn1", "net.layer1"],
        ["net.layer2", "net.layer3"],
        ["net.layer4", "net.fc"],
    ]
    assert [scopes.scope_modules(built["small_vit"], s) for s in parts] == [
        ["net.cls_token", "net.pos_embed", "net.patch_embed", "net.blocks.0"],
        ["net.blocks.1", "net.blocks.2"],
        ["net.blocks.3", "net.norm", "net.head"],
    ]
    blocks = len(built["test_vit"].net.blocks)
    vit = scopes.scope_modules(built["test_vit"], "first")
    assert vit[-1] == f"net.blocks.{max(1, blocks // 4) - 1}"
    assert "net.cls_token" in vit and "net.pos_embed" in vit


def test_groups_without_timm():
    toy = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    assert scopes.scope_modules(toy, "first") == ["0"]
    assert scopes.scope_modules(toy, "intermediate") == ["1", "2"]
    assert scopes.scope_modules(toy, "last") == ["3", "4"]


@pytest.mark.parametrize("scope", [*scopes.SCOPES, "modules:net.layer2.0, net.fc"])
def test_scope_freezes_parameters_and_buffers(built, scope):
    for name in ("resnet50", "small_vit"):
        model = copy.deepcopy(built[name])
        if name == "small_vit":
            scope = scope.replace("fc", "head").replace("layer2", "blocks")
        scopes.apply_scope(model, "all")
        scopes.apply_scope(model, scope)
        scopes.set_train(model)
        prefixes = scopes.scope_modules(model, scope)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        names = [n for n, _ in scopes.trainable(model)]
        optimiser = torch.optim.SGD([p for _, p in scopes.trainable(model)], lr=0.5)
        for _ in range(2):
            optimiser.zero_grad()
            model(images(8)).square().sum().backward()
            optimiser.step()
        after = model.state_dict()
        frozen = [k for k in before if not scopes._inside(k, prefixes)]
        assert all(torch.equal(before[k], after[k]) for k in frozen)
        moving = [k for k in before if scopes._inside(k, prefixes) and k.endswith("running_mean")]
        assert all(not torch.equal(before[k], after[k]) for k in moving)
        assert names == [n for n, _ in model.named_parameters() if scopes._inside(n, prefixes)]
        assert any(not torch.equal(before[n], after[n]) for n in names)


def test_no_gradient_before_the_first_trainable_module(built):
    for name, below, above in (
        ("resnet50", "layer3", "layer4"),
        ("small_vit", "blocks.2", "blocks.3"),
    ):
        model = copy.deepcopy(built[name])
        needs = {}

        def keep(module, _, output, needs=needs):
            needs[module] = output.requires_grad

        for module in model.modules():
            module.register_forward_hook(keep)
        for scope, expected in (("last", False), ("first", True)):
            scopes.apply_scope(model, scope)
            scopes.set_train(model)
            model(images()).sum().backward()
            assert needs[model.net.get_submodule(below)] is expected
            assert needs[model.net.get_submodule(above)]
            assert (model.net.get_submodule(below).training, model.training) == (False, True)


def test_frozen_gradients_are_dropped_and_scopes_do_not_add_up(built):
    model = copy.deepcopy(built["small_vit"])
    model(images()).sum().backward()
    scopes.apply_scope(model, "last")
    assert model.net.cls_token.grad is None and model.net.head.weight.grad is not None
    scopes.apply_scope(model, "first")
    assert not model.net.head.weight.requires_grad and model.net.cls_token.requires_grad


def test_set_train_without_scope_or_under_all():
    toy = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)).eval()
    scopes.set_train(toy)
    assert toy[1].training
    scopes.apply_scope(toy, "modules:2")
    scopes.set_train(toy)
    assert [m.training for m in toy] == [False, False, True]
    scopes.apply_scope(toy, "all")
    scopes.set_train(toy)
    assert all(m.training for m in toy)


@pytest.mark.parametrize(
    "scope, says",
    [
        ("middle", "unknown scope 'middle'; known: all, first, intermediate, last"),
        ("modules:net.layer9", "unknown module with parameters 'net.layer9'; known: net.conv1"),
        ("modules:net.layer", "unknown module"),
        ("modules:net.act1", "unknown module"),
        ("modules:", "names no module"),
    ],
)
def test_bad_scope(built, scope, says):
    with pytest.raises(UserError, match=says) as error:
        scopes.apply_scope(built["resnet50"], scope)
    assert "\n" not in str(error.value)


def test_empty_scope():
    with pytest.raises(UserError, match="holds no parameters"):
        scopes.scope_modules(build("small_vit", depth=2), "intermediate")
