"""A card of one model: what was measured of it, beside a retrained one, as a page and as data."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import snapshot_download
from torch import nn

from unlearnkit import api, cards
from unlearnkit.data.splits import stratified
from unlearnkit.errors import UserError, one_line
from unlearnkit.files import write_atomic
from unlearnkit.models import Classifier, load_folder

IMAGES = 2000  # at most so many test images and retained ones are looked at
EXCESS = ["fairness-gap", "relative gap", "accuracy (%)", api.DISTANCE]
READ = {
    "Numbers": "UA: 100 − accuracy on the forget set. RA, TA: accuracy on retained and on test "
    "images. MIA: the share of the forget set that an attacker takes for images never trained on. "
    "These four are best where they match a retrained model's. Excess: the model's − the other's; "
    "of the minimal distance, the median over images. A robust model has a high accuracy under "
    "attack and a large minimal distance, the smallest change of a pixel that FMN finds to make an "
    "image wrong (0 if it is wrong anyway): compare at like clean accuracy.",
    "Layers": "σ: the standard deviation of a class at the output of a normalisation layer. "
    "Fairness-gap: its largest − its smallest over the classes. Relative gap: that / their mean.",
    "Classes": "σ / mean σ: of each class, the mean over layers. Few images of a class are "
    "attacked: read these columns as hints.",
}


def find_model(name: str) -> nn.Module:
    """Return the model of a folder, of 'hf:owner/name' on the hub, or of 'module:function'.

    The function is called without arguments. Weights are read from safetensors alone, never from a
    pickle. `UserError` for what gives no model.
    """
    module, colon, function = name.partition(":")
    if module == "hf" and colon:
        wanted = ["config.json", "model.safetensors"]
        try:
            return load_folder(snapshot_download(function, allow_patterns=wanted))
        except UserError:
            raise
        except Exception as error:  # of the network, of the hub, of a name that is none
            why = f"cannot get {name} ({one_line(error)[:200]}); expected hf:owner/name"
            raise UserError(why) from error
    if not colon or Path(name).is_dir():
        return load_folder(name)
    try:
        model = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever a user's own function raises
        why = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise UserError(f"cannot make model {name} ({why}); expected module:function") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} returned a {type(model).__name__}; expected a torch.nn.Module")
    return model


def audit(
    name: str,
    dataset: str,
    folder: Path,
    *,
    against: str | None = None,
    forget: str | None = None,
    size: int | None = None,
    attacked: int = 100,
) -> str:
    """Measure a model, write its card to audit.html, .md and .json in `folder`; return the .md.

    `name` and `against`, a retrained model, are as for `find_model`, `dataset` as for `data.load`.
    `forget` is a text file with the positions, from 0, of the training images that were to be
    forgotten. `size` in pixels is that of the images; by default a folder's model says it, or else
    the data. `attacked` is how many test images are attacked.
    """
    named = {"model": name} | ({"against": against} if against else {})
    models = [find_model(each) for each in named.values()]
    known = models[0].image_size if isinstance(models[0], Classifier) else None
    data = api.load_data(dataset, size=size or known, test_images=IMAGES)
    split = api.split(data, _positions(forget)) if forget else None
    if split and len(split.retain) > IMAGES:
        labels = data.train_labels[split.retain]
        split = replace(split, retain=split.retain[stratified(labels, IMAGES, seed=0, purpose="")])
    found = [api.measure(model, data, split, attacked=attacked) for model in models]

    numbers = found[0].numbers.to_frame("model")
    layers, classes = found[0].layers, found[0].classes
    if against:
        numbers = api.compare(*found).set_axis(["model", "against", "excess"], axis=1)
        layers, classes = _beside(layers, found[1].layers), _beside(classes, found[1].classes)
    tables = {"Numbers": numbers.rename_axis("measure"), "Layers": layers.rename_axis("layer")}
    tables["Classes"] = classes.rename_axis("class")
    tables = {heading: frame.reset_index() for heading, frame in tables.items()}
    told = {**named, "data": f"{data.name}, {len(data.test_labels)} test images"}
    told["image size"] = f"{data.image_size} pixels"
    if split:
        told["forget"] = f"{forget}, {len(split.forget)} training images"
    facts = [f"{key}: {value}" for key, value in told.items()]
    card = f"Audit of {name}", facts, {of: (READ[of], frame) for of, frame in tables.items()}
    exact = {"double_precision": 15}
    texts = {of.lower(): frame.to_json(orient="records", **exact) for of, frame in tables.items()}
    texts["images"] = found[0].images.to_json(orient="index", **exact)
    values = {key: json.loads(text) for key, text in texts.items()}
    write_atomic(folder / "audit.html", cards.page(*card))
    write_atomic(folder / "audit.md", cards.markdown(*card))
    write_atomic(folder / "audit.json", json.dumps({**told, **values}, indent=1))
    return cards.markdown(*card)


def _beside(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return our columns, and the excess over theirs of those that matter most."""
    columns = [c for c in EXCESS if c in ours and c in theirs]
    return ours.join((ours[columns] - theirs[columns]).add_suffix(", excess"))


def _positions(path: str) -> np.ndarray:
    try:
        return np.loadtxt(path, dtype=np.int64, ndmin=1)
    except (OSError, ValueError) as error:
        wanted = "a text file with the position of one training image, from 0, in each line"
        raise UserError(f"cannot read {path} ({one_line(error)}); expected {wanted}") from None
