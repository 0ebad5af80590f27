"""A conversation with a model: what it has read of the history is not read again.

The model sees all of the conversation that its context holds: the oldest turns are dropped, whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence

from minilm.generation.decoder import Decoder
from minilm.generation.generate import Generation, room_for_answer
from minilm.generation.sampling import Sampling
from minilm.generation.text_stream import TextStream
from minilm.text.chat_template import ChatTemplate, Message, end_of_turn
from minilm.text.tokenizers import Tokenizer


class Chat:
    """Answers to one message after another.

    ``messages`` is the history, as the template has it next, without the turns that were dropped.
    ``tokens`` are those of the last answer, which took ``seconds``; ``was_cut``: the context ended it.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        sampling: Sampling,
        *,
        system: str = "",
        stops: Sequence[str] = (),
        max_new_tokens: int,
        cached: bool = True,
        fallback: Callable[[], Decoder] | None = None,
    ) -> None:
        """``system``: what stands before the conversation; ``stops``: strings that end an answer.

        ``fallback`` is as in `Generation`.

        Raises FormatError for a template that cannot be used.
        """
        self._decoder, self._tokenizer, self._template = decoder, tokenizer, template
        self._sampling, self._stops, self._cached = sampling, stops, cached
        self._max_new_tokens, self._fallback = max_new_tokens, fallback
        self._turn_end = end_of_turn(template, tokenizer)
        self._generation: Generation | None = None
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.tokens: list[int] = []
        self.seconds = 0.0
        self.was_cut = False
        self.dropped_turns = 0

    @property
    def decoder(self) -> Decoder:
        """What the last tokens came from."""
        return self._decoder if self._generation is None else self._generation.decoder

    def answer(self, message: str) -> Generator[str, None, None]:
        """The answer in parts: one after each token, often empty, and what remains.

        Where it is not asked for to its end, what there was of it is in the history. Raises FormatError where
        the template refuses the conversation, TokenizerError where ``message`` has no tokens or too many.
        """
        self.messages.append({"role": "user", "content": message})
        self.tokens, self.was_cut, text = [], False, ""
        begin = time.perf_counter()
        try:
            generation, room = self._begin()
            begin = time.perf_counter()
            stream = TextStream(self._tokenizer, self._stops, generation.sequences[0])
            while len(self.tokens) < min(self._max_new_tokens, room):
                new_tokens = generation.step()
                if 0 not in new_tokens:
                    break
                self.tokens.append(new_tokens[0])
                part = stream.add(new_tokens[0])
                text += part
                yield part
                if stream.stopped:
                    break
            else:
                self.was_cut = room < self._max_new_tokens
            part = stream.flush()
            text += part
            yield part
        finally:
            self.seconds = time.perf_counter() - begin
            if self.tokens:
                self.messages.append({"role": "assistant", "content": text})
            else:
                self.messages.pop()

    def _begin(self) -> tuple[Generation, int]:
        """A generation of the answer, and how many tokens the context has left for it."""
        ids, room = self._prompt()
        if self._generation is None:
            self._generation = Generation(
                self._decoder,
                self._tokenizer,
                [ids],
                self._sampling,
                cached=self._cached,
                turn_end=self._turn_end,
                fallback=self._fallback,
            )
        else:
            self._generation.restart(ids)
        return self._generation, room

    def _prompt(self) -> tuple[list[int], int]:
        """The ids of the conversation, from which turns are dropped until an answer has room; that room."""
        config = self._decoder.config
        wanted = min(self._max_new_tokens, config.context_length // 2)
        starts = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        system = self.messages[: starts[0]]
        texts = self._template.render_all(
            ([*system, *self.messages[start:]] for start in starts), add_generation_prompt=True
        )
        dropped = -1
        with contextlib.closing(texts):
            for text in texts:
                self._template.check_prompt(text, self.messages[-1])
                ids, dropped = self._tokenizer.encode_chat(text), dropped + 1
                if len(ids) + wanted <= config.context_length:
                    break
        room = room_for_answer(config, ids, "message")
        self.messages[len(system) : starts[dropped]] = []
        self.dropped_turns += dropped
        return ids, room
