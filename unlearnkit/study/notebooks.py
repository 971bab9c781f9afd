"""Running the numbered notebooks through papermill; the sources stay untouched."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import project_folder

try:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbformat.reader import NotJSONError
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
    report: Callable[[str], None] = print,
) -> list[str]:
    """Execute notebooks into `folder`, `workers` at a time, each in a kernel of its own.

    Parameters
    ----------
    parameters : mapping
        Each notebook is given those that its `parameters` cell has.
    environment : mapping
        Set for the kernels.

    Returns
    -------
    list of str
        For each failed notebook its name, the cell and what it raised. It is kept as it ended.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    tasks = [
        delayed(_execute_one)(path, folder / path.name, dict(parameters), dict(environment))
        for path in paths
    ]
    failed = []
    for path, seconds, error in Parallel(workers, return_as="generator_unordered")(tasks):
        report(f"{path.stem:<26} {seconds:6.1f} s   {f'FAILED {error}' if error else 'ok'}")
        if error:
            failed.append(f"{path.stem} failed in {error}")
    return sorted(failed)


def _execute_one(
    path: Path, output: Path, parameters: dict[str, Any], environment: dict[str, str]
) -> tuple[Path, float, str]:
    """Return the path, the seconds it took, and what failed ("" if nothing did)."""
    began, error = time.perf_counter(), ""
    os.environ.update(environment)
    try:
        known = papermill.inspect_notebook(str(path))
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
        error = f"In [{failure.exec_count}] ({first!r}): {failure.ename}: {failure.evalue}"
    except NotJSONError:
        error = "reading it: it is damaged; restore it from version control"
    except DeadKernelError as failure:
        error = f"its kernel, which died, perhaps for want of memory: {one_line(failure)}"
    return path, time.perf_counter() - began, error
