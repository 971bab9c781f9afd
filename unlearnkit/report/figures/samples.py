"""A look at the images of a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unlearnkit.report.figures import style


@style.styled
def samples(
    images: Any, labels: Any, classes: Sequence[str], each: int = 8, most: int = 10
) -> Figure:
    """Show the first `each` images of every class, of `most` classes at the most.

    Parameters
    ----------
    images, labels : arrays or tensors, uint8 [N, S, S, 3] or [N, 3, S, S], and [N]
    """
    images, labels, classes = np.asarray(images), np.asarray(labels), classes[:most]
    if images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    figure = style.KitFigure(figsize=(style.WIDTH, 0.09 + 0.42 * -(-len(classes) // 2)))
    grid = figure.add_gridspec(-(-len(classes) // 2), 2 * each + 1, wspace=0.05, hspace=0.05)
    for label, name in enumerate(classes):
        row, side = divmod(label, 2)
        for column, image in enumerate(images[labels == label][:each]):
            ax = figure.add_subplot(grid[row, column + side * (each + 1)])
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if column == 0:
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
