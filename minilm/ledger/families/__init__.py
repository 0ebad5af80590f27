"""One short declaration a family: a configuration in, the Layout of its real tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minilm.ledger.families import gpt2, llama
from minilm.ledger.layout import Layout

# `model_type` of a Hugging Face config.json -> its declaration.
HUGGING_FACE: dict[str, Callable[[Mapping[str, Any]], Layout]] = {
    "gpt2": gpt2.layout,
    "llama": llama.layout,
}
