"""The configuration: every setting with its type and default, read from TOML, overridden by flags."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from ..ir.errors import UsageError, did_you_mean
from .sizing import Sizing
from .space_rules import PARTS, Rule, choices, parse_rule
from .toml_text import toml_text


class Section(BaseModel):
    """A table of the configuration: frozen, and strict about names and types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _rule_text(value: Any) -> Any:
    """A rule as its one-line text, from text or from a table."""
    if isinstance(value, str):
        return str(parse_rule(value))
    if isinstance(value, Rule):
        return str(value)
    if isinstance(value, dict):
        return str(_rule_of(value))
    raise ValueError("expected a text such as 'linear: weights=[i4, i8]' or a table with `layers`")


def _rule_of(table: Mapping[str, Any]) -> Rule:
    known = ("layers", "each", "grouped", *PARTS)
    for key in table:
        if key not in known:
            raise UsageError(f"search.space has no key {key!r}", mend=did_you_mean(key, list(known)))
    if "layers" not in table:
        raise UsageError("a table of search.space needs `layers`", mend='Write layers = "linear" or a list of names.')
    for key in ("each", "grouped"):
        if not isinstance(table.get(key, False), bool):
            raise UsageError(f"search.space: {key} must be true or false; found {table[key]!r}")
    parts: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        if part in table:
            value = table[part]
            parts[part] = choices(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    named = table["layers"]
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"search.space: layers must be a name or a list of names; found {named!r}")
    return Rule(tuple(names), table.get("each", False), grouped=table.get("grouped", False), **parts)


def _bounds(value: tuple[float, float]) -> tuple[float, float]:
    """Bounds of widths between which there is something."""
    Sizing(*value)
    return value


Bounds = Annotated[tuple[float, float], AfterValidator(_bounds)]
RuleText = Annotated[str, BeforeValidator(_rule_text), PlainSerializer(str)]


class SearchSettings(Section):
    """What is searched, and how."""

    strategy: str = Field(default="tpe", description="who proposes candidates: an Optuna sampler by name")
    trials: int = Field(default=120, ge=1, description="candidates to pay for; repeated ones are free")
    objectives: tuple[str, ...] = Field(
        default=(), description="NAME, NAME:max or NAME:max:WEIGHT; none: quality and latency (or bit operations)"
    )
    constraints: tuple[str, ...] = Field(
        default=(), description="bounds such as latency<=2ms or accuracy>=baseline-1pt"
    )
    space: tuple[RuleText, ...] = Field(
        default=(), description="rules such as linear: weights=[i4, i8]; none: the default"
    )
    widths: bool | None = Field(
        default=None, description="offer widths and blocks in the default space; unset: where candidates are trained"
    )
    width_bounds: Bounds = Field(
        default=(0.25, 1.0), description="smallest and largest size of a width, as shares of its own"
    )
    width_steps: int = Field(default=4, ge=1, description="sizes offered to a width between its bounds")
    width_multiple: int | None = Field(
        default=None, ge=1, description="sizes of widths are multiples of this; unset: what suits the target"
    )
    tolerance: str | None = Field(
        default=None, description="quality the winner may lose: points (1pt) or a share (2%); unset: by the metric"
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of one-sided bounds on quality")
    seeds: bool = Field(
        default=True, description="try uniform bits and the least damaging mixtures before asking the strategy"
    )
    sensitivity_samples: int = Field(
        default=256, ge=0, description="samples on which each choice is tried alone before the search; 0: not"
    )
    forecast: bool = Field(
        default=False,
        description="forecast latency from the profiles of measured candidates, and do not measure those surely beaten",
    )
    only_faster: bool = Field(
        default=False, description="give layers whose integers take longer than float their real numbers back"
    )
    time_limit_s: float | None = Field(default=None, gt=0, description="stop proposing candidates after this time")
    storage: str | None = Field(default=None, description="Optuna storage URL; unset: a journal in the output folder")


class CalibrationSettings(Section):
    """How the steps of quantized values are found."""

    method: Literal["minmax", "average", "percentile", "mse", "entropy"] = Field(
        default="mse", description="how a range is chosen"
    )
    samples: int = Field(default=512, ge=1, description="samples looked at")
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="covered by the method `percentile`, in percent"
    )


class FineTuning(Section):
    """Training of candidates inside the search."""

    epochs: int = Field(default=0, ge=0, description="epochs per candidate, from the source weights; 0: none")
    generations: int = Field(
        default=0,
        ge=0,
        description="rounds of trained candidates after a search without training, each bred from the front so far",
    )
    cohort: int = Field(default=16, ge=1, description="candidates per generation; those of like structure train as one")
    generation_epochs: int = Field(default=5, ge=1, description="epochs per candidate of a generation")
    finalist_epochs: int = Field(
        default=3,
        ge=0,
        description="epochs for the few finalists after a search without training, where the model file names "
        "training data and settings; 0: none",
    )
    distillation: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="share of the distance to the source network's outputs in the loss; the rest is that on the labels",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="unset: a quarter of the model file's, or with generations the model file's"
    )
    batch_size: int | None = Field(default=None, ge=1, description="unset: the model file's")
    learn_steps: bool = Field(default=True, description="train the steps of quantized values along with the weights")


