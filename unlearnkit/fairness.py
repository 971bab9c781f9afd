"""The fairness-gap: how differently the classes are spread at each normalisation layer."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from unlearnkit.errors import UserError
from unlearnkit.metrics import device_of, evaluating, keep_pages, to_float
from unlearnkit.models import norm_layers
from unlearnkit.names import READINGS

TRIMMED = 100  # 'trimmed_std' leaves out one in so many of a class's images
# On a CPU a layer's output is measured in pieces of this many values, which stay in the cache
_PIECE = 1 << 19


def class_sigma(
    model: nn.Module, images: Tensor, labels: Tensor, *, num_classes: int, batch_size: int
) -> dict[str, Tensor]:
    """Measure the spread of every class at the output of every normalisation layer.

    Outputs are taken after the affine map, in evaluation mode and float32. Where timm puts an
    activation into the layer, they are taken before it. No activation is stored. Count, mean and
    sum of squared deviations are kept in float64 and merged batch by batch (Chan, Golub and
    LeVeque, 1979).

    `images` are uint8 [N, 3, H, W], `labels` int64 [N] in [0, num_classes). Every class must occur.
    `balanced` picks equally many images of each. `UserError` if they do not fit, or the model has
    no normalisation layer, or one that its forward pass leaves out.

    Returns for each reading float64 [L, C] on the CPU, with L layers in the order of `norm_layers`
    and C classes. All spreads are divided by n.

    * 'std' pools samples, channels and positions. It is σ of the fairness-gap as we read it.
    * 'variance' is its square.
    * 'channel_std' is the mean over channels of the deviation over samples and positions.
    * 'trimmed_std' is 'std' without the 1 % of the class's images that are furthest from its mean
      in the mean square, at that layer (one in `TRIMMED`, rounded up, never all). Small classes
      lose a larger part, so compare classes of one size.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or len(labels) != len(images):
        got = f"{images.dtype} {tuple(images.shape)} and {len(labels)} labels"
        raise UserError(f"images must be uint8 [N, 3, H, W] with as many labels; got {got}")
    _counts(labels, num_classes)
    layers = norm_layers(model)
    if not layers:
        raise UserError("this model has no normalisation layer, so it has no fairness-gap")
    keep_pages()
    device = device_of(model)
    meters = {layer.module: _Meter(layer.module, num_classes) for layer in layers}
    plain = torch.autocast(device.type, enabled=False)
    with evaluating(model), torch.no_grad(), plain, ExitStack() as stack:
        for meter in meters.values():
            stack.callback(meter.probe.register_forward_hook(meter).remove)
        for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            for meter in meters.values():
                meter.labels = truth.to(device)
            model(to_float(batch, device))
    for layer in layers:
        if not meters[layer.module].images:
            raise UserError(f"normalisation layer {layer.name} takes no part in the forward pass")
    rows = [meters[layer.module].readings() for layer in layers]
    return dict(zip(READINGS, torch.stack(rows, 1).cpu(), strict=True))


