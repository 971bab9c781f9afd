"""Processes of this machine, as an executor: without torch, so that one starts in no time."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from joblib.externals.loky import process_executor


class Here(Executor):
    """This process itself: a job is done before `submit` returns."""

    def submit(self, function: Callable, /, *of: Any) -> Future:
        """Call `function` and return its result as a future."""
        future: Future = Future()
        try:
            future.set_result(function(*of))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(Executor):
    """Worker processes that leave with this one, and are replaced when one of them died."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        if os.name == "posix":  # now: starting it lets go of what `_interrupts_held` holds
            resource_tracker.ensure_running()
        self._start()

    def _start(self) -> None:
        self._pool = process_executor.ProcessPoolExecutor(
            self._workers, initializer=_begin, initargs=(os.getpid(),)
        )

    def submit(self, function: Callable, /, *of: Any) -> Future:
        """Hand a job over; after the death of a worker to new ones."""
        with _interrupts_held():
            try:
                return self._pool.submit(function, *of)
            except BrokenExecutor:
                self._start()
                return self._pool.submit(function, *of)

    def __exit__(self, *_: Any) -> None:
        """End the workers at once: what they did is stored."""
        self._pool.shutdown(kill_workers=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back: a process started now never hears it, this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """Start a worker: it watches its parent, whose process id it was told."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
    # A worker that grows is not a leak to be replaced: it holds a data set and models.
    process_executor._USE_PSUTIL = False
