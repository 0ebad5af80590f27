"""Replays of a captured pass of one token give the logits of plain ones. On a GPU: tests/test_gpu.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.config import ModelConfig
from minilm.generation.fast_decoder import FastDecoder
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from tests.fake_graphs import FakeGraph, graphs  # noqa: F401

CONFIG = {"vocab_size": 40, "context_length": 12, "num_layers": 2, "d_model": 16, "num_heads": 4}


@pytest.mark.parametrize(
    "options",
    [
        {"num_kv_heads": 2},
        {"position": "learned", "convolution": 2},
        {"sliding_window": 4, "ngram": 3, "ngram_rows": 50},
    ],
    ids="-".join,
)
@torch.inference_mode()
def test_logits_of_replays(options: dict[str, Any], graphs: list[FakeGraph]) -> None:  # noqa: F811
    config = ModelConfig(**(CONFIG | options))
    model = Transformer(config, torch.Generator().manual_seed(1)).eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.3)
    decoder, texts = FastDecoder(model), torch.randint(0, 40, (2, 12))
    lengths = (2, 5)  # of unequal texts
    caches = [KVCache(config, 2, fixed_shapes=fixed) for fixed in (False, True)]
    for cache in caches:
        for row, length in enumerate(lengths):
            single = cache.row(row)
            decoder(texts[row : row + 1, :length], single)
            cache.lengths[row] = single.lengths[0]
    for step in range(6):
        tokens = torch.stack([texts[row, n + step] for row, n in enumerate(lengths)])[:, None]
        expected, logits = (decoder(tokens, cache) for cache in caches)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert [graph.replays for graph in graphs] == [5]