def balanced(labels: Tensor, per_class: int, num_classes: int, seed: int) -> Tensor:
    """Return a sorted index (int64) of equally many items of each class, drawn by `seed`.

    `per_class` is a wish: no class gives more than the smallest one has; 0 takes that many.
    """
    take = min(int(_counts(labels, num_classes).min()), per_class or len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    drawn = labels.cpu()[order]
    return torch.cat([order[drawn == c][:take] for c in range(num_classes)]).sort().values


def probe(norm: nn.Module) -> nn.Module:
    """Return the module whose output is a normalisation layer's: before an activation inside it."""
    # timm's norms with an activation inside run norm, drop, act: drop returns the affine output
    fused = isinstance(getattr(norm, "act", None), nn.Module)
    return norm.drop if fused and hasattr(norm, "drop") else norm


def fairness_gap(sigma: Tensor) -> Tensor:
    """Return max - min of sigma [..., C] over the classes, as [...]."""
    return sigma.amax(-1) - sigma.amin(-1)


class _Meter:
    """Forward hook on one layer: running count, mean and M2 per class and channel."""

    def __init__(self, module: nn.Module, num_classes: int) -> None:
        self.probe = probe(module)
        per_map = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm)
        self.channels_first = per_map or "2d" in type(module).__name__
        self.num_classes = num_classes
        self.count = self.mean = self.m2 = torch.zeros((), dtype=torch.float64)
        # of each image: mean over channels and positions, mean square around it, label
        self.images: list[tuple[Tensor, Tensor, Tensor]] = []
        self.labels = torch.zeros(0)  # of the batch under way

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if output.device.type == "mps":  # it has no float64
            output = output.cpu()
        means, m2, positions = self._per_sample(output)
        means, m2, labels = means.double(), m2.double(), self.labels.to(output.device)
        pooled = means.mean(1, keepdim=True)
        around = m2.mean(1) / positions + (means - pooled).square_().mean(1)
        self.images.append((pooled[:, 0], around, labels))
        # a product with the one-hot labels sums by class, in an order that is fixed on a GPU too
        hot = nn.functional.one_hot(labels, self.num_classes).T.double()
        count = hot.sum(1, keepdim=True)
        mean = hot @ means / count.clamp(min=1)
        off = means - mean[labels]
        m2 = hot @ m2.addcmul_(off, off, value=positions)
        # merge with the batches before
        count, delta = count * positions, mean - self.mean
        total = self.count + count
        share = count / total.clamp(min=1)
        self.mean = self.mean + delta * share
        self.m2 = self.m2 + m2 + delta.square() * self.count * share
        self.count = total

    def _per_sample(self, output: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mean and M2 over the positions [B, channels], and the number of positions."""
        size = len(self.labels)
        if output.shape[0] % size:
            shape = tuple(output.shape)
            raise UserError(f"a layer's output of shape {shape} does not tell {size} samples apart")
        maps = self.channels_first and output.dim() > 2
        if maps and output.shape[0] == size:
            flat, axis = output.flatten(2), 2
        else:
            # windows and tokens folded into the batch axis stand sample by sample
            output = output.movedim(1, -1) if maps else output
            flat, axis = output.reshape(size, -1, output.shape[-1]), 1
        means, m2 = [], []
        step = max(1, _PIECE * size // flat.numel()) if flat.device.type == "cpu" else size
        for piece in flat.float().split(step):
            mean = piece.mean(axis, keepdim=True)
            means.append(mean.squeeze(axis))
            m2.append((piece - mean).square_().sum(axis))
        return torch.cat(means), torch.cat(m2), flat.shape[axis]

    def readings(self) -> Tensor:
        """Return the spread of each class [readings, C]."""
        variance = self.m2 / self.count
        pooled = variance.mean(1) + self.mean.var(1, correction=0)
        means, around, labels = (torch.cat(part) for part in zip(*self.images, strict=True))
        off = means - self.mean.mean(1)[labels]
        distance = around + off.square()
        order, trimmed = distance.argsort(), []
        for c in range(self.num_classes):
            mine = order[labels[order] == c]
            kept = mine[: max(1, len(mine) - -(-len(mine) // TRIMMED))]
            trimmed.append(distance[kept].mean() - off[kept].mean().square())
        trimmed_std = torch.stack(trimmed).clamp(min=0).sqrt()
        return torch.stack([pooled.sqrt(), pooled, variance.sqrt().mean(1), trimmed_std])


def _counts(labels: Tensor, num_classes: int) -> Tensor:
    """Return how often each class occurs [C]; all must."""
    labels = labels.cpu()
    counts = (labels[:, None] == torch.arange(num_classes)).sum(0)
    if counts.sum() < len(labels):
        raise UserError(f"labels must lie in 0..{num_classes - 1}")
    if not counts.all():
        absent = ", ".join(map(str, (counts == 0).nonzero()[:, 0].tolist()))
        raise UserError(f"every class needs images to be measured; none of class {absent}")
    return counts
