"""`python -m unlearnkit`: compute a study, run its notebooks, redraw what is there."""

import argparse
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from unlearnkit import results
from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.files import cpu_count, default_folder, output_folder, source_folder


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m unlearnkit", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    work = argparse.ArgumentParser(add_help=False)
    work.add_argument("--profile", default="quick", help="name, or path of a .toml file")
    work.add_argument("--dataset", help="e.g. cifar10 or folder:PATH; default: the profile's")
    work.add_argument("--workers", type=int, help="cells computed at a time")
    work.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    work.add_argument("--minutes", type=float, help="stop cleanly before so many are over")
    work.add_argument("--accept", action="store_true", help="make the results the committed ones")
    cells = argparse.ArgumentParser(add_help=False, parents=[work])
    cells.add_argument("--plan", action="store_true", help="print the plan, and stop")
    cells.add_argument("--scheduler", metavar="ADDRESS", help="compute on the Dask cluster there")

    told = "compute, execute the notebooks, redraw what is committed"
    run = commands.add_parser("run", parents=[cells], help=told)
    run.add_argument("notebooks", nargs="*", help="names or numbers, e.g. 03; default: all")
    commands.add_parser("compute", parents=[cells], help="compute all cells; needs no Jupyter")
    commands.add_parser("sweep", parents=[work], help="try the rates of a profile's [sweep]")
    report = commands.add_parser("report", help="redraw tables and figures from stored results")
    report.add_argument("--profile", help="default: every committed study")
    report.add_argument("--dataset", help="default: the profile's")
    commands.add_parser("readme", help="fill README.md's tables from the committed results")
    prune = commands.add_parser("prune", help="show what the store holds and no study needs")
    prune.add_argument("--yes", action="store_true", help="delete it")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    warnings.showwarning = _warn
    began = time.monotonic()
    try:
        commands = (run, compute, sweep, report, readme, prune)
        status = {command.__name__: command for command in commands}[options.command](options)
    except UserError as error:
        print(f"unlearnkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "unlearnkit", *(arguments or sys.argv[1:])])
        message = f"interrupted; what was done is stored, and `{again}` goes on from there"
        print(f"unlearnkit: {message}", file=sys.stderr)
        return 130
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"{'Done' if status == 0 else 'Ended'} in {minutes} min {seconds:02d} s.")
    return status


