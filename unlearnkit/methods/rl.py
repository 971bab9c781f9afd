"""RL: random labels."""

from typing import Literal

import torch
from torch import Tensor

from unlearnkit.methods import about, method
from unlearnkit.methods.common import marked
from unlearnkit.seeding import stream
from unlearnkit.training import Run

Draws = Literal["batch", "epoch", "once"]
Passes = Literal["in turn", "shuffled"]


@method("rl", title="RL", color="#E69F00", order=4)
@about(paper="Golatkar et al., CVPR 2020", published="SGD 0.01 (swept 1e-3 to 0.1), 10 epochs")
@about(needs_retain="yes", passes="each epoch: forget, then retain")
def random_labels(
    run: Run,
    *,
    labels_drawn: Draws = "batch",
    exclude_true: bool = False,
    passes: Passes = "in turn",
) -> None:
    """Train on the forget set with labels drawn at random, and on the retain set with its own.

    Golatkar et al., *Eternal Sunshine of the Spotless Net* (CVPR 2020), in the form of SalUn's
    protocol. Each epoch is a full pass over the forget set and then one over the retain set. Labels
    are uniform over all classes and drawn for each batch, or once an epoch, or once at the start.
    `exclude_true` leaves out the image's own class, and "shuffled" passes mix both sets into one.
    """
    forgotten = marked(run)
    sets = {"forget": run.forget_index, "retain": run.retain_index}
    if passes == "shuffled":
        sets = {"mixed": torch.cat([run.forget_index, run.retain_index])}
    classes = run.data.num_classes
    for epoch in run.epochs():
        generator = stream(run.seed, "labels", 0 if labels_drawn == "once" else epoch)
        if labels_drawn != "batch":
            table = draw(run.data.train_labels, classes, exclude_true, generator)
        for purpose, index_set in sets.items():
            for index in run.order(index_set, purpose, epoch):
                images, true = run.batch(index)
                if labels_drawn == "batch":
                    drawn = draw(true, classes, exclude_true, generator)
                else:
                    drawn = table[index.to(run.device)]
                labels = torch.where(forgotten[index].to(run.device), drawn, true)
                run.step(run.cross_entropy(images, labels))


def draw(true: Tensor, classes: int, exclude: bool, generator: torch.Generator) -> Tensor:
    """Return labels uniform over all `classes`, or over all but the `true` ones [B]."""
    if exclude:
        shift = torch.randint(1, classes, true.shape, generator=generator)
        return (true + shift.to(true.device)) % classes
    return torch.randint(0, classes, true.shape, generator=generator).to(true.device)
