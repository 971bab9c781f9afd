"""Running the numbered notebooks through papermill; the sources stay untouched."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnkit.errors import UserError, unknown
from unlearnkit.files import cpu_count, project_folder


@dataclass(frozen=True)
class Executed:
    """How a notebook's execution ended; `error` names the cell and what it raised, "" if none."""

    name: str
    output: Path
    seconds: float
    error: str = ""


def available() -> dict[str, Path]:
    """Return name -> path of the project's notebooks, in their order."""
    folder = project_folder() / "notebooks"
    return {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}


def choose(names: Sequence[str]) -> list[Path]:
    """Return the notebooks called `names`: a whole name, a path or a number; all if none is given.

    Raises
    ------
    UserError
        For a name that fits none.
    """
    known = available()
    if not names:
        return list(known.values())
    chosen = []
    for name in names:
        stem = Path(name).stem
        fits = [path for key, path in known.items() if stem in (key, key.split("_")[0])]
        if not fits:
            raise unknown("notebook", name, known)
        chosen += fits
    return chosen


def parameter_names(path: Path) -> list[str]:
    """Return the names that a notebook's `parameters` cell assigns."""
    try:
        import papermill  # here: the package itself needs no Jupyter
    except ImportError:
        raise UserError(
            "running notebooks needs papermill; install it with ./run_all.sh, "
            "or use `python -m unlearnkit compute`, which needs no Jupyter"
        ) from None
    return list(papermill.inspect_notebook(str(path)))


def execute(
    paths: Sequence[Path],
    folder: Path,
    parameters: dict[str, Any],
    *,
    workers: int,
    report: Callable[[str], None] = print,
    environment: dict[str, str] | None = None,
) -> list[Executed]:
    """Execute notebooks into `folder`, several at a time, each in a kernel of its own.

    Parameters
    ----------
    parameters : dict
        Passed to every notebook that has a parameter of that name.
    workers : int
        Notebooks at a time.

    Raises
    ------
    UserError
        For a parameter that no notebook has (papermill itself would ignore it), or if papermill is
        not installed.
    """
    names = {path: parameter_names(path) for path in paths}
    known = sorted(set().union(*names.values()))
    for name in parameters:
        if name not in known:
            raise unknown("notebook parameter", name, known)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    done = []
    # Two kernels that both use all cores wait for each other most of the time.
    threads = str(max(1, cpu_count() // workers))
    with ThreadPoolExecutor(workers) as pool:
        futures = [
            pool.submit(
                _execute_one,
                path,
                folder / path.name,
                {name: value for name, value in parameters.items() if name in names[path]},
                {"OMP_NUM_THREADS": threads, **(environment or {})},
            )
            for path in paths
        ]
        for future in as_completed(futures):
            result = future.result()
            state = f"FAILED {result.error}" if result.error else "ok"
            report(f"{result.name:<24} {result.seconds:6.1f} s   {state}")
            done.append(result)
    return sorted(done, key=lambda result: result.name)


def _execute_one(
    path: Path, output: Path, parameters: dict[str, Any], environment: dict[str, str]
) -> Executed:
    command = [sys.executable, "-m", "papermill", str(path), str(output), "--no-progress-bar"]
    command += ["--cwd", str(path.parent), "--kernel", "python3", "--log-level", "ERROR"]
    for name, value in parameters.items():
        # As YAML, so that text stays text: a bare `-p` would turn "1" into a number.
        command += ["-y", json.dumps({name: value})]
    settings = {
        **os.environ,
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(project_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        **environment,
    }
    began = time.perf_counter()
    finished = subprocess.run(
        command, capture_output=True, text=True, env=settings, stdin=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - began
    error = ""
    if finished.returncode:
        said = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        error = _failure(output) or said[-1]
    return Executed(path.stem, output, seconds, error)


def _failure(output: Path) -> str:
    """Return 'cell 7: NameError: ...' of an executed notebook, or "" if no cell failed."""
    try:
        cells = json.loads(output.read_text())["cells"]
    except (OSError, ValueError, KeyError):
        return ""
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        if "injected-parameters" not in cell["metadata"].get("tags", []):
            number += 1
        for shown in cell.get("outputs", []):
            if shown["output_type"] == "error":
                first = "".join(cell["source"]).strip().splitlines()[0]
                return f"code cell {number} ({first!r}): {shown['ename']}: {shown['evalue']}"
    return ""
