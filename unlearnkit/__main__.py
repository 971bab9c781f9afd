"""Compute a study, run its notebooks, draw its tables and figures; audit any model."""

import argparse
import os
import shlex
import sys
import time
import warnings
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path

from joblib import cpu_count

from unlearnkit import results
from unlearnkit.errors import UserError, one_line
from unlearnkit.files import default_folder, output_folder, source_folder
from unlearnkit.names import INTERVENTIONS, MEMBERSHIP

STOPPED = "Stopped at the time limit; the same command resumes."
# Command: the module of its lab, the lab's function, and the folder of its results
PARTS = {"intervene": ("intervene", "bench_of", INTERVENTIONS)}
PARTS |= {"lira": ("lira", "panel_of", MEMBERSHIP)}
_say = partial(print, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m unlearnkit", description=__doc__)
    top.set_defaults(workers=None, minutes=None)  # also where a command has no such option
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    study = argparse.ArgumentParser(add_help=False)
    study.add_argument("--profile", default="quick", help="a name or the path of a .toml file")
    study.add_argument("--dataset", help="e.g. cifar10 or folder:PATH; default: the profile's")
    work = argparse.ArgumentParser(add_help=False, parents=[study])
    work.add_argument("--workers", type=int, help="models computed at a time")
    work.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    work.add_argument("--minutes", type=float, help="stop soon after so many; run again to resume")
    work.add_argument("--accept", action="store_true", help="replace the committed results")
    cells = argparse.ArgumentParser(add_help=False, parents=[work])
    cells.add_argument("--plan", action="store_true", help="tell what lacks, compute nothing")
    cells.add_argument("--scheduler", metavar="ADDRESS", help="compute on the Dask cluster there")

    told = "compute a study, run the notebooks, redraw every committed study"
    run = commands.add_parser("run", parents=[cells], help=told)
    run.add_argument("notebooks", nargs="*", help="names or numbers, e.g. 03; default: all")
    commands.add_parser("compute", parents=[cells], help="compute a study; needs no Jupyter")
    commands.add_parser("sweep", parents=[work], help="try the learning rates under [sweep]")
    told = "set fairness-gaps by hand and measure again, as a profile's [intervention] says"
    commands.add_parser("intervene", parents=[cells], help=told)
    told = "unlearn and retrain many times for the attack LiRA, as a profile's [lira] says"
    commands.add_parser("lira", parents=[cells], help=told)
    report = commands.add_parser("report", help="redraw tables and figures from stored results")
    report.add_argument("--profile", help="default: every committed study")
    report.add_argument("--dataset", help="default: the profile's")
    told = "write the stored models as folders for timm and the Hugging Face hub"
    export = commands.add_parser("export", parents=[study], help=told)
    export.add_argument("--to", required=True, metavar="FOLDER", help="where to write them")
    audit = commands.add_parser("audit", help="measure any model, and write a card of it")
    told = "a folder with config.json and model.safetensors, hf:owner/name, or module:function"
    audit.add_argument("model", help=told)
    audit.add_argument("--dataset", required=True, help="e.g. cifar10, folder:PATH or hf:NAME")
    audit.add_argument("--against", metavar="MODEL", help="a retrained model to compare with")
    audit.add_argument("--forget", metavar="FILE", help="positions of what to forget, one a line")
    audit.add_argument("--size", type=int, help="of images, in pixels; default: the model's")
    audit.add_argument("--attacked", type=int, default=100, help="how many images, default: 100")
    audit.add_argument("--to", default="audit", metavar="FOLDER", help="where; default: audit")
    commands.add_parser("readme", help="fill README.md and docs/results.md from the results")
    prune = commands.add_parser("prune", help="list stored files that no study needs")
    prune.add_argument("--yes", action="store_true", help="delete it")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_: _complain(f"warning: {message}")
    began = time.monotonic()
    try:
        for name, value in (("workers", options.workers), ("minutes", options.minutes)):
            if value is not None and not value > 0:
                raise UserError(f"--{name} must be more than 0")
        options.deadline = options.minutes and time.time() + 60 * options.minutes
        functions = (compute, sweep, report, export, audit, readme, prune)
        known = {function.__name__: function for function in functions}
        status = known.get(options.command, compute)(options)
    except UserError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "unlearnkit", *(arguments or sys.argv[1:])])
        _complain(f"interrupted; what was done is stored, and `{again}` resumes")
        return 130
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"{'Done' if status == 0 else 'Ended'} in {minutes} min {seconds:02d} s.")
    return status


