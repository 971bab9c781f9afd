import pytest
import torch
from timm.layers import BatchNormAct2d, LayerNorm2d
from torch import nn

from unlearnkit import models, scopes
from unlearnkit.errors import UserError
from unlearnkit.fairness import (
    READINGS,
    balanced,
    class_sigma,
    fairness_gap,
)

CLASSES = 3
SMALL = {
    "resnet50": {"width": 1 / 32, "stem_stride": 1},
    "small_vit": {"dim": 16, "heads": 2},
    "test_efficientnet": {},
}


def data(count=23, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    labels[:CLASSES] = torch.arange(CLASSES)
    # contrast and brightness differ by class, so that the classes differ in every layer
    images = (images.float() * (0.3 + 0.3 * labels.view(-1, 1, 1, 1))).clamp(0, 255).to(torch.uint8)
    return images, labels


def build(name):
    model = models.build(
        name,
        num_classes=CLASSES,
        image_size=16,
        mean=(0.3, 0.4, 0.5),
        std=(0.2, 0.2, 0.3),
        seed=0,
        **SMALL[name],
    )
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        # as after training: affine maps and running statistics away from their start
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-3, 3, generator=generator)
    return model


def measure(model, images, labels, batch_size=7, num_classes=CLASSES):
    return class_sigma(model, images, labels, num_classes=num_classes, batch_size=batch_size)


def reference(model, images, labels, names):
    """Store all activations, then pool in float64 by the definitions, channels last."""
    model.eval()
    kept = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda m, i, out, name=name: kept.__setitem__(name, out.detach().clone().double())
        )
        for name in names
    ]
    with torch.no_grad():
        model(images.float() / 255)
    for handle in handles:
        handle.remove()
    rows = {reading: [] for reading in READINGS}
    for name in names:
        out = kept[name]
        if out.dim() == 4:
            out = out.permute(0, 2, 3, 1)
        out = out.reshape(len(images), -1, out.shape[-1])
        per_class = [out[labels == c].flatten(0, 1) for c in range(CLASSES)]
        rows["std"].append([x.std(correction=0) for x in per_class])
        rows["variance"].append([x.var(correction=0) for x in per_class])
        rows["channel_std"].append([x.std(0, correction=0).mean() for x in per_class])
        rows["trimmed_std"].append([trimmed(out[labels == c]) for c in range(CLASSES)])
    return {reading: torch.tensor(rows[reading], dtype=torch.float64) for reading in READINGS}


