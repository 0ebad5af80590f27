"""Generation with a cache: logits and tokens of a pass over the whole text, in every architecture."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from minilm.checkpoint import Loaded
from minilm.config import ModelConfig
from minilm.generation.decoder import ModelDecoder
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation, window_start
from minilm.generation.sampling import Sampling
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.shapes import random_model
from tests.model.architectures import ARCHITECTURES


@pytest.fixture(params=ARCHITECTURES)
def loaded(request: Any) -> Loaded:
    return Loaded(random_model(ModelConfig(**ARCHITECTURES[request.param])), ByteTokenizer())


def prompt(seed: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (length,), generator=generator).tolist()


@pytest.fixture(params=[FastDecoder, ModelDecoder])
def decoder_type(request: Any) -> Any:
    return request.param


def generated(
    loaded: Loaded, prompts: list[list[int]], steps: int, decoder_type: Any, **options: Any
) -> list[list[int]]:
    decoder, greedy = decoder_type(loaded.model), Sampling(temperature=0)
    generation = Generation(decoder, loaded.tokenizer, prompts, greedy, **options)
    for _ in range(steps):
        generation.step()
    return generation.sequences


@torch.no_grad()
def test_cached_logits_are_those_of_the_whole_text(loaded: Loaded) -> None:
    tokens = torch.tensor([prompt(1, 32), prompt(2, 32)])
    expected = loaded.model(tokens)
    assert expected.std() > 0.3
    decoder = FastDecoder(loaded.model)
    cache = decoder.new_cache(2, 32)
    for begin, end in [(0, 9), *((i, i + 1) for i in range(9, 32))]:
        logits = decoder(tokens[:, begin:end], cache)
        assert (logits - expected[:, end - 1]).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_prompt_may_be_read_in_parts(loaded: Loaded) -> None:
    tokens = torch.tensor([prompt(1, 32), prompt(2, 32)])
    expected = loaded.model(tokens)
    decoder = FastDecoder(loaded.model)
    cache = decoder.new_cache(2, 32)
    for begin, end in itertools.pairwise([0, 3, 12, 13, 15, 32]):
        logits = decoder(tokens[:, begin:end], cache)
        assert (logits - expected[:, end - 1]).abs().max() < 1e-5 * expected.abs().max()


def test_the_greedy_tokens_are_the_same_past_the_context(loaded: Loaded, decoder_type: Any) -> None:
    prompts = [prompt(3, 5)]
    cached = generated(loaded, prompts, 44, decoder_type)
    assert cached == generated(loaded, prompts, 44, decoder_type, cached=False)
    assert len(cached[0]) > 33 or cached[0] != prompts[0]


def test_texts_of_unequal_length_are_those_generated_alone(
    loaded: Loaded, decoder_type: Any
) -> None:
    prompts = [prompt(4, 3), prompt(5, 17), prompt(6, 1), prompt(7, 50)]
    together = generated(loaded, prompts, 24, decoder_type)
    assert together == [generated(loaded, [each], 24, decoder_type)[0] for each in prompts]


@pytest.mark.parametrize("context", [1, 2, 7, 32])
def test_the_window_is_never_longer_than_the_context_nor_shorter_than_half(context: int) -> None:
    for length in range(1, 200):
        visible = length - window_start(length, context)
        assert visible <= context
        assert visible == length if length <= context else visible > context - context // 2 - 1
    starts = [window_start(length, context) for length in range(1, 200)]
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "pythia", "fast"])
@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_compiled_pass_gives_the_same_tokens(
    name: str, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``compiles`` False: what is compiled runs as it is, with its cache of fixed shapes."""
    if not compiles:
        monkeypatch.setattr(torch, "compile", lambda forward, **options: forward)
    loaded = Loaded(random_model(ModelConfig(**ARCHITECTURES[name])), ByteTokenizer())
    prompts = [prompt(4, 3), prompt(5, 17), prompt(6, 1)]
    decoder, greedy = FastDecoder(loaded.model, compiled=True), Sampling(temperature=0)
    generation = Generation(decoder, loaded.tokenizer, prompts, greedy)
    for count in range(40):
        if count == 5:
            generation.stop(1)
        generation.step()
    expected = generated(loaded, prompts, 40, FastDecoder)
    for index in (0, 2):
        assert generation.sequences[index] == expected[index]
    assert generation.sequences[1] == expected[1][: len(generation.sequences[1])]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=0.3, seed=5)])
def test_drafts_leave_the_text_as_it_is(
    loaded: Loaded, decoder_type: Any, sampling: Sampling
) -> None:
    passes: dict[int, int] = {}
    texts = {}
    for drafts in (0, 1, 4):
        decoder = decoder_type(loaded.model)
        passes[drafts] = 0

        def counted(method: Any, drafts: int = drafts) -> Any:
            def run(*arguments: Any) -> Any:
                passes[drafts] += 1
                return method(*arguments)

            return run

        repeated = prompt(3, 6) * 3
        generation = Generation(
            decoder, loaded.tokenizer, [repeated], sampling, speculate=drafts, max_length=80
        )
        generation.decoder = Counted(decoder, counted)
        for _ in range(36):
            generation.step()
        texts[drafts] = generation.sequences
    assert texts[1] == texts[0]
    assert texts[4] == texts[0]
    config = loaded.model.config
    can_forget = not config.convolution and config.ngram == 1
    if can_forget and sampling.temperature == 0:
        assert passes[4] <= passes[1] <= passes[0]
    assert can_forget or passes[4] == passes[0]


class Counted:
    """A decoder whose passes are counted."""

    def __init__(self, decoder: Any, counted: Any) -> None:
        self.device, self.config, self.model = decoder.device, decoder.config, decoder.model
        self.all_logits, self._run = counted(decoder.all_logits), counted(decoder)

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)
