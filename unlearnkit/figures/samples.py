"""A look at the images of a data set."""

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from unlearnkit.figures import style


@style.styled
def samples(data: Any, each: int = 8, most: int = 10) -> Figure:
    """Show the first `each` training images of every class, of `most` classes at the most.

    Parameters
    ----------
    data : ImageData
        uint8 images [N, 3, H, W], their labels [N] and the names of the classes.
    """
    classes, data = data.classes[:most], data.first(each, most)
    figure = style.KitFigure(figsize=(style.WIDTH, 0.09 + 0.42 * -(-len(classes) // 2)))
    grid = figure.add_gridspec(-(-len(classes) // 2), 2 * each + 1, wspace=0.05, hspace=0.05)
    for label, name in enumerate(classes):
        row, side = divmod(label, 2)
        found = data.train_images[data.train_labels == label]
        for column, image in enumerate(found):
            ax = figure.add_subplot(grid[row, column + side * (each + 1)])
            ax.imshow(_pixels(image), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if column == 0:
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _pixels(image: Tensor) -> Any:
    return image.permute(1, 2, 0).cpu().numpy()
