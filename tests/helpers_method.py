"""Methods of one's own in one's own module, as a worker process has to find it."""

import os
import signal
import time
from pathlib import Path

from unlearnkit.methods import method


def note():
    """Add this process to the file $NOTES, if there is to be one."""
    with Path(os.environ.get("NOTES", os.devnull)).open("a") as file:
        file.write(f"{os.getpid()}\n")


@method("raises", title="Raises")
def raises(run):
    """Fail as a bug does."""
    note()
    raise ZeroDivisionError("of my own making")


@method("noted")
def noted(run):
    """Note that it was called, and take $SECONDS."""
    note()
    time.sleep(float(os.environ["SECONDS"]))


@method("dies")
def dies(run):
    """End this process as the system does when it wants memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@method("dies_once")
def dies_once(run):
    """Do so once."""
    if not Path(os.environ["ONCE"]).exists():
        Path(os.environ["ONCE"]).touch()
        dies(run)
