"""What is committed fits together: results under today's keys, artefacts drawn from results."""

import pytest
import torch

from unlearnkit.data import ImageData, load
from unlearnkit.files import project_folder
from unlearnkit.report import load_study, publish_all
from unlearnkit.report.figures import style
from unlearnkit.results import committed_folder, read
from unlearnkit.study.lab import Lab
from unlearnkit.study.profile import load_profile
from unlearnkit.study.store import Store

STUDIES = sorted(path.parent.name for path in (project_folder() / "results").glob("*/study.json"))
# CIFAR-10 is not in the repository: its labels and the fingerprint of its pixels are enough.
CIFAR10_TRAIN = "45fece5df98b7482f728652fbbdad0c1f84e01dcc75e7b1b0f3df5905f761b4e"


def is_stale(study: str, method: str, stage: str) -> bool:
    """Say whether a stage's meaning changed after these results were computed.

    What is listed here has to differ. BS: version 2 labels the very images it trains on. Noise:
    version 2 shows every image, not only those right when clean. Transfer: version 2 leaves out
    images that the perturbation puts right.
    """
    changed = method == "bs" or stage in ("robustness/noise", "transfer/pgd")
    return study == "cifar10" and changed


def data_of(name: str, study: dict) -> ImageData:
    """Return data with a committed study's labels and fingerprints."""
    if name == "quick":
        return load("digits", size=16)
    blank = torch.zeros(1, 3, study["image_size"], study["image_size"], dtype=torch.uint8)
    parts = []
    for name in ("train_images", "test_images"):
        labels = torch.arange(10).repeat_interleave(study["settings"][name] // 10)
        parts += [blank.expand(len(labels), -1, -1, -1), labels]
    data = ImageData(study["dataset"], tuple(study["classes"]), *parts, flip=True)
    vars(data).update(fingerprint=study["fingerprint"], train_fingerprint=CIFAR10_TRAIN)
    return data


@pytest.mark.parametrize("name", STUDIES)
def test_committed_results_lie_under_the_keys_of_todays_code(name, tmp_path):
    results = read(committed_folder(name))
    lab = Lab(load_profile(name), data_of(name, results.study), Store(tmp_path))
    wrong = [
        f"{record.cell.name} {stored['stage']}"
        for record in results.records
        for stage, stored in zip(lab.stages(record.cell), record.stages, strict=True)
        if (stage.key == stored["key"]) == is_stale(name, record.cell.method, stored["stage"])
    ]
    assert wrong == []
    assert len(results.records) == results.study["cells"]


@pytest.mark.parametrize("name", STUDIES)
def test_committed_tables_and_figures_are_drawn_from_the_committed_results(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("UNLEARNKIT_OUTPUT", str(tmp_path))
    # Pictures' bytes are the machine's: they need not be made.
    monkeypatch.setattr(style, "settle", lambda fig, *_: fig)
    monkeypatch.setattr(style.KitFigure, "picture", lambda *_: b"")
    study = load_study(name)
    assert publish_all(study)
    committed = project_folder() / "figures" / name
    drawn = {path.name: path for path in study.output.iterdir()}
    assert drawn.keys() == {path.name for path in committed.iterdir()}
    same = [name for name, path in drawn.items() if path.suffix not in (".png", ".pdf")]
    stale = [n for n in same if drawn[n].read_bytes() != (committed / n).read_bytes()]
    assert same and stale == []
