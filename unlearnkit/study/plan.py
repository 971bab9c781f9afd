"""What a study still lacks: the stages to compute, and the jobs they make, in their order."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab, Stage
from unlearnkit.study.profile import Profile


def cells_of(profile: Profile) -> list[Cell]:
    """Return the cells of a profile, each once, originals first."""
    cells = []
    for architecture in profile["architectures"]:
        for number, entry in enumerate(profile["forget"]):
            for seed in entry["seeds"]:
                place = (architecture, entry["set"])
                cells.append(Cell(*place, "original", "all", seed))
                if number == 0:
                    cells += [
                        Cell(*place, "original", "all", seed, float(at))
                        for at in profile["checkpoints"]
                    ]
                cells += [
                    Cell(*place, method, scope, seed)
                    for scope in entry["scopes"]
                    for method in entry.get("methods", profile["methods"])
                ]
    return sorted(dict.fromkeys(cells), key=lambda cell: cell.method != "original")


@dataclass(frozen=True)
class Job:
    """What one worker does at a time: a cell's stages, or only the weights of an original."""

    cell: Cell
    weights_only: bool = False

    def needs(self) -> "Job | None":
        """Return the job that has to be done before this one.

        Retrain does not start from the original, but is attacked with its adversarial images.
        """
        return None if self.weights_only else original_of(self.cell)


def original_of(cell: Cell) -> Job:
    """Return the job that trains the original a cell starts from."""
    return Job(Cell(cell.architecture, "", "original", "all", cell.seed), weights_only=True)


@dataclass
class Plan:
    """What is stored and what is to be computed.

    Attributes
    ----------
    missing : dict of Cell -> list of Stage
        Only cells that lack something.
    """

    cells: list[Cell]
    missing: dict[Cell, list[Stage]]
    stages: int

    @property
    def lacking(self) -> int:
        """Number of stages to compute."""
        return sum(map(len, self.missing.values()))

    def jobs(self) -> list[Job]:
        """Return the jobs, forget set by forget set and seed by seed, originals to train first.

        So what is cut off is whole for some seeds of the first forget set, not in parts for all.
        """
        first = {
            original_of(cell): None
            for cell, stages in self.missing.items()
            if any(stage.name in ("original", "unlearn", "transfer") for stage in stages)
        }
        finished = [c for c in self.cells if c.method == "original" and c.progress == 1]
        lacking = (c for c in finished if "original" in (s.name for s in self.missing.get(c, [])))
        for stored in {original_of(cell) for cell in finished} - {original_of(c) for c in lacking}:
            first.pop(stored, None)
        jobs = [*first, *(Job(cell) for cell in self.missing)]
        sets = list(dict.fromkeys(cell.forget for cell in self.cells))
        rank = {forget: number for number, forget in enumerate(sets)}

        def order(job: Job) -> tuple[int, int, bool]:
            return rank.get(job.cell.forget, 0), job.cell.seed, not job.weights_only

        return sorted(jobs, key=order)

    def seconds(self, recorded: dict[str, dict[str, float]]) -> float | None:
        """Return the expected worker-seconds, or None where nothing like it was recorded.

        `recorded` maps a cell's name to the seconds of each of its stages (see `stage_label`).
        """
        if not self.missing:
            return 0.0
        similar = defaultdict(list)
        for name, walls in recorded.items():
            for label, seconds in walls.items():
                similar[_kind(name), label].append(seconds)
        total = 0.0
        for cell, stages in self.missing.items():
            for stage in stages:
                label = stage_label(stage.name, stage.spec)
                known = recorded.get(cell.name, {}).get(label)
                like = similar.get((_kind(cell.name), label))
                if known is None and not like:
                    return None
                total += known if known is not None else sum(like) / len(like)
        return total


def _kind(cell_name: str) -> str:
    return cell_name.split("_seed")[0]


def stage_label(stage: str, spec: dict) -> str:
    """Return how durations name a stage: its name, for attacks with the attack's."""
    return f"{stage}/{spec['name']}" if "name" in spec else stage


def make_plan(lab: Lab, cells: Iterable[Cell]) -> Plan:
    """Look up which stages of `cells` the store holds."""
    cells, missing, stages = list(cells), {}, 0
    seen: set[str] = set()
    for cell in cells:
        lacking = []
        for stage in lab.stages(cell):
            if stage.key not in seen:
                stages += 1
                seen.add(stage.key)
                if lab.done(stage) is None:
                    lacking.append(stage)
        if lacking:
            missing[cell] = lacking
    return Plan(cells, missing, stages)
