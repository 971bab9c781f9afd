"""`python -m unlearnkit`: compute a study, run its notebooks, redraw what is there."""

import argparse
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearnkit import results
from unlearnkit.errors import UserError, one_line
from unlearnkit.files import cpu_count, default_folder, output_folder, source_folder


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m unlearnkit", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="compute, execute the notebooks, redraw what is committed"
    )
    run.add_argument("notebooks", nargs="*", help="names or numbers, e.g. 03; default: all")
    compute = commands.add_parser("compute", help="compute all cells; needs no Jupyter")
    sweep = commands.add_parser("sweep", help="try the rates of a profile's [sweep]")
    report = commands.add_parser("report", help="redraw tables and figures from stored results")
    commands.add_parser("readme", help="fill README.md's tables from the committed results")
    prune = commands.add_parser("prune", help="show what the store holds and no profile needs")
    prune.add_argument("--yes", action="store_true", help="delete it")
    for command in (run, compute, sweep, report):
        default = None if command is report else "quick"
        text = "name, or path of a .toml file" + (
            "; default: every committed study" if command is report else "; default: quick"
        )
        command.add_argument("--profile", default=default, help=text)
        command.add_argument(
            "--dataset", help="e.g. cifar10 or folder:PATH; default: the profile's"
        )
    for command in (run, compute, sweep):
        command.add_argument("--workers", type=int, help="cells computed at a time")
        command.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
        command.add_argument(
            "--minutes", type=float, help="stop cleanly before so many minutes are over"
        )
        command.add_argument(
            "--accept", action="store_true", help="make the results the committed ones"
        )
    for command in (run, compute):
        command.add_argument("--plan", action="store_true", help="print the plan, and stop")
        command.add_argument(
            "--scheduler", metavar="ADDRESS", help="compute on the Dask cluster there"
        )
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    began = time.monotonic()
    try:
        commands = (run, compute, sweep, report, readme, prune)
        status = {command.__name__: command for command in commands}[options.command](options)
    except UserError as error:
        print(f"unlearnkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(arguments if arguments is not None else sys.argv[1:])
        print(
            "unlearnkit: interrupted; what was done is stored, and "
            f"`python -m unlearnkit {again}` goes on from there",
            file=sys.stderr,
        )
        return 130
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"{'Done' if status == 0 else 'Ended'} in {minutes} min {seconds:02d} s.")
    return status


def compute(options: argparse.Namespace, then: Callable[[], int] = lambda: 0) -> int:
    """Compute what the store lacks; print the plan first and the reproduction report last.

    `then` is done in between, once the results are complete; it returns an exit status.
    """
    from unlearnkit.study import load_profile, run
    from unlearnkit.study.compute import compute as work
    from unlearnkit.study.compute import default_workers
    from unlearnkit.study.plan import cells_of, make_plan

    profile, deadline = load_profile(options.profile), _deadline(options)
    name = run.name_of(profile, options.dataset)
    lab = run.open_lab(profile, options.dataset, device=options.device)
    plan = make_plan(lab, cells_of(profile))
    own, committed = results.own_results(name), results.committed_folder(name)
    with _executor(options.scheduler) as cluster:
        workers = cluster.workers if cluster else options.workers or default_workers(lab.device)
        expected = plan.seconds(results.recorded_walls(own, committed))
        print(f"Study {name}: {lab.data.name}, {len(plan.cells)} models, on {lab.device.type}.")
        there, models = plan.stages - plan.lacking, len(plan.missing)
        print(f"  stored: {there} of {plan.stages} stages in {lab.store.folder}")
        print(f"  to compute: {plan.lacking} stages of {models} models, {workers} at a time")
        print(f"  expected: {_expectation(expected, workers)}", flush=True)
        if options.plan:
            return 0
        # The name of the results is taken before the work, not after it.
        run.note_source(profile, options.dataset)
        how = {"executor": cluster, "device": options.device} if cluster else {}
        outcome = work(lab, plan, workers=workers, deadline=deadline, report=_say, **how)
    run.keep_study(lab, options.dataset)
    for cell, error in outcome.failed:
        print(f"unlearnkit: {cell} failed: {one_line(error)}", file=sys.stderr)
    if outcome.stopped:
        print("Stopped for the time limit; the same command goes on from here.")
    if options.accept and outcome.failed:
        print("unlearnkit: not accepted: some cells failed", file=sys.stderr)
    status = 0 if outcome.failed or outcome.stopped else then()
    _compare(own, committed, accept=options.accept and not outcome.failed)
    print(f"Results: {own}")
    return 1 if outcome.failed else status


def run(options: argparse.Namespace) -> int:
    """Compute, execute the notebooks on what was computed, redraw every committed study."""
    from unlearnkit.study import notebooks

    chosen = notebooks.choose(options.notebooks)
    return compute(options, lambda: _execute(options, chosen))


