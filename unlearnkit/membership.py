"""Membership tests that count: what many models say of each image, unlearned against retrained.

`lira` and `klom` take margins, float64 arrays [M, N] of M models on N images. The models of one
array differ in nothing but their seeds. The rest takes scores, the higher the more like a member.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import norm, rankdata

from unlearnkit.errors import UserError

SMALLEST = 1e-6  # standard deviation of a margin; far below that between two seeds
Scores = Callable[[np.ndarray, np.ndarray], float]


def margins(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return log(p / (1 − p)), p the true class's probability: float64 [N], any real number.

    `logits` [N, C], C ≥ 2, and `labels` [N] from 0. It is the true class's logit − the logsumexp
    of the others, and so exact where p rounds to 1. Source: Carlini et al., Membership Inference
    Attacks From First Principles, S&P 2022 (the logit-scaled confidence). UserError if the
    shapes are others, or a label is none of 0 to C − 1.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        what = f"these have the shapes {logits.shape} and {labels.shape}"
        raise UserError(f"expected logits [N, C] of two classes or more and labels [N]; {what}")
    own = labels[:, None] == np.arange(logits.shape[1])
    if not own.any(axis=1).all():
        wrong = labels[~own.any(axis=1)][0]
        raise UserError(f"expected labels from 0 to {logits.shape[1] - 1}, not {wrong}")
    return logits[own] - logsumexp(np.where(own, -np.inf, logits), axis=1)


def lira(unlearned: ArrayLike, retrained: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the log likelihood ratios of both sides' models: float64 [M, N] each.

    Above 0, an image is taken for one that the model was trained on and then unlearned. Both sides
    have M ≥ 3 models. Model m of each is a target in turn. What it says of an image is judged by
    two Gaussians, fitted to what the other M − 1 models of each side say of that image. So no
    target is among the models that it is judged by, nor is the model of the other side that shares
    its seed. The attacker knows all training images and the forget set, but not the seeds.

    Chance is an AUC near 0.5. A shift that all images of a model share moves the AUC
    by some 0.03 with 32 models, and the far left of the ROC curve by a factor of two or three.
    No interval over targets shows that. What further retrained models reach does.

    Source: Hayes et al., Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense
    of Privacy, 2024 (U-LiRA). Theirs draws new training images for each model.
    """
    unlearned, retrained = _pair(unlearned, retrained)
    if len(unlearned) != len(retrained):
        what = f"{len(unlearned)} unlearned and {len(retrained)} retrained models"
        raise UserError(f"expected as many models of each side, not {what}")
    scores = np.empty((2, *unlearned.shape))
    for m in range(len(unlearned)):
        sides = [_gaussian(np.delete(side, m, axis=0)) for side in (unlearned, retrained)]
        for own, target in zip(scores, (unlearned[m], retrained[m]), strict=True):
            forgot, never = (norm.logpdf(target, mean, std) for mean, std in sides)
            own[m] = forgot - never
    return scores[0], scores[1]


def klom(unlearned: ArrayLike, retrained: ArrayLike) -> np.ndarray:
    """Return how far apart the models' margins are, image by image: float64 [N], nats, ≥ 0.

    The Kullback-Leibler divergence of a Gaussian fitted to the unlearned models' margins from one
    fitted to the retrained ones'. Two times M models of one kind are about 2 / M apart. Source:
    Georgiev et al., Attribute-to-Delete, 2024 (KLOM). Theirs compares histograms over a hundred
    models. A few dozen models would leave most bins empty.
    """
    (mean, std), (other, spread) = map(_gaussian, _pair(unlearned, retrained))
    ratio = std / spread
    return 0.5 * (ratio**2 + ((mean - other) / spread) ** 2 - 1) - np.log(ratio)


def auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return how often a positive's score is above a negative's, in [0, 1]; a tie counts half.

    Both sides have any shape, and one score or more. 0.5 is chance.
    """
    positives, negatives = np.asarray(positives), np.asarray(negatives)
    ranks = rankdata(np.concatenate([positives.ravel(), negatives.ravel()]))
    count = positives.size
    return (ranks[:count].sum() - count * (count + 1) / 2) / (count * negatives.size)


def tpr_at(fpr: ArrayLike, positives: ArrayLike, negatives: ArrayLike) -> np.ndarray:
    """Return the share of positives above the threshold that at most `fpr` of negatives exceed.

    In [0, 1], of the shape of `fpr`, which is in [0, 1] as well (else UserError). Both sides have
    any shape, and one score or more.
    """
    fpr, negatives = np.asarray(fpr), np.asarray(negatives)
    if not ((fpr >= 0) & (fpr <= 1)).all():
        raise UserError(f"expected false positive rates in [0, 1], not {fpr}")
    above = np.floor(fpr * negatives.size + 1e-9).astype(int)
    thresholds = np.append(-np.inf, np.sort(negatives, axis=None))[negatives.size - above]
    ordered = np.sort(positives, axis=None)
    return 1 - np.searchsorted(ordered, thresholds, side="right") / ordered.size


def accuracy(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the share that the threshold 0 tells right, in [0, 1], the mean of both sides."""
    return ((np.asarray(positives) > 0).mean() + (np.asarray(negatives) <= 0).mean()) / 2


def interval(
    score: Scores, positives: ArrayLike, negatives: ArrayLike, *, seed: int, draws: int = 1000
) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of `score(positives, negatives)`, by bootstrap.

    Both sides are [M, N], else UserError, and the bounds in the range of `score`. Each draw takes
    M target models and N images with replacement, the same for both sides. Source: Owen, The
    Pigeonhole Bootstrap, Annals of Applied Statistics 2007. It says nothing of how far another set
    of models would move the score (see `lira`).
    """
    positives, negatives = np.asarray(positives), np.asarray(negatives)
    if positives.ndim != 2 or positives.shape != negatives.shape:
        what = f"not {positives.shape} and {negatives.shape}"
        raise UserError(f"expected scores [models, images] of one shape, {what}")
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        at = np.ix_(*(generator.integers(size, size=size) for size in positives.shape))
        found.append(score(positives[at], negatives[at]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _pair(*sides: ArrayLike) -> list[np.ndarray]:
    arrays = [np.asarray(side, dtype=np.float64) for side in sides]
    shapes = [array.shape for array in arrays]
    fine = all(len(s) == 2 and s[0] >= 3 and s[1] == shapes[0][-1] for s in shapes)
    if not (fine and all(np.isfinite(array).all() for array in arrays)):
        wanted = "expected finite margins [models, images], 3 models or more, of the same images"
        raise UserError(f"{wanted}; these have the shapes {shapes[0]} and {shapes[1]}")
    return arrays


def _gaussian(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over the models, [N] each."""
    return values.mean(axis=0), np.maximum(values.std(axis=0, ddof=1), SMALLEST)