def trimmed(out):
    """Pool the values of all images [N, positions, channels] but one in a hundred."""
    squares = (out - out.mean()).square()
    worst = sorted(range(len(out)), key=lambda i: -squares[i].mean())[: -(-len(out) // 100)]
    return torch.stack([out[i] for i in range(len(out)) if i not in worst]).std(correction=0)


@pytest.mark.parametrize("name", ["resnet50", "small_vit"])
def test_agrees_with_stored_activations(name):
    model, (images, labels) = build(name), data()
    names = [layer.name for layer in models.norm_layers(model)]
    expected = reference(model, images, labels, names)
    got = measure(model, images, labels)
    assert list(got) == list(READINGS)
    for reading in READINGS:
        assert got[reading].dtype == torch.float64
        assert got[reading].shape == (len(names), CLASSES)
        assert torch.allclose(got[reading], expected[reading], rtol=2e-5, atol=1e-7), reading
    assert (fairness_gap(got["std"]) > 1e-3).all()
    assert not torch.allclose(got["std"], got["channel_std"], rtol=1e-2)


def test_downsample_twins_are_equal_and_others_are_not():
    sigma = measure(build("resnet50"), *data())["std"]
    equal = [i + 1 for i in range(56) if torch.equal(sigma[i], sigma[i + 1])]
    assert equal == [5, 16, 30, 50]


def test_fused_activation_is_left_out():
    model, (images, labels) = build("test_efficientnet"), data()
    fused = [x.name for x in models.norm_layers(model) if isinstance(x.module, BatchNormAct2d)]
    assert len(fused) == len(models.norm_layers(model))
    before_activation = reference(model, images, labels, [f"{name}.drop" for name in fused])
    assert torch.allclose(
        measure(model, images, labels)["std"], before_activation["std"], rtol=2e-5
    )


class Pixels(nn.Module):
    """One BatchNorm that passes on the pixels, and one that only some networks call."""

    def __init__(self, spare=False):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, eps=0)
        if spare:
            self.spare = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize(("count", "far", "left"), [(100, 1, 0), (100, 2, 1), (101, 2, 0)])
def test_trimmed_std_leaves_out_one_image_in_a_hundred_rounded_up(count, far, left):
    images = torch.full((2 * count, 3, 2, 2), 100, dtype=torch.uint8)
    images[:, :, 0] = 104
    labels = torch.arange(2 * count) % 2
    images[0 : 2 * far : 2] = 250
    got = {n: s[0] * 255 for n, s in measure(Pixels(), images, labels, num_classes=2).items()}
    assert got["std"][1] == pytest.approx(2, rel=1e-4)
    assert got["trimmed_std"][1] == pytest.approx(2, rel=1e-4)
    rest = images[2 * (far - left) :][labels[2 * (far - left) :] == 0].double()
    assert got["trimmed_std"][0] == pytest.approx(rest.std(correction=0).item(), rel=1e-4)
    assert got["std"][0] > 10


def test_a_norm_that_is_never_used_is_named():
    with pytest.raises(UserError, match="layer spare takes no part in the forward pass"):
        measure(Pixels(spare=True), *data())


def test_one_image_of_a_class_is_never_left_out():
    images, labels = data(count=CLASSES)
    got = measure(build("small_vit"), images, labels)
    assert torch.allclose(got["trimmed_std"], got["std"], rtol=1e-5)


def test_tokens_folded_into_the_batch_axis():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.folded = nn.LayerNorm(3), nn.BatchNorm1d(3)
            self.plain.forward = self.folded.forward = lambda x: x

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            self.plain(tokens)
            return self.folded(tokens.flatten(0, 1))

    got = measure(Net(), *data())
    for reading in READINGS:
        assert torch.allclose(got[reading][0], got[reading][1], rtol=1e-6)


def test_a_norm_used_twice_has_twice_the_values():
    class Net(Pixels):
        def forward(self, x):
            return self.norm(self.norm(x))

    images, labels = data(count=12)
    once, twice = measure(Pixels(), images, labels), measure(Net(), images, labels)
    for reading in READINGS[:3]:
        assert torch.allclose(once[reading], twice[reading], rtol=1e-6), reading
    assert (twice["trimmed_std"] < twice["std"]).all()


class Flat(nn.Module):
    """Identity norms on the pixels as [B, 3, H, W], [B, H*W, 3] and [B, 3]."""

    def __init__(self):
        super().__init__()
        self.maps = nn.GroupNorm(1, 3)
        self.tokens = nn.LayerNorm(3)
        self.vector = nn.BatchNorm1d(3)
        for norm in (self.maps, self.tokens, self.vector):
            norm.forward = lambda x: x

    def forward(self, x):
        self.maps(x)
        self.tokens(x.flatten(2).transpose(1, 2))
        return self.vector(x[:, :, 0, 0])


def test_closed_form_and_channel_axis():
    # class 0: channels constant at 0, 51 and 102 (0, .2, .4): pooled variance 2/75, per channel 0
    # class 1: in each channel half the samples at 0 and half at 1: variance 1/4 both ways
    images = torch.zeros(8, 3, 2, 2, dtype=torch.uint8)
    images[:4, 1], images[:4, 2] = 51, 102
    images[6:] = 255
    labels = torch.tensor([0] * 4 + [1] * 4)
    order = torch.tensor([7, 0, 5, 1, 2, 6, 3, 4])
    for batch_size in (1, 3, 8):
        got = measure(Flat(), images[order], labels[order], batch_size, num_classes=2)
        variance = torch.tensor([[2 / 75, 0.25]] * 3, dtype=torch.float64)
        assert torch.allclose(got["variance"], variance, atol=1e-8)
        assert torch.allclose(got["std"], variance.sqrt(), atol=1e-8)
        channel_std = torch.tensor([[0.0, 0.5]] * 3, dtype=torch.float64)
        assert torch.allclose(got["channel_std"], channel_std, atol=1e-7)


def test_channel_axis_of_four_dimensional_layer_norms():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = LayerNorm2d(3)
            self.last = nn.LayerNorm(3)
            self.first.forward = self.last.forward = lambda x: x

        def forward(self, x):
            self.first(x)
            return self.last(x.movedim(1, -1))

    images, labels = data(size=5)
    got = measure(Net(), images, labels)["channel_std"]
    assert torch.allclose(got[0], got[1], rtol=1e-6)


def test_a_large_offset_costs_no_precision():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3, affine=False)
            self.norm.forward = lambda x: x + 1000

        def forward(self, x):
            return self.norm(x)

    images, labels = data()
    shifted = images.float().div(255) + 1000
    expected = [shifted[labels == c].double().var(correction=0) for c in range(CLASSES)]
    got = measure(Net(), images, labels)["variance"][0]
    assert torch.allclose(got, torch.stack(expected), rtol=1e-4)