def compute(options: argparse.Namespace, then: Callable[[str], int] = lambda name: 0) -> int:
    """Compute what the store lacks; print the plan first and the reproduction report last.

    `then` is done before the report, once the results are complete: it is given the study's name
    and returns an exit status.
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
    if options.scheduler:
        from unlearnkit.study.cluster import cluster_executor
    with cluster_executor(options.scheduler) if options.scheduler else nullcontext() as cluster:
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
    accept = options.accept and not outcome.failed
    if accept != options.accept:
        print("unlearnkit: not accepted: some cells failed", file=sys.stderr)
    # Before what is committed is redrawn: it may be replaced.
    lines = _compare(own, committed, accept)
    status = 0 if outcome.failed or outcome.stopped else then(name)
    print("\n".join(lines))
    print(f"Results: {own}")
    return 1 if outcome.failed else status


def run(options: argparse.Namespace) -> int:
    """Compute, execute the notebooks on what was computed, redraw every committed study."""
    from unlearnkit.study import notebooks

    chosen = notebooks.choose(options.notebooks)
    return compute(options, lambda name: _execute(options, chosen, name))


def _execute(options: argparse.Namespace, chosen: list[Path], name: str) -> int:
    from unlearnkit.study import notebooks

    folder = output_folder() / "executed" / name
    print(f"Notebooks, into {folder}:", flush=True)
    # Absolute paths: the notebooks run in another folder.
    parameters = {"profile": options.profile, "dataset": options.dataset}
    if options.profile.endswith(".toml"):
        parameters["profile"] = str(Path(options.profile).expanduser().resolve())
    if source := source_folder(options.dataset or ""):
        parameters |= {"dataset": f"folder:{source}", "folder": str(source)}
    environment = {"UNLEARNKIT_OWN_RESULTS": "1"}
    environment["UNLEARNKIT_STORE"] = str(default_folder().resolve())
    committed = {f"results/{place.name}, redrawn": place for place in _committed()}
    if os.environ.get("UNLEARNKIT_OUTPUT"):
        environment["UNLEARNKIT_OUTPUT"] = str(output_folder().resolve())
        # All is drawn into one folder then: what the notebooks drew of this study stays.
        committed.pop(f"results/{name}, redrawn", None)
    failed = notebooks.execute(
        chosen,
        folder,
        {name: value for name, value in parameters.items() if value},
        environment,
        workers=options.workers or min(2, cpu_count()),
        also={title: partial(_redraw, place) for title, place in committed.items()},
        report=_say,
    )
    for line in failed:
        print(f"unlearnkit: {line}", file=sys.stderr)
    print(f"Executed notebooks: {folder}")
    return 1 if failed else 0


def _committed() -> list[Path]:
    """Return the folders of all committed studies."""
    return sorted(path.parent for path in results.committed_folder("").glob("*/study.json"))


def _redraw(folder: Path) -> None:
    from unlearnkit.report import publish_all, read_study

    publish_all(read_study(folder))


def sweep(options: argparse.Namespace) -> int:
    """Try every rate of the profile's [sweep] on its validation forget set, and name the best."""
    from unlearnkit.study import load_profile, run
    from unlearnkit.study import sweep as sweeps

    profile, deadline = load_profile(options.profile), _deadline(options)
    lab = run.open_lab(profile, options.dataset, device=options.device)
    table, whole = sweeps.run_sweep(lab, workers=options.workers, deadline=deadline, report=_say)
    print(table.round(4).to_string(index=False))
    places = [run.note_source(profile, options.dataset)]
    if not whole:
        print("Stopped for the time limit; the same command goes on from here.")
        if options.accept:
            raise UserError("not accepted: not all rates were tried")
        return 0
    if options.accept:
        places.append(results.committed_folder(places[0].name))
    for folder in places:
        results.write_sweep(table, folder)
    for line in results.disagreements(run.hyperparameters(profile), table):
        print(f"The sweep's choice for profile {profile.name}: {line}")
    print(f"Sweep: {places[-1] / 'sweeps'}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Redraw tables and figures: of one study, this machine's and the committed one, or of all."""
    from unlearnkit.report import publish_all, read_study, stored

    if options.dataset and not options.profile:
        raise UserError("--dataset needs --profile: which study of that data set is meant?")
    try:
        folders = stored(options.profile, options.dataset) if options.profile else _committed()
    except UserError:
        _check_known(options.profile, options.dataset)
        raise
    # Where two are drawn into one folder, this machine's own: it comes last.
    for study in {study.output: study for study in map(read_study, folders)}.values():
        print(f"Drawing from {study.folder} ({study.stamp})", flush=True)
        publish_all(study, lambda line: _say(f"  {line}"))
        print(f"Tables and figures: {study.output}")
    return 0


def _check_known(profile: str, dataset: str | None) -> None:
    """Raise an error if no command could compute such a study."""
    from unlearnkit.data import DATASETS
    from unlearnkit.study import load_profile

    settings = load_profile(profile)
    dataset = dataset or settings["dataset"]
    folder = source_folder(dataset)
    if folder and not folder.is_dir():
        raise UserError(f"no folder {folder}")
    if not folder and dataset not in DATASETS:
        raise unknown("dataset", dataset, [*DATASETS, "folder:PATH"])


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


def _compare(own: Path, committed: Path, accept: bool) -> list[str]:
    """Return how this machine's results compare with the committed ones; replace them if asked."""
    from unlearnkit.study.reproduction import compare, summary

    ours = results.read(own)
    settings = ours.study["settings"]["report"]
    tolerance = {"points": settings["tolerance_points"], "ratio": settings["tolerance_ratio"]}
    held, lines = 0, []
    if (committed / "study.json").exists():
        theirs = results.read(committed)
        held = len(theirs.records)
        lines.append(summary(compare(ours, theirs, **tolerance), **tolerance))
    elif not accept:
        lines.append(f"Reproduction: no committed results in {committed} to compare with")
    if accept and len(ours.records) < max(1, held):
        number = f"{len(ours.records)} of {ours.study['cells']} models so far"
        raise UserError(f"not accepted: {number}, and {committed} holds {held}")
    if accept:
        results.write(ours, committed)
        lines.append(f"Accepted: these results ({len(ours.records)} models) are now in {committed}")
    return lines


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
    return f"about {max(1, round(seconds / workers / 60))} min" if seconds else "nothing to do"


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(message: Warning | str, *_: object) -> None:
    print(f"unlearnkit: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
