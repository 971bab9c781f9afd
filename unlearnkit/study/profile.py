"""Profiles: every hyper-parameter of a study, read from TOML and checked by name and kind."""

import inspect
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unlearnkit import methods
from unlearnkit.attacks import ATTACKS, attack_options
from unlearnkit.errors import UserError, unknown
from unlearnkit.files import plain_name
from unlearnkit.models import build
from unlearnkit.scopes import SCOPES
from unlearnkit.training import parse_recipe

FOLDER = Path(__file__).parent / "profiles"

# What each table of a profile may hold; `dict` entries are checked by their own rules below.
TOP = {
    "description": str,
    "dataset": str,
    "image_size": int,
    "train_images": int,
    "test_images": int,
    "validation": float,
    "architectures": list,
    "methods": list,
    "checkpoints": list,
    "forget": list,
    "models": dict,
    "training": dict,
    "unlearning": dict,
    "method": dict,
    "measure": dict,
    "attack": list,
    "report": dict,
}
# Tables a profile may leave out: rates to choose from, and folders that hold its data set.
OPTIONAL = {"sweep": dict, "stand_in": dict}
FORGET = {"set": str, "seeds": list, "scopes": list}
FORGET_OPTIONAL = {"methods": list}  # of the profile's methods; all of them if left out
SWEEP = {"seed": int, "forget_seed": int, "rates": dict}
MEASURE = {"batch_size": int, "mia_images": int, "fairness_images_per_class": int}
ATTACK = {
    "name": str,
    "epsilons": list,
    "test": int,
    "retain": int,
    "forget": int,
    "transfer": bool,
    "everywhere": bool,
    "options": dict,
}
# A model's options have to be stated: they are part of its key, as a default would not be.
MODEL_OPTIONS = {
    "resnet50": ("width", "stem_stride", "zero_init_last"),
    "small_vit": ("dim", "heads", "depth", "patch"),
}
REPORT = {"attack": str, "tolerance_points": float, "tolerance_ratio": float}


