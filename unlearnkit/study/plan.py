"""What a study still lacks: the stages to compute, and the jobs they make, in their order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from unlearnkit.results import Cell
from unlearnkit.study.profile import Profile
from unlearnkit.study.stages import Lab, Stage, original_of


def cells_of(profile: Profile) -> list[Cell]:
    """Return the cells of a profile, each once, originals first."""
    cells = []
    for architecture in profile["architectures"]:
        for number, entry in enumerate(profile["forget"]):
            for seed in entry["seeds"]:
                original = Cell(architecture, entry["set"], "original", "all", seed)
                parts = profile["checkpoints"] if number == 0 else []
                cells += [original, *(replace(original, progress=float(at)) for at in parts)]
                cells += [
                    replace(original, method=method, scope=scope)
                    for scope in entry["scopes"]
                    for method in entry.get("methods", profile["methods"])
                ]
    return sorted(dict.fromkeys(cells), key=lambda cell: cell.method != "original")


@dataclass(frozen=True)
class Job:
    """What one worker does at a time: a cell's stages, or the weights of an original and its parts.

    The second kind comes first where it is needed: all cells of the same networks wait for it.
    """

    cell: Cell
    weights_only: bool = False

    @property
    def needs(self) -> "Job | None":
        """The job to do before; Retrain's, too: it is attacked with the original's images."""
        return None if self.weights_only else training_of(self.cell)

    def __str__(self) -> str:
        cell = self.cell
        if self.weights_only:
            return f"{cell.architecture} seed {cell.seed} original, training"
        return str(cell)


def training_of(cell: Cell) -> Job:
    """Return the job that trains the original a cell starts from, and that original's parts."""
    return Job(replace(original_of(cell), forget=""), weights_only=True)


@dataclass(frozen=True)
class Plan:
    """What is stored and what is to be computed.

    Attributes
    ----------
    missing : dict of Cell -> list of Stage
        Only cells that lack something.
    jobs : list of Job
        Forget set by forget set and seed by seed, trainings of originals first: what is cut off is
        whole for some seeds of the first forget set, not in parts for all.
    stages : int
        Number of different stages, stored or not.
    """

    cells: list[Cell]
    missing: dict[Cell, list[Stage]]
    jobs: list[Job]
    stages: int

    @property
    def lacking(self) -> int:
        """Number of stages to compute."""
        return sum(map(len, self.missing.values()))

    def seconds(self, recorded: Mapping[str, Mapping[str, float]]) -> float | None:
        """Return the expected worker-seconds, or None where nothing like it was recorded.

        `recorded` maps a cell's name to the seconds of each of its stages (see `stage_label`).
        """
        similar = defaultdict(list)
        for name, walls in recorded.items():
            for label, seconds in walls.items():
                similar[name.split("_seed")[0], label].append(seconds)
        total = 0.0
        for cell, stages in self.missing.items():
            for label in (stage_label(stage.name, stage.spec) for stage in stages):
                like = similar[cell.name.split("_seed")[0], label]
                if not like:
                    return None
                total += recorded.get(cell.name, {}).get(label, sum(like) / len(like))
        return total


def stage_label(stage: str, spec: Mapping) -> str:
    """Return what a stage is called in results: its name, with the attack's or the measure's."""
    return f"{stage}/{spec['name']}" if "name" in spec else stage


def make_plan(lab: Lab, cells: Iterable[Cell]) -> Plan:
    """Look up which stages of `cells` the store holds; nothing is written."""
    cells, missing, jobs = list(cells), {}, {}
    lacks: dict[str, bool] = {}

    def look(stage: Stage) -> bool:
        if stage.key not in lacks:
            lacks[stage.key] = lab.done(stage, repair=False) is None
        return lacks[stage.key]

    for cell in cells:
        stages = {stage.key: stage for stage in lab.stages(cell) if stage.key not in lacks}
        lacking = [stage for stage in stages.values() if look(stage)]
        names = {stage.name for stage in lacking}
        if lacking:
            missing[cell] = lacking
            jobs[Job(cell)] = None
        if "original" in names or (
            names & {"unlearn", "transfer"} and look(lab.model_stage(original_of(cell)))
        ):
            jobs[training_of(cell)] = None
    ranks = {forget: rank for rank, forget in enumerate(dict.fromkeys(c.forget for c in cells))}

    def order(job: Job) -> tuple[int, int, bool]:
        return ranks.get(job.cell.forget, 0), job.cell.seed, not job.weights_only

    return Plan(cells, missing, sorted(jobs, key=order), len(lacks))
