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


class Processes(Executor):
    """Worker processes that leave with this one; no more jobs at a time than there are workers.

    Each is a pool of its own: one that dies costs its job alone, and is replaced.
    """

    def __init__(self, workers: int) -> None:
        if os.name == "posix":  # now: starting it lets go of what `_interrupts_held` holds
            resource_tracker.ensure_running()
        self._pools = [_pool() for _ in range(workers)]
        self._last: list[Future | None] = [None] * workers

    def submit(self, function: Callable, /, *of: Any) -> Future:
        """Hand a job to a worker that has none."""
        free = next(n for n, last in enumerate(self._last) if last is None or last.done())
        with _interrupts_held():
            try:
                future = self._pools[free].submit(function, *of)
            except BrokenExecutor:
                self._pools[free] = _pool()
                future = self._pools[free].submit(function, *of)
        self._last[free] = future
        return future

    def __exit__(self, *_: Any) -> None:
        """End the workers at once: what they did is stored."""
        for pool in self._pools:
            pool.shutdown(kill_workers=True)


def _pool() -> process_executor.ProcessPoolExecutor:
    return process_executor.ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(),))


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
