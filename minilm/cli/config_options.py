"""A configuration as options: each field by its name, its docstring, and its value in each preset."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from minilm.config import ModelConfig, TrainConfig
from minilm.config.presets import PRESETS


def overrides_of(
    cls: type[ModelConfig] | type[TrainConfig],
    alone: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    default: str = "",
) -> Any:
    """A dataclass of the same fields with the same help, each None until it is given.

    ``only`` these fields, if there are any. ``default``: what the help says that a field is where it is not
    given, by default what it is in each preset.
    """
    hints, helps = get_type_hints(cls), _field_help(cls)
    configs = {
        name: preset.model_config() if cls is ModelConfig else preset.train_config()
        for name, preset in PRESETS.items()
    }
    fields = []
    for each in dataclasses.fields(cls):
        if only and each.name not in only:
            continue
        aliases = (f"--{each.name.replace('_', '-')}",) if each.name in alone else None
        option = tyro.conf.arg(
            help=helps[each.name],
            help_behavior_hint=f"(default: {default})"
            if default
            else _defaults({name: getattr(config, each.name) for name, config in configs.items()}),
            metavar=_metavar(hints[each.name]),
            aliases=aliases,
        )
        hint: Any = _Switch if hints[each.name] is bool else hints[each.name] | None
        hint = Annotated[hint, option]
        fields.append((each.name, hint, field(default=None)))
    overrides = dataclasses.make_dataclass(f"{cls.__name__}Overrides", fields, frozen=True)
    overrides.__doc__ = f"Fields of {cls.__name__}."
    return overrides


def set_fields(overrides: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in vars(overrides).items() if value is not None}


# true and false in any case: tyro alone takes only Python's spelling.
_Switch = Annotated[
    bool | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{true,false}",
        instance_from_str=lambda values: _read_switch(values[0]),
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
    ),
]


def _read_switch(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(f"{word!r} is neither true nor false")
    return word.lower() == "true"


def _defaults(values: Mapping[str, Any]) -> str:
    """A field's value: (default: 0), or in each preset: (by preset: nano* 128, small 256)."""
    texts = {name: _value_text(value) for name, value in values.items()}
    families: dict[str, dict[str, str]] = {}
    for name, text in texts.items():
        families.setdefault(name.partition("-")[0], {})[name] = text
    parts = []
    for family, members in families.items():
        if len(members) > 1 and len(set(members.values())) == 1:
            parts.append(f"{family}* {next(iter(members.values()))}")
        else:
            parts += [f"{name} {text}" for name, text in members.items()]
    if len(set(texts.values())) == 1:
        text = next(iter(texts.values()))
        return f"(default: {text})" if text else ""
    return f"(by preset: {', '.join(parts)})"


def _value_text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _field_help(cls: type) -> dict[str, str]:
    """The docstring below each field, from the class's source."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        entry.target.id: " ".join(str(below.value.value).split())
        for entry, below in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(entry, ast.AnnAssign)
        and isinstance(entry.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _metavar(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "{" + ",".join(get_args(hint)) + "}"
    if hint is bool:
        return "{true,false}"
    return {int: "INT", str: "NAMES"}.get(hint, "FLOAT")
