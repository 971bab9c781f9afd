"""What is measured of a model: each function returns the JSON value of one stage."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearnkit import attacks, fairness, metrics, models, privacy
from unlearnkit.results import Cell
from unlearnkit.seeding import derive, stream
from unlearnkit.study.store import key_of

if TYPE_CHECKING:
    from unlearnkit.study.lab import Lab


def image_counts(cell: Cell, entry: Mapping[str, Any]) -> dict[str, int]:
    """Return how many images of each set to attack; restricted models only on test images."""
    whole = cell.scope == "all" and cell.progress == 1
    return {
        "test": entry["test"],
        "retain": entry["retain"] if whole else 0,
        "forget": entry["forget"] if whole else 0,
    }


def attack_identity(name: str) -> dict[str, Any]:
    """Return what of an attack's registration changes its results."""
    chosen = attacks.get_attack(name)
    return {
        "name": name,
        "version": chosen.version,
        "norm": chosen.norm,
        "nested": chosen.nested,
    }


def quality(lab: "Lab", cell: Cell) -> dict[str, Any]:
    """Return UA, RA, TA, FA and MIA in %, and TA_forgotten where a class is forgotten."""
    model, data = lab.model(cell), lab.data
    split = lab.split(cell.forget, cell.seed)
    size = lab.profile["measure"]["batch_size"]

    def look(images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        logits = metrics.predictions(
            model, images[index.to(lab.device)], batch_size=size, device=lab.device
        )
        return logits, labels[index.to(lab.device)].cpu()

    retain = look(data.train_images, data.train_labels, split.retain)
    forget = look(data.train_images, data.train_labels, split.forget)
    test = look(data.test_images, data.test_labels, split.test)
    value = {"RA": _accuracy(*retain), "FA": _accuracy(*forget)}
    value["UA"] = 100 - value["FA"]
    if split.forgotten_class is not None:
        inside = test[1] == split.forgotten_class
        value["TA_forgotten"] = _accuracy(test[0][inside], test[1][inside])
        test = test[0][~inside], test[1][~inside]
    value["TA"] = _accuracy(*test)
    limit = lab.profile["measure"]["mia_images"] or None
    sides = [privacy.true_class_confidence(*side) for side in (retain, test, forget)]
    generator = stream(cell.seed, "membership")
    sides[:2] = [side[torch.randperm(len(side), generator=generator)[:limit]] for side in sides[:2]]
    value["MIA"] = privacy.mia_efficacy(*sides, seed=cell.seed)
    return value


def spread(lab: "Lab", cell: Cell) -> dict[str, Any]:
    """Return each reading of sigma [layers][classes] on the test images, and the layers' names."""
    model, measure = lab.model(cell), lab.profile["measure"]
    index = fairness.balanced(
        lab.data.test_labels,
        measure["fairness_images_per_class"] or None,
        lab.data.num_classes,
        derive(cell.seed, "fairness"),
    ).to(lab.device)
    sigma = fairness.class_sigma(
        model,
        lab.data.test_images[index],
        lab.data.test_labels[index],
        num_classes=lab.data.num_classes,
        batch_size=measure["batch_size"],
        device=lab.device,
    )
    value = {name: _rounded(table) for name, table in sigma.items()}
    value["layers"] = [layer.name for layer in models.norm_layers(model)]
    value["images_per_class"] = len(index) // lab.data.num_classes
    return value


def _attacked_images(
    lab: "Lab", cell: Cell, entry: Mapping[str, Any]
) -> tuple[dict[str, slice], Tensor, Tensor]:
    """Return the images [N, 3, H, W] and labels [N] to attack, and where each set lies in them.

    Test, retain and forget images, drawn by seed, go through the attack together.
    """
    split, data = lab.split(cell.forget, cell.seed), lab.data
    test = split.test
    if split.forgotten_class is not None:
        test = test[(data.test_labels[test.to(lab.device)] != split.forgotten_class).cpu()]
    sources = {
        "test": (data.test_images, data.test_labels, test),
        "retain": (data.train_images, data.train_labels, split.retain),
        "forget": (data.train_images, data.train_labels, split.forget),
    }
    where, images, labels, start = {}, [], [], 0
    for name, count in image_counts(cell, entry).items():
        all_images, all_labels, index = sources[name]
        order = torch.randperm(len(index), generator=stream(cell.seed, "attacked", name))
        chosen = index[order[:count]].sort().values.to(lab.device)
        images.append(all_images[chosen])
        labels.append(all_labels[chosen])
        if len(chosen):
            where[name] = slice(start, start + len(chosen))
        start += len(chosen)
    return where, torch.cat(images), torch.cat(labels)


def _attack_arguments(lab: "Lab", cell: Cell, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attack": entry["name"],
        "epsilons": [e / 255 for e in sorted(entry["epsilons"])],
        "params": attacks.attack_params(entry["name"], entry["options"]),
        "num_classes": lab.data.num_classes,
        "batch_size": lab.profile["measure"]["batch_size"],
        "seed": derive(cell.seed, "attack"),
        "device": lab.device,
    }


def robustness(lab: "Lab", cell: Cell, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an attack on the cell's own model leaves right, as `_value` counts it."""
    where, images, labels = _attacked_images(lab, cell, entry)
    arguments = _attack_arguments(lab, cell, entry)
    arguments["epsilons"] = [0.0, *arguments["epsilons"]]
    right = attacks.robust_curve(lab.model(cell), images, labels, **arguments)
    return _value(lab, entry, where, right, labels)


def transfer(lab: "Lab", cell: Cell, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what images made on the original leave right on the cell's model."""
    where, images, labels = _attacked_images(lab, cell, entry)
    model, size = lab.model(cell), lab.profile["measure"]["batch_size"]
    right = [
        attacks.score_images(model, shown, labels, batch_size=size, device=lab.device)
        for shown in (images, *_adversarial(lab, cell, entry, images, labels))
    ]
    return _value(lab, entry, where, torch.stack(right), labels)


def _adversarial(
    lab: "Lab", cell: Cell, entry: Mapping[str, Any], images: Tensor, labels: Tensor
) -> Tensor:
    """Return images [E, N, 3, H, W] made on the original, stored for the next cell."""
    source = replace(cell, method="original", scope="all", progress=1.0)
    arguments = _attack_arguments(lab, cell, entry)
    spec = {name: value for name, value in arguments.items() if name != "device"}
    spec |= {
        "source": lab.model_stage(source).key,
        "data": lab.data.fingerprint,
        **attack_identity(entry["name"]),
        "split": lab.split(cell.forget, cell.seed).hash,
        "images": image_counts(cell, entry),
    }
    key = key_of("adversarial", spec)
    stored = lab.store.get_tensors("adversarial", key)
    if stored is None:
        made = attacks.transfer_images(lab.model(source), images, labels, **arguments)
        stored = {"images": made}
        lab.store.put_tensors("adversarial", key, stored)
    return stored["images"]


def _value(
    lab: "Lab", entry: Mapping[str, Any], where: dict[str, slice], right: Tensor, labels: Tensor
) -> dict[str, Any]:
    """Return how many images of each class and set are right at each epsilon, the clean first."""
    one_hot = torch.nn.functional.one_hot(labels.cpu(), lab.data.num_classes)
    sets = {
        name: {
            "n": one_hot[part].sum(0).tolist(),
            "right": (right[:, part].long() @ one_hot[part]).tolist(),
        }
        for name, part in where.items()
    }
    return {"epsilons": [0.0, *sorted(map(float, entry["epsilons"]))], "sets": sets}


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return metrics.accuracy(logits.argmax(1) == labels)


def _rounded(table: Tensor) -> list[list[float]]:
    """Return a table with six significant digits: more than float32 activations carry."""
    return [[float(f"{value:.6g}") for value in row] for row in table.tolist()]
