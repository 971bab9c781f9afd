"""The networks: how they are built, and their normalisation layers.

Every network is a `Classifier`: images in [0, 1] go in, logits come out, and the normalisation by
the data's mean and standard deviation is part of the model, so that attacks work on real pixels.
Once this module is imported, timm knows the two that are not its own, too.
"""

import copy
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from timm.layers import RmsNorm, RmsNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, save_for_hf
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import read_json

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_NORMS = (_BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, RmsNorm, RmsNorm2d)

# What timm calls the networks that are not its own
OWN = {"resnet50": "unlearnkit_resnet50", "small_vit": "unlearnkit_small_vit"}
# timm reads this when they are registered, below.
_RESNET = {"input_size": (3, 32, 32), "classifier": "fc"}
_VIT = {"input_size": (3, 32, 32), "classifier": "head", "fixed_input_size": True}
default_cfgs = generate_default_cfgs({OWN["resnet50"]: _RESNET, OWN["small_vit"]: _VIT})
# What timm says of the published weights of its architectures, which are not in our folders
_FOREIGN = ("license", "origin_url", "paper_name", "paper_ids", "notes", "description")


class Classifier(nn.Module):
    """A network with the input normalisation inside.

    `architecture` is the name it was built by; scopes and layer names speak of the network's
    children as `net.<child>`. `mean` and `std` have a value for each of the three channels. What a
    folder says of them: the side of its images in pixels, and the names of its classes.
    """

    image_size: int | None = None
    classes: tuple[str, ...] = ()

    def __init__(
        self, architecture: str, net: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for float images [B, 3, H, W] in [0, 1]."""
        return self.net((images - self.mean) / self.std)

    def features(self, images: Tensor) -> Tensor:
        """Return what the last linear layer makes the logits of, [B, D], for images as above."""
        maps = self.net.forward_features((images - self.mean) / self.std)
        return self.net.forward_head(maps, pre_logits=True)


class NormLayer(NamedTuple):
    """A normalisation layer: its place (from 1), its name and the module that computes it."""

    index: int
    name: str
    module: nn.Module


def build(
    architecture: str,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    **options: float,
) -> Classifier:
    """Build a freshly initialised classifier on the CPU.

    `architecture` is 'resnet50' (CIFAR stem: one 3x3 convolution, no max-pool), 'small_vit'
    (pre-norm), or any timm model name; no pretrained weights are ever loaded. timm's own ResNet-50
    with the ImageNet stem is 'resnet50.a1_in1k'. `image_size` is in pixels; `mean` and `std` are
    those of the three channels of the training images, in [0, 1]. `seed` fixes the initial weights;
    the global random state is left alone. `UserError` if the sizes do not go together.

    Options of 'resnet50': `width` (1.0), a factor on all channel numbers, rounded to even ones;
    `stem_stride` (1); `zero_init_last` (False), whether the last BatchNorm of each block starts at
    weight 0, as timm's do, not at 1, as torchvision's: it stays small for long, and so does its σ.
    Options of 'small_vit': `dim` (384), the embedding's width; `heads` (6), `depth` (4) in blocks,
    `patch` (4) in pixels; `convolutions` (0): so many embed the patches, of 2 ** `convolutions`
    pixels then.
    """
    sizes = {"num_classes": num_classes, "image_size": image_size, "std": min(std), **options}
    for name, value in sizes.items():
        if not (value > 0 or value is False):
            raise UserError(f"{name} {value} is not allowed; a classifier needs more than 0")
    name = OWN.get(architecture, architecture)
    if not timm.is_model(name):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise unknown("architecture", architecture, [*OWN, *close, "any name of timm's"])
    try:
        # torch.manual_seed would also reseed the GPUs, which fork_rng(devices=[]) does not put back
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            net = _created(name, num_classes, image_size, **options)
            _check_output(net, num_classes, image_size, image_size)
        return Classifier(architecture, net.train(), mean, std)
    except Exception as error:
        raise UserError(
            f"architecture {architecture!r} cannot be built for {image_size}x{image_size} images "
            f"({one_line(error)[:200]}); choose another image size, architecture or options"
        ) from error


def save_folder(
    model: Classifier, folder: Path, *, image_size: int, classes: Sequence[str]
) -> None:
    """Write a classifier, as `build` made it, to a folder for `load_folder`, timm and the hub.

    `model.safetensors` has the weights; `config.json` how to build the network, the names of the
    `classes`, and how images are prepared: resized to squares of `image_size` pixels, normalised by
    the model's mean and standard deviation. `UserError` if the folder cannot be written.
    """
    how = {"input_size": (3, image_size, image_size), "crop_mode": "squash", "crop_pct": 1.0}
    how |= {"interpolation": "bilinear"}
    how |= {name: getattr(model, name).flatten().tolist() for name in ("mean", "std")}
    told = {"label_names": list(classes)}
    told["pretrained_cfg"] = {**dict.fromkeys(_FOREIGN), "tag": "unlearnkit"}
    try:
        # Training left convolutions' weights channels last, which the format has not.
        net = copy.deepcopy(model.net).to(memory_format=torch.contiguous_format)
        save_for_hf(net, folder, told, safe_serialization=True, data_config=how)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write a model to {folder}: {one_line(error)}") from None


def load_folder(folder: Path | str) -> Classifier:
    """Return the classifier of a folder, in evaluation mode and on the CPU.

    Of `save_folder`, or any other that timm or the Hugging Face hub calls a timm model, with
    `config.json` and `model.safetensors`; pickles are never read. `architecture` is 'resnet50' or
    'small_vit' if the network is ours, else timm's name with the tag of the weights. `UserError`
    if a file is missing, or is damaged, or the two do not go together.
    """
    folder, wanted = Path(folder), ("config.json", "model.safetensors")
    if lacks := [name for name in wanted if not (folder / name).is_file()]:
        expected = f"expected {' and '.join(wanted)}, as timm writes them; pickles are not read"
        raise UserError(f"no {' and no '.join(lacks)} in {folder}: {expected}")
    try:
        config = read_json(folder / wanted[0])
        if "architecture" not in config:
            raise ValueError("config.json names no architecture, as timm's does")
        # Given, so that timm does not put a new last layer in place of one that does not fit.
        how = {"pretrained": True, "num_classes": config.get("num_classes")}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            net = timm.create_model(f"local-dir:{folder}", **how)
            told = net.pretrained_cfg
            _check_output(net, told["num_classes"], *told["input_size"][1:])
        name = f"{told['architecture']}.{told.get('tag', 'untagged')}"
        own = {theirs: ours for ours, theirs in OWN.items()}.get(told["architecture"])
        model = Classifier(own or name, net, told["mean"], told["std"])
        model.image_size = told["input_size"][-1]
        model.classes = tuple(told.get("label_names") or ())
        return model.eval()
    except Exception as error:
        why = f"{one_line(error)[:200]}; expected a classifier of three channels that timm can load"
        raise UserError(f"the model in {folder} cannot be used: {why}") from error


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


def _resnet50(
    num_classes: int, width: float = 1.0, stem_stride: int = 1, **options: Any
) -> nn.Module:
    half = max(1, round(32 * width))
    # timm fixes the plain stem at 64 channels; its deep stem ends at 2 * stem_width, which gives
    # bn1 and stage 1 the right number: only the convolution remains to be replaced
    options = {"zero_init_last": False, "stem_type": "deep", "stem_width": half} | options
    channels = tuple(2 * half * 2**stage for stage in range(4))
    net = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, channels=channels, **options)
    net.conv1 = nn.Conv2d(3, 2 * half, 3, stride=stem_stride, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net


class ConvolutionalPatches(nn.Module):
    """A patch embedding of 3x3 convolutions, each with ReLU and 3x3 pooling by 2.

    After Hassani et al., *Escaping the Big Data Paradigm with Compact Transformers* (2021): a small
    transformer learns small images much faster from these than from one large convolution.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: Any):
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        count, layers, channels = int(math.log2(patch_size)), [], in_chans
        for left in reversed(range(count)):
            convolution = nn.Conv2d(channels, embed_dim >> left, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
            channels = embed_dim >> left
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the patches [B, N, dim] of images [B, 3, H, W]."""
        return self.layers(images).flatten(2).transpose(1, 2)


def _small_vit(
    num_classes: int,
    img_size: int | Sequence[int],
    dim: int = 384,
    heads: int = 6,
    depth: int = 4,
    patch: int = 4,
    convolutions: int = 0,
    **options: Any,
) -> nn.Module:
    size = img_size if isinstance(img_size, int) else img_size[0]
    patch = 2**convolutions if convolutions else patch
    if size % patch or dim % heads:
        wanted = "both dim a multiple of heads and the image size one of patch"
        raise ValueError(f"small_vit needs {wanted}; got {dim}, {heads}, {size}, {patch}")
    options |= {"embed_dim": dim, "num_heads": heads, "depth": depth}
    if convolutions:
        options["embed_layer"] = ConvolutionalPatches
    return VisionTransformer(size, patch, num_classes=num_classes, **options)


@register_model
def unlearnkit_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """Build 'resnet50' as `timm.create_model` does."""
    return build_model_with_cfg(_resnet50, OWN["resnet50"], pretrained, **options)


@register_model
def unlearnkit_small_vit(pretrained: bool = False, **options: Any) -> nn.Module:
    """Build 'small_vit' as `timm.create_model` does."""
    return build_model_with_cfg(_small_vit, OWN["small_vit"], pretrained, **options)


def _created(name: str, classes: int, size: int, **options: Any) -> nn.Module:
    try:
        return timm.create_model(name, img_size=size, num_classes=classes, **options)
    except TypeError:  # most convolutional networks are not told their image size
        torch.default_generator.manual_seed(torch.default_generator.initial_seed())
        return timm.create_model(name, num_classes=classes, **options)


def _check_output(net: nn.Module, classes: int, *size: int) -> None:
    """Raise `ValueError` unless two images of a size give logits [2, classes]."""
    shape = tuple(net.eval()(torch.zeros(2, 3, *size)).shape)
    if shape != (2, classes):
        raise ValueError(f"its output is {shape}, no class for each image")
