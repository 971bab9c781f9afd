"""Scopes: which layers of a network are trained, and how all others are kept frozen."""

from timm.models import group_parameters
from torch import nn

from unlearnkit.errors import UserError, unknown
from unlearnkit.names import SCOPES


def scope_modules(model: nn.Module, scope: str) -> list[str]:
    """Return what `scope` covers, as names of modules (with all they contain) and of parameters.

    `scope` is one of `SCOPES`, 'modules:' and names with commas between, as in
    'modules:net.layer4,net.fc', or several of these with '+' between: 'intermediate+last'.

    The blocks or stages, as timm orders them, are split 1/4, 1/2, 1/4 (rounded so that the
    outer groups get the smaller, but at least one): first = stem or patch and position embedding,
    class token, first quarter; intermediate = the middle half; last = last quarter, final norm and
    head. For 'resnet50': stem + stage 1, stages 2-3, stage 4 + head; for 'small_vit': embedding +
    block 1, blocks 2-3, block 4 + norm + head. Every parameter is in exactly one of the three.

    `UserError` on an unknown scope or module, or one that holds no parameters.
    """
    found: list[str] = []
    for part in scope.split("+"):
        named = part.startswith("modules:")
        found += _named(model, part.removeprefix("modules:")) if named else _group(model, part)
    return list(dict.fromkeys(found))


def apply_scope(model: nn.Module, scope: str) -> None:
    """Make the parameters in `scope` trainable and freeze all others, for `set_train` as well.

    Gradients kept by parameters that get frozen are dropped. Every scope is counted from the whole
    model: a second call replaces the first.
    """
    model.trainable_prefixes = None if scope == "all" else scope_modules(model, scope)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(in_scope(model, name))
        if not parameter.requires_grad:
            parameter.grad = None


def in_scope(model: nn.Module, name: str) -> bool:
    """Tell whether the module, parameter or buffer `name` is in the scope applied to `model`."""
    prefixes = getattr(model, "trainable_prefixes", None)
    return prefixes is None or _inside(name, prefixes)


def set_train(model: nn.Module) -> None:
    """Put the modules in scope in training mode and all others in evaluation mode.

    Frozen BatchNorms thereby keep their running statistics bit for bit. Under a partial scope,
    layers without parameters (a dropout) train only inside a module that is in scope. The model
    itself reports `training=True`; under 'all', or without `apply_scope`, this is `model.train()`.
    """
    model.train()
    for name, module in model.named_modules():
        if name and not in_scope(model, name):
            module.training = False


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return name and parameter of all that will be trained."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _inside(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _named(model: nn.Module, text: str) -> list[str]:
    """Return the names in `text`, each of a parameter or a module with some."""
    wanted = [name.strip() for name in text.split(",")]
    parameters = [name for name, _ in model.named_parameters()]
    for name in wanted:
        if not any(_inside(parameter, [name]) for parameter in parameters):
            known = dict.fromkeys(".".join(p.split(".")[:2]) for p in parameters)
            raise unknown("module with parameters", name, [*known, "and what they contain"])
    return wanted


def _group(model: nn.Module, scope: str) -> list[str]:
    """Return what one of `SCOPES` covers, in the fewest names."""
    if scope not in SCOPES:
        raise unknown("scope", scope, (*SCOPES, "modules:NAME,NAME", "several of these with +"))
    units = depths(model)
    blocks = max(units.values(), default=0) - 1
    quarter = max(1, blocks // 4)
    bounds = quarter, max(quarter, blocks - quarter)  # the last units of the first two groups
    group = {name: SCOPES[1 + sum(unit > b for b in bounds)] for name, unit in units.items()}
    names = [name for name in units if scope in ("all", group[name])]
    if not names:
        hint = "use another one, or modules:NAME"
        raise UserError(f"scope {scope!r} holds no parameters in this model; {hint}")
    modules: list[str] = []
    for name, module in model.named_modules():
        held = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
        if held and held <= set(names) and not _inside(name, modules):
            modules.append(name)
    return [name for name in names if not _inside(name, modules)] + modules


def depths(model: nn.Module) -> dict[str, int]:
    """Map every parameter's name to its unit: 0 = stem, 1.. = blocks, the highest = head."""
    inside = all(name.startswith("net.") for name, _ in model.named_parameters())
    net, prefix = (model.net, "net.") if inside else (model, "")
    units: dict[str, int] = {}
    if hasattr(net, "group_matcher"):
        units = group_parameters(net, net.group_matcher(coarse=True), reverse=True)
    if max(units.values(), default=0) < 2:
        # no grouping of timm's: the modules that own parameters, in the order of registration
        owners = {name: name.rpartition(".")[0] for name, _ in net.named_parameters()}
        order = list(dict.fromkeys(["", *owners.values()]))
        units = {name: order.index(owner) for name, owner in owners.items()}
    return {prefix + name: unit for name, unit in units.items()}
