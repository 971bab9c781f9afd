"""Doing what the store lacks: the workers, and one line for each model done."""

import importlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from unlearnkit.attacks import get_attack
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.files import cpu_count
from unlearnkit.methods import METHODS
from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab
from unlearnkit.study.plan import Job, Plan
from unlearnkit.study.profile import Profile
from unlearnkit.study.store import Store
from unlearnkit.training import OutOfTime


@dataclass
class Outcome:
    """How a computation ended.

    Attributes
    ----------
    failed : list of (Cell, message)
        Cells whose computation failed; everything else was done all the same.
    stopped : bool
        The deadline passed; the next call goes on from here.
    """

    done: int = 0
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    stopped: bool = False


def default_workers(device: torch.device) -> int:
    """Return how many cells to compute at a time: one on a GPU, else up to four, a core each."""
    return 1 if device.type == "cuda" else min(4, cpu_count())


def compute(
    lab: Lab,
    plan: Plan,
    *,
    workers: int,
    deadline: float | None = None,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Compute all that `plan` lacks, several cells at a time.

    A cell that fails does not stop the others. What is done is stored at once, so a computation
    that was cut off goes on where it was.

    Parameters
    ----------
    workers : int
        Processes. Each computes with its share of the cores; the number of threads changes the
        last digits of a result, nothing else about the processes does.
    deadline : float or None
        `time.time()` at which to stop after the epoch or measurement under way.
    report : function of one line
    """
    jobs = plan.jobs()
    outcome, began = Outcome(), time.monotonic()
    if not jobs:
        return outcome
    threads = max(1, cpu_count() // workers)
    workers = min(workers, len(jobs)) if _importable(lab) else 1
    width = len(str(len(jobs)))
    for number, (job, seconds, error) in enumerate(_run(lab, jobs, workers, threads, deadline), 1):
        left = (time.monotonic() - began) / number * (len(jobs) - number)
        line = f"[{number:{width}}/{len(jobs)}] {_title(job):<58} {seconds:6.1f} s"
        if isinstance(error, OutOfTime):
            outcome.stopped = True
            continue
        if error is not None:
            outcome.failed.append((job.cell, str(error) or repr(error)))
            report(f"{line}  FAILED: {error}")
            if not isinstance(error, UserError):
                report("".join(traceback.format_exception(error)).rstrip())
            continue
        outcome.done += 1
        report(f"{line}   {_clock(left)} left")
    return outcome


def _title(job: Job) -> str:
    if job.weights_only:
        return f"{job.cell.architecture} seed {job.cell.seed} original, training"
    return str(job.cell)


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


Result = tuple[Job, float, BaseException | None]


def _blocked(job: Job, broken: dict[Job, BaseException]) -> BaseException | None:
    """Return why a job cannot be done, None if it can: what it needs failed, or had no time."""
    cause = broken.get(job.needs())
    if cause is None or isinstance(cause, OutOfTime):
        return cause
    return UserError("its original model could not be trained")


def _run(
    lab: Lab, jobs: list[Job], workers: int, threads: int, deadline: float | None
) -> Iterator[Result]:
    """Yield (job, seconds, error) as jobs end, none before what it needs."""
    if workers == 1:
        yield from _run_here(lab, jobs, threads, deadline)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    arguments = (lab.profile, _shared(lab.data), lab.store.folder, str(lab.device), deadline)
    with ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(stop, threads, type(lab), *arguments, _modules(lab)),
    ) as pool:
        try:
            yield from _run_in(pool, jobs, workers)
        except BaseException:
            stop.set()
            raise


def _run_in(pool: ProcessPoolExecutor, jobs: list[Job], workers: int) -> Iterator[Result]:
    broken: dict[Job, BaseException] = {}
    finished: set[Job] = set()
    waiting, running = list(jobs), {}
    while waiting or running:
        for job in list(waiting):
            need = job.needs()
            if (why := _blocked(job, broken)) is not None:
                waiting.remove(job)
                yield job, 0.0, why
            # One at a time for each worker: what is handed over early would go before the jobs
            # of an earlier seed that still wait for their original.
            elif len(running) < workers and (need in finished or need not in jobs):
                waiting.remove(job)
                running[_submitted(pool, job)] = job
        ready, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ready:
            job = running.pop(future)
            seconds, error = _outcome(future)
            if error is None:
                finished.add(job)
            else:
                broken[job] = error
            yield job, seconds, error


def _submitted(pool: ProcessPoolExecutor, job: Job) -> Future:
    try:
        return pool.submit(_work, job)
    except BrokenExecutor as error:
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: Future) -> tuple[float, BaseException | None]:
    error = future.exception()
    if isinstance(error, BrokenExecutor):
        error = UserError("a worker process died, perhaps for want of memory; use fewer --workers")
    return (0.0, error) if error is not None else future.result()


def _run_here(lab: Lab, jobs: list[Job], threads: int, deadline: float | None) -> Iterator[Result]:
    lab.deadline = deadline
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    broken: dict[Job, BaseException] = {}
    try:
        for job in jobs:
            if (why := _blocked(job, broken)) is not None:
                yield job, 0.0, why
                continue
            began = time.monotonic()
            error = None
            try:
                _do(lab, job)
            except Exception as caught:  # whatever a method raises, the other cells are done
                error = broken[job] = caught
            yield job, time.monotonic() - began, error
    finally:
        torch.set_num_threads(threads_before)


_LAB: Lab | None = None


def _start_worker(
    stop: Event,
    threads: int,
    kind: type[Lab],
    profile: Profile,
    data: ImageData,
    folder: Path,
    device: str,
    deadline: float | None,
    modules: set[str],
) -> None:
    global _LAB
    # Ctrl-C reaches the whole group of processes: the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(stop, os.getppid()), daemon=True).start()
    for module in modules:
        importlib.import_module(module)
    os.environ["UNLEARNKIT_WORKER"] = "1"
    torch.set_num_threads(threads)
    _LAB = kind(profile, data, Store(folder), device=device, deadline=deadline)


def _end_with(stop: Event, parent: int) -> None:
    """End this worker at once when told to, or when its parent is gone."""
    while not stop.wait(1.0):
        if os.getppid() != parent:
            break
    os._exit(1)


def _work(job: Job) -> tuple[float, BaseException | None]:
    began = time.monotonic()
    try:
        _do(_LAB, job)
    except (UserError, OutOfTime) as error:
        return time.monotonic() - began, error
    return time.monotonic() - began, None


def _do(lab: Lab, job: Job) -> None:
    if lab.deadline is not None and time.time() > lab.deadline:
        raise OutOfTime("no time left")
    if job.weights_only:
        lab.run_stage(lab.original_stage(job.cell.architecture, job.cell.seed))
    else:
        lab.run_cell(job.cell)


def _shared(data: ImageData) -> ImageData:
    """Return `data` on the CPU with its fingerprint known, so that no worker computes it anew."""
    moved = data.to("cpu")
    _ = moved.fingerprint, moved.train_fingerprint
    for tensor in (moved.train_images, moved.train_labels, moved.test_images, moved.test_labels):
        tensor.share_memory_()
    return moved


def _modules(lab: Lab) -> set[str]:
    """Return the modules that define the profile's methods and attacks."""
    chosen = [METHODS[name] for name in lab.profile["methods"]]
    chosen += [get_attack(entry["name"]) for entry in lab.profile["attack"]]
    return {entry.function.__module__ for entry in chosen}


def _importable(lab: Lab) -> bool:
    """Tell whether a new process can know all methods and attacks: it cannot know a notebook's."""
    return "__main__" not in _modules(lab)
