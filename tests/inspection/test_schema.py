"""The JSON Schema of a report: what the inspector writes is valid, and what is not a report is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from safetensors.torch import save_file
from torch import nn, zeros

import minilm
from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources

SCHEMA = json.loads(
    resources.files("minilm.inspection").joinpath("report.schema.json").read_text("utf-8")
)
VALIDATOR = Draft202012Validator(SCHEMA)


def everything(run: Path) -> dict[str, Any]:
    """A report with all that can be asked for."""
    inspection, other = inspect_with_sources(run), inspect_with_sources(run)
    inspection = inspection.with_report(
        extras.with_fits(inspection, "1GB", context=None, batch=1),
    )
    inspection = inspection.with_report(extras.with_reconciliation(inspection, "14784"))
    inspection = inspection.with_report(extras.with_statistics(inspection, None))
    report = extras.with_difference(inspection, other, None)
    return as_json(report.to_json(tensors=True))


def as_json(value: Any) -> Any:
    """What a reader of the JSON gets: lists for tuples."""
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.fixture(scope="module")
def full(tiny_run: Path) -> dict[str, Any]:
    """A valid report, its lists cut short: it is copied and checked hundreds of times."""
    whole = everything(tiny_run)
    VALIDATOR.validate(whole)
    short: dict[str, Any] = shortened(whole)
    return short


def shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shortened(part) for key, part in value.items()}
    return [shortened(part) for part in value[:2]] if isinstance(value, list) else value


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every member of every object, into the first element of lists."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key)
            yield from places(part, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def violations(report: Any) -> list[str]:
    """What the schema does not allow, a line each."""
    return [f"{list(each.path)}: {each.message}" for each in VALIDATOR.iter_errors(report)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_reports_of_every_kind_are_valid(full: dict[str, Any], tmp_path: Path) -> None:
    assert violations(full) == []
    unknown = tmp_path / "model.safetensors"
    save_file({"a.b": zeros(2, 3), "scalar": zeros(())}, unknown)
    for target in ("gpt2", str(unknown), nn.LSTM(4, 2), nn.Identity()):
        for tensors in (False, True):
            report = as_json(minilm.inspect(target).to_json(tensors=tensors))
            assert violations(report) == []


def test_the_report_asked_for_has_every_part(full: dict[str, Any]) -> None:
    parts = ("fits", "reconciliation", "statistics", "difference", "formula", "tensors", "flops")
    assert all(full[part] for part in parts)


# What a report may be without.
OPTIONAL = [
    ("tensors",),
    ("memory", "training", "variants"),
    *(("memory", "activations", key) for key in ("formula", "symbols", "components", "measured")),
]
# Objects whose keys are names, which are as many as there are.
NAMED = [
    ("formula", "symbols"),
    ("memory", "training", "variants"),
    ("memory", "activations", "symbols"),
    ("memory", "activations", "components"),
    ("hyperparameters",),
]


def is_under(path: tuple[str | int, ...], prefix: tuple[str | int, ...]) -> bool:
    return len(path) > len(prefix) and path[: len(prefix)] == prefix


def test_a_report_without_any_one_of_its_members_is_refused(full: dict[str, Any]) -> None:
    required = [
        path
        for path in places(full)
        if path not in OPTIONAL and not any(is_under(path, named) for named in NAMED)
    ]
    assert len(required) > 120
    accepted = []
    for path in required:
        broken = copy.deepcopy(full)
        del at(broken, path[:-1])[path[-1]]
        if VALIDATOR.is_valid(broken):
            accepted.append(path)
    assert accepted == []


def test_a_member_of_a_wrong_type_is_refused(full: dict[str, Any]) -> None:
    accepted = []
    for path in places(full):
        if len(path) == 3 and path[0] == "hyperparameters":
            continue  # any value
        broken = copy.deepcopy(full)
        wrong: list[Any] = [[[0]]] + ["7"] * (
            type(at(full, path)) in (int, float, list, dict, bool)
        )
        for value in wrong:
            at(broken, path[:-1])[path[-1]] = value
            if VALIDATOR.is_valid(broken):
                accepted.append((path, value))
    assert accepted == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "minilm.report/2"),
        (("parameters", "total"), -1),
        (("parameters", "total"), 1.5),
        (("parameters", "total"), True),
        (("components", 0, "share"), 1.01),
        (("tied",), [["a"]]),
        (("tensors", 0, "shape"), [-1]),
        (("witnesses", "file"), "14784"),
        (("memory", "weights", "int4"), None),
    ],
)
def test_a_value_out_of_range_is_refused(
    full: dict[str, Any], path: tuple[str | int, ...], value: Any
) -> None:
    broken = copy.deepcopy(full)
    at(broken, path[:-1])[path[-1]] = value
    assert violations(broken) != []


def test_a_report_may_grow(full: dict[str, Any]) -> None:
    grown = copy.deepcopy(full)
    grown["parameters"]["new"] = grown["new"] = 1
    assert violations(grown) == []
