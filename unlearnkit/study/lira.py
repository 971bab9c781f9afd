"""What many models say of the images they forgot: unlearned ones, and ones that never saw them.

A profile's [lira] table names how many. They all have the first forget set, drawn by one seed, so
that each of its images has that many unlearned and that many retrained models. A model's own seed
draws its weights and batches. As many further retrained models stand for a perfect method.
"""

from unlearnkit.data import Split
from unlearnkit.errors import UserError
from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab
from unlearnkit.study.store import Stage


class Panel(Lab):
    """A lab whose models, seed after seed, all forget the images that `forget_seed` draws."""

    @property
    def cells(self) -> list[Cell]:
        """All models, originals first; those retrained once more have the seeds that follow."""
        forget, count = self.profile["forget"][0]["set"], self.profile["lira"]["models"]
        named = [("original", 0), *((name, 0) for name in self.profile["methods"])]
        return [
            Cell(architecture, forget, name, "all", first + seed)
            for architecture in self.profile["architectures"]
            for name, first in (*named, ("retrain", count))
            for seed in range(count)
        ]

    def _split(self, forget: str, seed: int) -> Split:
        return super()._split(forget, self.forget_seed)

    def stages(self, cell: Cell) -> list[Stage]:
        """Return the cell's stages in the order they can be done in."""
        found, split = super().stages(cell), self.split(cell.forget, cell.seed)
        on = {"model": found[0].key, "data": self.data.fingerprint, "split": split.hash}
        return [*found, Stage(cell, "margins", on)]


def panel_of(lab: Lab) -> Panel:
    """Return the panel of a study's lab; `UserError` if its profile has no [lira]."""
    profile = lab.profile
    if (told := profile.values.get("lira")) is None:
        raise UserError(f"profile {profile.name} has no [lira] table; see profile quick-lira's")
    how = {"device": lab.device, "forget_seed": told["forget_seed"]}
    return Panel(profile, lab.data, lab.store, **how)
