"""What a profile may hold: its tables, the kind and range of each value."""

import importlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, WrapValidator
from pydantic import model_validator as validator
from timm import is_model

from unlearnkit.attacks import attack_options
from unlearnkit.errors import UserError, one_line, unknown
from unlearnkit.measures import MEASURES
from unlearnkit.methods import METHODS
from unlearnkit.names import SCOPES
from unlearnkit.plugins import Registry


def _as_written(value: Any, check: Any) -> Any:
    check(value)
    return value  # an int is not made a float: keys are made of what was written


def _each_once(values: list) -> list:
    if twice := [value for value in values if values.count(value) > 1]:
        raise UserError(f"{twice[0]} is there twice")
    return values


def _module(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a module of the user's own raises
        reason = f"{type(error).__name__}: {one_line(error)}"
        where = "it must lie in the working folder or on PYTHONPATH, and be free of errors"
        raise UserError(f"cannot import module {name!r} ({reason}); {where}") from None
    return name


def _known(registry: Registry) -> AfterValidator:
    return AfterValidator(lambda name: registry[name].name)


def _architecture(name: str) -> str:
    if name not in (*Models.model_fields, "default") and not is_model(name):
        raise unknown("architecture", name, [*Models.model_fields, "any timm model's name"])
    return name


Count = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, WrapValidator(_as_written)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Radius = Annotated[Number, Field(gt=0, le=255)]  # in 1/255
Method = Annotated[str, _known(METHODS)]
Architecture = Annotated[str, AfterValidator(_architecture)]
Some, Once = Field(min_length=1), AfterValidator(_each_once)
Rates = Annotated[list[Annotated[Number, Field(gt=0)]], Some, Once]
Recipes = dict[Architecture, dict[str, Any]]


class Table(BaseModel, strict=True, allow_inf_nan=False):
    """A table that holds what is declared and, as with `extra="forbid"`, nothing else."""

    @validator(mode="before")
    @classmethod
    def _known(cls, table: Any) -> Any:
        for name in table if isinstance(table, dict) else ():
            if name not in cls.model_fields:
                raise unknown("key", name, cls.model_fields)
        return table


class ResNet(Table):
    width: Number = Field(1.0, gt=0, le=16)
    stem_stride: int = Field(1, ge=1, le=64)
    zero_init_last: bool = False


class Transformer(Table):
    dim: int = Field(384, ge=1, le=8192)
    heads: int = Field(6, ge=1, le=8192)
    depth: int = Field(4, ge=1, le=128)
    patch: int = Field(4, ge=1, le=4096)
    convolutions: int | None = Field(None, ge=1, le=12)


class Models(Table):
    resnet50: ResNet = ResNet()
    small_vit: Transformer = Transformer()


class Forget(Table):
    set: str
    seeds: Annotated[list[Seed], Some, Once]
    scopes: Annotated[list[Literal[SCOPES]], Some, Once]
    methods: Annotated[list[Method], Some, Once] | None = None  # of the study's; all if None


class Sweep(Table):
    seeds: Annotated[list[Seed], Some, Once]
    forget_seed: Seed
    rates: Annotated[dict[Architecture, Annotated[dict[Method, Rates], Some]], Some]


class Intervention(Table):
    methods: Annotated[list[Method], Once]  # beside the original
    seeds: Annotated[list[Seed], Some, Once]
    factors: Rates
    weights: Rates  # beside 0
    epochs: int = Field(ge=1, le=10**5)
    images: int = Field(ge=1, le=10**9)


class Lira(Table):
    models: int = Field(ge=3, le=10**4)
    forget_seed: Seed


class Measure(Table):
    batch_size: int = Field(ge=1, le=10**6)
    mia_images: Count
    fairness_images_per_class: Count
    extra: Annotated[list[Annotated[str, _known(MEASURES)]], Once] | None = None


class Attack(Table):
    name: str
    epsilons: Annotated[list[Radius], Some, Once]
    test: Count
    retain: Count = 0
    forget: Count = 0
    transfer: bool = False
    everywhere: bool = False
    options: dict[str, Any] = {}

    @validator(mode="after")
    def _whole_options(self) -> "Attack":
        for name, value in self.options.items():
            if isinstance(value, int | float) and value > 10**6:
                raise UserError(f"options.{name} must be at most 10^6, not {value}")
        self.options = attack_options(self.name, self.options)
        return self


class Distance(Table):
    test: int = Field(0, ge=0, le=10**9)
    steps: int = Field(100, ge=1, le=10**5)


class Report(Table):
    attack: str
    tolerance_points: Number = Field(gt=0)
    tolerance_ratio: Number = Field(gt=0)


class Settings(Table):
    """A profile together with those it extends."""

    description: str
    # Fields are checked in order: what modules register can be named in those that follow.
    modules: Annotated[list[Annotated[str, AfterValidator(_module)]], Once] | None = None
    dataset: Annotated[str, Some]
    image_size: int = Field(ge=0, le=4096)
    train_images: Count
    test_images: Count
    validation: Share
    architectures: Annotated[list[Architecture], Some, Once]
    methods: Annotated[list[Method], Once]
    checkpoints: Annotated[list[Share], Once]
    forget: Annotated[list[Forget], Some]
    models: Models = Models()
    training: Recipes = {}
    unlearning: Recipes = {}
    method: dict[Method, dict[str, Any]] = {}
    sweep: Sweep | None = None
    intervention: Intervention | None = None
    lira: Lira | None = None
    stand_in: dict[str, str] | None = None
    measure: Measure
    attack: list[Attack]
    distance: Distance = Distance()
    report: Report

    @validator(mode="after")
    def _fits_together(self) -> "Settings":
        attacks = _each_once([entry.name for entry in self.attack])
        if self.report.attack not in attacks:
            raise unknown("attack of report", self.report.attack, attacks)
        if self.forget[0].methods:
            raise UserError("forget #1 is for all methods; name none")
        for number, entry in enumerate(self.forget, 1):
            if entry.methods is None and "all" not in entry.scopes:
                raise UserError(f"forget #{number}.scopes must contain 'all'")
        for tables in (self.training, self.unlearning, *self.method.values()):
            named = {name for name in tables if isinstance(tables[name], dict)}
            for name in sorted(named):
                _architecture(name)
            # `default` is for architectures without a table: where all have one, it has no use
            if named >= {"default", *self.architectures}:
                del tables["default"]
        return self


def parse_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with what has a default filled in; `UserError` names the first fault."""
    try:
        return Settings.model_validate(values).model_dump(exclude_none=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    place = ".".join(f"#{at + 1}" if isinstance(at, int) else at for at in fault["loc"])
    place = place.replace(".#", " #").removesuffix(".[key]")
    message = fault["msg"].removeprefix("Value error, ")
    if message.startswith("Input should"):
        message = f"{message.replace('Input should', 'must', 1)}, not {fault['input']!r}"
    raise UserError(f"{place}: {message}".removeprefix(": "))