@dataclass(frozen=True)
class Profile:
    """A study's settings.

    Attributes
    ----------
    name : str
        File name without ending.
    path : Path
    values : dict
        The tables of the TOML file.
    """

    name: str
    path: Path
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def minutes(self) -> str:
        """First sentence of the description."""
        return self.values["description"].split(". ")[0]

    def model_options(self, architecture: str) -> dict[str, Any]:
        """Return the keyword arguments of `models.build` for `architecture`."""
        return dict(self.values["models"].get(architecture, {}))

    def recipe(self, architecture: str) -> dict[str, Any]:
        """Return the original's (and Retrain's) recipe for `architecture`."""
        return self._table("training", architecture)

    def hyperparameters(self, method: str, architecture: str) -> dict[str, Any]:
        """Return a method's hyper-parameters: the shared ones, the method's, the architecture's."""
        methods.get(method)
        base = "training" if method == "retrain" else "unlearning"
        values = self._table(base, architecture)
        own = self.values["method"].get(method, {})
        values.update({name: value for name, value in own.items() if not isinstance(value, dict)})
        values.update(own.get(architecture, {}))
        return values

    def with_values(self, **values: Any) -> "Profile":
        """Return this profile with some of its tables replaced."""
        return Profile(self.name, self.path, {**self.values, **values})

    def with_forget(self, forget: str) -> "Profile":
        """Return this profile with another forget set in the place of its first one, everywhere.

        The set becomes part of the name, and so of the folders of its results and figures.
        """
        first = self["forget"][0]["set"]
        if forget == first:
            return self
        entries = [
            {**entry, "set": forget} if entry["set"] == first else entry for entry in self["forget"]
        ]
        name = f"{self.path.stem}+{plain_name(forget)}"
        return Profile(name, self.path, {**self.values, "forget": entries})

    def _table(self, table: str, architecture: str) -> dict[str, Any]:
        known = self.values[table]
        if architecture not in known:
            raise UserError(
                f"profile {self.name} has no [{table}.{architecture}]; it has {', '.join(known)}; "
                f"copy {self.path.name}, add the table and name your file with --profile"
            )
        return dict(known[architecture])


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(name: str | Path) -> Profile:
    """Read and check a profile.

    Parameters
    ----------
    name : str or Path
        One of `profile_names()`, or the path of a TOML file.

    Raises
    ------
    UserError
        Unknown profile, broken TOML, or a key or value that is unknown, missing or of a wrong kind.
    """
    path = FOLDER / f"{name}.toml"
    if str(name).endswith(".toml"):
        path = Path(name).expanduser()
    if not path.is_file():
        raise unknown("profile", name, [*profile_names(), "or the path of a .toml file"])
    try:
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read profile {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    shipped = FOLDER / path.name
    if shipped.is_file() and shipped.read_bytes().decode() != text:
        raise UserError(
            f"{path} is called like the package's profile {path.stem}, whose results it would "
            "replace; rename the file"
        )
    profile = Profile(path.stem, path, values)
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    values, where = profile.values, f"profile {profile.name}"
    _check_table(values, TOP, where, OPTIONAL)
    _check_forget(values, where)
    _check_table(values["measure"], MEASURE, f"{where}, [measure]")
    _check_at_least(1, values["measure"], ("batch_size",), f"{where}, [measure]")
    counts = ("mia_images", "fairness_images_per_class")
    _check_at_least(0, values["measure"], counts, f"{where}, [measure]")
    _check_at_least(0, values, ("image_size", "train_images", "test_images"), where)
    _check_attacks(values, where)
    _check_names("method", _texts(values, "methods", where), methods.METHODS)
    _check_names("method", values["method"], methods.METHODS)
    if not all(type(c) in (int, float) and 0 <= c < 1 for c in values["checkpoints"]):
        raise UserError(f"{where}: checkpoints must be fractions of the training in [0, 1)")
    if not _texts(values, "architectures", where):
        raise UserError(f"{where}: architectures must name at least one")
    _check_tables(values, where)
    for architecture in values["architectures"]:
        parse_recipe(profile.recipe(architecture), f"{where}, [training.{architecture}]")
        for name in values["methods"]:
            methods.parse_hyperparameters(
                profile.hyperparameters(name, architecture),
                name,
                f"{where}, [method.{name}] with {architecture}",
            )
    _check_sweep(values, where)
    if not all(isinstance(title, str) for title in values.get("stand_in", {}).values()):
        raise UserError(f"{where}, [stand_in] must map names of folders to titles")


def _check_forget(values: Mapping[str, Any], where: str) -> None:
    chosen = _texts(values, "methods", where)
    for number, entry in enumerate(_dicts(values, "forget", where)):
        place = f"{where}, [[forget]] {number + 1}"
        _check_table(entry, FORGET, place, FORGET_OPTIONAL)
        _check_names("scope", _texts(entry, "scopes", place), SCOPES)
        if "methods" in entry:
            _check_names("method of this profile", _texts(entry, "methods", place), chosen)
        elif "all" not in entry["scopes"]:
            raise UserError(f"{place}: scopes must contain 'all'")
        if not entry["seeds"] or not all(type(seed) is int for seed in entry["seeds"]):
            raise UserError(f"{place}: seeds must be a list of whole numbers")
    if not values["forget"]:
        raise UserError(f"{where} needs at least one [[forget]] table")
    if "methods" in values["forget"][0]:
        raise UserError(f"{where}: the first [[forget]] table is for all methods; name none")


def _check_sweep(values: Mapping[str, Any], where: str) -> None:
    if "sweep" not in values:
        return
    place = f"{where}, [sweep]"
    _check_table(values["sweep"], SWEEP, place)
    _check_names(f"architecture of {place}", values["sweep"]["rates"], values["architectures"])
    for architecture, table in _dicts(values["sweep"], "rates", place).items():
        _check_names(f"method of {place}", table, values["methods"])
        for name, rates in table.items():
            fits = isinstance(rates, list) and all(type(r) is float and r > 0 for r in rates)
            if not (fits and rates):
                raise UserError(f"{place}: {architecture}.{name} must be a list of rates above 0")


def _check_attacks(values: Mapping[str, Any], where: str) -> None:
    chosen = {}
    for number, entry in enumerate(_dicts(values, "attack", where)):
        place = f"{where}, [[attack]] {number + 1}"
        _check_table(entry, ATTACK, place)
        _check_names("attack", [entry["name"]], ATTACKS)
        if entry["name"] in chosen:
            raise UserError(f"{place}: {entry['name']} is there already; give it all its epsilons")
        known = (type(e) in (int, float) and 0 < e <= 255 for e in entry["epsilons"])
        if not entry["epsilons"] or not all(known):
            raise UserError(f"{place}: epsilons must be numbers above 0, in 1/255 and at most 255")
        for epsilon in entry["epsilons"]:
            if entry["epsilons"].count(epsilon) > 1:
                raise UserError(f"{place}: epsilons hold {epsilon} twice; name each once")
        _check_at_least(0, entry, ("test", "retain", "forget"), place)
        _check_table(
            entry["options"],
            {name: type(value) for name, value in attack_options(entry["name"]).items()},
            f"{place}, options",
        )
        attack_options(entry["name"], entry["options"])
        chosen[entry["name"]] = entry["epsilons"]
    report = values["report"]
    _check_table(report, REPORT, f"{where}, [report]")
    _check_names("attack of [report]", [report["attack"]], chosen)
    if not (report["tolerance_points"] > 0 and report["tolerance_ratio"] > 0):
        raise UserError(f"{where}, [report]: tolerances must be above 0")


def _check_tables(values: Mapping[str, Any], where: str) -> None:
    """Check the tables inside [models], [training], [unlearning] and [method]."""
    for table in ("models", "training", "unlearning", "method"):
        for name in _dicts(values, table, where):
            if table != "method":
                continue
            own = values[table][name]
            inner = [key for key, value in own.items() if isinstance(value, dict)]
            known = dict.fromkeys([*values["architectures"], *values["training"]])
            _check_names(f"architecture of {where}, [method.{name}]", inner, known)
    accepted = inspect.signature(build).parameters.values()
    kinds = {a.name: a.annotation for a in accepted if a.default is not a.empty}
    for name, options in values["models"].items():
        own = {option: kinds[option] for option in MODEL_OPTIONS.get(name, ())}
        _check_table(options, own, f"{where}, [models.{name}]")
    for name in values["architectures"]:
        if name in MODEL_OPTIONS and name not in values["models"]:
            raise UserError(f"{where} lacks the table [models.{name}]")


def _check_table(
    table: Mapping[str, Any],
    kinds: Mapping[str, type],
    where: str,
    optional: Mapping[str, type] = MappingProxyType({}),
) -> None:
    known = {**kinds, **optional}
    for name, value in table.items():
        if name not in known:
            raise unknown(f"key of {where}", name, known)
        kind = known[name]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            raise UserError(f"{where}: {name} must be a {kind.__name__}, not {value!r}")
    missing = [name for name in kinds if name not in table]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")


def _check_names(kind: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _check_at_least(low: int, table: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        if table[name] < low:
            raise UserError(f"{where}: {name} must be at least {low}, not {table[name]}")


def _texts(table: Mapping[str, Any], name: str, where: str) -> list[str]:
    if not all(isinstance(entry, str) for entry in table[name]):
        raise UserError(f"{where}: {name} must be a list of names, not {table[name]!r}")
    return table[name]


def _dicts(table: Mapping[str, Any], name: str, where: str) -> Any:
    """Return the tables or the list of tables called `name`, once it is known to be one."""
    whole = table[name]
    parts = whole.values() if isinstance(whole, dict) else whole
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{where}: {name} must hold tables, not {whole!r}")
    return whole
