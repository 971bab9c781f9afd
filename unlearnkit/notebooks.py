"""Running the numbered notebooks through papermill; the sources stay untouched."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from joblib import Parallel, cpu_count, delayed

from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import project_folder

try:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
except ImportError:  # the package itself needs no Jupyter
    papermill = None


def choose(names: Sequence[str]) -> list[Path]:
    """Return the notebooks called `names`: names, paths or numbers; all if none is given."""
    if papermill is None:
        why = "use ./run_all.sh, which installs it, or `python -m unlearnkit compute`"
        raise UserError(f"running notebooks needs papermill; {why}")
    paths = sorted((project_folder() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    known = {word: path for path in paths for word in (path.stem, path.stem[:2])}
    for name in names:
        if Path(name).stem not in known:
            raise unknown("notebook", name, [path.stem for path in paths])
    return [known[Path(name).stem] for name in names] or paths


def execute(
    paths: Iterable[Path],
    folder: Path,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    workers: int,
    also: Mapping[str, Callable[[], Any]] | None = None,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Execute notebooks into `folder`, `workers` at a time; a failed one is kept as it ended.

    Each is given those of the `parameters` that its `parameters` cell has; `environment` is added
    to the kernels'. The functions of `also`, by title, are called beside them. Returns a line for
    each that failed: its name and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    # Two kernels that both use all cores wait for each other most of the time.
    environment = {"OMP_NUM_THREADS": str(max(1, cpu_count() // workers)), **environment}
    how = (folder, parameters, environment)
    tasks = {path.stem: partial(_execute_one, path, *how) for path in paths} | dict(also or {})
    # First those that train, and so take longest.
    order = sorted(tasks, key=lambda title: not title.startswith(("00", "07", "08")))
    calls = [delayed(_timed)(title, tasks[title]) for title in order]
    report(f"Notebooks, into {folder}:")
    failed = []
    for title, seconds, error in Parallel(workers, return_as="generator_unordered")(calls):
        report(f"{title:<26} {seconds:6.1f} s   {f'FAILED {error}' if error else 'ok'}")
        if error:
            failed.append(f"{title} failed: {error}")
    return sorted(failed)


def _timed(title: str, function: Callable[[], Any]) -> tuple[str, float, str]:
    """Call a function; return the title, the seconds it took, and what failed, "" if nothing."""
    began, error = time.perf_counter(), ""
    try:
        function()
    except UserError as failure:
        error = one_line(failure)
    return title, time.perf_counter() - began, error


def _execute_one(
    path: Path, folder: Path, parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> None:
    try:
        nbformat.validate(nbformat.read(path, as_version=4))
        known = papermill.inspect_notebook(str(path))
        with mock.patch.dict(os.environ, environment):  # a kernel takes over its parent's
            papermill.execute_notebook(
                str(path),
                str(folder / path.name),
                {name: value for name, value in parameters.items() if name in known},
                kernel_name="python3",
                progress_bar=False,
                cwd=str(path.parent),
                extra_arguments=["--log-level=50"],  # else it tells of its own end
            )
    except papermill.PapermillExecutionError as failure:
        where = f"In [{failure.exec_count}] ({failure.source.strip().splitlines()[0]!r})"
        raise UserError(f"{where}: {failure.ename}: {failure.evalue}") from None
    except OSError as failure:
        raise UserError(f"cannot write {folder / path.name}: {failure.strerror}") from None
    except DeadKernelError as failure:
        raise UserError(f"its kernel died, perhaps for want of memory: {failure}") from None
    except Exception as failure:  # whatever damage leads to
        why = f"it cannot be run ({one_line(failure)[:100]})"
        raise UserError(f"{why}; if it is damaged, restore it from version control") from None