def _execute(chosen: list[Path], options: argparse.Namespace, path: Path, name: str) -> list[str]:
    """Execute notebooks on what was computed, and redraw every committed study."""
    from unlearnkit.notebooks import execute

    # Absolute paths: the notebooks run in another folder.
    parameters = {"profile": str(path) if options.profile.endswith(".toml") else options.profile}
    if options.dataset:
        parameters["dataset"] = options.dataset
    if source := source_folder(options.dataset or ""):
        parameters |= {"dataset": f"folder:{source}", "folder": str(source)}
        parameters["settings"] = parameters["profile"]  # notebook 07's, else starter
    store = str(default_folder().resolve())
    environment = {"UNLEARNKIT_OWN_RESULTS": "1", "UNLEARNKIT_STORE": store}
    also = {f"results/{place.name}, redrawn": partial(_redraw, place) for place in _committed()}
    if os.environ.get("UNLEARNKIT_OUTPUT"):
        environment["UNLEARNKIT_OUTPUT"] = str(output_folder().resolve())
        # All is drawn into one folder then: what the notebooks drew of this study stays.
        also.pop(f"results/{name}, redrawn", None)
    folder, workers = output_folder() / "executed" / name, options.workers or min(2, cpu_count())
    how = {"workers": workers, "also": also, "report": _say}
    return execute(chosen, folder, parameters, environment, **how)


