"""The networks: sizes, initial weights, normalisation layers, errors."""

import pytest
import torch
from torch import nn

from unlearnkit import metrics, models
from unlearnkit.errors import UserError

SMALL = {
    "resnet50": {"width": 1 / 32, "stem_stride": 2},
    "small_vit": {"dim": 16, "heads": 2},
    "test_resnet": {},
    "test_vit": {},
}
FIXED = {"num_classes": 5, "image_size": 16, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}


def build(architecture, seed=0, **options):
    return models.build(architecture, seed=seed, **FIXED | SMALL[architecture] | options)


@pytest.fixture(scope="module")
def built():
    return {name: build(name) for name in SMALL}


def images(count=4, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def batch_norms(net):
    return {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_normalisation_is_inside(built):
    model = built["small_vit"].eval()
    x = images()
    mean, std = (torch.tensor(FIXED[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose(model(x), model.net((x - mean) / std), atol=1e-6)
    assert not torch.allclose(model(x), model.net(x), atol=1e-3)
    assert model.architecture == "small_vit" and model(x).shape == (4, 5)


def test_features_are_what_the_last_layer_makes_logits_of(built):
    for model in built.values():
        found = metrics.features(model, images(), batch_size=3)
        logits = model.net.get_classifier()(found)
        assert torch.allclose(logits, metrics.predictions(model, images()), atol=1e-5)


def test_full_size_architectures():
    full = FIXED | {"num_classes": 10, "image_size": 32, "seed": 0}
    with torch.device("meta"):
        resnet, vit = (models.build(name, **full).net for name in ("resnet50", "small_vit"))
    # torchvision's ResNet-50 of 23 528 522 for 10 classes, less 7x7 and plus 3x3 stem weights
    assert sum(p.numel() for p in resnet.parameters()) == 23_528_522 - 64 * 3 * (49 - 9)
    assert (resnet.conv1.kernel_size, resnet.conv1.stride) == ((3, 3), (1, 1))
    assert (vit.embed_dim, vit.blocks[0].attn.num_heads, len(vit.blocks)) == (384, 6, 4)
    assert (vit.patch_embed.patch_size, vit.patch_embed.num_patches) == ((4, 4), 64)


def test_width_stride_and_initialisation():
    nets = {stride: build("resnet50", stem_stride=stride, width=0.25).net for stride in (1, 2)}
    assert [net.maxpool(net.conv1(images())).shape[-1] for net in nets.values()] == [16, 8]
    net, norms = nets[1], batch_norms(nets[1])
    assert net.conv1.out_channels == net.bn1.num_features == 16 and len(norms) == 53
    assert net.layer1[0].conv1.in_channels == net.layer1[0].downsample[0].in_channels == 16
    ends = [getattr(net, f"layer{stage}")[-1].conv3.out_channels for stage in (1, 2, 3, 4)]
    assert ends == [64, 128, 256, 512]
    # kaiming, fan out: variance 2 / (16 channels * 9 weights)
    assert net.conv1.weight.std().item() == pytest.approx((2 / 144) ** 0.5, rel=0.15)
    assert all((norm.weight == 1).all() for norm in norms.values()), "as torchvision's"
    norms = batch_norms(build("resnet50", zero_init_last=True).net)
    at_zero = {name for name, norm in norms.items() if not norm.weight.any()}
    assert len(at_zero) == 16 and all(name.endswith("bn3") for name in at_zero)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_convolutions_embed_patches_that_see_beyond_their_edge(count):
    embed = build("small_vit", convolutions=count).net.patch_embed
    x, size = images(1).requires_grad_(), 2**count
    patches = embed(x)
    assert patches.shape == (1, (16 // size) ** 2, 16) and embed.num_patches == patches.shape[1]
    (gradient,) = torch.autograd.grad(patches[0, 0].sum(), x)
    seen = gradient[0].abs().sum(0).nonzero().max().item()
    assert size <= seen < 4 * size, "its own pixels and those around"
    widths = [layer.out_channels for layer in embed.layers if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 8, 16][-count:]


@pytest.mark.parametrize("name", ["resnet50", "small_vit", "test_resnet"])
def test_seed_fixes_weights_and_leaves_global_state(name, built):
    before = torch.random.get_rng_state()
    again, other = build(name), build(name, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    state = built[name].state_dict()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in state.items())
    head = [key for key, value in again.named_parameters() if value.dim() > 1][-1]
    assert not torch.equal(state[head], other.state_dict()[head])


def test_resnet50_layers_are_the_published_57(built):
    layers = models.norm_layers(built["resnet50"])
    assert [layer.index for layer in layers] == list(range(1, 58))
    twins = [(a.index, b.index) for a in layers for b in layers[a.index :] if a.module is b.module]
    assert twins == [(5, 6), (16, 17), (30, 31), (50, 51)]
    assert all(layers[a - 1].name.endswith(".downsample") for a, _ in twins)
    stages = ["net.bn1"] + [f"net.layer{stage}" for stage in (1, 2, 3, 4)]
    found = [[x.index for x in layers if x.name.startswith(stage)] for stage in stages]
    assert [(f[0], f[-1]) for f in found] == [(1, 1), (2, 12), (13, 26), (27, 46), (47, 57)]


def test_layers_of_the_others(built):
    names = [layer.name for layer in models.norm_layers(built["small_vit"])]
    assert names == [f"net.blocks.{b}.norm{n}" for b in range(4) for n in (1, 2)] + ["net.norm"]
    resnet = built["test_resnet"]
    assert [x.name for x in models.norm_layers(resnet)] == list(batch_norms(resnet))
    toy = nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4)))
    assert [layer.name for layer in models.norm_layers(toy)] == ["0", "2.0"]


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("resnet5o", {}, "unknown architecture 'resnet5o'; known: resnet50, small_vit, .* timm's"),
        ("small_vit", {"image_size": 18}, "image size one of patch; got .* 18, 4"),
        ("small_vit", {"dim": 15, "heads": 2}, "dim a multiple of heads .* 15, 2"),
        ("small_vit", {"depth": 0}, "depth 0 is not allowed"),
        ("small_vit", {"dim": 2**40, "heads": 1}, "'small_vit' cannot be built .*memory"),
        ("resnet50", {"width": 0}, "width 0 .* more than 0"),
        ("resnet50", {"stem_stride": 0}, "stem_stride 0"),
        ("inception_v4", {}, "cannot be built for 16x16 images"),
        ("small_vit", {"num_classes": 0}, "num_classes 0"),
        ("small_vit", {"std": (0.1, 0.0, 0.1)}, "std 0.0"),
        ("small_vit", {"mean": (0.1, 0.2)}, "cannot be built"),
    ],
)
def test_bad_build(name, options, says):
    with pytest.raises(UserError, match=says) as error:
        models.build(name, seed=0, **FIXED | options)
    assert "\n" not in str(error.value)
