"""RL: random labels."""

from typing import Literal

import torch
from torch import Tensor

from unlearnkit.methods import method
from unlearnkit.seeding import stream
from unlearnkit.training import Run

Draws = Literal["batch", "epoch", "once"]
Passes = Literal["in turn", "shuffled"]


@method("rl", title="RL", color="#E69F00", order=4)
def random_labels(
    run: Run,
    *,
    labels_drawn: Draws = "batch",
    exclude_true: bool = False,
    passes: Passes = "in turn",
) -> None:
    """Train on the forget set with labels drawn at random, and on the retain set with its own.

    Golatkar et al., *Eternal Sunshine of the Spotless Net* (CVPR 2020), in the form of SalUn's
    protocol: each epoch a full pass over the forget set, labels uniform over all classes and drawn
    anew for each batch, then a full pass over the retain set.

    Options
    -------
    labels_drawn : "batch", "epoch" or "once"
        How often a forget image gets a new label.
    exclude_true : bool
        Never draw the image's own class.
    passes : "in turn" or "shuffled"
        Forget pass before the retain pass, or both mixed into one.
    """
    for epoch in run.epochs():
        random_label_epoch(run, epoch, labels_drawn, exclude_true, passes)


def random_label_epoch(
    run: Run, epoch: int, labels_drawn: Draws, exclude_true: bool, passes: Passes
) -> None:
    """Do one epoch of random labels; SalUn's is the same, under a mask."""
    if passes == "in turn":
        sets = [("forget", run.forget_index), ("retain", run.retain_index)]
    else:
        sets = [("mixed", torch.cat([run.forget_index, run.retain_index]))]
    forgotten = torch.zeros(len(run.labels), dtype=torch.bool)
    forgotten[run.forget_index] = True
    draw = LabelDraw(run, epoch, labels_drawn, exclude_true)
    for purpose, index_set in sets:
        for index in run.order(index_set, purpose, epoch):
            images, labels = run.batch(index)
            labels = torch.where(forgotten[index].to(labels.device), draw(index, labels), labels)
            run.step(run.cross_entropy(images, labels))


class LabelDraw:
    """Draws the random labels of one epoch; see `labels_drawn` and `exclude_true`."""

    def __init__(self, run: Run, epoch: int, often: str, exclude: bool) -> None:
        self.run, self.exclude = run, exclude
        self.generator = stream(run.seed, "labels", 0 if often == "once" else epoch)
        self.table = None if often == "batch" else self._draw(run.labels)

    def __call__(self, index: Tensor, true: Tensor) -> Tensor:
        """Return labels [B] for the images `index` [B] of classes `true` [B]."""
        if self.table is None:
            return self._draw(true)
        return self.table[index.to(true.device)]

    def _draw(self, true: Tensor) -> Tensor:
        classes = self.run.num_classes
        if self.exclude:
            shift = torch.randint(1, classes, true.shape, generator=self.generator)
            return (true + shift.to(true.device)) % classes
        return torch.randint(0, classes, true.shape, generator=self.generator).to(true.device)
