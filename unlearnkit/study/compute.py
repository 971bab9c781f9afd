"""Doing what the store lacks: on any executor, one line for each model done."""

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
from cloudpickle import dumps, loads
from joblib import cpu_count
from tqdm import tqdm

from unlearnkit.attacks import ATTACKS
from unlearnkit.errors import UserError, one_line
from unlearnkit.measures import MEASURES
from unlearnkit.methods import METHODS
from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab
from unlearnkit.study.machine import pick_device
from unlearnkit.study.plan import Plan, training_of
from unlearnkit.study.store import Store
from unlearnkit.training import OutOfTime
from unlearnkit.workers import Processes

DATA = ("train_images", "train_labels", "test_images", "test_labels")
REGISTRIES = (METHODS, ATTACKS, MEASURES)
UNTRAINED = "its original model could not be trained"
DIED = "a worker process died at it twice, perhaps for want of memory; use fewer --workers"
_ONE_JOB = threading.Lock()  # torch's random state and threads are the process's


@dataclass
class Outcome:
    """How many cells were done, which failed, with the error, and whether the deadline passed."""

    done: int = 0
    failed: list[tuple[Cell, Exception]] = field(default_factory=list)
    stopped: bool = False


def default_workers(device: torch.device) -> int:
    """Return how many cells to compute at a time: one on a GPU, else up to four, a core each."""
    return 1 if device.type == "cuda" else min(4, cpu_count())


