"""The cells of a study: which models a profile asks for."""

from dataclasses import dataclass
from urllib.parse import quote

from unlearnkit.profile import Profile


@dataclass(frozen=True, order=True)
class Cell:
    """One model of the study: everything that tells it from the others.

    `progress` is 1.0 for a finished model and less for a checkpoint along the original's training.
    """

    architecture: str
    forget: str
    method: str
    scope: str
    seed: int
    progress: float = 1.0

    @property
    def name(self) -> str:
        """A file name, e.g. 'resnet50_random-0.1_cf_all_seed0'."""
        at = "" if self.progress == 1 else f"_at{self.progress:g}"
        kind, _, value = self.forget.partition(":")
        words = (self.architecture, kind, value, self.method, self.scope)
        # Names of classes, models and methods may hold anything, slashes included.
        architecture, kind, value, method, scope = (quote(word, safe="") for word in words)
        return f"{architecture}_{kind}-{value}_{method}_{scope}_seed{self.seed}{at}"

    def __str__(self) -> str:
        at = "" if self.progress == 1 else f" at {100 * self.progress:.0f} %"
        scope = "" if self.scope == "all" else f" {self.scope}"
        return f"{self.architecture} {self.forget} seed {self.seed} {self.method}{scope}{at}"


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
