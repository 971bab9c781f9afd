"""Running the numbered notebooks through papermill; the sources stay untouched."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import cpu_count, project_folder

try:
    import nbformat
    import papermill
except ImportError:  # the package itself needs no Jupyter
    papermill = None


def choose(names: Sequence[str]) -> list[Path]:
    """Return the notebooks called `names`: a whole name, a path or a number; all if none is given.

    Raises
    ------
    UserError
        For a name that fits none, or if papermill is not installed.
    """
    if papermill is None:
        raise UserError(
            "running notebooks needs papermill; install it with ./run_all.sh, "
            "or use `python -m unlearnkit compute`, which needs no Jupyter"
        )
    folder = project_folder() / "notebooks"
    known = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    chosen = []
    for name in names:
        stem = Path(name).stem
        fits = [path for key, path in known.items() if stem in (key, key.split("_")[0])]
        if not fits:
            raise unknown("notebook", name, known)
        chosen += fits
    return chosen or list(known.values())


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
    """Execute notebooks into `folder`, `workers` at a time, each in a kernel of its own.

    Parameters
    ----------
    parameters : mapping
        Each notebook is given those that its `parameters` cell has.
    environment : mapping
        Set for the kernels.
    also : mapping of title -> function
        What else is called beside them, in processes of their own, too.

    Returns
    -------
    list of str
        For each that failed its name and why. A failed notebook is kept as it ended.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    # Two kernels that both use all cores wait for each other most of the time.
    environment = {"OMP_NUM_THREADS": str(max(1, cpu_count() // workers)), **environment}
    tasks = [
        delayed(_timed)(path.stem, _execute_one, path, folder / path.name, parameters, environment)
        for path in paths
    ]
    tasks += [delayed(_timed)(title, function) for title, function in (also or {}).items()]
    failed = []
    for title, seconds, error in Parallel(workers, return_as="generator_unordered")(tasks):
        report(f"{title:<26} {seconds:6.1f} s   {f'FAILED {error}' if error else 'ok'}")
        if error:
            failed.append(f"{title} failed: {error}")
    return sorted(failed)


def _timed(title: str, function: Callable, *of: Any) -> tuple[str, float, str]:
    """Call a function; return the title, the seconds it took, and what failed, "" if nothing."""
    began, error = time.perf_counter(), ""
    try:
        function(*of)
    except UserError as failure:
        error = one_line(failure)
    return title, time.perf_counter() - began, error


def _execute_one(
    path: Path, output: Path, parameters: Mapping[str, Any], environment: Mapping[str, str]
) -> None:
    try:
        nbformat.validate(nbformat.read(path, as_version=4))
        known = papermill.inspect_notebook(str(path))
    except Exception as failure:  # nbformat raises whatever the damage leads to
        why = one_line(failure)[:100]
        raise UserError(f"it is damaged ({why}); restore it from version control") from None
    try:
        with _added(environment):
            papermill.execute_notebook(
                str(path),
                str(output),
                {name: value for name, value in parameters.items() if name in known},
                kernel_name="python3",
                progress_bar=False,
                cwd=str(path.parent),
                extra_arguments=["--log-level=40"],
            )
    except papermill.PapermillExecutionError as failure:
        first = failure.source.strip().splitlines()[0]
        where = f"In [{failure.exec_count}] ({first!r})"
        raise UserError(f"{where}: {failure.ename}: {failure.evalue}") from None
    except OSError as failure:
        raise UserError(f"cannot write {output}: {failure.strerror}") from None
    except RuntimeError as failure:
        why = f"its kernel died, perhaps for want of memory: {failure}"
        raise UserError(why) from None


@contextmanager
def _added(variables: Mapping[str, str]) -> Iterator[None]:
    """Add to the environment, from which a kernel takes its own, for the length of a block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
