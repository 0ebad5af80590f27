"""Reading the fields of a config.json: each is of its kind and in range, or a ConfigError."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.field_aliases import FIELD_ALIASES
from minilm.config.validation import LARGEST_DIMENSION, LARGEST_LAYER_COUNT
from minilm.errors import ConfigError

Config = Mapping[str, Any]
# Layers are one tensor for all; what has names of its own in each of them is fewer.
LARGEST_PART_COUNT = 1000


def size(config: Config, name: str, default: int | None = None) -> int:
    """A positive size; ``default`` where the field is absent, and required without one.

    Null stands for no size: transformers builds no model of it, but for what `size_or_null` reads.
    """
    value = config.get(name, default)
    if type(value) is not int or not 1 <= value <= LARGEST_DIMENSION:
        is_large = type(value) is int and value > 0
        expected = f"at most {LARGEST_DIMENSION:,}" if is_large else "a positive whole number"
        raise ConfigError(f"config.json: {name}", shortened(value), expected)
    return value


def optional_size(config: Config, name: str, default: int | None = None) -> int | None:
    """A size that null switches off; ``default`` where the field is absent."""
    if config.get(name, default) is None:
        return None
    return size(config, name, default)


def size_or_null(config: Config, name: str, default: int) -> int:
    """A positive size; ``default`` where the field is absent or null."""
    return size({name: default if config.get(name) is None else config[name]}, name)


def whole_number_or_null(config: Config, name: str, default: int) -> int:
    """A whole number that may be 0; ``default`` where the field is absent or null."""
    return whole_number(config, name, default) if config.get(name) is not None else default


def whole_number(config: Config, name: str, default: int) -> int:
    """A whole number that may be 0; ``default`` where the field is absent."""
    value = config.get(name, default)
    if type(value) is not int or not 0 <= value <= LARGEST_DIMENSION:
        raise ConfigError(f"config.json: {name}", shortened(value), "a whole number, 0 or more")
    return value


def layers(config: Config, name: str, default: int | None = None) -> int:
    """A number of layers: a size that is small enough to list."""
    value = size(config, name, default)
    if value > LARGEST_LAYER_COUNT:
        raise ConfigError(f"config.json: {name}", f"{value}", f"at most {LARGEST_LAYER_COUNT}")
    return value


def few(name: str, number: int) -> int:
    """``number`` of what the field counts, each with tensors of its own, which are listed."""
    if number > LARGEST_PART_COUNT:
        raise ConfigError(f"config.json: {name}", f"{number}", f"at most {LARGEST_PART_COUNT}")
    return number


def listed(
    config: Config, name: str, default: Sequence[Any], count: int | None = None
) -> list[Any]:
    """The first ``count`` things of a list; ``default`` where the field is absent."""
    value = config.get(name, default)
    least = 1 if count is None else count
    if not isinstance(value, (list, tuple)) or not least <= len(value) <= LARGEST_LAYER_COUNT:
        raise ConfigError(f"config.json: {name}", shortened(value), f"a list of {least} or more")
    return list(value[:count])


def sizes(config: Config, name: str, default: Sequence[int], count: int | None = None) -> list[int]:
    """A size for each stage."""
    return [size({name: each}, name) for each in listed(config, name, default, count)]


def depths(
    config: Config, name: str, default: Sequence[int], count: int | None = None
) -> list[int]:
    """A number of layers for each stage."""
    return [layers({name: each}, name) for each in listed(config, name, default, count)]


def sides(config: Config, name: str, default: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, of which a config may give one for both."""
    value = config.get(name, default)
    if not isinstance(value, (list, tuple)):
        value = (value, value)
    if len(value) != 2:
        raise ConfigError(f"config.json: {name}", shortened(value), "a height and a width")
    height, width = sizes({name: value}, name, ())
    return height, width


def flag(config: Config, name: str, default: bool) -> bool:
    """A boolean; ``default`` where the field is absent or null."""
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {name}", shortened(value), "true or false")
    return value


def optional_flag(config: Config, name: str, default: bool) -> bool:
    """A boolean that null switches off; ``default`` where the field is absent."""
    return config.get(name, default) is not None and flag(config, name, default)


