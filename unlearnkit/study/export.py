"""A study's finished models as folders that timm and the Hugging Face hub know."""

import math
from collections import defaultdict
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from unlearnkit.attacks import ATTACKS
from unlearnkit.cards import table
from unlearnkit.fairness import fairness_gap
from unlearnkit.files import write_atomic
from unlearnkit.measures import MEASURES
from unlearnkit.methods import METHODS
from unlearnkit.models import OWN, save_folder
from unlearnkit.names import GAP_METRICS
from unlearnkit.results import Cell
from unlearnkit.study.lab import Lab
from unlearnkit.study.run import ARCHITECTURES

CARD = """---
library_name: timm
pipeline_tag: image-classification
tags:
- timm
- image-classification
- machine-unlearning
---

# {name}

A {architecture} trained on {data}{unlearned}. Made by unlearnkit, profile `{profile}`.

| what | this model's |
| :--- | :--- |
| data set | {data}, fingerprint `{fingerprint}` |
| classes | {classes} |
| architecture | `{cell.architecture}` |
| method | `{cell.method}` |
| forget set | {forget} |
| scope | `{cell.scope}` |
| seed | {cell.seed} |
| key of the weights | `{key}` |

## Measured

UA: 100 − accuracy on the forget set. RA, TA: accuracy on the other training images, and on test
images. MIA: how much of the forget set an attacker takes for images that were not trained on. The
values to match are those of Retrain. Fairness-gap: of σ, the mean over the normalisation layers. ε
is the strength of the attack, in 1/255 of a pixel's range; at 0 the same images are clean. Minimal
distance: the smallest change of a pixel's range that makes an image wrong, as FMN finds it.

{table}

## Load

```python
import timm
{also}
model = timm.create_model("local-dir:{name}", pretrained=True)
```

It takes images in [0, 1] that are normalised by the mean and std of `config.json`. The model that
unlearnkit measures, with the normalisation inside, is `unlearnkit.models.load_folder("{name}")`.
"""


def export(lab: Lab, folder: Path) -> tuple[int, list[Cell]]:
    """Write each finished model of the store to `folder`/<cell's name>; nothing is computed.

    A folder is that of `models.save_folder`, with a model card. An original is written once for all
    forget sets. Returned are how many were written, and the cells whose models the store lacks.
    """
    made, lacking = defaultdict(list), []
    for cell in (cell for cell in lab.cells if cell.progress == 1):
        made[lab.model_stage(cell).key].append(cell)
    for cells in made.values():
        cell, stage = cells[0], lab.model_stage(cells[0])
        known = lab.done(stage, repair=False)
        weights = lab.store.get_tensors(stage.name, stage.key) if known else None
        if weights is None:
            lacking.append(cell)
            continue
        model, place = lab.fresh_model(cell.architecture, cell.seed), folder / cell.name
        model.load_state_dict(weights)
        save_folder(model, place, image_size=lab.data.image_size, classes=lab.data.classes)
        write_atomic(place / "README.md", model_card(lab, cells))
    return len(made) - len(lacking), lacking


def model_card(lab: Lab, cells: list[Cell]) -> str:
    """Return the card of one model, with what was measured of it for each of its `cells`."""
    cell = cells[0]
    asked = f"`{cell.forget}`, {len(lab.split(cell.forget, cell.seed).forget)} images"
    if original := cell.method == "original":
        asked = "none: it is what unlearning starts from"
    values = {f"forget set `{each.forget}`": _measured(lab, each) for each in cells}
    measured = pd.DataFrame({name: pd.Series(row) for name, row in values.items()})
    return CARD.format(
        name=cell.name,
        cell=cell,
        architecture=ARCHITECTURES.get(cell.architecture, cell.architecture),
        unlearned="" if original else f", then made to forget by {METHODS[cell.method].title}",
        forget=asked,
        data=lab.data.name,
        fingerprint=lab.data.fingerprint[:20],
        classes=lab.data.num_classes,
        profile=lab.profile.name,
        key=lab.model_stage(cell).key,
        table=table(measured.rename_axis("measure").reset_index()),
        also="import unlearnkit.models  # tells timm of this network\n"
        * (cell.architecture in OWN),
    )


def _measured(lab: Lab, cell: Cell) -> dict[str, float]:
    """Return what the store holds of a cell's measurements: name -> value."""
    row = {}
    for stage in lab.stages(cell)[1:]:
        if (entry := lab.done(stage, repair=False)) is None:
            continue
        value = entry.value
        match stage.name:
            case "quality":
                row |= {f"{name} (%)": value[name] for name in GAP_METRICS}
            case "fairness":
                row["mean fairness-gap"] = fairness_gap(torch.tensor(value["std"])).mean().item()
            case "measure":
                row[MEASURES[value["name"]].title] = value["value"]
            case "distance":
                sizes = [math.inf if size is None else size for size in value["distances"]]
                row["median minimal distance (1/255)"] = median(sizes)
            case "robustness" if "test" in value["sets"]:
                title, counts = ATTACKS[stage.spec["name"]].title, value["sets"]["test"]
                for epsilon, right in zip(value["epsilons"], counts["right"], strict=True):
                    share = 100 * sum(right) / sum(counts["n"])
                    row[f"accuracy under {title}, ε = {epsilon:g} (%)"] = share
    return row
