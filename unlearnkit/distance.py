"""The smallest perturbation that makes a model wrong, image by image."""

import torch
from torch import Tensor, nn

from unlearnkit.attacks import frozen, score_images
from unlearnkit.metrics import device_of, to_float


def minimal_distances(
    model: nn.Module, images: Tensor, labels: Tensor, *, steps: int = 100, batch_size: int = 256
) -> Tensor:
    """Return each image's smallest L∞ distance to a wrong answer, as far as the search finds one.

    `images` [N, 3, H, W] are uint8 or float in [0, 1], `labels` [N] the true classes. Returns
    float32 [N] on the CPU, in pixel units: 0 where the model is wrong on the clean image, infinite
    where no wrong answer was found. An upper bound of the true distance. The search is FMN (Pintor
    et al., *Fast Minimum-norm Adversarial Attacks*, NeurIPS 2021) as foolbox has it, which starts
    at the image: nothing is random. The model is left alone: a copy is attacked.
    """
    from foolbox import Misclassification, PyTorchModel  # here, since it is slow to import
    from foolbox.attacks import LInfFMNAttack

    right = score_images(model, images, labels, batch_size=batch_size)
    found, device = right.float(), device_of(model)
    with torch.inference_mode(False), torch.enable_grad():
        victim = frozen(model)
        target = PyTorchModel(victim, bounds=(0, 1), device=device)
        for part in right.nonzero()[:, 0].split(batch_size) if right.any() else ():
            clean = to_float(images[part.to(images.device)], device).clone()
            truth = labels[part.to(labels.device)].to(device, torch.int64)
            best = LInfFMNAttack(steps=steps).run(target, clean, Misclassification(truth))
            size = (best - clean).abs().amax((1, 2, 3)).cpu()
            broken = ~score_images(victim, best, truth, batch_size=batch_size)
            found[part] = size.where(broken & (size > 0), torch.inf)
    return found