def number(config: Config, name: str, default: float) -> float:
    """A finite number; ``default`` where the field is absent or null."""
    value = default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"config.json: {name}", shortened(value), "a number")
    return float(value)


def scaled_size(config: Config, name: str, default: float, width: float) -> int:
    """``width`` times the factor in the field, rounded down to a positive size."""
    factor = number(config, name, default)
    if not 1 <= factor * width <= LARGEST_DIMENSION:
        expected = f"a factor that makes a size of {width:g}"
        raise ConfigError(f"config.json: {name}", f"{factor}", expected)
    return int(factor * width)


def quotient(whole: int, divisor: int, of: str, name: str) -> int:
    """How often the size in the field ``name`` goes into that of the field ``of``: once at least."""
    return whole // within(divisor, whole, of, name)


def head_width(width: int, heads: int, name: str) -> int:
    """What each of ``heads`` has of the width in the field ``name``: a multiple of their number."""
    if width % heads:
        raise ConfigError(f"config.json: {name}", f"{width}", f"a multiple of {heads} heads")
    return width // heads


def within(part: int, whole: int, of: str, name: str) -> int:
    """The size ``part`` in the field ``name``, which is no larger than that of the field ``of``."""
    if part > whole:
        raise ConfigError(f"config.json: {name}", f"{part}", f"at most {whole}, the {of}")
    return part


def squares(picture: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """How many patches are in a picture: rows and columns."""
    names = ("image_size", "patch_size")
    return quotient(picture[0], patch[0], *names), quotient(picture[1], patch[1], *names)


def is_whole_number(text: str) -> bool:
    """Whether these are the digits of a whole number, few enough for Python to read them."""
    return text.isdecimal() and len(text) < 20


def is_version_4(config: Config) -> bool:
    """Whether transformers 4 wrote it."""
    return str(config.get("transformers_version")).startswith("4.")


def choice(config: Config, name: str, default: str, names: Collection[str]) -> str:
    """One of ``names``; ``default`` where the field is absent or null."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, str) or value not in names:
        raise ConfigError(f"config.json: {name}", shortened(value), f"one of {', '.join(names)}")
    return value


def require(config: Config, name: str, value: bool | int) -> None:
    """ConfigError unless the field is absent, null or ``value``: the only one that is followed."""
    if config.get(name) is not None and config[name] != value:
        raise ConfigError(
            f"config.json: {name}", shortened(config[name]).lower(), json.dumps(value)
        )


def field_name(config: Config, name: str, *others: str) -> str:
    """The field's name in this config: one of the others where it says something, else ``name``.

    Hugging Face gives some fields a second name and lets it win where a file has both.
    """
    return next((other for other in others if config.get(other) is not None), name)


def with_fields_of(config: Config, others: Mapping[str, str]) -> dict[str, Any]:
    """The config with every field that ``others`` name under the name that they give it; theirs wins."""
    known = {name: config[other] for other, name in others.items() if config.get(other) is not None}
    return {**config, **known}


def layer_numbers(config: Config, name: str, default: Collection[int] = ()) -> frozenset[int]:
    """The layers that a list names; ``default`` where the field is absent or null."""
    return frozenset(layer_list(config, name, default))


def layer_list(config: Config, name: str, default: Collection[int] = ()) -> Collection[int]:
    """The same as they are listed, where one may be twice."""
    listed = config.get(name)
    if listed is None:
        return default
    if not isinstance(listed, list) or any(type(number) is not int for number in listed):
        raise ConfigError(f"config.json: {name}", shortened(listed), "a list of layers")
    return listed


def with_canonical_names(config: Config, model_type: str = "") -> Config:
    """The config with the fields that it has under second names under those that declarations read.

    ``model_type`` is that of a config that says none.
    """
    aliases = FIELD_ALIASES.get(str(config.get("model_type") or model_type))
    return with_fields_of(config, aliases) if aliases else config


def sub_config(
    config: Config, name: str, model_type: str = "", *, bare: Config | None = None
) -> Config:
    """The object of a part, ``bare`` where it is absent or null; ``model_type`` where it says none."""
    fields = bare if config.get(name) is None else config[name]
    if fields is not None and not isinstance(fields, Mapping):
        raise ConfigError(f"config.json: {name}", type(fields).__name__, "an object")
    return with_canonical_names(fields or {}, model_type)
