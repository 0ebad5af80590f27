"""A small model of every mapped type through llama.cpp's conversion is told by its own metadata."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

import minilm
from minilm.architectures.gguf_layout import GGUF_MODEL_TYPES
from minilm.architectures.model_types import MODEL_TYPES
from tests.architectures.gguf_conversions import Tensors, elements, is_buffer
from tests.architectures.gguf_types import CONVERSIONS
from tests.architectures.record_gguf import converted

gguf = pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
np = pytest.importorskip("numpy")

DRAWS = 4
ROOT = Path(__file__).parents[2]


def test_every_mapped_architecture_and_type_is_converted() -> None:
    assert {each.architecture for each in CONVERSIONS.values()} == GGUF_MODEL_TYPES.keys()
    mapped = {name for name, entry in MODEL_TYPES.items() if entry.gguf}
    assert mapped <= {each.model_type or name for name, each in CONVERSIONS.items()}
    assert GGUF_MODEL_TYPES.keys() <= set(gguf.MODEL_ARCH_NAMES.values())


def test_docs_say_which_are_counted_by_name() -> None:
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    *_, listed = page.partition("are counted by name:\n")
    groups = re.findall(r"^- .*: ((?:[^:]|\n )*)$", listed, re.MULTILINE)
    named = [name for group in groups for name in re.split(r",\s+", group.strip())]
    known = set(gguf.MODEL_ARCH_NAMES.values())
    if f"of the {len(known)} that" in page:  # those that the page is about
        assert sorted(named) == sorted(known - GGUF_MODEL_TYPES.keys())


def write(path: Path, architecture: str, keys: dict[str, Any], tensors: Tensors) -> Path:
    """By gguf's own writer."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in keys.items():
        getattr(writer, f"add_{name}")(value)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("model_type", CONVERSIONS)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_a_converted_model_is_proven_by_its_metadata(
    model_type: str, seed: int, tmp_path: Path
) -> None:
    conversion, keys, tensors = converted(model_type, seed)
    path = write(tmp_path / "x.gguf", conversion.architecture, keys, tensors)
    report = minilm.inspect(path)
    assert report.formula is not None
    assert report.mismatches == ()
    # ERNIE's correction is a parameter.
    buffers = report.parameters.buffers
    assert buffers in (0, elements({k: v for k, v in tensors.items() if is_buffer(k)}))
    assert report.parameters.total == report.witnesses.formula == elements(tensors) - buffers
    assert report.parameters.stored_elements == elements(tensors)


@pytest.mark.parametrize("model_type", CONVERSIONS)
def test_a_tensor_that_is_missing_or_of_another_size_is_told(
    model_type: str, tmp_path: Path
) -> None:
    conversion, keys, tensors = converted(model_type, 0)
    matrices = [name for name in tensors if "blk.1." in name and not is_buffer(name)]
    name = Random(model_type).choice([each for each in matrices if len(tensors[each]) > 1])
    without = {each: shape for each, shape in tensors.items() if each != name}
    report = minilm.inspect(write(tmp_path / "x.gguf", conversion.architecture, keys, without))
    shape = list(tensors[name])
    assert f"file: {name} {shape} is missing" in report.mismatches
    *rows, columns = tensors[name]
    report = minilm.inspect(
        write(
            tmp_path / "y.gguf",
            conversion.architecture,
            keys,
            tensors | {name: (*rows, columns + 1)},
        )
    )
    assert [each for each in report.mismatches if name in each]
    assert not report.verified
