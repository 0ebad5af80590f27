"""Conversations: what is read of them, what is dropped, and where an answer ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.checkpoint import load
from minilm.config import ModelConfig
from minilm.errors import FormatError, TokenizerError
from minilm.generation.chat import Chat
from minilm.generation.decoder import make_decoder
from minilm.generation.generate import generate
from minilm.generation.sampling import Sampling
from minilm.model.kv_cache import KVCache
from minilm.text.chat_template import PLAIN, ChatTemplate
from minilm.text.tokenizers import ByteTokenizer, LibraryTokenizer, Tokenizer
from tests.interop.published_tokenizers import BEGIN, END, TURN, published_tokenizer
from tests.interop.shapes import TINY, make_run, random_model
from tests.model.architectures import ARCHITECTURES

MESSAGES = ["the cat", "a dog and a crow", "x"]


class Scripted:
    """A decoder whose tokens are known; ``read`` is how many it reads at once."""

    compiled, device, model = False, torch.device("cpu"), None

    def __init__(self, tokens: Iterator[int], vocab_size: int, context_length: int) -> None:
        sizes = TINY | {"vocab_size": vocab_size, "context_length": context_length}
        self.config = ModelConfig(**sizes)
        self._tokens = tokens
        self.read: list[int] = []

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        self.read.append(tokens.shape[1])
        cache.advance(tokens.shape[1])
        return torch.nn.functional.one_hot(
            torch.tensor([next(self._tokens)]), self.config.vocab_size
        ).float()

    def new_cache(self, sequences: int, max_length: int) -> KVCache:
        return KVCache(self.config, sequences, max_length=max_length)


def scripted(tokens: bytes, *, context_length: int = 400, **options: Any) -> Chat:
    """A chat of bytes."""
    decoder: Any = Scripted(iter(tokens), 256, context_length)
    options = {"max_new_tokens": 8} | options
    return Chat(decoder, ByteTokenizer(), PLAIN, Sampling(temperature=0), **options)


@pytest.mark.parametrize("name", ["llama", "starcoder2", "fast"])
def test_what_was_read_of_the_history_changes_nothing(name: str) -> None:
    config = ModelConfig(**(ARCHITECTURES[name] | {"context_length": 300}))
    answers = []
    for cached in (True, False):
        chat = Chat(
            make_decoder(random_model(config)),
            ByteTokenizer(),
            PLAIN,
            Sampling(temperature=0.7, seed=3),
            max_new_tokens=7,
            cached=cached,
        )
        answers.append(["".join(chat.answer(message)) for message in MESSAGES])
        assert [m["content"] for m in chat.messages[::2]] == MESSAGES
        assert [m["content"] for m in chat.messages[1::2]] == answers[-1]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["llama", "fast"])
@pytest.mark.parametrize("cached", [True, False])
def test_an_output_that_is_not_finite_changes_the_decoder_and_nothing_else(
    name: str, cached: bool
) -> None:
    config = ModelConfig(**(ARCHITECTURES[name] | {"context_length": 300}))
    broken = random_model(config)
    broken.embedding.token.weight[ord("x")] = torch.nan
    good, made = make_decoder(random_model(config)), []
    answers = []
    for decoder in (make_decoder(broken), good):
        chat = Chat(
            decoder,
            ByteTokenizer(),
            PLAIN,
            Sampling(temperature=0.7, seed=3),
            max_new_tokens=7,
            cached=cached,
            fallback=lambda: made.append(1) or good,
        )
        answers.append(["".join(chat.answer(message)) for message in ("a", "x", "bx")])
        assert chat.decoder is good
    assert answers[0] == answers[1]
    assert made == [1]


def test_of_the_history_nothing_is_read_again() -> None:
    decoder: Any = Scripted(iter(b"abc\0 d \0e\0"), 256, 400)
    chat = Chat(decoder, ByteTokenizer(), PLAIN, Sampling(temperature=0), max_new_tokens=8)
    around = len("User:\n\n\nAssistant:\n")
    after = len("\n\n") + 1  # what ended the answer, which was not read
    for message, first in zip(MESSAGES, (0, after, after + len("d")), strict=True):
        decoder.read.clear()
        list(chat.answer(message))
        # The template strips the second answer, which is read again.
        assert decoder.read[0] == first + len(message) + around
        assert set(decoder.read[1:]) <= {1}


def test_an_answer_ends_with_its_turn() -> None:
    backend = published_tokenizer("llama3")
    tokenizer = LibraryTokenizer(backend)
    tokenizer.end_of_text = backend.token_to_id(BEGIN)
    text = tokenizer.encode("the cat").tolist()
    end = backend.token_to_id(END)
    decoder: Any = Scripted(iter([*text, end, *text, *text]), tokenizer.vocab_size, 200)
    template = ChatTemplate(
        "{% for m in messages %}" + TURN + "{{ m.content }}" + END + "{% endfor %}"
    )
    chat = Chat(decoder, tokenizer, template, Sampling(temperature=0), max_new_tokens=50)
    assert "".join(chat.answer("a dog")) == "the cat"
    assert chat.tokens == text
    assert not chat.was_cut


def test_the_oldest_turns_are_dropped_whole() -> None:
    turn = len("User:\na\n\nAssistant:\n12<|endoftext|>\n\n") - len("<|endoftext|>") + 1
    system = len("System:\nS\n\n")
    last = len("User:\na\n\nAssistant:\n")
    chat = scripted(
        b"12\0" * 9, context_length=system + 2 * turn + last + 3, max_new_tokens=3, system="S"
    )
    for number in range(5):
        assert "".join(chat.answer("a")) == "12"
        assert chat.messages[0] == {"role": "system", "content": "S"}
        assert len(chat.messages) == 1 + 2 * min(number + 1, 3)
        assert chat.dropped_turns == max(0, number - 2)
        assert not chat.was_cut


def test_an_answer_has_the_room_that_is_left() -> None:
    prompt = len("User:\na\n\nAssistant:\n")
    chat = scripted(b"x" * 99, context_length=prompt + 5, max_new_tokens=50)
    assert "".join(chat.answer("a")) == "xxxxx"
    assert chat.was_cut
    with pytest.raises(TokenizerError, match=r"message: 25 tokens with .* fewer than .* 25"):
        list(chat.answer("a" * 6))
    assert [m["content"] for m in chat.messages] == ["a", "xxxxx"]
    chat = scripted(b"xy\0", context_length=prompt + 5, max_new_tokens=2)
    assert "".join(chat.answer("a")) == "xy"
    assert not chat.was_cut


def test_an_answer_that_is_left_early_is_in_the_history_as_far_as_it_came() -> None:
    chat = scripted(b"abcdef\0" + b"gh\0")
    parts = chat.answer("one")
    assert next(parts) + next(parts) == "ab"
    parts.close()
    assert [m["content"] for m in chat.messages] == ["one", "ab"]
    assert "".join(chat.answer("two")) == "cdef"
    chat = scripted(b"\0" + b"ab\0")
    assert "".join(chat.answer("one")) == ""
    assert chat.messages == []
    assert "".join(chat.answer("two")) == "ab"


def test_a_stop_string_ends_an_answer() -> None:
    chat = scripted(b"one. two", stops=["."])
    assert "".join(chat.answer("a")) == "one"
    assert chat.messages[-1]["content"] == "one"


def test_a_template_that_refuses_the_conversation() -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    decoder: Any = Scripted(iter(b"ab\0"), 256, 100)
    template = ChatTemplate(refusal, name="chat.jinja")
    arguments = (decoder, ByteTokenizer(), template, Sampling())
    with pytest.raises(FormatError, match=r"chat\.jinja: TemplateError: no system"):
        list(Chat(*arguments, system="S", max_new_tokens=3).answer("a"))
    with pytest.raises(FormatError, match=r"chat\.jinja: line 1: TemplateSyntaxError"):
        Chat(*arguments[:2], ChatTemplate("{% if", name="chat.jinja"), Sampling(), max_new_tokens=3)


# Of minilm.generate.


def test_generate_answers_a_conversation(tmp_path: Path) -> None:
    loaded = load(make_run(tmp_path / "run", TINY | {"context_length": 64}))
    options: dict[str, Any] = {"max_new_tokens": 9, "seed": 2}
    conversation = [{"role": "user", "content": "a"}]
    answer = generate(*loaded, conversation, **options)
    assert answer == generate(*loaded, "User:\na\n\nAssistant:\n", **options)
    (tmp_path / "chat").write_text("{{ messages[0].content }}: ")
    choice = {"chat_template": str(tmp_path / "chat")}
    assert generate(*loaded, conversation, **options, **choice) == generate(
        *loaded, "a: ", **options
    )


def test_no_half_of_a_conversation_is_dropped(tiny_run: Path, tmp_path: Path) -> None:
    model, tokenizer = load(tiny_run)
    (tmp_path / "chat").write_text("{{ messages[0].content }}")
    options: dict[str, Any] = {"chat_template": str(tmp_path / "chat"), "temperature": 0}
    message = "a" * (model.config.context_length - 3)
    answer = generate(model, tokenizer, [{"role": "user", "content": message}], **options)
    assert answer == generate(model, tokenizer, message, max_new_tokens=3, temperature=0)
    with pytest.raises(TokenizerError, match=r"prompt: 16 tokens .*fewer than the context of 16"):
        generate(model, tokenizer, [{"role": "user", "content": message + "aaa"}], **options)


def test_a_conversation_is_of_messages(tiny_run: Path) -> None:
    model, tokenizer = load(tiny_run)
    wrong: Any
    for wrong in ([{"role": "user"}], [{"role": "user", "content": 1}], [{}, "a"]):
        with pytest.raises(TokenizerError, match="expected a message of role and content"):
            generate(model, tokenizer, wrong)
    unknown = [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}]
    with pytest.raises(TokenizerError, match=r"message 2 with the role 'gpt', expected one of sys"):
        generate(model, tokenizer, unknown)
    without_file: Tokenizer = ByteTokenizer()
    with pytest.raises(TokenizerError, match=r"a conversation, expected .*minilm\.load"):
        generate(model, without_file, [{"role": "user", "content": "a"}])
    assert isinstance(generate(model, tokenizer, np.array([97]), max_new_tokens=1), str)
    assert isinstance(generate(model, tokenizer, [], max_new_tokens=1), str)
