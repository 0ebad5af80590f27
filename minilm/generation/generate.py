"""Tokens from a trained model, one at a time, of one text or several at once.

Up to the context length the model sees the whole text. Past it the older half is dropped, and again each time
the context is full: the rest is read again from position 0, with a cache and without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.errors import ConfigError, TokenizerError
from minilm.generation.decoder import Decoder, make_decoder
from minilm.generation.drafts import Drafts
from minilm.generation.sampling import Sampling, choose
from minilm.generation.text_stream import TextStream
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from minilm.safe_text import short_repr
from minilm.text.chat_template import Message, end_of_turn, find_template
from minilm.text.conversations import ROLES
from minilm.text.tokenizers import Ids, Tokenizer
from minilm.units import counted


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | Ids | Sequence[Message] = "",
    *,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    cached: bool = True,
    speculate: int = 0,
    chat_template: str = "",
    tune: bool = True,
) -> str:
    """The text that follows ``prompt``, a text or the ids that `tokenizer.encode` gives: dropout off.

    ``prompt`` may also be a conversation, messages as {"role": "user", "content": "Hello"}, that is answered:
    as the model's own chat template has it, or as ``chat_template`` does, a file or "plain". The answer has
    the room that is left in the context.

    ``model`` and ``tokenizer`` are those of `minilm.load`; ``temperature`` 0 takes the most likely
    token each time. The text ends after ``max_new_tokens`` tokens, at the end of a document, or before
    the first of ``stop``. ``cached=False`` computes the whole text again for every token: in float32
    the same text, slower. ``speculate``: so many tokens that followed before are looked at in one pass: in
    float32 the same text, faster where it repeats itself. ``tune``: measure, once, which way of computing is
    faster on this CPU. Raises ConfigError for a setting out of range, TokenizerError for a prompt that has no
    tokens of this model, FormatError for a template that cannot be used.
    """
    check_count(max_new_tokens)
    check_count(speculate, "speculate")
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    end = None
    if is_conversation(prompt):
        template = find_template(_folder(tokenizer), chat_template)
        text = template.render(prompt, add_generation_prompt=True)
        template.check_prompt(text, prompt[-1])
        ids = tokenizer.encode_chat(text)
        max_new_tokens = min(max_new_tokens, room_for_answer(model.config, ids, "prompt"))
        end = end_of_turn(template, tokenizer)
    else:
        if chat_template:
            raise ConfigError("chat_template", "given with a text", "messages to answer")
        ids = _prompt_ids(model, tokenizer, prompt)
    return "".join(
        stream(
            model,
            tokenizer,
            ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stops=[stop] if isinstance(stop, str) else stop,
            cached=cached,
            speculate=speculate,
            turn_end=end,
            tune=tune,
        )
    )


def stream(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: list[int],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stops: Sequence[str] = (),
    cached: bool = True,
    speculate: int = 0,
    turn_end: int | None = None,
    tune: bool = False,
) -> Iterator[str]:
    """As `generate`, in parts: one after each token, often empty, and what remains."""
    text = TextStream(tokenizer, stops, prompt)
    was_training = model.training
    model.eval()
    try:
        generation = Generation(
            make_decoder(model, tune=tune),
            tokenizer,
            [prompt],
            sampling,
            cached=cached,
            max_length=len(prompt) + max_new_tokens,
            speculate=speculate,
            turn_end=turn_end,
        )
        for _ in range(max_new_tokens):
            new_tokens = generation.step()
            if 0 not in new_tokens:
                break
            yield text.add(new_tokens[0])
            if text.stopped:
                break
        yield text.flush()
    finally:
        model.train(was_training)


def is_conversation(prompt: str | Ids | Sequence[Message]) -> TypeGuard[Sequence[Message]]:
    """Whether it is a list of messages. Raises TokenizerError for one of other objects than messages."""
    if not isinstance(prompt, (list, tuple)) or not any(isinstance(m, dict) for m in prompt):
        return False
    for number, message in enumerate(prompt, 1):
        texts = isinstance(message, dict) and (message.get("role"), message.get("content"))
        if not texts or not all(isinstance(text, str) for text in texts):
            raise TokenizerError("prompt", short_repr(message), "a message of role and content")
        if message["role"] not in ROLES:
            got = f"message {number} with the role {short_repr(message['role'])}"
            raise TokenizerError("prompt", got, f"one of {', '.join(ROLES)}")
    return True


def room_for_answer(config: ModelConfig, conversation: Sequence[int], where: str) -> int:
    """Tokens that the context has left: no half of a conversation is dropped.

    Raises TokenizerError where there are none.
    """
    if len(conversation) >= config.context_length:
        got = f"{counted(len(conversation), 'token')} with what stands around it"
        raise TokenizerError(where, got, f"fewer than the context of {config.context_length}")
    return config.context_length - len(conversation)


def _folder(tokenizer: Tokenizer) -> Path:
    if tokenizer.folder is None:
        raise TokenizerError("prompt", "a conversation", "a text, or a tokenizer of `minilm.load`")
    return tokenizer.folder


def _prompt_ids(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Ids | Sequence[Message]
) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode_prompt(prompt)
    ids, vocab_size = np.asarray(prompt), min(model.config.vocab_size, tokenizer.vocab_size)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        got = f"an array of {ids.dtype} of shape {ids.shape}"
        raise TokenizerError("prompt", got, "a text, or a sequence of token ids")
    for token in ids.tolist():
        if not 0 <= token < vocab_size:
            raise TokenizerError("prompt", f"the id {token}", f"0 <= id < {vocab_size}")
    return [int(token) for token in ids]


def check_count(count: int, name: str = "max_new_tokens") -> None:
    """Raise ConfigError for a negative number of tokens."""
    if count < 0:
        raise ConfigError(name, f"{count}", "at least 0")


class Generation:
    """Texts that grow by a token a step.

    ``sequences`` holds the token ids of each, prompts included; ``unfinished`` are the indices of those
    without an end-of-text token for which `stop` was not called. ``context_overflowed``: one of them has been
    longer than the context. ``decoder``: what the last tokens came from.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        cached: bool = True,
        max_length: int | None = None,
        speculate: int = 0,
        turn_end: int | None = None,
        fallback: Callable[[], Decoder] | None = None,
    ) -> None:
        """``max_length``: tokens that a text will have at most, if fewer than the context length.

        ``speculate``: how many drafted tokens a pass looks at, of a single text with a cache.

        ``turn_end``: a token that ends a text besides those of ``tokenizer``.

        ``fallback``: makes the decoder, of the same model, that goes on from an output that is not finite.
        """
        self.decoder, self._tokenizer, self._sampling = decoder, tokenizer, sampling
        self._fallback = fallback
        self._ends = {tokenizer.end_of_text, *tokenizer.other_ends, turn_end}
        self._context_length = decoder.config.context_length
        # Without a prompt the text begins where a document does; some tokenizers have no such token.
        begin = tokenizer.end_of_text if tokenizer.end_of_text is not None else 0
        self.sequences = [list(prompt) or [begin] for prompt in prompts]
        self.unfinished = list(range(len(prompts)))
        self.context_overflowed = False
        self._generators = [
            torch.Generator().manual_seed(sampling.seed + index) for index in self.unfinished
        ]
        self._window_starts = [0 for _ in prompts]
        self._rows = list(self.unfinished)  # whose text each row of the cache is
        self._cache: KVCache | None = None
        if cached:
            longest = max(max_length or self._context_length, *map(len, self.sequences), 1)
            self._cache = decoder.new_cache(len(prompts), min(self._context_length, longest))
        self._speculate = speculate if len(prompts) == 1 else 0
        self._drafts = Drafts(self._speculate)
        self._ahead: list[tuple[int, Tensor]] = []  # drafted tokens, and the logits after each

    def stop(self, index: int) -> None:
        """Let that text grow no further."""
        self.unfinished.remove(index)
        # A graph has a fixed number of sequences: there the finished ones stay, and are ignored.
        if self._cache is not None and self.unfinished and not self._cache.fixed_shapes:
            self._cache.select([self._rows.index(unfinished) for unfinished in self.unfinished])
            self._rows = list(self.unfinished)

    def restart(self, prompt: Sequence[int]) -> None:
        """Let the only text be ``prompt``: what it begins with as before is not read again."""
        [text] = self.sequences
        if self._cache is not None:
            pairs = zip(text[: self._cache.lengths[0]], prompt[:-1], strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            self._cache.truncate(0 if self._window_starts[0] else same)
        self.sequences, self._window_starts, self.unfinished = [list(prompt)], [0], [0]
        self._drafts, self._ahead = Drafts(self._speculate), []

    def step(self) -> dict[int, int]:
        """The next token of every unfinished text, by its index; a text that ended is absent.

        Raises InputError for weights that give no finite logits.
        """
        if not self.unfinished:
            return {}
        logits = self._next_logits()
        if self._fallback is not None and not logits.isfinite().all():
            self._fall_back(self._fallback())
            logits = self._next_logits()
        generators = [self._generators[index] for index in self.unfinished]
        sequences = [self.sequences[index] for index in self.unfinished]
        sampled = choose(logits, self._sampling, generators, sequences)
        new_tokens = dict(zip(self.unfinished, sampled, strict=True))
        for index, token in list(new_tokens.items()):
            if token in self._ends:
                del new_tokens[index]
                self.stop(index)
            else:
                self.sequences[index].append(token)
        return new_tokens

    def _fall_back(self, decoder: Decoder) -> None:
        """Read the texts again, with ``decoder``: the keys and values so far may not be finite either."""
        self.decoder, self._fallback, self._ahead = decoder, None, []
        if self._cache is not None:
            self._rows = list(self.unfinished)
            self._cache = decoder.new_cache(len(self._rows), self._cache.max_length)

    def _next_logits(self) -> Tensor:
        """(unfinished texts, V), on the CPU in float32, of the token after each."""
        return self._decoded()[:, : self._tokenizer.vocab_size].float().cpu()

    @torch.inference_mode()
    def _decoded(self) -> Tensor:
        """(unfinished texts, V), as the decoder has them."""
        moved = set()
        for index in self.unfinished:
            start = window_start(len(self.sequences[index]), self._context_length)
            if start != self._window_starts[index]:
                moved.add(index)
                self._window_starts[index] = start
        self.context_overflowed |= bool(moved)
        if moved:
            self._ahead = []
        if self._cache is None:
            windows = [self._window(index) for index in self.unfinished]
            return torch.cat([self.decoder.model(window)[:, -1] for window in windows])
        for row, index in enumerate(self._rows):
            if index not in self.unfinished:
                self._cache.lengths[row] = 1
        rows = [row for row, index in enumerate(self._rows) if index in self.unfinished]
        if self._speculate and not moved and (logits_ahead := self._read_with_drafts()) is not None:
            return logits_ahead
        if not moved and all(self._has_one_unread(row) for row in rows):
            last = [self.sequences[index][-1:] for index in self._rows]
            after = self.decoder(self._tensor(last), self._cache)
            return after if len(rows) == len(after) else after[rows]
        # Texts of different lengths are read one by one, each into its own row of the cache.
        logits = []
        for row in rows:
            index, cache = self._rows[row], self._cache.row(row)
            if index in moved:
                cache.clear()
            unread = self._window(index)[:, cache.lengths[0] :]
            logits.append(self.decoder(unread, cache))
            self._cache.lengths[row] = cache.lengths[0]
        return torch.cat(logits)

    def _read_with_drafts(self) -> Tensor | None:
        """(1, V), of the token after a text with drafts; None where there is nothing drafted."""
        text, cache = self.sequences[0], self._cache
        assert cache is not None
        if self._ahead:
            drafted, logits = self._ahead.pop(0)
            if drafted == text[-1]:
                return logits
            self._ahead = []
            cache.truncate(len(text) - 1)
        if not self._has_one_unread(0):
            return None
        room = cache.max_length - len(text)
        drafts = self._drafts.next(text, room)
        if not drafts or not cache.forgets_exactly(len(text) + len(drafts)):
            return None
        after = self.decoder.all_logits(self._tensor([[text[-1], *drafts]]), cache)[0]  # t V
        self._ahead = [(draft, row[None]) for draft, row in zip(drafts, after[1:], strict=True)]
        return after[:1]

    def _has_one_unread(self, row: int) -> bool:
        assert self._cache is not None
        index = self._rows[row]
        length = len(self.sequences[index]) - self._window_starts[index]
        return self._cache.lengths[row] == length - 1 > 0

    def _window(self, index: int) -> Tensor:
        """(1, t): the tokens of a text that the model sees."""
        return self._tensor([self.sequences[index][self._window_starts[index] :]])

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self.decoder.device)


def window_start(length: int, context_length: int) -> int:
    """The first token of a text that the model sees: halves of the context are dropped, as many as must."""
    if length <= context_length:
        return 0
    half = max(1, context_length // 2)
    return half * -(-(length - context_length) // half)
