"""What lies in a store and is needed no more: shown first, freed when asked."""

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from unlearnkit.errors import UserError
from unlearnkit.files import default_folder
from unlearnkit.results import own_results
from unlearnkit.study.intervene import bench_of
from unlearnkit.study.lab import Lab
from unlearnkit.study.lira import panel_of
from unlearnkit.study.profile import load_profile
from unlearnkit.study.run import open_lab, source_of
from unlearnkit.study.store import STAGE_VERSIONS, Store
from unlearnkit.study.sweep import sweep_labs

FOLDERS = (*STAGE_VERSIONS, "unfinished", "locks", "splits", "data")
HOUR = 3600.0
OTHERS = {"intervention": bench_of, "lira": panel_of}  # labs of a profile's tables


def known_labs() -> list[Lab]:
    """Return a lab for each study ever begun with this machine's store.

    A `UserError` names one whose profile or data cannot be read.
    """
    labs = []
    for folder in sorted(path.parent for path in own_results("").glob("*/source.txt")):
        try:
            source = source_of(folder.name)
            profile = load_profile(source["profile"]).with_forget(source["forget"])
            place = "folder:" if Path(source["dataset"]).is_absolute() else ""
            labs.append(open_lab(profile, place + source["dataset"]))
        except UserError as error:
            what = f"what study {folder.name} needs cannot be told ({error})"
            raise UserError(f"{what}; if it is no longer wanted, delete {folder}") from None
    return labs


def unneeded(store: Store, labs: Iterable[Lab]) -> dict[Path, str]:
    """Return what no study of `labs` asks for, and what kills and damage left: path -> why."""
    keys = set()
    for lab in labs:
        sweeps = sweep_labs(lab) if "sweep" in lab.profile.values else ()
        others = [of(lab) for table, of in OTHERS.items() if table in lab.profile.values]
        for part in (lab, *sweeps, *others):
            keys.add(part.data.fingerprint)
            keys |= {part.split(cell.forget, cell.seed).hash[:20] for cell in part.cells}
            # A sweep's seed need not be one of the study's: its originals are no cells.
            made_of = dict.fromkeys([*part.cells, *(cell.original for cell in part.cells)])
            for stage in (stage for cell in made_of for stage in part.stages(cell)):
                keys |= {stage.key, stage.key_without("epochs_done")}
                keys |= {stage.key_without("model", "adversarial")}
    found = {}
    for path in sorted(path for name in FOLDERS for path in (store.folder / name).glob("*")):
        key = path.name.split(".")[0].rpartition("-")[2]
        if path.name.endswith(".damaged"):
            found[path] = "set aside as damaged"
        elif key not in keys and not path.name.startswith((".", "results-")):
            found[path] = "of no known study"
    for path in sorted(store.folder.glob("**/.*.*")):
        if time.time() - path.stat().st_mtime > HOUR:  # not one that is being written
            found[path] = "left by a write that was cut off"
    return found


def prune(*, delete: bool = False, report: Callable[[str], None] = print) -> int:
    """Tell what the store could do without, folder by folder, or `delete` it; return status 0."""
    folders: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for path, why in unneeded(Store(default_folder()), known_labs()).items():
        parts = [part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file()]
        folders[path.parent, why].append(sum(parts))
        if delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for (folder, why), sizes in folders.items():
        report(f"{sum(sizes) / 1e6:10.1f} MB  {len(sizes):5} in {folder}: {why}")
    total = sum(map(sum, folders.values())) / 1e6
    report(f"{total:10.1f} MB  {'freed' if delete else 'could be freed'}")
    return 0
