"""Tokens from a trained model, one at a time, of one text or several at once.

Up to the context length the model sees the whole text. Past it the older half is dropped, and again each time
the context is full: the rest is read again from position 0, with a cache and without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from minilm.checkpoint import Loaded
from minilm.errors import ConfigError
from minilm.generation.decoder import Decoder, make_decoder
from minilm.generation.sampling import Sampling, choose
from minilm.generation.text_stream import TextStream
from minilm.model.kv_cache import KVCache
from minilm.text.tokenizers import Tokenizer


def generate(
    loaded: Loaded,
    prompt: str,
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stops: Sequence[str] = (),
    cached: bool = True,
) -> str:
    """The text that follows ``prompt``, up to the first of ``stops``.

    Raises ConfigError for a number of tokens below 0, TokenizerError for a prompt that has none.
    """
    return "".join(
        stream(
            loaded,
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stops=stops,
            cached=cached,
        )
    )


def stream(
    loaded: Loaded,
    prompt: str,
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stops: Sequence[str] = (),
    cached: bool = True,
) -> Iterator[str]:
    """As `generate`, in parts: one after each token, often empty, and what remains."""
    model, tokenizer = loaded
    ids = tokenizer.encode_prompt(prompt)
    check_count(max_new_tokens)
    generation = Generation(
        make_decoder(model),
        tokenizer,
        [ids],
        sampling or Sampling(),
        cached=cached,
        max_length=len(ids) + max_new_tokens,
    )
    text = TextStream(tokenizer, stops, ids)
    for _ in range(max_new_tokens):
        new_tokens = generation.step()
        if 0 not in new_tokens:
            break
        yield text.add(new_tokens[0])
        if text.stopped:
            break
    yield text.flush()


def check_count(max_new_tokens: int) -> None:
    """Raise ConfigError for a negative number of tokens."""
    if max_new_tokens < 0:
        raise ConfigError("max_new_tokens", f"{max_new_tokens}", "at least 0")


class Generation:
    """Texts that grow by a token a step.

    ``sequences`` holds the token ids of each, prompts included; ``unfinished`` are the indices of those
    without an end-of-text token for which `stop` was not called. ``context_overflowed``: one of them has been
    longer than the context.
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
    ) -> None:
        """``max_length``: tokens that a text will have at most, if fewer than the context length."""
        self._decoder, self._tokenizer, self._sampling = decoder, tokenizer, sampling
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

    def stop(self, index: int) -> None:
        """Let that text grow no further."""
        self.unfinished.remove(index)
        # A graph has a fixed number of sequences: there the finished ones stay, and are ignored.
        if self._cache is not None and self.unfinished and not self._decoder.compiled:
            self._cache.select([self._rows.index(unfinished) for unfinished in self.unfinished])
            self._rows = list(self.unfinished)

    @torch.inference_mode()
    def step(self) -> dict[int, int]:
        """The next token of every unfinished text, by its index; a text that ended is absent.

        Raises InputError for weights that give no finite logits.
        """
        if not self.unfinished:
            return {}
        logits = self._next_logits()[:, : self._tokenizer.vocab_size].float().cpu()
        generators = [self._generators[index] for index in self.unfinished]
        sequences = [self.sequences[index] for index in self.unfinished]
        sampled = choose(logits, self._sampling, generators, sequences)
        new_tokens = dict(zip(self.unfinished, sampled, strict=True))
        for index, token in list(new_tokens.items()):
            if token == self._tokenizer.end_of_text or token in self._tokenizer.other_ends:
                del new_tokens[index]
                self.stop(index)
            else:
                self.sequences[index].append(token)
        return new_tokens

    def _next_logits(self) -> Tensor:
        """(unfinished texts, V), of the token after each."""
        moved = set()
        for index in self.unfinished:
            start = window_start(len(self.sequences[index]), self._context_length)
            if start != self._window_starts[index]:
                moved.add(index)
                self._window_starts[index] = start
        self.context_overflowed |= bool(moved)
        if self._cache is None:
            windows = [self._window(index) for index in self.unfinished]
            return torch.cat([self._decoder.model(window)[:, -1] for window in windows])
        for row, index in enumerate(self._rows):
            if index not in self.unfinished:
                self._cache.lengths[row] = 1
        rows = [row for row, index in enumerate(self._rows) if index in self.unfinished]
        if all(self._cache.lengths) and not moved:
            last = [self.sequences[index][-1:] for index in self._rows]
            return self._decoder(self._tensor(last), self._cache)[rows]
        # Texts of different lengths are read one by one, each into its own row of the cache.
        logits = []
        for row in rows:
            index, cache = self._rows[row], self._cache.row(row)
            if index in moved:
                cache.clear()
            unread = self._window(index)[:, cache.lengths[0] :]
            logits.append(self._decoder(unread, cache))
            self._cache.lengths[row] = cache.lengths[0]
        return torch.cat(logits)

    def _window(self, index: int) -> Tensor:
        """(1, t): the tokens of a text that the model sees."""
        return self._tensor([self.sequences[index][self._window_starts[index] :]])

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self._decoder.device)


def window_start(length: int, context_length: int) -> int:
    """The first token of a text that the model sees: halves of the context are dropped, as many as must."""
    if length <= context_length:
        return 0
    half = max(1, context_length // 2)
    return half * -(-(length - context_length) // half)