class MeasureSettings(Section):
    """How networks are measured on the target."""

    batch: int = Field(default=1, ge=1, description="samples per inference")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")
    budget_s: float = Field(default=2.0, gt=0, description="time for one measurement of latency, and of energy")
    meter: str = Field(
        default="auto",
        description="of energy: nvml, nvml:UUID, rapl, or estimate; auto: of the device that networks run on",
    )
    isolate: bool = Field(
        default=True, description="measure in a process of its own, which may crash or hang without harm"
    )
    limit_s: float | None = Field(
        default=None, gt=0, description="give a candidate up after so long; unset: two minutes beyond the budgets"
    )
    memory_limit_bytes: int | None = Field(
        default=None, ge=1 << 28, description="memory of that process; unset: four fifths of what is free"
    )


class Settings(Section):
    """All settings."""

    target: str = Field(default="auto", description="runtime and device, such as onnxruntime:cpu")
    seed: int = Field(default=0, ge=0, description="of all that is random")
    search: SearchSettings = Field(default_factory=SearchSettings)
    calibration: CalibrationSettings = Field(default_factory=CalibrationSettings)
    training: FineTuning = Field(default_factory=FineTuning)
    measure: MeasureSettings = Field(default_factory=MeasureSettings)


@dataclass(frozen=True)
class Row:
    """Where one setting comes from.

    Args:
        name: such as `search.trials`.
        default: nasc's own value.
        file: the configuration file's; None where it says nothing.
        flag: the command line's; None where it says nothing.
        effective: what counts.
    """

    name: str
    default: Any
    file: Any
    flag: Any
    effective: Any


@dataclass(frozen=True)
class Configuration:
    """The settings with their origins.

    Args:
        settings: what counts.
        path: the file that was read, if any.
        rows: one per setting.
    """

    settings: Settings
    path: Path | None
    rows: tuple[Row, ...]

    @property
    def text(self) -> str:
        """The settings as TOML, with what each is for: a file that says the same as all flags did."""
        return saved_text(self.settings)


def configuration(
    flags: Mapping[str, Any] | None = None, *, path: Path | None = None, folder: Path | None = None
) -> Configuration:
    """The settings: defaults, overridden by a file, overridden by flags.

    Args:
        flags: values by dotted names (`search.trials`); None means not given.
        path: a TOML file; in `pyproject.toml` the table `[tool.nasc]` counts.
        folder: where to look for a `pyproject.toml` with such a table if no file is named.

    Raises:
        UsageError: a missing or malformed file, an unknown key, a value of the wrong type or out of range.
    """
    found, path = _from_file(path, folder)
    given = _nested({name: value for name, value in (flags or {}).items() if value is not None})
    _check_keys(found, Settings, str(path), ())
    _check_keys(given, Settings, "flags", ())
    from_file = _validated(found, str(path))
    settings = _validated(_merged(found, given), "flags")
    defaults, effective = flat(Settings()), flat(settings)
    in_file, in_flags = set(_names(found)), set(_names(given))
    file_values = flat(from_file)
    rows = tuple(
        Row(
            name,
            default,
            file_values[name] if name in in_file else None,
            effective[name] if name in in_flags else None,
            effective[name],
        )
        for name, default in defaults.items()
    )
    return Configuration(settings, path, rows)


def _from_file(path: Path | None, folder: Path | None) -> tuple[dict[str, Any], Path | None]:
    if path is None:
        standard = (folder or Path.cwd()) / "pyproject.toml"
        if not standard.is_file():
            return {}, None
        found = _read(standard).get("tool", {}).get("nasc")
        return ({}, None) if found is None else (found, standard)
    data = _read(path)
    if path.name == "pyproject.toml":
        if "nasc" not in data.get("tool", {}):
            raise UsageError(f"{path} has no table [tool.nasc]", mend="Add one, or name a file of nasc's own.")
        return data["tool"]["nasc"], path
    return data, path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"the configuration {path} cannot be read: {error.strerror}", mend="Check the name behind --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        *tables, key = name.split(".")
        at = found
        for table in tables:
            at = at.setdefault(table, {})
        at[key] = value
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        found[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return found


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values in nested tables."""
    for key, value in values.items():
        if isinstance(value, dict) and prefix == "" and key in Settings.model_fields:
            yield from _names(value, f"{key}.")
        else:
            yield prefix + key


def _check_keys(values: Mapping[str, Any], section: type[BaseModel], where: str, at: tuple[str, ...]) -> None:
    known = section.model_fields
    for key, value in values.items():
        name = ".".join((*at, key))
        if key not in known:
            raise UsageError(f"{where}: there is no setting {name!r}", mend=did_you_mean(key, list(known)))
        kind = known[key].annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {name} is a table of settings; found {value!r}")
            _check_keys(value, kind, where, (*at, key))


def _validated(values: Mapping[str, Any], where: str) -> Settings:
    """The settings from nested plain data. JSON is where strict types still take lists for tuples."""
    try:
        return Settings.model_validate_json(json.dumps(values, default=_refuse), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("expected ")
        raise UsageError(
            f"{where}: {name} must be {problem}; found {first['input']!r}", mend=_described(first["loc"])
        ) from error


def _refuse(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise UsageError(f"a setting cannot be a {type(value).__name__}: {value}")


def _described(location: tuple[int | str, ...]) -> str | None:
    """What a setting is for."""
    section: type[BaseModel] = Settings
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None:
            return None
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            section = field.annotation
        else:
            return f"{'.'.join(map(str, location[:2]))} means: {field.description}." if field.description else None
    return None


def flat(settings: BaseModel, prefix: str = "") -> dict[str, Any]:
    """All settings by their dotted names."""
    found: dict[str, Any] = {}
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, BaseModel):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def saved_text(settings: Settings) -> str:
    """The settings as a TOML file that reads back as the same; what is unset stands as a comment."""
    return toml_text(settings)
