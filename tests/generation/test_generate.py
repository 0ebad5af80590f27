"""`minilm.generate`: a prompt of text or of ids, and a model in whatever state it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minilm
from minilm.errors import ConfigError, TokenizerError
from tests.conftest import TINY_MODEL


def test_ids_are_a_prompt_as_the_tokenizer_gives_them(tiny_run: Path) -> None:
    model, tokenizer = minilm.load(tiny_run)
    ids = tokenizer.encode("the cat")
    assert model(torch.from_numpy(ids)[None]).shape == (1, 7, model.config.vocab_size)
    text = minilm.generate(model, tokenizer, "the cat", max_new_tokens=20, temperature=0)
    assert text
    for prompt in (ids, ids.tolist(), torch.from_numpy(ids), ids.astype(np.uint16)):
        assert (
            minilm.generate(model, tokenizer, prompt, max_new_tokens=20, temperature=0)  # type: ignore[arg-type]
            == text
        )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([[1, 2]], r"prompt: an array of int64 of shape \(1, 2\), expected a text, or a sequence"),
        ([0.5], "prompt: an array of float64"),
        ([1, 256], "prompt: the id 256, expected 0 <= id < 256"),
        ([-1], "prompt: the id -1"),
        ([2**80], "prompt: the id|prompt: an array of object"),
    ],
)
def test_a_prompt_that_is_none(tiny_run: Path, prompt: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        minilm.generate(*minilm.load(tiny_run), prompt)


def test_settings_are_checked_before_the_prompt(tiny_run: Path) -> None:
    loaded = minilm.load(tiny_run)
    with pytest.raises(ConfigError, match="temperature: -1"):
        minilm.generate(*loaded, "a", temperature=-1)
    with pytest.raises(ConfigError, match="max_new_tokens: -1"):
        minilm.generate(*loaded, "a", max_new_tokens=-1)


def test_a_stop_string_needs_no_list(tiny_run: Path) -> None:
    loaded = minilm.load(tiny_run)
    text = minilm.generate(*loaded, "the ", max_new_tokens=40, temperature=0)
    stop = text[10:13]
    for given in (stop, [stop], ("never", stop)):
        stopped = minilm.generate(*loaded, "the ", max_new_tokens=40, temperature=0, stop=given)
        assert stopped == text[: text.index(stop)]


def test_the_text_ends_before_a_token_that_ends_texts(tiny_run: Path) -> None:
    model, tokenizer = minilm.load(tiny_run)
    text = minilm.generate(model, tokenizer, "the ", max_new_tokens=40, temperature=0)
    last = max(map(text.index, set(text)))  # a character that occurs at no earlier position
    tokenizer.end_of_text = ord(text[last])
    assert (
        minilm.generate(model, tokenizer, "the ", max_new_tokens=40, temperature=0) == text[:last]
    )
    tokenizer.end_of_text, tokenizer.other_ends = 0, frozenset({ord(text[last])})
    assert (
        minilm.generate(model, tokenizer, "the ", max_new_tokens=40, temperature=0) == text[:last]
    )


def test_dropout_is_off_and_the_mode_is_put_back(tiny_run: Path) -> None:
    tokenizer = minilm.load(tiny_run).tokenizer
    config = minilm.ModelConfig(**TINY_MODEL, vocab_size=256, dropout=0.5)
    model = minilm.Transformer(config, torch.Generator().manual_seed(0))
    first, second = (
        minilm.generate(model, tokenizer, "the ", max_new_tokens=30, temperature=0, cached=False)
        for _ in range(2)
    )
    assert first == second != ""
    assert model.training
    minilm.generate(model.eval(), tokenizer, max_new_tokens=1)
    assert not model.training


def test_ids_are_those_of_the_tokenizer_where_the_model_has_more(tiny_run: Path) -> None:
    _, tokenizer = minilm.load(tiny_run)
    model = minilm.Transformer(minilm.ModelConfig(**TINY_MODEL, vocab_size=300))
    with pytest.raises(TokenizerError, match="prompt: the id 299, expected 0 <= id < 256"):
        minilm.generate(model, tokenizer, [299], repetition_penalty=2.0, max_new_tokens=1)
