"""Scopes: which layers of a network are trained, and how all others are kept frozen."""

from collections.abc import Iterable

from timm.models import group_parameters
from torch import nn

from unlearnkit.errors import UserError, unknown
from unlearnkit.results import SCOPES


def scope_modules(model: nn.Module, scope: str) -> list[str]:
    """Return what `scope` covers, as names of modules (with all they contain) and of parameters.

    The blocks or stages, as timm orders them, are split 1/4, 1/2, 1/4 (rounded so that the
    outer groups get the smaller, but at least one): first = stem or patch and position embedding,
    class token, first quarter; intermediate = the middle half; last = last quarter, final norm and
    head. For 'resnet50': stem + stage 1, stages 2-3, stage 4 + head; for 'small_vit': embedding +
    block 1, blocks 2-3, block 4 + norm + head. Every parameter is in exactly one of the three.

    Parameters
    ----------
    model : nn.Module
    scope : str
        One of `SCOPES`, or 'modules:' and names with commas between, as in
        'modules:net.layer4,net.fc'.

    Raises
    ------
    UserError
        Unknown scope or module, or one that holds no parameters.
    """
    if scope.startswith("modules:"):
        return _named_scope(model, scope)
    if scope not in SCOPES:
        raise unknown("scope", scope, (*SCOPES, "modules:NAME,NAME"))
    names = {name for name, _ in model.named_parameters()}
    if scope != "all":
        names = {name for name, group in _groups(model).items() if group == scope}
    if not names:
        raise UserError(
            f"scope {scope!r} holds no parameters in this model; use another one, or modules:NAME"
        )
    return _prefixes(model, names)


def apply_scope(model: nn.Module, scope: str) -> None:
    """Make the parameters in `scope` trainable and freeze all others, for `set_train` as well.

    Gradients kept by parameters that get frozen are dropped. Every scope is counted from the whole
    model: a second call replaces the first.
    """
    prefixes = tuple(scope_modules(model, scope))
    model.trainable_prefixes = None if scope == "all" else prefixes
    for name, parameter in model.named_parameters():
        inside = _inside(name, prefixes)
        parameter.requires_grad_(inside)
        if not inside:
            parameter.grad = None


def set_train(model: nn.Module) -> None:
    """Put the modules in scope in training mode and all others in evaluation mode.

    Frozen BatchNorms thereby keep their running statistics bit for bit. Under a partial scope,
    layers without parameters (a dropout) train only inside a module that is in scope. The model
    itself reports `training=True`; under 'all', or without `apply_scope`, this is `model.train()`.
    """
    prefixes = getattr(model, "trainable_prefixes", None)
    if prefixes is None:
        model.train()
        return
    for name, module in model.named_modules():
        module.training = name == "" or _inside(name, prefixes)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return name and parameter of all that will be trained."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _groups(model: nn.Module) -> dict[str, str]:
    """Map every parameter's name to 'first', 'intermediate' or 'last'."""
    net = getattr(model, "net", model)
    prefix = "net." if net is not model else ""
    order = _block_order(net)
    # the first unit is the stem and the last one the head: neither is counted as a block
    blocks = max(order.values()) - 1
    quarter = max(1, blocks // 4)
    groups = {}
    for name, unit in order.items():
        inner = "intermediate" if unit <= blocks - quarter else "last"
        groups[prefix + name] = "first" if unit <= quarter else inner
    return groups


def _block_order(net: nn.Module) -> dict[str, int]:
    """Map each parameter to its unit: 0 = stem, 1.. = blocks, highest = head."""
    if hasattr(net, "group_matcher"):
        order = group_parameters(net, net.group_matcher(coarse=True), reverse=True)
        if max(order.values()) >= 2:
            return order
    # no grouping of timm's: the modules that own parameters, in the order of registration
    owners = [name.rpartition(".")[0] for name, _ in net.named_parameters()]
    rank = {owner: unit for unit, owner in enumerate(dict.fromkeys(o for o in owners if o), 1)}
    return {
        name: rank.get(owner, 0)
        for (name, _), owner in zip(net.named_parameters(), owners, strict=True)
    }


def _prefixes(model: nn.Module, names: set[str]) -> list[str]:
    """Return the fewest module and parameter names that cover `names` and no other parameter."""

    def walk(module: nn.Module, path: str) -> Iterable[str]:
        held = {path + name for name, _ in module.named_parameters()}
        if path and held and held <= names:
            yield path.removesuffix(".")
            return
        own = (path + name for name, _ in module.named_parameters(recurse=False))
        yield from (name for name in own if name in names)
        for name, child in module.named_children():
            yield from walk(child, f"{path}{name}.")

    return list(walk(model, ""))


def _named_scope(model: nn.Module, scope: str) -> list[str]:
    wanted = [name.strip() for name in scope.removeprefix("modules:").split(",") if name.strip()]
    parameters = [name for name, _ in model.named_parameters()]
    for name in wanted:
        if not any(_inside(parameter, (name,)) for parameter in parameters):
            raise unknown("module with parameters", name, _prefixes_of_net(model))
    if not wanted:
        raise UserError(f"scope {scope!r} names no module; write it as modules:net.layer4,net.fc")
    return wanted


def _prefixes_of_net(model: nn.Module) -> list[str]:
    depth = 2 if hasattr(model, "net") else 1
    names = (".".join(name.split(".")[:depth]) for name, _ in model.named_parameters())
    return [*dict.fromkeys(names), "and what they contain"]


def _inside(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
