"""Membership inference: does the model still treat the forget set as training data?"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unlearnkit.errors import UserError


def true_class_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of each image's true class, float64 [N], from logits [N, C]."""
    probabilities = logits.double().softmax(dim=1)
    return probabilities.gather(1, labels.to(logits.device, torch.int64)[:, None])[:, 0]


def mia_efficacy(
    retain_conf: ArrayLike, test_conf: ArrayLike, forget_conf: ArrayLike, seed: int
) -> float:
    """Return the percentage of the forget set that an attacker takes for non-members.

    An RBF support vector classifier (C = 3, gamma 'auto') on the true class's confidence learns
    members (retain) from non-members (test), equally many of each: the larger side is subsampled
    by `seed`. The score is best when it matches the retrained model's, not when it is high.

    Parameters
    ----------
    retain_conf, test_conf, forget_conf : array [N]
        Confidence in the true class, in [0, 1]. With a forgotten class, leave it out of
        `test_conf`.
    seed : int
        Chooses the subsample.

    Source: Fan et al., SalUn, ICLR 2024 (MIA-efficacy).
    """
    from sklearn.svm import SVC  # here, since scikit-learn is slow to import

    members = _confidences("retain", retain_conf)
    others = _confidences("test", test_conf)
    forget = _confidences("forget", forget_conf)
    generator = np.random.default_rng(seed)
    count = min(len(members), len(others))
    members = generator.permutation(members)[:count]
    others = generator.permutation(others)[:count]
    attacker = SVC(C=3, gamma="auto", kernel="rbf")
    attacker.fit(np.concatenate([members, others])[:, None], np.repeat([1, 0], count))
    return 100.0 * float(np.mean(attacker.predict(forget[:, None]) == 0))


def _confidences(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise UserError(
            f"{name} confidences have shape {array.shape}; give one number for each of at least "
            "one image"
        )
    if not ((array >= 0) & (array <= 1)).all():
        raise UserError(
            f"{name} confidences must be probabilities, finite and in [0, 1]; check that the "
            "model's logits are finite"
        )
    return array