def compute(
    lab: Lab,
    plan: Plan,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    deadline: float | None = None,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Compute all that `plan` lacks, several cells at a time; `report` is given a line of each.

    A cell that fails does not stop the others; one whose worker died is tried once more. What is
    done is stored at once: the next call goes on from there. `deadline` is the `time.time()` at
    which to stop after the epoch or measurement under way.

    `workers` are processes of this machine, `default_workers` if None; one is this process. Each
    has its share of the cores: the number of threads changes a result's last digits. An `executor`
    like `concurrent.futures`', whose processes see the store's folder, computes instead, with the
    threads it has, on `device`, by default a GPU where there is one. What fails there is tried
    twice; `workers`, how many it has, is noted.
    """
    jobs, outcome, began = plan.jobs, Outcome(), time.monotonic()
    if not jobs:
        return outcome
    lab.keep_splits()
    own = executor is None or isinstance(executor, Processes)
    workers = workers or (default_workers(lab.device) if own else 1)
    # Of the workers asked for, not of those there is work for: the same numbers when resumed.
    threads = max(1, cpu_count() // workers) if own else 0
    with ExitStack() as stack:
        if own and workers == 1:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            stack.callback(setattr, lab, "deadline", None)
            lab.deadline, lab.workers = deadline, workers
            submit = partial(_here, lab, threads)
        else:
            if executor is None:
                executor = stack.enter_context(Processes(min(workers, len(jobs))))
            where = str(lab.device) if own else device
            submit = partial(
                executor.submit, work, _payload(lab, where, threads, workers, deadline)
            )
        ended = stack.enter_context(closing(_ended(submit, jobs, workers if own else 0)))
        for number, (job, seconds, error, details) in enumerate(ended, 1):
            if isinstance(error, OutOfTime):
                outcome.stopped = True
                continue
            title = job if job.forget else f"{job.architecture} seed {job.seed} original, training"
            line = f"[{number:{len(str(len(jobs)))}}/{len(jobs)}] {title!s:<58} {seconds:6.1f} s"
            if error is None:
                left = int((time.monotonic() - began) / number * (len(jobs) - number))
                outcome.done += 1
                report(f"{line}   {left // 60}:{left % 60:02d} left")
            else:
                outcome.failed.append((job, error))
                report(f"{line}  FAILED: {one_line(error)}" + (f"\n{details}" if details else ""))
    return outcome


Ended = tuple[float, Exception | None, str]  # seconds, error, traceback of what is a bug


def _ended(
    submit: Callable[[Cell], Future], jobs: list[Cell], own: int
) -> Iterator[tuple[Cell, *Ended]]:
    """Yield (job, seconds, error, traceback) as jobs end, none begun before what it needs.

    One job for each of `own` workers is handed over, or all: more would go before the jobs of an
    earlier seed that still wait for their original.
    """
    waiting, unfinished, running, tried = list(jobs), set(jobs), {}, set()
    try:
        while unfinished:
            for job in list(waiting):
                if len(running) < (own or len(jobs)) and training_of(job) not in unfinished:
                    waiting.remove(job)
                    try:
                        running[submit(job)] = job
                    except BrokenExecutor as error:
                        running[lost := Future()] = job
                        lost.set_exception(error)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, again = running.pop(future), True
                try:
                    seconds, error, details = future.result()
                    again = bool(details) and not own
                except BrokenExecutor:
                    seconds, error, details = 0.0, UserError(DIED), ""
                except Exception as caught:
                    seconds, error, details = 0.0, RuntimeError(one_line(caught)), ""
                if again and job not in tried:
                    tried.add(job)
                    waiting.insert(0, job)
                    continue
                unfinished.remove(job)
                yield job, seconds, error, details
                late = [other for other in waiting if error and training_of(other) == job]
                for other in late:
                    waiting.remove(other)
                    unfinished.remove(other)
                    stopped = isinstance(error, OutOfTime)
                    yield other, 0.0, error if stopped else UserError(UNTRAINED), ""
    finally:
        for future in running:
            future.cancel()


def _here(lab: Lab, threads: int, job: Cell) -> Future:
    """Do a job in this process, before a future is returned."""
    future: Future = Future()
    future.set_result(_do(lab, threads, job))
    return future


def _payload(
    lab: Lab, device: str | None, threads: int, workers: int, deadline: float | None
) -> bytes:
    """Return what a worker has to know, the data aside: those it finds in the store."""
    data, store = lab.data.to("cpu"), lab.store
    if store.get_tensors("data", data.fingerprint) is None:
        store.put_tensors("data", data.fingerprint, {part: getattr(data, part) for part in DATA})
    about = (data.fingerprint, replace(data, **dict.fromkeys(DATA)))  # without its tensors
    # What a notebook registered goes by value; a module registers its own when it is imported.
    told = (os.getpid(), REGISTRIES, type(lab), lab.profile, about, store.folder.resolve(), device)
    return dumps((*told, lab.forget_seed, deadline, workers, threads))


def work(payload: bytes, job: Cell) -> Ended:
    """Do a job in a worker process."""
    with _ONE_JOB:
        try:
            lab, threads = _open(payload)
        except UserError as error:
            return 0.0, error, ""
        return _do(lab, threads, job)


@lru_cache(maxsize=1)
def _open(payload: bytes) -> tuple[Lab, int]:
    caller, registries, kind, profile, about, folder, device, forget_seed, *how = loads(payload)
    if os.getpid() != caller:  # an executor of threads works in the caller's process
        os.environ["UNLEARNKIT_WORKER"] = "1"
        tqdm.set_lock(threading.RLock())  # its own is of the system, and left behind by a kill
    for here, theirs in zip(REGISTRIES, registries, strict=True):
        here.update(theirs)
    fingerprint, empty = about
    tensors = Store(folder).get_tensors("data", fingerprint)
    if tensors is None:
        raise UserError(f"no data in {folder}; all workers have to see the store's folder")
    data, device = replace(empty, **tensors), pick_device(device)
    lab = kind(profile, data, Store(folder), device=device, forget_seed=forget_seed)
    lab.deadline, lab.workers, threads = how
    return lab, threads


def _do(lab: Lab, threads: int, job: Cell) -> Ended:
    began, error, details = time.monotonic(), None, ""
    if threads:
        torch.set_num_threads(threads)
    try:
        lab.run(job)
    except (UserError, OutOfTime) as caught:
        error = caught
    except Exception as caught:  # whatever a method raises, the other cells are done
        # As text: an exception of the user's own may not survive the way back.
        error = RuntimeError(one_line(caught))
        details = "".join(traceback.format_exception(caught)).rstrip()
    return time.monotonic() - began, error, details
