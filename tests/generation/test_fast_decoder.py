"""Generation with a cache: logits and tokens of a pass over the whole text, in every architecture."""

from __future__ import annotations

import copy
import itertools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from minilm.checkpoint import Loaded
from minilm.config import ModelConfig
from minilm.generation import fast_decoder
from minilm.generation.decoder import ModelDecoder
from minilm.generation.fast_decoder import FastDecoder, SplitLinear
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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outputs", [3, 8, 11])
def test_a_product_in_chunks_is_the_whole_product(outputs: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, 5, generator=generator)
    added = torch.randn(outputs, generator=generator) if bias else None
    for rows in (1, 2, SplitLinear.MAX_ROWS + 1):
        x = torch.randn(rows, 5, generator=generator)
        product = SplitLinear(weight, added)
        torch.testing.assert_close(product(x), F.linear(x, weight, added), rtol=0, atol=0)
        for parts in product.counts:
            product.choose(rows, parts)
            torch.testing.assert_close(product(x), F.linear(x, weight, added))


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_a_choice_is_made_for_each_shape_and_number_of_rows(
    loaded: Loaded, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = []

    def choose(question: str, alternatives: Any, before: Callable[[], None]) -> str:
        questions.append(question)
        before()
        name: str = alternatives[number][0]
        return name

    monkeypatch.setattr(fast_decoder, "choose", choose)
    decoder = FastDecoder(loaded.model, tune=True)
    tokens = torch.tensor([prompt(1, 4), prompt(2, 4)])
    for count in (1, 2, 1):
        logits = decoder(tokens[:count], decoder.new_cache(count, 8))
        expected = loaded.model(tokens[:count])[:, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert questions, "a matrix is large enough to be split"
    assert len(set(questions)) == len(questions)
    assert {question.split()[0] for question in questions} == {"1", "2"}


def test_a_matrix_is_timed_after_enough_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, or as many as fill the caches: of a large model not every one for each shape."""
    read: list[int] = []
    model = Loaded(random_model(ModelConfig(**ARCHITECTURES["gpt2"])), ByteTokenizer()).model

    def choose(question: str, alternatives: Any, before: Callable[[], None]) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "sum", lambda tensor: read.append(tensor.nbytes))
            before()
        name: str = alternatives[0][0]
        return name

    monkeypatch.setattr(fast_decoder, "choose", choose)
    FastDecoder(model, tune=True).new_cache(1, 8)
    every = sum(read)
    read.clear()
    monkeypatch.setattr(fast_decoder, "CACHE_BYTES", 1)
    FastDecoder(model, tune=True).new_cache(1, 8)
    assert 0 < sum(read) < every / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_query_in_half_precision_attends_in_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, and the rest of the pass in its own dtype."""
    model = Loaded(random_model(ModelConfig(**ARCHITECTURES["gpt2"])), ByteTokenizer()).model
    half = copy.deepcopy(model).to(dtype)
    dtypes: list[torch.dtype] = []

    def attend(query: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        dtypes.append(query.dtype)
        return F.scaled_dot_product_attention(query, *others, **options)

    functional = types.SimpleNamespace(**vars(F) | {"scaled_dot_product_attention": attend})
    monkeypatch.setattr(fast_decoder, "F", functional)
    cache, tokens = FastDecoder(half).new_cache(1, 8), torch.tensor([prompt(1, 5)])
    decoder = FastDecoder(half)
    decoder(tokens[:, :4], cache)
    logits = decoder(tokens[:, 4:], cache)
    assert set(dtypes) == {torch.float32}
    assert logits.dtype == dtype
    expected = half(tokens)[:, -1].float()
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)


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
