"""More than one machine: a Dask cluster whose workers all see the store's folder.

Start `dask scheduler` and, on each machine, `dask worker ADDRESS --nthreads N --nworkers M`: M jobs
at a time with N cores each, and a GPU each if there are as many. `dask-jobqueue` starts the same on
SLURM and its like. Where workers declare `--resources GPU=1` they are asked for it.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unlearnkit.errors import UserError, one_line

try:
    from distributed import Client, Worker, WorkerPlugin, get_worker
except ImportError:
    raise UserError("a cluster needs Dask: pip install 'unlearnkit[cluster]'") from None

_GPU: list[FileLock] = []  # held as long as this process lives


class _OneJob(WorkerPlugin):
    """Give each worker, also one that joins later, one job at a time."""

    name = "unlearnkit"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        await worker.set_resources(unlearnkit=1)


class Cluster(Executor):
    """A Dask cluster as an executor, of so many `workers` at first; it replaces one that died."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.workers = max(1, len(client.nthreads()))
        some, asked = client.scheduler_info()["workers"].values(), {"unlearnkit": 1}
        if some and all("GPU" in worker["resources"] for worker in some):
            asked["GPU"] = 1
        self._executor = client.get_executor(pure=False, resources=asked)

    def submit(self, function: Callable, /, *of: Any) -> Future:
        """Hand a job over."""
        return self._executor.submit(_limited, function, *of)


@contextmanager
def cluster_executor(address: str, *, timeout: float = 30.0) -> Iterator[Cluster]:
    """Connect to the scheduler at `address`, e.g. 'tcp://node1:8786', for the length of a block.

    A `UserError` tells if none answers in `timeout` seconds, or its workers lack this package.
    """
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"no Dask scheduler at {address}: {one_line(error)}") from None
    with client:
        try:
            client.register_plugin(_OneJob())
        except ImportError as error:
            raise UserError(f"install unlearnkit on the workers: {one_line(error)}") from None
        yield Cluster(client)


def _limited(function: Callable, /, *of: Any) -> Any:
    """Do a job with the worker's number of threads, on a GPU of its own."""
    import torch  # here: a worker that only waits needs none

    torch.set_num_threads(get_worker().state.nthreads)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = visible.split(",") if visible is not None else range(torch.cuda.device_count())
    if not _GPU and (visible is None or len(seen) > 1):
        claim_gpu(seen)
    return function(*of)


def claim_gpu(seen: Iterable[object]) -> None:
    """Leave this process the first of the GPUs `seen` that no other worker of this machine has."""
    for number in seen:
        path = Path(tempfile.gettempdir()) / f"unlearnkit-gpu-{number}.lock"
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            continue
        _GPU.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
        return
