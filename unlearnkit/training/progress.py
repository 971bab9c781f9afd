"""How far a training is: tqdm's bar, in a terminal and in a notebook."""

import io
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class NotebookBar(tqdm):
    """The bar as the text of one output, which is updated in place.

    It needs no widgets, and a notebook that is executed into a file keeps the last text alone.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, file=io.StringIO(), ascii=False)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return a function that shows a text in place of the one before."""
        from IPython.display import display

        output = display({"text/plain": ""}, raw=True, display_id=True)
        return lambda text: output.update({"text/plain": text}, raw=True)


def progress_bar(disable: bool, **options: Any) -> tqdm:
    """Return a bar; silent with `disable`, and where there is neither terminal nor notebook."""
    shell = sys.modules.get("IPython")
    if shell and hasattr(shell.get_ipython(), "kernel"):
        return NotebookBar(disable=disable, **options)
    return tqdm(disable=disable or None, **options)  # None: without a terminal
