"""Tokens from a trained model, one at a time, of one text or several at once.

Up to the context length the model sees the whole text. Past it the older half goes, and again each time
that the context is full: what is left is read anew, from position 0, with a cache and without one alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minilm.checkpoint import Loaded
from minilm.errors import ConfigError
from minilm.generation.fast_decoder import Decoder
from minilm.generation.sampling import Sampling, choose
from minilm.generation.text_stream import TextStream
from minilm.model.kv_cache import Cache
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
    model, tokenizer = loaded
    ids = tokenizer.encode_prompt(prompt)
    check_count(max_new_tokens)
    room = len(ids) + max_new_tokens
    generation = Generation(
        Decoder(model), tokenizer, [ids], sampling or Sampling(), cached=cached, room=room
    )
    stream, parts = TextStream(tokenizer, stops, ids), []
    for _ in range(max_new_tokens):
        made = generation.step()
        if 0 not in made:
            break
        parts.append(stream.add(made[0]))
        if stream.stopped:
            break
    return "".join(parts) + stream.rest()


def check_count(max_new_tokens: int) -> None:
    """Raise ConfigError for a number of tokens that cannot be made."""
    if max_new_tokens < 0:
        raise ConfigError("max_new_tokens", f"{max_new_tokens}", "at least 0")


class Generation:
    """Texts that grow by a token a step.

    ``texts`` holds the token ids of each, prompts included; a text is ``open`` until the end-of-text token
    comes or `stop` is called. ``slid`` tells whether one of them has outgrown the context.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        cached: bool = True,
        room: int | None = None,
    ) -> None:
        """``room``: tokens that a text will have at most, where that is less than the context length."""
        self._decoder, self._tokenizer, self._sampling = decoder, tokenizer, sampling
        self._context = decoder.config.context_length
        # Without a prompt the text begins where a document does; some tokenizers have no such token.
        begin = tokenizer.end_of_text if tokenizer.end_of_text is not None else 0
        self.texts = [list(prompt) or [begin] for prompt in prompts]
        self.open = list(range(len(prompts)))
        self._rows = list(self.open)  # whose text each row of the cache is
        self.slid = False
        self._generators = [
            torch.Generator().manual_seed(sampling.seed + number) for number in self.open
        ]
        self._starts = [0 for _ in prompts]
        self._cache: Cache | None = None
        if cached:
            longest = max(room or self._context, *(len(text) for text in self.texts), 1)
            self._cache = decoder.cache(len(prompts), min(self._context, longest))

    def stop(self, number: int) -> None:
        """Let that text grow no further."""
        self.open.remove(number)
        # A graph is of one number of sequences: there the closed ones go on unheeded.
        if self._cache is not None and self.open and not self._decoder.compiled:
            self._cache.keep_rows([self._rows.index(kept) for kept in self.open])
            self._rows = list(self.open)

    @torch.inference_mode()
    def step(self) -> dict[int, int]:
        """The next token of every open text, by its number; a text that ended is absent.

        Raises InputError for weights that give no finite logits.
        """
        if not self.open:
            return {}
        logits = self._logits()[:, : self._tokenizer.vocab_size].float().cpu()
        generators = [self._generators[number] for number in self.open]
        texts = [self.texts[number] for number in self.open]
        chosen = choose(logits, self._sampling, generators, texts)
        made = dict(zip(self.open, chosen, strict=True))
        for number, token in list(made.items()):
            if token == self._tokenizer.end_of_text or token in self._tokenizer.other_ends:
                del made[number]
                self.stop(number)
            else:
                self.texts[number].append(token)
        return made

    def _logits(self) -> Tensor:
        """(open texts, V), of the token after each."""
        moved = set()
        for number in self.open:
            start = window_start(len(self.texts[number]), self._context)
            if start != self._starts[number]:
                moved.add(number)
                self._starts[number] = start
        self.slid |= bool(moved)
        if self._cache is None:
            return torch.cat([self._decoder.model(self._window(n))[:, -1] for n in self.open])
        for row, number in enumerate(self._rows):
            if number not in self.open:
                self._cache.lengths[row] = 1
        rows = [row for row, number in enumerate(self._rows) if number in self.open]
        if all(self._cache.lengths) and not moved:
            last = [self.texts[number][-1:] for number in self._rows]
            return self._decoder(self._tensor(last), self._cache)[rows]
        # Texts of different lengths are read one by one, each into its own part of the cache.
        logits = []
        for row in rows:
            number, part = self._rows[row], self._cache.of_row(row)
            if number in moved:
                part.clear()
            unread = self._window(number)[:, part.lengths[0] :]
            logits.append(self._decoder(unread, part))
            self._cache.lengths[row] = part.lengths[0]
        return torch.cat(logits)

    def _window(self, number: int) -> Tensor:
        return self._tensor([self.texts[number][self._starts[number] :]])

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self._decoder.device)


def window_start(length: int, context_length: int) -> int:
    """The first token in sight of a text: halves of the context go, as many as must."""
    if length <= context_length:
        return 0
    half = max(1, context_length // 2)
    return half * -(-(length - context_length) // half)
