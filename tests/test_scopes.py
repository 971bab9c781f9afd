"""Scopes: every parameter in one group, everything else frozen bit for bit."""

import copy

import pytest
from test_models import SMALL, build, images
from torch import nn

from unlearnkit import scopes
from unlearnkit.errors import UserError

PARTS = ("first", "intermediate", "last")


@pytest.fixture(scope="module")
def built():
    return {name: build(name) for name in SMALL}


def scoped(model, scope):
    """Return a copy of `model` in training mode under `scope`."""
    model = copy.deepcopy(model)
    scopes.apply_scope(model, scope)
    scopes.set_train(model)
    return model


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_in_exactly_one_group(name, built):
    held = {
        scope: {name for name, _ in scopes.trainable(scoped(built[name], scope))}
        for scope in (*scopes.SCOPES, "first+last")
    }
    parts = [held[scope] for scope in PARTS]
    assert all(parts)
    names = {name for name, _ in built[name].named_parameters()}
    assert set.union(*parts) == held["all"] == names
    assert sum(map(len, parts)) == len(names)
    assert held["first+last"] == held["first"] | held["last"]


GROUPS = {
    "resnet50": "conv1 bn1 layer1, layer2 layer3, layer4 fc",
    "small_vit": "cls_token pos_embed patch_embed blocks.0, blocks.1 blocks.2, blocks.3 norm head",
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_the_study(name, built):
    found = [scopes.scope_modules(built[name], scope) for scope in PARTS]
    groups = GROUPS[name].split(",")
    assert found == [[f"net.{module}" for module in group.split()] for group in groups]


def test_groups_of_other_networks(built):
    blocks = len(built["test_vit"].net.blocks)
    first = scopes.scope_modules(built["test_vit"], "first")
    assert first[-1] == f"net.blocks.{max(1, blocks // 4) - 1}"
    assert "net.cls_token" in first and "net.pos_embed" in first
    plain = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    found = [scopes.scope_modules(plain, scope) for scope in PARTS]
    assert found == [["0"], ["1", "2"], ["3", "4"]]
    with pytest.raises(UserError, match="holds no parameters"):
        scopes.scope_modules(build("small_vit", depth=2), "intermediate")


@pytest.mark.parametrize(
    "name, below, above", [("resnet50", "layer3", "layer4"), ("small_vit", "blocks.2", "blocks.3")]
)
@pytest.mark.parametrize("scope, expected", [("last", False), ("first", True)])
def test_no_gradient_before_the_first_trainable_module(name, below, above, scope, expected, built):
    model, needs = scoped(built[name], scope), {}
    for module in model.modules():
        module.register_forward_hook(lambda m, _, output: needs.update({m: output.requires_grad}))
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


def test_layers_without_parameters_train_inside_the_scope_alone():
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    plain = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), inner)
    scopes.set_train(plain.eval())
    assert plain[1].training, "no scope was applied"
    model = scoped(plain, "modules:2")
    assert [m.training for m in model] == [False, False, True] and model[2][1].training
    assert all(m.training for m in scoped(model, "all"))


@pytest.mark.parametrize(
    "scope, says",
    [
        ("middle", "unknown scope 'middle'; known: all, first, intermediate, last"),
        ("first+end", "unknown scope 'end'"),
        ("modules:net.layer9", "unknown module with parameters 'net.layer9'; known: net.conv1"),
        ("modules:net.layer", "unknown module"),
        ("modules:net.act1", "unknown module"),
        ("modules:", "unknown module with parameters ''"),
    ],
)
def test_bad_scope(scope, says, built):
    with pytest.raises(UserError, match=says) as error:
        scopes.apply_scope(built["resnet50"], scope)
    assert "\n" not in str(error.value)
