"""Models of 2023 to 2026 whose config.json and number of elements are both public.

The numbers are `safetensors.total` of huggingface.co/api/models/NAME, or total_size and total_parameters of
the model.safetensors.index.json in the repository on GitHub that the entry names; "from" is the repository
on GitHub in which the config.json stands, of ChatGLM and EXAONE that which prints the parameters of the
loaded model. Of a config.json the fields are kept that change the tensors. An entry says what the number
has: the parameters alone, every element of the files (buffers and modules for multi-token prediction too), or
also the copy of a tied head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minilm.architectures import layout_of_class

PUBLISHED: dict[str, Any] = json.loads(
    Path(__file__).with_name("published.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_number_is_counted_to_the_last_digit(name: str) -> None:
    entry = PUBLISHED[name]
    layout = layout_of_class(entry["config"])
    assert layout is not None
    others = sum(layout.value(tensor) for tensor in (*layout.buffers, *layout.mtp))
    sizes = {tensor.name: layout.value(tensor) for tensor in layout.tensors}
    tied = sum(sizes[table] for _, table in layout.ties)
    numbers = {
        "parameters": layout.count(),
        "elements": layout.count() + others,
        "elements and the tied head": layout.count() + others + tied,
    }
    published = {key: value for key, value in entry.items() if key in numbers}
    assert published
    assert published.items() <= numbers.items()
