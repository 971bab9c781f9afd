"""Methods of one's own in one's own module, as a worker process has to find it."""

import os
import signal
import time
from pathlib import Path

from unlearnkit.methods import method


@method("raises", title="Raises")
def raises(run):
    """Fail as a bug does."""
    raise ZeroDivisionError("of my own making")


@method("noted")
def noted(run):
    """Add this process to the file $NOTES, then take $SECONDS."""
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(float(os.environ["SECONDS"]))


@method("dies")
def dies(run):
    """End this process as the system does when it wants memory, or only the first one."""
    once = os.environ.get("DIES_ONCE")
    if once is None or not Path(once).exists():
        Path(once or os.devnull).touch()
        os.kill(os.getpid(), signal.SIGKILL)
