import pytest
import torch
from torch import nn

from unlearnkit import models
from unlearnkit.errors import UserError

SMALL = {
    "resnet50": {"width": 1 / 32, "stem_stride": 2},
    "small_vit": {"dim": 16, "heads": 2},
    "test_resnet": {},
    "test_vit": {},
}


def build(architecture, seed=0, **options):
    fixed = {"num_classes": 5, "image_size": 16, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}
    return models.build(architecture, seed=seed, **{**fixed, **SMALL[architecture], **options})


@pytest.fixture(scope="module")
def built():
    return {name: build(name) for name in SMALL}


def images(count=4, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_normalisation_is_inside(built):
    model = built["small_vit"].eval()
    x = images()
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    seen = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    assert torch.allclose(model(x), model.net(seen), atol=1e-6)
    assert not torch.allclose(model(x), model.net(x), atol=1e-3)
    assert model.architecture == "small_vit"


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("name", ["resnet50", "small_vit"])
def test_shapes(name, size):
    assert build(name, image_size=size)(images(size=size)).shape == (4, 5)


def test_full_size_architectures():
    with torch.device("meta"):
        resnet = models._resnet50(10, 0, width=1.0, stem_stride=1, zero_init_last=False)
    # torchvision's ResNet-50 of 23 528 522 for 10 classes, less 7x7 and plus 3x3 stem weights
    assert sum(p.numel() for p in resnet.parameters()) == 23_528_522 - 64 * 3 * (49 - 9)
    assert (resnet.conv1.kernel_size, resnet.conv1.stride) == ((3, 3), (1, 1))
    vit = models.build(
        "small_vit", num_classes=10, image_size=32, mean=[0.5] * 3, std=[0.2] * 3, seed=0
    ).net
    assert (vit.embed_dim, vit.blocks[0].attn.num_heads, len(vit.blocks)) == (384, 6, 4)
    assert (vit.patch_embed.patch_size, vit.patch_embed.num_patches) == ((4, 4), 64)


@pytest.mark.parametrize("width, stem", [(1 / 32, 2), (0.25, 16)])
def test_width_factor(width, stem):
    net = build("resnet50", width=width).net
    assert net.conv1.out_channels == net.bn1.num_features == stem
    assert net.layer1[0].conv1.in_channels == net.layer1[0].downsample[0].in_channels == stem
    assert [getattr(net, f"layer{s}")[-1].conv3.out_channels for s in (1, 2, 3, 4)] == [
        4 * stem * 2**s for s in range(4)
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 53


def test_stem_stride_and_initialisation():
    x = images()
    nets = {stride: build("resnet50", stem_stride=stride, width=0.25).net for stride in (1, 2)}
    assert nets[1].maxpool(nets[1].conv1(x)).shape[-1] == 16
    assert nets[2].maxpool(nets[2].conv1(x)).shape[-1] == 8
    # kaiming, fan out: variance 2 / (16 channels * 9 weights)
    assert nets[1].conv1.weight.std().item() == pytest.approx((2 / 144) ** 0.5, rel=0.15)
    norms = [module for module in nets[1].modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() for norm in norms), "as torchvision's"


def test_the_last_batchnorm_of_a_block_starts_at_zero_if_asked():
    net = build("resnet50", zero_init_last=True).net
    at_zero = {n for n, m in net.named_modules() if n.endswith("bn3") and not m.weight.any()}
    assert len(at_zero) == 16
    assert net.layer2[0].downsample[1].weight.all()


@pytest.mark.parametrize("name", ["resnet50", "small_vit", "test_resnet"])
def test_seed_fixes_weights_and_leaves_global_state(name, built):
    before = torch.random.get_rng_state()
    again, other = build(name), build(name, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    for key, value in built[name].state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    torch.random.set_rng_state(before)
    head = [k for k, v in again.named_parameters() if v.dim() > 1 and "norm" not in k][-1]
    assert not torch.equal(again.state_dict()[head], other.state_dict()[head])


def test_resnet50_layers_are_the_published_57(built):
    layers = models.norm_layers(built["resnet50"])
    assert [layer.index for layer in layers] == list(range(1, 58))
    twins = [(a.index, b.index) for a in layers for b in layers[a.index :] if a.module is b.module]
    assert twins == [(5, 6), (16, 17), (30, 31), (50, 51)]
    assert all(layers[a - 1].name.endswith(".downsample") for a, _ in twins)
    assert len({id(layer.module) for layer in layers}) == 53
    stages = ["net.bn1"] + [f"net.layer{s}" for s in (1, 2, 3, 4)]
    found = [[x.index for x in layers if x.name.startswith(stage)] for stage in stages]
    assert [(f[0], f[-1]) for f in found] == [(1, 1), (2, 12), (13, 26), (27, 46), (47, 57)]


def test_layers_of_the_others(built):
    names = [layer.name for layer in models.norm_layers(built["small_vit"])]
    assert names == [f"net.blocks.{b}.norm{n}" for b in range(4) for n in (1, 2)] + ["net.norm"]
    resnet = models.norm_layers(built["test_resnet"])
    assert len(resnet) == sum(isinstance(m, nn.BatchNorm2d) for m in built["test_resnet"].modules())
    toy = nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4)))
    assert [layer.name for layer in models.norm_layers(toy)] == ["0", "2.0"]


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("resnet5o", {}, "unknown architecture 'resnet5o'; known: resnet50, small_vit; any timm"),
        ("small_vit", {"image_size": 18}, "image size one of patch.*18"),
        ("small_vit", {"dim": 15, "heads": 2}, "dim a multiple of heads"),
        ("small_vit", {"depth": 0}, "depth 0"),
        ("resnet50", {"width": 0}, "width > 0"),
        ("resnet50", {"stem_stride": 0}, "stem_stride >= 1"),
        ("inception_v4", {}, "cannot be built for 16x16 images"),
        ("small_vit", {"num_classes": 1}, "num_classes >= 2"),
        ("small_vit", {"std": (0.1, 0.0, 0.1)}, "std above 0"),
    ],
)
def test_bad_build(name, options, says):
    fixed = {"num_classes": 5, "image_size": 16, "mean": (0.5,) * 3, "std": (0.2,) * 3, "seed": 0}
    with pytest.raises(UserError, match=says) as error:
        models.build(name, **{**fixed, **options})
    assert "\n" not in str(error.value)
