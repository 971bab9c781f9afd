"""The spread of classes: by the definitions, in closed form, and over every kind of norm."""

import pytest
import torch
from conftest import differing, state_of
from timm.layers import BatchNormAct2d, LayerNorm2d
from torch import nn

from unlearnkit import models, scopes
from unlearnkit.errors import UserError
from unlearnkit.fairness import READINGS, balanced, class_sigma, fairness_gap

CLASSES = 3
SMALL = {"resnet50": {"width": 1 / 32}, "small_vit": {"dim": 16, "heads": 2}}


def data(count=23, size=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    labels[:CLASSES] = torch.arange(CLASSES)
    images = (images.float() * (0.3 + 0.3 * labels.view(-1, 1, 1, 1))).clamp(0, 255).to(torch.uint8)
    return images, labels


def build(name):
    place = {"num_classes": CLASSES, "image_size": 16, "mean": (0.3, 0.4, 0.5), "std": (0.2,) * 3}
    model = models.build(name, seed=0, **place, **SMALL.get(name, {}))
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-3, 3, generator=generator)
    return model


class Fed(nn.Module):
    """Norms that do nothing, and a function from the pixels to what each of them is fed."""

    def __init__(self, feed, **norms):
        super().__init__()
        self.feed = feed
        for name, norm in norms.items():
            norm.forward = lambda x: x
            self.add_module(name, norm)

    def forward(self, x):
        for norm, food in zip(self.children(), self.feed(x), strict=False):
            norm(food)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def measure(model, images, labels, batch_size=7, num_classes=CLASSES):
    return class_sigma(model, images, labels, num_classes=num_classes, batch_size=batch_size)


def reference(model, images, labels, names):
    """Store all activations, then pool in float64 by the definitions, channels last."""
    kept, rows = {}, {reading: [] for reading in READINGS}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, out, name=name: kept.__setitem__(name, out.double())
        )
    with torch.no_grad():
        model.eval()(images.float() / 255)
    for out in (kept[name] for name in names):
        out = out.permute(0, 2, 3, 1) if out.dim() == 4 else out
        out = out.reshape(len(images), -1, out.shape[-1])
        images_of = [out[labels == c] for c in range(CLASSES)]
        per_class = [x.flatten(0, 1) for x in images_of]
        rows["std"].append([x.std(correction=0) for x in per_class])
        rows["variance"].append([x.var(correction=0) for x in per_class])
        rows["channel_std"].append([x.std(0, correction=0).mean() for x in per_class])
        rows["trimmed_std"].append([trimmed(x) for x in images_of])
    return {reading: torch.tensor(rows[reading], dtype=torch.float64) for reading in READINGS}