def _execute(options: argparse.Namespace, chosen: list[Path]) -> int:
    from unlearnkit.study import load_profile, notebooks
    from unlearnkit.study.run import name_of

    name = name_of(load_profile(options.profile), options.dataset)
    folder = output_folder() / "executed" / name
    print(f"Notebooks, into {folder}:", flush=True)
    # Absolute paths: the notebooks run in another folder.
    parameters = {"profile": options.profile, "dataset": options.dataset}
    if options.profile.endswith(".toml"):
        parameters["profile"] = str(Path(options.profile).expanduser().resolve())
    if source := source_folder(options.dataset or ""):
        parameters |= {"dataset": f"folder:{source}", "folder": str(source)}
    failed = notebooks.execute(
        chosen,
        folder,
        {name: value for name, value in parameters.items() if value},
        {"UNLEARNKIT_OWN_RESULTS": "1", "UNLEARNKIT_STORE": str(default_folder().resolve())},
        workers=options.workers or min(2, cpu_count()),
        report=_say,
    )
    for line in failed:
        print(f"unlearnkit: notebook {line}", file=sys.stderr)
    print(f"Executed notebooks: {folder}")
    return 1 if failed else 0


def sweep(options: argparse.Namespace) -> int:
    """Try every rate of the profile's [sweep] on its validation forget set, and name the best."""
    from unlearnkit.study import load_profile, run
    from unlearnkit.study import sweep as sweeps

    profile, deadline = load_profile(options.profile), _deadline(options)
    lab = run.open_lab(profile, options.dataset, device=options.device)
    table, whole = sweeps.run_sweep(lab, workers=options.workers, deadline=deadline, report=_say)
    name = run.name_of(profile, options.dataset)
    places = [results.own_results(name)]
    places += [results.committed_folder(name)] if options.accept and whole else []
    for folder in places:
        results.write_sweep(table, folder)
    print(table.round(4).to_string(index=False))
    if not whole:
        print("Stopped for the time limit; the same command goes on from here.")
    for line in results.disagreements(run.hyperparameters(profile), table):
        print(f"The sweep's choice for profile {profile.name}: {line}")
    print(f"Sweep: {places[-1] / 'sweeps'}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Redraw tables and figures: of one study, this machine's and the committed one, or of all."""
    from unlearnkit.report import publish_all, read_study, stored

    if options.profile:
        folders = stored(options.profile, options.dataset)
    else:
        committed = results.committed_folder("")
        folders = sorted(path.parent for path in committed.glob("*/study.json"))
    for folder in folders:
        study = read_study(folder)
        print(f"Drawing from {folder} ({study.stamp})", flush=True)
        publish_all(study, lambda line: _say(f"  {line}"))
        print(f"Tables and figures: {study.output}")
    return 0


def readme(options: argparse.Namespace) -> int:
    """Fill the blocks of README.md from the committed results of the largest study."""
    from unlearnkit.report.readme import refresh

    path, study = refresh()
    print(f"{path}: filled from {study.folder} ({study.stamp})")
    return 0


def prune(options: argparse.Namespace) -> int:
    """List what the store holds and no known study needs; delete it if asked to."""
    from unlearnkit.study.prune import prune as free

    return free(delete=options.yes, report=_say)


def _compare(own: Path, committed: Path, accept: bool) -> None:
    """Print how this machine's results compare with the committed ones; replace them if asked."""
    from unlearnkit.study.reproduction import compare, summary

    ours = results.read(own)
    settings = ours.study["settings"]["report"]
    tolerance = {"points": settings["tolerance_points"], "ratio": settings["tolerance_ratio"]}
    held = 0
    if (committed / "study.json").exists():
        theirs = results.read(committed)
        held = len(theirs.records)
        print(summary(compare(ours, theirs, **tolerance), **tolerance))
    elif not accept:
        print(f"Reproduction: no committed results in {committed} to compare with")
    if accept and len(ours.records) < max(1, held):
        raise UserError(f"not accepted: {len(ours.records)} models, and {committed} holds {held}")
    if accept:
        results.write(ours, committed)
        print(f"Accepted: these results ({len(ours.records)} models) are now in {committed}")


@contextmanager
def _executor(address: str | None) -> Iterator[Any]:
    """Yield the Dask cluster at `address`, None without one."""
    if not address:
        yield None
        return
    from unlearnkit.study.cluster import cluster_executor

    with cluster_executor(address) as cluster:
        yield cluster


def _deadline(options: argparse.Namespace) -> float | None:
    """Return the `time.time()` to stop at, None for never; check how many work at a time."""
    if options.workers is not None and options.workers < 1:
        raise UserError("--workers must be at least 1")
    if options.minutes is not None and not options.minutes > 0:
        raise UserError("--minutes must be more than 0")
    return time.time() + 60 * options.minutes if options.minutes else None


def _expectation(seconds: float | None, workers: int) -> str:
    if seconds is None:
        return "unknown: nothing like it was recorded yet"
    minutes = seconds / workers / 60
    return "nothing to do" if seconds == 0 else f"about {max(1, round(minutes))} min"


def _say(line: str) -> None:
    print(line, flush=True)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"unlearnkit: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