def test_batch_size_and_order_do_not_matter():
    model, (images, labels) = build("resnet50"), data()
    whole = measure(model, images, labels, batch_size=100)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    pieces = measure(model, images[order], labels[order], batch_size=4)
    for reading in READINGS:
        assert torch.allclose(whole[reading], pieces[reading], rtol=2e-5)


def test_model_is_left_as_it_was():
    model, (images, labels) = build("resnet50"), data()
    scopes.apply_scope(model, "last")
    scopes.set_train(model)
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    measure(model, images, labels)
    assert any(modes) and not all(modes)
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert not any(m._forward_hooks for m in model.modules())
    model.net.layer4.forward = None
    with pytest.raises(TypeError):
        measure(model, images, labels)
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks for m in model.modules())


def test_balanced():
    labels = torch.tensor([0] * 5 + [1] * 9 + [2] * 7)[torch.randperm(21)]
    index = balanced(labels, 4, 3, seed=0)
    assert labels[index].bincount().tolist() == [4, 4, 4]
    assert index.dtype == torch.int64 and (index.diff() > 0).all()
    assert torch.equal(index, balanced(labels, 4, 3, seed=0))
    assert any(not torch.equal(index, balanced(labels, 4, 3, seed=s)) for s in (1, 2, 3))
    for wish in (0, 50):
        assert labels[balanced(labels, wish, 3, seed=0)].bincount().tolist() == [5, 5, 5]


def test_gap_is_the_range_over_classes():
    sigma = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.5, 0.25, 1.0]])
    gap = fairness_gap(sigma)
    assert gap.tolist() == [2.0, 0.0, 0.75]
    assert fairness_gap(sigma.expand(2, 3, 3)).shape == (2, 3)


def test_bad_input():
    images, labels = data()
    model = Flat()
    cases = [
        (model, images.float(), labels, 8, "uint8"),
        (model, images, labels[:-1], 8, "as many labels"),
        (model, images, labels + 1, 8, "labels must lie in 0..2"),
        (model, images, labels.clamp(max=1), 8, "none of class 2"),
        (nn.Flatten(), images, labels, 8, "no normalisation layer"),
    ]
    for net, x, y, batch_size, says in cases:
        with pytest.raises(UserError, match=says):
            measure(net, x, y, batch_size)
    with pytest.raises(UserError, match="none of class 3"):
        balanced(labels, 2, 4, seed=0)