def compute(options: argparse.Namespace) -> int:
    """Compute what the store lacks; print the plan first and the reproduction report last.

    `run` executes the notebooks between, once the results are complete; `intervene` and `lira`
    compute what these tables of the profile say instead.
    """
    from unlearnkit.notebooks import choose
    from unlearnkit.study import load_profile, run
    from unlearnkit.study.compute import compute as work
    from unlearnkit.study.compute import default_workers
    from unlearnkit.study.plan import make_plan
    from unlearnkit.study.reproduction import compare_and_accept

    chosen = choose(options.notebooks) if options.command == "run" else None
    profile = load_profile(options.profile)
    name = run.name_of(profile, options.dataset)
    lab = run.open_lab(profile, options.dataset, device=options.device)
    part = ""
    if options.command in PARTS:
        module, function, part = PARTS[options.command]
        lab = getattr(import_module(f"unlearnkit.study.{module}"), function)(lab)
    plan = make_plan(lab)
    own, committed = results.own_results(name) / part, results.committed_folder(name) / part
    if options.scheduler:
        from unlearnkit.study.cluster import cluster_executor
    with cluster_executor(options.scheduler) if options.scheduler else nullcontext() as cluster:
        workers = cluster.workers if cluster else options.workers or default_workers(lab.device)
        expected = "not known yet: nothing like it was computed"
        if (seconds := plan.seconds(results.recorded_walls(own, committed))) is not None:
            minutes = max(1, round(seconds / workers / 60))
            expected = f"about {minutes} min" if seconds else "nothing to do"
        print(f"Study {name}: {lab.data.name}, {len(lab.cells)} models, on {lab.device.type}.")
        stored, models = plan.stages - plan.lacking, len(plan.missing)
        print(f"  stored: {stored} of {plan.stages} results in {lab.store.folder}")
        print(f"  to compute: {plan.lacking} results of {models} models, {workers} at a time")
        _say(f"  expected: {expected}")
        if options.plan:
            return 0
        # The name of the results is taken before the work, not after it.
        run.note_source(profile, options.dataset)
        how = {"executor": cluster, "device": options.device, "deadline": options.deadline}
        outcome = work(lab, plan, workers=workers, report=_say, **how)
    run.keep_study(lab, options.dataset, part)
    for cell, error in outcome.failed:
        _complain(f"{cell} failed: {one_line(error)}")
    if outcome.stopped:
        print(STOPPED)
    if options.accept and outcome.failed:
        _complain("not accepted: some models failed")
    # Before what is committed is redrawn: it may be replaced.
    lines = compare_and_accept(own, committed, options.accept and not outcome.failed)
    whole = not (outcome.failed or outcome.stopped)
    late = _execute(chosen, options, profile.path, name) if whole and chosen is not None else []
    for line in late:
        _complain(line)
    print(*lines, f"Results: {own}", sep="\n")
    return 1 if outcome.failed or late else 0


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

    profile = load_profile(options.profile)
    lab = run.open_lab(profile, options.dataset, device=options.device)
    table, whole = sweeps.run_sweep(
        lab, workers=options.workers, deadline=options.deadline, report=_say
    )
    print(table.round(4).to_string(index=False))
    folder = run.note_source(profile, options.dataset)
    if not whole:
        print(STOPPED)
        if options.accept:
            raise UserError("not accepted: not all rates were tried")
        return 0
    with run.writing(folder):
        results.write_sweep(table, folder)
    if options.accept:
        folder = results.committed_folder(folder.name)
        results.write_sweep(table, folder)
    for line in results.disagreements(run.hyperparameters(profile), table):
        print(f"The sweep's choice for profile {profile.name}: {line}")
    print(f"Sweep: {folder / 'sweeps'}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Redraw tables and figures: of one study, this machine's and the committed one, or of all."""
    from unlearnkit.report import publish_all, read_study, stored

    if options.dataset and not options.profile:
        raise UserError("--dataset needs --profile: which study of that data set is meant?")
    try:
        folders = stored(options.profile, options.dataset) if options.profile else _committed()
    except UserError:
        from unlearnkit.data.sources import find
        from unlearnkit.study import load_profile

        own = load_profile(options.profile)["dataset"]
        find(options.dataset or own)  # there may be none because a name is wrong
        raise
    # Where two are drawn into one folder, this machine's own: it comes last.
    for study in {study.output: study for study in map(read_study, folders)}.values():
        _say(f"Drawing from {study.folder} ({study.stamp})")
        publish_all(study, lambda line: _say(f"  {line}"))
        print(f"Tables and figures: {study.output}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a study's finished models to a folder; name those that the store lacks."""
    from unlearnkit.study import load_profile, run
    from unlearnkit.study.export import export as write

    lab = run.open_lab(load_profile(options.profile), options.dataset, device="cpu")
    written, lacking = write(lab, Path(options.to))
    print(f"Exported: {written} models to {options.to}")
    if not lacking:
        return 0
    command = ["python", "-m", "unlearnkit", "compute", "--profile", options.profile]
    command += ["--dataset", options.dataset] if options.dataset else []
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    names = ", ".join(map(str, lacking[:5]))
    _complain(f"the store lacks {names}{more}; `{shlex.join(command)}` computes them")
    return 1


def audit(options: argparse.Namespace) -> int:
    """Measure a model made elsewhere, print its card, and write it."""
    from unlearnkit.api.audit import audit as measured

    how = {name: getattr(options, name) for name in ("against", "forget", "size", "attacked")}
    print(measured(options.model, options.dataset, Path(options.to), **how))
    print(f"Card: {Path(options.to) / 'audit.html'}")
    return 0


def readme(options: argparse.Namespace) -> int:
    """Fill the blocks of README.md and docs/ from the committed results of the largest study."""
    from unlearnkit.report.readme import refresh

    paths, study = refresh()
    print(*paths, f"filled from {study.folder} ({study.stamp})", sep="\n")
    return 0


def prune(options: argparse.Namespace) -> int:
    """List what the store holds and no known study needs; delete it if asked to."""
    from unlearnkit.study.prune import prune as free

    return free(delete=options.yes, report=_say)


def _complain(line: object) -> None:
    print(f"unlearnkit: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
