"""The networks: how they are built, their normalisation layers and their layer groups.

Every network is a `Classifier`: images in [0, 1] go in, logits come out, and the normalisation by
the data's mean and standard deviation is part of the model, so that attacks work on real pixels.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import timm
import torch
from timm.layers import RmsNorm, RmsNorm2d
from timm.models import group_parameters
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .errors import UserError, unknown

SCOPES = ("all", "first", "intermediate", "last")
_OWN = ("resnet50", "small_vit")
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_NORMS = (_BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, RmsNorm, RmsNorm2d)


class Normalize(nn.Module):
    """Subtract `mean` and divide by `std`, one value for each of the three channels."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(
                "mean and std need three values each, std above 0; "
                f"got mean {tuple(mean)}, std {tuple(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """A network with the input normalisation inside.

    `architecture` is the name it was built by; scopes and layer names speak of the network's
    children as `net.<child>`.
    """

    def __init__(self, architecture: str, normalize: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalize = normalize
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for float images [B, 3, H, W] in [0, 1]."""
        return self.net(self.normalize(images))


@dataclass(frozen=True, eq=False)
class NormLayer:
    """A normalisation layer: its place (from 1), its name and the module that computes it."""

    index: int
    name: str
    module: nn.Module


def architecture_names() -> list[str]:
    """Return the study's own architectures; any timm model name works too."""
    return list(_OWN)


def build(
    architecture: str,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    width: float = 1.0,
    stem_stride: int = 1,
    zero_init_last: bool = False,
    dim: int = 384,
    heads: int = 6,
    depth: int = 4,
    patch: int = 4,
) -> Classifier:
    """Build a freshly initialised classifier on the CPU.

    Parameters
    ----------
    architecture : str
        'resnet50' (CIFAR stem: one 3x3 convolution, no max-pool), 'small_vit' (pre-norm), or any
        timm model name. timm's own ResNet-50 with the ImageNet stem is 'resnet50.a1_in1k'; no
        pretrained weights are ever loaded.
    num_classes, image_size : int
        Number of logits; height and width of the images in pixels.
    mean, std : three floats each
        Of the training images, in [0, 1].
    seed : int
        Fixes the initial weights; the global random state is left alone.
    width, stem_stride, zero_init_last
        'resnet50' only: factor on all channel numbers, the stem's included (rounded to even ones);
        stride of the stem; whether the last BatchNorm of each block starts at weight 0, as
        timm's do, not at 1, as torchvision's: it stays small for long, and so does its σ.
    dim, heads, depth, patch : int
        'small_vit' only: embedding width, attention heads, blocks, patch size in pixels.

    Raises
    ------
    UserError
        Unknown architecture, or sizes that do not go together.
    """
    if num_classes < 2 or image_size < 1:
        raise UserError(
            f"a classifier needs num_classes >= 2 and image_size >= 1; "
            f"got {num_classes} and {image_size}"
        )
    if architecture == "resnet50":
        net = _resnet50(num_classes, seed, width, stem_stride, zero_init_last)
    elif architecture == "small_vit":
        net = _small_vit(num_classes, image_size, seed, dim, heads, depth, patch)
    else:
        net = _timm(architecture, num_classes, image_size, seed)
    return Classifier(architecture, Normalize(mean, std), net)


def norm_layers(model: nn.Module) -> list[NormLayer]:
    """Return the normalisation layers in the order of `named_modules`, counted from 1.

    For 'resnet50' these are the 57 indices of the published figure: 53 BatchNorms and the four
    `downsample` containers, each of which shares its module with the BatchNorm that follows it.
    'small_vit' has two LayerNorms a block and the final one. Elsewhere: every Batch-, Layer-,
    Group- and RMSNorm.
    """
    containers = getattr(model, "architecture", None) == "resnet50"
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if isinstance(module, _NORMS):
            found.append((name, module))
        elif containers and name.endswith(".downsample") and isinstance(module, nn.Sequential):
            found.append((name, next(m for m in module if isinstance(m, _BATCH_NORM))))
    return [NormLayer(index, name, module) for index, (name, module) in enumerate(found, 1)]


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


def _seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    # torch.manual_seed would also reseed the GPUs, which fork_rng(devices=[]) does not put back
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _resnet50(
    num_classes: int, seed: int, width: float, stem_stride: int, zero_init_last: bool = False
) -> nn.Module:
    if not width > 0 or stem_stride < 1:
        raise UserError(
            f"resnet50 needs width > 0 and stem_stride >= 1; got {width} and {stem_stride}"
        )
    half = max(1, round(32 * width))

    def make() -> ResNet:
        # timm fixes the plain stem at 64 channels; its deep stem ends at 2 * stem_width, which
        # gives bn1 and stage 1 the right number: only the convolution remains to be replaced
        net = ResNet(
            Bottleneck,
            (3, 4, 6, 3),
            num_classes=num_classes,
            channels=tuple(2 * half * 2**stage for stage in range(4)),
            stem_type="deep",
            stem_width=half,
            zero_init_last=zero_init_last,
        )
        net.conv1 = nn.Conv2d(3, 2 * half, 3, stride=stem_stride, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
        return net

    return _seeded(seed, make)


def _small_vit(
    num_classes: int, image_size: int, seed: int, dim: int, heads: int, depth: int, patch: int
) -> nn.Module:
    if min(dim, heads, depth, patch) < 1 or image_size % patch or dim % heads:
        raise UserError(
            "small_vit needs dim, heads, depth and patch >= 1, dim a multiple of heads, the image "
            f"size one of patch; got dim {dim}, heads {heads}, depth {depth}, patch {patch}, "
            f"image size {image_size}"
        )
    options = {"embed_dim": dim, "depth": depth, "num_heads": heads, "num_classes": num_classes}
    return _seeded(seed, lambda: VisionTransformer(image_size, patch, **options))


def _timm(name: str, num_classes: int, image_size: int, seed: int) -> nn.Module:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" (close: {', '.join(close)})" if close else ""
        raise UserError(f"{unknown('architecture', name, _OWN)}; any timm model name works{hint}")

    def make(**options: int) -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **options)

    try:
        try:
            net = _seeded(seed, lambda: make(img_size=image_size))
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            net = _seeded(seed, make)
        modes = {module: module.training for module in net.modules()}
        with torch.no_grad():
            shape = net.eval()(torch.zeros(2, 3, image_size, image_size)).shape
        for module, mode in modes.items():
            module.training = mode
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"architecture {name!r} cannot be built for {image_size}x{image_size} images "
            f"({reason}); choose another image size or architecture"
        ) from error
    if tuple(shape) != (2, num_classes):
        raise UserError(f"architecture {name!r} does not classify images: output {tuple(shape)}")
    return net


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
