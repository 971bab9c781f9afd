"""The fairness-gap: how differently the classes are spread at each normalisation layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from unlearnkit.errors import UserError
from unlearnkit.metrics import device_of
from unlearnkit.models import norm_layers
from unlearnkit.names import READINGS

TRIMMED = 100  # 'trimmed_std' leaves out one in so many of a class's images
# On a CPU a layer's output is measured in pieces of this many values, which stay in the cache
_PIECE = 1 << 19


def class_sigma(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """Measure the spread of every class at the output of every normalisation layer.

    Outputs are taken after the affine map (and before the activation, where timm fuses one into
    the norm), in evaluation mode and one float32 forward pass. Spread is that of the population
    (divided by n). Per layer, class and channel only count, mean and sum of squared deviations (M2)
    are kept, in float64, and merged batch by batch (Chan, Golub and LeVeque, 1979), and two numbers
    for each image and layer; no activation is stored.

    Parameters
    ----------
    model : nn.Module
        Its training modes are put back afterwards.
    images : uint8 Tensor [N, 3, H, W]
    labels : int64 Tensor [N], in [0, num_classes)
        Every class must occur; `balanced` picks equally many images of each.
    num_classes, batch_size : int

    Returns
    -------
    dict of reading -> float64 Tensor [L, C], on the CPU
        L layers in the order of `norm_layers`, C classes.
        'std' (sigma of the fairness-gap as we read it): over samples, channels and positions
        pooled; 'variance': its square; 'channel_std': mean over channels of the standard deviation
        over samples and positions; 'trimmed_std': 'std' without the 1 % of the class's images (one
        in `TRIMMED`, rounded up, never all) that are furthest from its mean in the mean square, at
        that layer. Small classes lose a larger part: compare classes of one size.

    Raises
    ------
    UserError
        Images not uint8, labels that do not fit, a class without images, no normalisation layer,
        or one that the forward pass leaves out.
    """
    _check(images, labels, num_classes, batch_size)
    layers = norm_layers(model)
    if not layers:
        raise UserError("this model has no normalisation layer, so it has no fairness-gap")
    device = device_of(model)
    meters = {layer.module: _Meter(layer.module, num_classes) for layer in layers}
    with ExitStack() as stack:
        stack.enter_context(_evaluation(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        for meter in meters.values():
            handle = meter.probe.register_forward_hook(meter)
            stack.callback(handle.remove)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            batch_labels = labels[part].to(device)
            for meter in meters.values():
                meter.labels = batch_labels
            model(images[part].to(device).float().div_(255))
    unused = [layer.name for layer in layers if meters[layer.module].count is None]
    if unused:
        raise UserError(f"normalisation layer {unused[0]} takes no part in the forward pass")
    readings = {module: meter.readings() for module, meter in meters.items()}
    return {r: torch.stack([readings[layer.module][r] for layer in layers]) for r in READINGS}


def balanced(labels: Tensor, per_class: int | None, num_classes: int, seed: int) -> Tensor:
    """Return a sorted index (int64) of equally many items of each class, drawn by `seed`.

    `per_class` is a wish: no class gives more than the smallest one has; None takes that many.
    """
    if per_class is not None and per_class < 1:
        raise UserError(f"per_class must be at least 1, or None for all; got {per_class}")
    counts = _counts(labels, num_classes)
    take = min([int(counts.min()), *([] if per_class is None else [per_class])])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    # a stable sort by class keeps the random order within each class
    order = order[labels.cpu()[order].argsort(stable=True)]
    first = counts.cumsum(0) - counts
    return order[(first[:, None] + torch.arange(take)).flatten()].sort().values


def fairness_gap(sigma: Tensor) -> Tensor:
    """Return max - min of sigma [..., C] over the classes, as [...]."""
    return sigma.amax(-1) - sigma.amin(-1)


class _Meter:
    """Forward hook on one layer: running count, mean and M2 per class and channel."""

    def __init__(self, module: nn.Module, num_classes: int) -> None:
        # timm's norms with an activation inside run norm, drop, act: drop returns the affine output
        fused = isinstance(getattr(module, "act", None), nn.Module)
        self.probe = module.drop if fused and hasattr(module, "drop") else module
        kind = type(module)
        per_map = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
        self.channels_first = issubclass(kind, per_map) or "2d" in kind.__name__
        self.num_classes = num_classes
        self.labels: Tensor | None = None
        self.count: Tensor | None = None
        self.images: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        means, m2, positions = self._per_sample(output)
        if output.device.type == "mps":  # it has no float64
            means, m2 = means.cpu(), m2.cpu()
        means, m2, labels = means.double(), m2.double(), self.labels.to(means.device)
        pooled = means.mean(1, keepdim=True)
        around = (m2 / positions + (means - pooled).square()).mean(1)
        self.images.append((pooled.squeeze(1), around, labels))
        # a product with the one-hot labels sums by class, in an order that is fixed on a GPU too
        hot = nn.functional.one_hot(labels, self.num_classes).T.double()
        count = hot.sum(1, keepdim=True)
        mean = hot @ means / count.clamp(min=1)
        m2 = hot @ (m2 + positions * (means - mean[labels]).square())
        self._merge(count * positions, mean, m2)

    def _per_sample(self, output: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mean and M2 over the positions [B, channels], and the number of positions."""
        size = len(self.labels)
        if output.shape[0] % size:
            raise UserError(
                f"cannot tell samples apart in a layer's output of shape {tuple(output.shape)} "
                f"for a batch of {size}"
            )
        if self.channels_first and output.dim() > 2 and output.shape[0] == size:
            flat, axis = output.flatten(2), 2
        else:
            if self.channels_first and output.dim() > 2:
                output = output.movedim(1, -1)
            # windows and tokens folded into the batch axis stand sample by sample
            flat, axis = output.reshape(size, -1, output.shape[-1]), 1
        step = size
        if flat.device.type == "cpu":
            step = max(1, _PIECE * size // flat.numel())
        means, m2 = [], []
        for piece in flat.split(step):
            piece = piece.float()
            mean = piece.mean(axis, keepdim=True)
            means.append(mean.squeeze(axis))
            m2.append((piece - mean).square_().sum(axis))
        return torch.cat(means), torch.cat(m2), flat.shape[axis]

    def _merge(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        if self.count is None:
            self.count, self.mean, self.m2 = count, mean, m2
            return
        total = self.count + count
        share = count / total.clamp(min=1)
        delta = mean - self.mean
        self.mean += delta * share
        self.m2 += m2 + delta.square() * self.count * share
        self.count = total

    def readings(self) -> dict[str, Tensor]:
        variance = self.m2 / self.count
        pooled = variance.mean(1) + self.mean.var(1, correction=0)
        values = {
            "std": pooled.sqrt(),
            "variance": pooled,
            "channel_std": variance.sqrt().mean(1),
            "trimmed_std": self._trimmed().sqrt(),
        }
        return {reading: value.cpu() for reading, value in values.items()}

    def _trimmed(self) -> Tensor:
        """Return the pooled variance of each class without its furthest images [C]."""
        pooled, around, labels = (torch.cat(part) for part in zip(*self.images, strict=True))
        off = pooled - self.mean.mean(1)[labels]
        distance = around + off.square()
        found = []
        for index in range(self.num_classes):
            mine = (labels == index).nonzero().flatten()
            kept = mine[distance[mine].argsort()][: max(1, len(mine) - -(-len(mine) // TRIMMED))]
            found.append(distance[kept].mean() - off[kept].mean().square())
        return torch.stack(found).clamp(min=0)


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check(images: Tensor, labels: Tensor, num_classes: int, batch_size: int) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise UserError(
            "images must be a uint8 tensor [N, channels, height, width]; "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise UserError(f"{len(images)} images need as many labels; got {tuple(labels.shape)}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1; got {batch_size}")
    _counts(labels, num_classes)


def _counts(labels: Tensor, num_classes: int) -> Tensor:
    """Return how often each class occurs [C]; all must."""
    labels = labels.cpu()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UserError(f"labels must lie in 0..{num_classes - 1}")
    counts = torch.bincount(labels, minlength=num_classes)
    if not counts.all():
        absent = ", ".join(map(str, (counts == 0).nonzero().flatten().tolist()))
        raise UserError(f"every class needs images to be measured; none of class {absent}")
    return counts
