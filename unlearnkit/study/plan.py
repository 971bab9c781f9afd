"""What a study still lacks: the stages to compute, and the jobs they make, in their order."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab
from unlearnkit.study.profile import cells_of as cells_of
from unlearnkit.study.store import Stage


def training_of(cell: Cell) -> Cell | None:
    """Return the job to do before a cell: to train its original, Retrain's too; None of its own."""
    return replace(cell.original, forget="") if cell.forget else None


@dataclass(frozen=True)
class Plan:
    """What is to be computed: `missing` are the cells that lack stages, `stages` counts all.

    `jobs` come forget set by forget set, seed by seed, trainings first (see `training_of`): what is
    cut off is whole for some seeds of the first forget set.
    """

    missing: dict[Cell, list[Stage]]
    jobs: list[Cell]
    stages: int

    @property
    def lacking(self) -> int:
        """Number of stages to compute."""
        return sum(map(len, self.missing.values()))

    def seconds(self, recorded: Mapping[str, Mapping[str, float]]) -> float | None:
        """Return the expected worker-seconds from `recorded_walls`; None if nothing is like it."""
        similar = defaultdict(list)
        for name, walls in recorded.items():
            for label, seconds in walls.items():
                similar[name.split("_seed")[0], label].append(seconds)
        total = 0.0
        for cell, stages in self.missing.items():
            for label in (stage.label for stage in stages):
                like = similar[cell.name.split("_seed")[0], label]
                if not like:
                    return None
                total += recorded.get(cell.name, {}).get(label, sum(like) / len(like))
        return total


def make_plan(lab: Lab) -> Plan:
    """Look up which stages of a lab's cells the store holds; nothing is written."""
    missing, jobs, lacks = {}, {}, {}

    def look(stage: Stage) -> bool:
        if stage.key not in lacks:
            lacks[stage.key] = lab.done(stage, repair=False) is None
        return lacks[stage.key]

    for cell in lab.cells:
        new = [stage for stage in lab.stages(cell) if stage.key not in lacks]
        lacking = [stage for stage in new if look(stage)]
        names = {stage.name for stage in lacking}
        if lacking:
            missing[cell] = lacking
            jobs[cell] = None
        needs = any(stage.spec.keys() & {"original", "source", "start"} for stage in lacking)
        if needs and look(lab.model_stage(cell.original)):
            names.add("original")
        if "original" in names:
            jobs[training_of(cell)] = None
    ranks = {forget: rank for rank, forget in enumerate(dict.fromkeys(c.forget for c in lab.cells))}
    ordered = sorted(jobs, key=lambda job: (ranks.get(job.forget, 0), job.seed, job.forget != ""))
    return Plan(missing, ordered, len(lacks))
