"""The machine that computes: which device it has, and what is told of it beside a result."""

import platform
import re
import subprocess
import time
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch

from unlearnkit import __version__
from unlearnkit.errors import UserError
from unlearnkit.files import project_folder

PACKAGES = ("torch", "torchvision", "timm", "torchattacks", "numpy", "scikit-learn")


def pick_device(name: str | None = None) -> torch.device:
    """Return the device to compute on: the one named, else a GPU if there is one, else the CPU."""
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = name or ("cuda" if seen else "cpu")
    kind, _, number = name.partition(":")
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d{0,2}))?", name, re.ASCII):
        raise UserError(f"unknown device {name!r}; known: cpu, cuda, cuda:0, ...")
    if kind == "cuda" and int(number or 0) >= seen:
        raise UserError(f"no device {name}: this machine's torch sees {seen or 'no'} GPU; use cpu")
    return torch.device(name)


def facts(device: torch.device) -> dict[str, Any]:
    """Return date (UTC, to the minute), commit, device and versions of what results depend on."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "device": f"{device.type}: {name or platform.machine()}",
        "versions": versions(),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the project's commit, marked if the package differs from it; else the version."""
    git = ["git", "-C", str(project_folder())]
    quiet = {"text": True, "stderr": subprocess.DEVNULL}
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], **quiet)
        changed = subprocess.call([*git, "diff", "--quiet", "HEAD", "--", "unlearnkit"])
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
    return head.strip() + (" (changed)" if changed else "")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on, those that are there."""
    found = {"unlearnkit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
