"""`python -m unlearnkit`: run the notebooks, compute without them, redraw what is there."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from unlearnkit.errors import UserError


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m unlearnkit", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="compute what is missing, then execute the notebooks")
    run.add_argument("notebooks", nargs="*", help="names or numbers, e.g. 03; default: all")
    compute = commands.add_parser("compute", help="compute all cells; needs no Jupyter")
    sweep = commands.add_parser("sweep", help="try the rates of a profile's [sweep]")
    report = commands.add_parser("report", help="redraw every table and figure from results")
    commands.add_parser("readme", help="fill README.md's tables from the committed results")
    for command in (run, compute, sweep, report):
        command.add_argument("--profile", default="quick", help="name, or path of a .toml file")
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
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    began = time.monotonic()
    try:
        commands = (run, compute, sweep, report, readme)
        status = {command.__name__: command for command in commands}[options.command](options)
    except UserError as error:
        print(f"unlearnkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unlearnkit: interrupted; what was done is stored", file=sys.stderr)
        return 130
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"{'Done' if status == 0 else 'Ended'} in {minutes} min {seconds:02d} s.")
    return status


def compute(options: argparse.Namespace, before_report: Callable[[], int] = lambda: 0) -> int:
    """Compute what the store lacks; print the plan first and the reproduction report last.

    `before_report` is done in between, once the results are complete; it returns an exit status.
    """
    from unlearnkit import results
    from unlearnkit.study import compute as computing
    from unlearnkit.study import run as study
    from unlearnkit.study.plan import cells_of, make_plan
    from unlearnkit.study.profile import load_profile

    profile = load_profile(options.profile)
    deadline = _deadline(options)
    name = study.name_of(profile, options.dataset)
    study.check_source(name, options.dataset or profile["dataset"])
    lab = study.open_lab(profile, options.dataset, device=options.device)
    workers = options.workers or computing.default_workers(lab.device)
    plan = make_plan(lab, cells_of(profile))
    own, committed = results.own_results(name), results.committed_folder(name)
    expected = plan.seconds(results.recorded_walls(own, committed))
    print(f"Study {name}: {lab.data.name}, {len(plan.cells)} models, on {lab.device.type}.")
    print(f"  stored: {plan.stages - plan.lacking} of {plan.stages} stages in {lab.store.folder}")
    print(f"  to compute: {plan.lacking} stages of {len(plan.missing)} models, {workers} at a time")
    print(f"  expected: {_expectation(expected, workers)}", flush=True)
    if options.plan:
        return 0
    outcome = computing.compute(lab, plan, workers=workers, deadline=deadline, report=_say)
    finished = study.keep_study(lab, options.dataset, workers)
    for cell, message in outcome.failed:
        print(f"unlearnkit: {cell} failed: {message}", file=sys.stderr)
    if outcome.stopped:
        print("Stopped for the time limit; the same command goes on from here.")
    whole = not (outcome.failed or outcome.stopped)
    accept = options.accept and not outcome.failed
    if options.accept and outcome.failed:
        print("unlearnkit: not accepted: some cells failed", file=sys.stderr)
    status = before_report() if whole else 0
    _compare(finished, committed, accept)
    print(f"Results: {own}")
    return 1 if outcome.failed else status


def run(options: argparse.Namespace) -> int:
    """Compute, then execute the notebooks, which draw every table and figure."""
    from unlearnkit.study import notebooks

    chosen = notebooks.choose(options.notebooks)
    return compute(options, lambda: _execute(options, chosen))


def _execute(options: argparse.Namespace, chosen: list[Path]) -> int:
    """Execute the notebooks on this machine's results; return the exit status."""
    from unlearnkit.files import cpu_count, default_folder, output_folder
    from unlearnkit.study import notebooks
    from unlearnkit.study import run as study
    from unlearnkit.study.profile import load_profile

    profile = load_profile(options.profile)
    name = study.name_of(profile, options.dataset)
    folder = output_folder() / "executed" / name
    print(f"Notebooks, into {folder}:", flush=True)
    # A profile given as a file is named by its path; the notebooks run in another folder.
    settings = options.profile
    if settings.endswith(".toml"):
        settings = str(Path(settings).expanduser().resolve())
    parameters = {"profile": settings, "dataset": _absolute(options.dataset or "")}
    if parameters["dataset"].startswith("folder:"):
        parameters["folder"] = parameters["dataset"].removeprefix("folder:")
    known = set().union(*map(notebooks.parameter_names, chosen))
    done = notebooks.execute(
        chosen,
        folder,
        # The quickstart has no profile; where no data set is named, each notebook has its own.
        {name: value for name, value in parameters.items() if value and name in known},
        workers=options.workers or min(2, cpu_count()),
        report=_say,
        # Absolute: the notebooks run in another folder.
        environment={
            "UNLEARNKIT_OWN_RESULTS": "1",
            "UNLEARNKIT_STORE": str(default_folder().resolve()),
        },
    )
    failed = [result for result in done if result.error]
    for result in failed:
        print(f"unlearnkit: notebook {result.name} failed in {result.error}", file=sys.stderr)
    print(f"Executed notebooks: {folder}")
    drawn = Path(os.environ.get("UNLEARNKIT_OUTPUT", default_folder()))
    print(f"Tables and figures: {drawn / 'figures' / name}")
    return 1 if failed else 0