def trimmed(out):
    """Pool the values of all images [N, positions, channels] but one in a hundred."""
    squares = (out - out.mean()).square()
    worst = sorted(range(len(out)), key=lambda i: -squares[i].mean())[: -(-len(out) // 100)]
    return torch.stack([out[i] for i in range(len(out)) if i not in worst]).std(correction=0)


@pytest.mark.parametrize("name", ["resnet50", "small_vit"])
def test_agrees_with_stored_activations_whatever_the_batches(name):
    model, (images, labels) = build(name), data()
    names = [layer.name for layer in models.norm_layers(model)]
    got, order = measure(model, images, labels), torch.randperm(len(labels))
    pieces = measure(model, images[order], labels[order], batch_size=4)
    expected = reference(model, images, labels, names)
    assert list(got) == list(READINGS)
    for reading in READINGS:
        assert got[reading].dtype == torch.float64
        assert got[reading].shape == (len(names), CLASSES)
        assert torch.allclose(got[reading], expected[reading], rtol=2e-5, atol=1e-7), reading
        assert torch.allclose(got[reading], pieces[reading], rtol=2e-5), reading
    assert (fairness_gap(got["std"]) > 1e-3).all()
    assert not torch.allclose(got["std"], got["channel_std"], rtol=1e-2)
    # the downsample containers share their BatchNorm
    equal = [i + 1 for i in range(len(names) - 1) if torch.equal(*got["std"][i : i + 2])]
    assert equal == ([5, 16, 30, 50] if name == "resnet50" else [])


def test_fused_activation_is_left_out():
    model, (images, labels) = build("test_efficientnet"), data()
    fused = [x.name for x in models.norm_layers(model) if isinstance(x.module, BatchNormAct2d)]
    assert len(fused) == len(models.norm_layers(model))
    got = measure(model, images, labels)["std"]
    before_activation = reference(model, images, labels, [f"{name}.drop" for name in fused])
    assert torch.allclose(got, before_activation["std"], rtol=2e-5)


@pytest.mark.parametrize(("count", "far", "left"), [(100, 1, 0), (100, 2, 1), (101, 2, 0)])
def test_trimmed_std_leaves_out_one_image_in_a_hundred_rounded_up(count, far, left):
    images = torch.full((2 * count, 3, 2, 2), 100, dtype=torch.uint8)
    images[:, :, 0] = 104
    labels = torch.arange(2 * count) % 2
    images[0 : 2 * far : 2] = 250
    pixels = Fed(lambda x: [x], norm=nn.BatchNorm2d(3))
    got = {n: s[0] * 255 for n, s in measure(pixels, images, labels, num_classes=2).items()}
    assert got["std"][1] == pytest.approx(2, rel=1e-4)
    assert got["trimmed_std"][1] == pytest.approx(2, rel=1e-4)
    rest = images[2 * (far - left) :][labels[2 * (far - left) :] == 0].double()
    assert got["trimmed_std"][0] == pytest.approx(rest.std(correction=0).item(), rel=1e-4)
    assert got["std"][0] > 10


def test_one_image_of_a_class_is_never_left_out():
    got = measure(build("small_vit"), *data(count=CLASSES))
    assert torch.allclose(got["trimmed_std"], got["std"], rtol=1e-5)


def test_a_norm_used_twice_has_twice_the_values():
    norm, pixels = nn.BatchNorm2d(3, affine=False, eps=0), data(count=12)
    once, twice = measure(nn.Sequential(norm), *pixels), measure(nn.Sequential(norm, norm), *pixels)
    for reading in READINGS[:3]:
        assert torch.allclose(once[reading], twice[reading], rtol=1e-6), reading
    assert (twice["trimmed_std"] < twice["std"]).all()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_closed_form_and_channel_axis(batch_size):
    # class 0: channels constant at 0, 51 and 102 (0, .2, .4): pooled variance 2/75, per channel 0
    # class 1: in each channel half the samples at 0 and half at 1: variance 1/4 both ways
    images = torch.zeros(8, 3, 2, 2, dtype=torch.uint8)
    images[:4, 1], images[:4, 2] = 51, 102
    images[6:] = 255
    labels, order = torch.tensor([0] * 4 + [1] * 4), torch.tensor([7, 0, 5, 1, 2, 6, 3, 4])
    norms = {"maps": nn.GroupNorm(1, 3), "maps2": LayerNorm2d(3), "last": nn.LayerNorm(3)}
    norms |= {"tokens": nn.LayerNorm(3), "windows": nn.BatchNorm1d(3), "vector": nn.BatchNorm1d(3)}
    foods = (lambda x: x, lambda x: x, lambda x: x.movedim(1, -1), tokens)
    foods += (lambda x: tokens(x).flatten(0, 1), lambda x: x[:, :, 0, 0])
    model = Fed(lambda x: [food(x) for food in foods], **norms)
    got = measure(model, images[order], labels[order], batch_size, num_classes=2)
    variance = torch.tensor([[2 / 75, 0.25]] * 6, dtype=torch.float64)
    assert torch.allclose(got["variance"], variance, atol=1e-8)
    assert torch.allclose(got["std"], variance.sqrt(), atol=1e-8)
    assert torch.allclose(got["channel_std"], torch.tensor([[0.0, 0.5]] * 6).double(), atol=1e-7)


def test_a_large_offset_costs_no_precision():
    images, labels = data()
    expected = [(images[labels == c] / 255 + 1000).double().var(correction=0) for c in range(3)]
    got = measure(Fed(lambda x: [x + 1000], norm=nn.BatchNorm2d(3)), images, labels)["variance"]
    assert torch.allclose(got[0], torch.stack(expected), rtol=1e-4)


def test_model_is_left_as_it_was():
    model = build("resnet50")
    scopes.apply_scope(model, "last")
    scopes.set_train(model)
    modes, state = [m.training for m in model.modules()], state_of(model)
    assert any(modes) and not all(modes)
    measure(model, *data())
    assert not differing(model, state)
    model.net.layer4.forward = None
    with pytest.raises(TypeError):
        measure(model, *data())
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks for m in model.modules())


def test_balanced_and_the_gap_is_the_range_over_classes():
    sigma = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.5, 0.25, 1.0]])
    assert fairness_gap(sigma.expand(2, 3, 3)).tolist() == [[2.0, 0.0, 0.75]] * 2
    labels = torch.tensor([0] * 5 + [1] * 9 + [2] * 7)[torch.randperm(21)]
    index, *others = (balanced(labels, 4, 3, seed=seed) for seed in range(4))
    assert labels[index].bincount().tolist() == [4, 4, 4]
    assert index.dtype == torch.int64 and (index.diff() > 0).all()
    assert torch.equal(index, balanced(labels, 4, 3, seed=0))
    assert any(not torch.equal(index, other) for other in others)
    for wish in (0, 50):
        assert labels[balanced(labels, wish, 3, seed=0)].bincount().tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.zeros(23, 3, 16, 16)}, "uint8"),
        ({"labels": torch.zeros(22, dtype=torch.int64)}, "as many labels"),
        ({"labels": torch.full((23,), 3)}, r"labels must lie in 0\.\.2"),
        ({"labels": torch.arange(23) % 2}, "none of class 2"),
        ({"model": nn.Flatten()}, "no normalisation layer"),
        ({"model": Fed(lambda x: [x], norm=nn.LayerNorm(3), spare=nn.LayerNorm(3))}, "layer spare"),
        ({"model": Fed(lambda x: [x[1:]], norm=nn.LayerNorm(3))}, "not tell 7 samples apart"),
    ],
)
def test_bad_input(change, says):
    images, labels = data()
    model = Fed(lambda x: [x], norm=nn.BatchNorm2d(3))
    with pytest.raises(UserError, match=says):
        measure(**{"model": model, "images": images, "labels": labels} | change)
