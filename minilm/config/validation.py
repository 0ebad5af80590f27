"""How a configuration is checked, and how it becomes JSON and comes back."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from minilm.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Configurations also come from files: no size in one may make us allocate or loop without end.
LARGEST_DIMENSION = 2**31
LARGEST_LAYER_COUNT = 10_000
LARGEST_MATRIX = 2**60  # elements: torch refuses a tensor whose bytes take 64 bits

Config = TypeVar("Config", bound="DataclassInstance")

# Old name -> new name of fields of TrainConfig. Runs, settings and options that have the old ones are read.
RENAMED = {
    "final_learning_rate": "final_lr_fraction",
    "save_seconds": "save_every_seconds",
    "keep_last": "keep_states",
    "l1": "l1_weight",
    "tensorboard": "log_to",
}
# The values of the old tensorboard.
LOG_TO = {True: "tensorboard", False: ""}


def to_dict(config: Any) -> dict[str, Any]:
    """Every field by name, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type[Config], values: Any, where: object) -> Config:
    """The inverse of `to_dict`. ``where`` names the file in the ConfigError of a value that is wrong."""
    if not isinstance(values, dict):
        raise ConfigError(where, f"{type(values).__name__}", "an object of configuration fields")
    values = with_current_names(values, where)
    check_names(cls, values, where)
    try:
        return cls(**values)
    except ConfigError as error:
        field = f"{where}: {error.where}"
        raise ConfigError(field, error.got, error.expected, error.remedy) from None


def check_names(cls: type[Config], names: Iterable[str], where: object) -> None:
    """Raise ConfigError for a name that is no field of ``cls``; it says which field is nearest."""
    known = [field.name for field in dataclasses.fields(cls)]
    for name in sorted(map(str, set(names) - set(known))):
        nearest = get_close_matches(name, known, n=1)
        remedy = f"perhaps {nearest[0]}" if nearest else ""
        raise ConfigError(where, f"unknown field {name!r}", f"a field of {cls.__name__}", remedy)


def with_current_names(values: Mapping[str, Any], where: object) -> dict[str, Any]:
    """``values`` with old names of fields replaced. Raises ConfigError for a field under both names."""
    current = {RENAMED.get(name, name): value for name, value in values.items()}
    if isinstance(values.get("tensorboard"), bool):
        current["log_to"] = LOG_TO[values["tensorboard"]]
    if len(current) < len(values):
        old = next(name for name in values if RENAMED.get(name) in values)
        raise ConfigError(where, f"both {old!r} and {RENAMED[old]!r}", "the new name alone")
    return current


def check_types(config: Any) -> None:
    cls: Any = type(config)
    for name, hint in _type_hints(cls).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                choices = ", ".join(get_args(hint))
                raise ConfigError(name, repr(value), f"one of {choices}")
            continue
        if value is None and type(None) in get_args(hint):
            continue
        if hint in (float, float | None):
            valid = type(value) is float or (type(value) is int and abs(value) <= 2**53)
            if valid:
                object.__setattr__(config, name, float(value))
        else:  # bool is an int to Python, but a count of True layers is a mistake
            valid = type(value) is hint
        if not valid:
            expected = (
                "a number" if hint in (float, float | None) else f"a value of type {hint.__name__}"
            )
            raise ConfigError(name, repr(value), expected)


_type_hints = functools.cache(get_type_hints)  # evaluating them takes milliseconds


def check_sizes(config: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if type(getattr(config, name)) is not int:
            raise ConfigError(name, repr(getattr(config, name)), "a whole number")
        check_range(config, name, 1, LARGEST_DIMENSION)


def check_range(
    config: Any,
    name: str,
    lower: float,
    upper: float,
    *,
    lower_open: bool = False,
    upper_open: bool = False,
) -> None:
    value = getattr(config, name)
    above = value > lower if lower_open else value >= lower
    below = value < upper if upper_open else value <= upper
    if not (above and below):  # written so that NaN fails
        low = f"{'above' if lower_open else 'at least'} {lower}"
        high = "" if upper == math.inf else f" and {'below' if upper_open else 'at most'} {upper}"
        finite = " and finite" if upper == math.inf and upper_open else ""
        raise ConfigError(name, f"{value}", f"{low}{high}{finite}")


def names_of(where: str, value: object) -> tuple[str, ...]:
    """The names that an argument lists. Raises ConfigError for one string, whose letters are no names."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ConfigError(where, repr(value), "a list of names")
    return tuple(value)
