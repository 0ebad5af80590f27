"""Generation with a cache: the logits and tokens of the whole text computed anew, in every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.checkpoint import Loaded
from minilm.config import ModelConfig
from minilm.generation.fast_decoder import Decoder
from minilm.generation.generate import Generation, window_start
from minilm.generation.sampling import Sampling
from minilm.model.kv_cache import Cache
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.shapes import GATED, SHAPES, TINY, random_model

EVERY = {name: fields for name, (_, fields) in SHAPES.items()} | {
    "ngram": TINY | {"ngram": 3, "ngram_rows": 100},
    "convolution": TINY | {"convolution": 2},
    "fast": TINY | {"ngram": 4, "ngram_rows": 64, "convolution": 3, "sliding_window": 4},
    "learned-window": TINY | {"position": "learned", "sliding_window": 6, "num_kv_heads": 2},
    "qk-norm-layernorm": TINY | {"qk_norm": True, "feed_forward": "relu2"},
    "window-of-one": GATED | {"sliding_window": 1},
    "window-longer-than-context": TINY | {"sliding_window": 100},
}


@pytest.fixture(params=EVERY)
def loaded(request: Any) -> Loaded:
    return Loaded(random_model(ModelConfig(**EVERY[request.param])), ByteTokenizer())


def prompt(seed: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (length,), generator=generator).tolist()


def grown(loaded: Loaded, prompts: list[list[int]], steps: int, **options: Any) -> list[list[int]]:
    decoder, greedy = Decoder(loaded.model), Sampling(temperature=0)
    generation = Generation(decoder, loaded.tokenizer, prompts, greedy, **options)
    for _ in range(steps):
        generation.step()
    return generation.texts


@torch.no_grad()
def test_cached_logits_are_those_of_the_whole_text(loaded: Loaded) -> None:
    tokens = torch.tensor([prompt(1, 32), prompt(2, 32)])
    expected = loaded.model(tokens)
    assert expected.std() > 0.3
    decoder = Decoder(loaded.model)
    cache = decoder.cache(2, 32)
    for begin, end in [(0, 9), *((i, i + 1) for i in range(9, 32))]:
        logits = decoder(tokens[:, begin:end], cache)
        assert (logits - expected[:, end - 1]).abs().max() < 1e-5 * expected.abs().max()


def test_the_greedy_tokens_are_the_same_past_the_context(loaded: Loaded) -> None:
    texts = [prompt(3, 5)]
    cached = grown(loaded, texts, 80)
    assert cached == grown(loaded, texts, 80, cached=False)
    assert len(cached[0]) > 33 or cached[0] != texts[0]


def test_texts_of_unequal_length_are_those_made_alone(loaded: Loaded) -> None:
    texts = [prompt(4, 3), prompt(5, 17), prompt(6, 1), prompt(7, 50)]
    together = grown(loaded, texts, 40)
    assert together == [grown(loaded, [text], 40)[0] for text in texts]


def test_grouped_heads_are_kept_once_and_a_window_alone() -> None:
    config = ModelConfig(**GATED | {"num_kv_heads": 2, "sliding_window": 5})
    block = Cache(config, 3).blocks[0]
    assert block.key.shape == block.value.shape == (3, 2, 5, 8)


@pytest.mark.parametrize("context", [1, 2, 7, 32])
def test_the_window_is_never_longer_than_the_context_nor_shorter_than_half(context: int) -> None:
    for length in range(1, 200):
        kept = length - window_start(length, context)
        assert kept <= context
        assert kept == length if length <= context else kept > context - context // 2 - 1
    starts = [window_start(length, context) for length in range(1, 200)]
    assert starts == sorted(starts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "mistral", "pythia", "fast"])
def test_the_compiled_step_makes_the_same_tokens(name: str) -> None:
    loaded = Loaded(random_model(ModelConfig(**EVERY[name])), ByteTokenizer())
    texts = [prompt(4, 3), prompt(5, 17), prompt(6, 1)]
    decoder, greedy = Decoder(loaded.model, compiled=True), Sampling(temperature=0)
    generation = Generation(decoder, loaded.tokenizer, texts, greedy)
    for count in range(40):
        if count == 5:
            generation.stop(1)
        generation.step()
    expected = grown(loaded, texts, 40)
    for number in (0, 2):
        assert generation.texts[number] == expected[number]
    assert generation.texts[1] == expected[1][: len(generation.texts[1])]