def sweep(options: argparse.Namespace) -> int:
    """Try every rate of the profile's [sweep] on its validation forget set, and name the best."""
    from unlearnkit import results
    from unlearnkit.report.sweep import disagreements, rounded
    from unlearnkit.study import run as study
    from unlearnkit.study import sweep as sweeps
    from unlearnkit.study.compute import default_workers
    from unlearnkit.study.profile import load_profile

    profile = load_profile(options.profile)
    deadline = _deadline(options)
    name = study.name_of(profile, options.dataset)
    study.check_source(name, options.dataset or profile["dataset"])
    lab = study.open_lab(profile, options.dataset, device=options.device)
    workers = options.workers or default_workers(lab.device)
    table, whole = sweeps.run_sweep(lab, workers=workers, deadline=deadline, report=_say)
    own, committed = results.own_results(name), results.committed_folder(name)
    sweeps.write_sweep(table, own)
    if options.accept and whole:
        sweeps.write_sweep(table, committed)
    shown = rounded(table).assign(lr=table["lr"].map("{:g}".format))
    print(shown.to_string(index=False))
    if not whole:
        print("Stopped for the time limit; the same command goes on from here.")
    for line in disagreements(study.hyperparameters(profile), table):
        print(f"The sweep's choice for profile {profile.name}: {line}")
    print(f"Sweep: {(committed if options.accept and whole else own) / 'sweeps'}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Redraw every table and figure from this machine's results, or else the committed ones."""
    from unlearnkit import results
    from unlearnkit.report import load_study, publish_all, read_study
    from unlearnkit.study import run as study
    from unlearnkit.study.profile import load_profile

    profile = load_profile(options.profile)
    name = study.name_of(profile, options.dataset)
    own = results.own_results(name)
    study.check_source(name, options.dataset or profile["dataset"])
    if own.exists():
        found = read_study(own)
        _compare(found, results.committed_folder(name), accept=False)
    else:
        found = load_study(options.profile, options.dataset)
    print(f"Drawing from {found.folder} ({found.stamp})")
    publish_all(found, report=lambda line: print(f"  {line}"))
    print(f"Tables and figures: {found.output}")
    return 0


def readme(options: argparse.Namespace) -> int:
    """Fill the blocks of README.md from the committed results of the largest study."""
    from unlearnkit.report.readme import refresh

    path, found = refresh()
    print(f"{path}: filled from {found.folder} ({found.stamp})")
    return 0


def _compare(study, committed: Path, accept: bool) -> None:
    """Print how the study's results compare with the committed ones; replace them if asked to."""
    from unlearnkit import reproduction, results

    settings = study.profile["report"]
    tolerance = {"points": settings["tolerance_points"], "ratio": settings["tolerance_ratio"]}
    if (committed / "study.json").exists():
        compared = reproduction.compare(study.results, results.read(committed), **tolerance)
        print(reproduction.summary(compared, **tolerance))
    elif not accept:
        print(f"Reproduction: no committed results in {committed} to compare with")
    held = len(list((committed / "cells").glob("*.json")))
    if accept and len(study.results.records) < max(1, held):
        raise UserError(f"not accepted: {study.extent}, and {committed} holds {held}")
    if accept:
        results.write(study.results, committed)
        print(f"Accepted: these results ({study.extent}) are now in {committed}")


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


def _absolute(dataset: str) -> str:
    kind, colon, path = dataset.partition(":")
    return f"folder:{Path(path).expanduser().resolve()}" if kind == "folder" and colon else dataset


def _say(line: str) -> None:
    print(line, flush=True)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"unlearnkit: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
