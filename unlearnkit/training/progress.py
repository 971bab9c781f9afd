"""The progress bar of a training: epochs done, time left, running loss and accuracy."""

import os

from torch import Tensor
from tqdm.auto import tqdm

LAYOUT = "{desc:<28.28} {percentage:3.0f}% |{bar:20}| {elapsed} < {remaining}{postfix}"


def epoch_bar(name: str, epochs: int, start: int) -> tqdm:
    """Return a bar of `epochs`, `start` of them done; silent where nobody would see it."""
    switches = (os.environ.get(switch) for switch in ("UNLEARNKIT_WORKER", "TQDM_DISABLE"))
    quiet = any(switch not in (None, "", "0") for switch in switches)
    return tqdm(
        total=epochs,
        initial=start,
        desc=name,
        bar_format=LAYOUT,
        leave=False,
        disable=True if quiet else None,  # None: where there is no terminal or notebook
    )


def show(bar: tqdm, done: float, tally: Tensor) -> None:
    """Move `bar` to `done` epochs; `tally`: losses summed with decay 0.9, hits, images seen."""
    if bar.disable:
        return
    # A tenth of a sum with decay 0.9 is the mean.
    loss, hits, seen = tally.tolist()
    accuracy = f"  accuracy {100 * hits / seen:.1f} %" if seen else ""
    bar.set_postfix_str(f"loss {loss / 10:.3f}{accuracy}", refresh=False)
    bar.n = done
    bar.update(0)
