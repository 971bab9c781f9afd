"""Profiles: every hyper-parameter of a study, read from TOML and checked before anything runs."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from timm import create_model, is_model
from torch import nn

from unlearnkit import methods, models
from unlearnkit.errors import UserError, unknown
from unlearnkit.files import plain_name, read_bytes
from unlearnkit.plugins import check_values, load_plugins
from unlearnkit.results import Cell
from unlearnkit.study.settings import Models, parse_settings
from unlearnkit.training.recipe import RECIPE_KINDS, Recipe, parse_recipe

FOLDER = Path(__file__).resolve().parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """A study's settings; `name` is that of the file without ending, and of the results' folder.

    `path` is from the root; `values` are the file's tables and those of what it extends.
    """

    name: str
    path: Path
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def model_options(self, architecture: str) -> dict[str, Any]:
        """Return the keyword arguments of `models.build` for `architecture`."""
        return dict(self["models"].get(architecture, {}))

    def recipe(self, architecture: str) -> dict[str, Any]:
        """Return the original's (and Retrain's) whole recipe."""
        return {**asdict(Recipe()), **_of(self["training"], architecture)}

    def hyperparameters(self, method: str, architecture: str) -> dict[str, Any]:
        """Return all of a method's hyper-parameters.

        Each is the one of the method's table for the architecture, else of the method's table,
        else of [unlearning] (for Retrain [training]), else the code's default. An architecture
        without a table has the one called `default`.
        """
        own = self["method"].get(method, {})
        for_all = {name: value for name, value in own.items() if not isinstance(value, dict)}
        shared = _of(self["training" if method == "retrain" else "unlearning"], architecture)
        defaults = {**asdict(Recipe()), **methods.METHODS[method].defaults}
        return {**defaults, **shared, **for_all, **_of(own, architecture)}

    def undefined(self, method: str, architecture: str) -> str:
        """Return why the method is undefined for the network, "" where it is defined."""
        check = methods.METHODS[method].check
        if check is None:
            return ""
        options = self.model_options(architecture)
        try:
            check(_skeleton(architecture, self["image_size"], **options))
        except UserError as error:
            return str(error)
        return ""

    def with_values(self, **values: Any) -> "Profile":
        """Return this profile with some of its tables replaced."""
        return replace(self, values={**self.values, **values})

    def with_forget(self, forget: str) -> "Profile":
        """Return this profile with another first forget set, which becomes part of its name."""
        first = self["forget"][0]["set"]
        if forget == first:
            return self
        entries = [{**e, "set": forget} if e["set"] == first else e for e in self["forget"]]
        name = f"{self.path.stem}+{plain_name(forget)}"
        return replace(self.with_values(forget=entries), name=name)


def cells_of(profile: Profile) -> list[Cell]:
    """Return the cells of a profile, each once, originals first; none of an undefined method."""
    cells = []
    for architecture in profile["architectures"]:
        for number, entry in enumerate(profile["forget"]):
            for seed in entry["seeds"]:
                original = Cell(architecture, entry["set"], "original", "all", seed)
                parts = profile["checkpoints"] if number == 0 else []
                cells += [original, *(replace(original, progress=float(at)) for at in parts)]
                cells += [
                    replace(original, method=method, scope=scope)
                    for scope in entry["scopes"]
                    for method in profile["methods"]
                    if method in entry.get("methods", [method])
                    and not profile.undefined(method, architecture)
                ]
    return sorted(dict.fromkeys(cells), key=lambda cell: cell.method != "original")


def _of(tables: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    own = tables.get(architecture, tables.get("default"))
    return own if isinstance(own, dict) else {}


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(name: str | Path) -> Profile:
    """Read and check a profile: one of `profile_names()`, or the path of a TOML file.

    With `extends = "NAME or path"` it takes over another profile: tables are merged key by key,
    lists replaced whole. Plug-ins, and the modules named under `modules`, are imported before the
    rest is checked. A `UserError` names what is not allowed: name, TOML, key, value or network.
    """
    load_plugins()
    path = _find(name, Path())
    try:
        if not re.fullmatch(r"\w[\w.+@ -]*", path.stem):
            raise UserError(f"rename {path}: its results' folder takes letters, digits, _.+@-")
        values = _read(path, ())
        shipped = FOLDER / path.name
        if shipped.is_file() and shipped.read_bytes() != path.read_bytes():
            raise UserError(f"rename {path}: its results would replace those of the package's")
        profile = Profile(path.stem, path.resolve(), parse_settings(values))
        for architecture in profile["architectures"]:
            options = profile.model_options(architecture)
            _skeleton(architecture, profile["image_size"], **options)
            _check_recipes(profile, architecture)
        _check_methods(profile)
        return profile
    except RecursionError:
        reason = "its tables or lists are nested too deeply"
    except UserError as error:
        reason = str(error)
    raise UserError(" ".join(f"profile {path.stem}: {reason}".split()))


def _find(name: str | Path, beside: Path) -> Path:
    path = FOLDER / f"{name}.toml"
    if str(name).endswith(".toml"):
        path = beside / os.path.expanduser(name)
    if not os.path.isfile(path):
        raise unknown("profile", name, [*profile_names(), "or the path of a .toml file"])
    return path


def _read(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Return the tables of a file, merged into those of the one it extends."""
    if path.resolve() in extending:
        raise UserError(f"{path} extends itself")
    content = read_bytes(path)
    try:
        values = tomllib.loads(content.decode())
        json.dumps(values, default=str)  # refuses numbers of too many digits
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"extends must be a profile's name or path, not {base!r}")
    return _merged(_read(_find(base, path.parent), (*extending, path.resolve())), values)


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {name: _merged(base.get(name), value) for name, value in over.items()}


@cache
def _skeleton(architecture: str, image_size: int, **options: Any) -> nn.Module:
    """Build the network without its memory: what cannot be built is refused before it is due."""
    if image_size == 0 and architecture not in Models.model_fields and is_model(architecture):
        # One of timm's, in a size of its own: that of the data, not loaded yet, may be another.
        with torch.device("meta"):
            return create_model(architecture)
    convolutions = options.get("convolutions")  # these set the patch size, where there are any
    size = image_size or (2**convolutions if convolutions else options.get("patch", 32))
    spread = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    with torch.device("meta"):
        return models.build(
            architecture, num_classes=10, image_size=size, seed=0, **spread, **options
        )


def _check_methods(profile: Profile) -> None:
    """Refuse a method that no network of the profile can have, or that lacks validation images."""
    for method in profile["methods"]:
        reasons = [profile.undefined(method, name) for name in profile["architectures"]]
        if all(reasons):
            raise UserError(reasons[0])
        if methods.METHODS[method].needs_validation and not profile["validation"]:
            raise UserError(f"method {method} needs validation images; set validation above 0")


def _check_recipes(profile: Profile, architecture: str) -> None:
    parse_recipe(profile.recipe(architecture), f"training.{architecture}")
    shared = _of(profile["unlearning"], architecture)
    check_values(shared, RECIPE_KINDS, f"unlearning.{architecture}")
    for method in dict.fromkeys([*profile["methods"], *profile["method"]]):
        values = profile.hyperparameters(method, architecture)
        methods.parse_hyperparameters(values, method, f"method.{method}.{architecture}")
