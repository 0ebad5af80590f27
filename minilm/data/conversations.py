"""Conversations as a dataset: packed into rows, the loss on their answers alone.

A row holds several conversations one after another, each whole; positions begin at 0 in each, by which the
model keeps them apart. A conversation of n tokens takes n - 1 places, one for each token that is predicted.
All of it is in memory and made anew by each process: a function of text, tokenizer and template.

Legend: b rows, t places of a row, n tokens of a split.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.config import TrainConfig
from minilm.data.batches import IGNORED, Batch, evenly_spread
from minilm.data.corpus_stats import Notes, identify
from minilm.data.dataset import Dataset
from minilm.data.splits import Mode, draw
from minilm.errors import ConfigError, CorpusError
from minilm.progress import progress_bar
from minilm.text.answers import Answered, answered
from minilm.text.chat_template import ChatTemplate
from minilm.text.conversations import Conversation
from minilm.text.corpus import Corpus
from minilm.text.tokenizers import Tokenizer
from minilm.units import counted

logger = logging.getLogger(__name__)

# Settings that choose windows of a text, or change it.
_OF_TEXT = ("bpe_dropout", "initial_batch_size", "initial_context_length", "document_attention")


@dataclass(frozen=True)
class PackedRows:
    """Conversations of one side of the split, and the rows that they are in.

    ``tokens`` and ``are_answers``, (n,), of all conversations one after another; conversation i is from
    ``starts[i]`` to before ``starts[i + 1]``. ``rows`` has the numbers of those in each row of ``length``
    places.
    """

    tokens: NDArray[np.uint32]
    are_answers: NDArray[np.bool_]
    starts: NDArray[np.int64]
    rows: tuple[tuple[int, ...], ...]
    length: int

    def batch(self, numbers: Sequence[int], rows: int) -> Batch:
        """The rows ``numbers`` as inputs, targets and positions, (b, t) each; those up to ``rows`` are empty.

        What is no answer has the target IGNORED. An empty place has input 0, and sees itself alone.
        """
        inputs = np.zeros((rows, self.length), dtype=np.int64)
        targets = np.full((rows, self.length), IGNORED, dtype=np.int64)
        positions = np.zeros((rows, self.length), dtype=np.int64)
        filled = 0
        for row, number in enumerate(numbers):
            place = 0
            for conversation in self.rows[number]:
                start, end = self.starts[conversation], self.starts[conversation + 1]
                following = self.tokens[start + 1 : end].astype(np.int64)
                part = slice(place, place + len(following))
                inputs[row, part] = self.tokens[start : end - 1]
                learned = self.are_answers[start + 1 : end]
                targets[row, part] = np.where(learned, following, IGNORED)
                positions[row, part] = np.arange(len(following))
                place = part.stop
            filled += place
        return Batch((inputs, targets, positions), filled)

    @cached_property
    def labels(self) -> int:
        """Tokens that are predicted and are of an answer."""
        first = self.are_answers[self.starts[:-1]]
        return int(self.are_answers.sum() - first.sum())


@dataclass(frozen=True, kw_only=True)
class Conversations(Dataset):
    """As a text, with the rows of both sides; ``details`` are for summary.json.

    ``train`` and ``val`` are all of their tokens one after another, ``val_bytes`` those of the answers.
    """

    train_rows: PackedRows
    val_rows: PackedRows
    details: dict[str, Any]

    @property
    def description(self) -> dict[str, Any]:
        return self.details

    @property
    def train_tokens(self) -> int:
        return len(self.train) - len(self.train_rows.starts) + 1

    @property
    def val_tokens(self) -> int:
        return len(self.val) - len(self.val_rows.starts) + 1

    @property
    def train_places(self) -> int:
        return len(self.train_rows.rows) * self.train_rows.length

    @property
    def val_places(self) -> int:
        return len(self.val_rows.rows) * self.val_rows.length

    @property
    def val_labels(self) -> int:
        return self.val_rows.labels

    def row_length(self, context_length: int) -> int:
        assert self.val_rows.length <= context_length, "it was packed for this model"
        return self.val_rows.length

    def training_batch(
        self,
        config: TrainConfig,
        *,
        step: int,
        micro_step: int,
        rows: int,
        length: int,
        merges: NDArray[np.int64] | None,
    ) -> Batch:
        """Each epoch has every row once, in an order of its own; a batch may reach into the next."""
        assert length == self.train_rows.length
        assert merges is None
        first = (step * config.gradient_accumulation + micro_step) * rows
        epochs, places = np.divmod(np.arange(first, first + rows), len(self.train_rows.rows))
        orders = {epoch: self._order(config.seed, epoch) for epoch in set(epochs.tolist())}
        numbers = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
        return self.train_rows.batch(numbers, rows)

    def _order(self, seed: int, epoch: int) -> list[int]:
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train_rows.rows))
        numbers: list[int] = order.tolist()
        return numbers

    def num_validation_rows(self, length: int, at_most: int) -> int:
        return len(evenly_spread(len(self.val_rows.rows), self.val_places, length, at_most))

    def validation_batches(self, length: int, rows: int, at_most: int) -> Iterator[Batch]:
        numbers = evenly_spread(len(self.val_rows.rows), self.val_places, length, at_most)
        for first in range(0, len(numbers), rows):
            yield self.val_rows.batch(numbers[first : first + rows].tolist(), rows)


def prepare_conversations(
    corpus: Corpus,
    *,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    val_fraction: float,
    split: Mode,
    context_length: int,
) -> Conversations:
    """The conversations of ``corpus``, split and packed into rows of at most ``context_length`` places.

    By default the last ``val_fraction`` of the text validates, in whole conversations; ``document`` and
    ``shuffle`` draw. Conversations that are the same are on one side, where the first of them is. One that is
    longer than the context loses its beginning, so that the end of its last answer stays.

    Raises CorpusError for a record that is no conversation, FormatError for one that the template does not
    write.
    """
    notes = Notes()
    identity = identify(corpus)
    conversations = list(corpus.conversations(notes.add))
    notes.log()
    if not conversations:
        raise CorpusError(corpus.source, "no conversations", "some to train on")
    encoded, counts = _encode(conversations, corpus.source, tokenizer, template, context_length)
    validates = _split(encoded, corpus.source, val_fraction, split)
    longest = max(len(each.ids) - 1 for each in encoded)
    length = min(context_length, 1 << (longest - 1).bit_length())
    sides = [
        [e for e, val in zip(encoded, validates, strict=True) if val == side] for side in (0, 1)
    ]
    train, val = (_pack(side, length) for side in sides)
    details = {
        "kind": "conversations",
        "conversations": len(encoded),
        "train_answer_tokens": train.labels,
        "val_answer_tokens": val.labels,
        **counts,
    }
    return Conversations(
        train=train.tokens,
        val=val.tokens,
        tokenizer=tokenizer,
        source=corpus.source,
        bytes=identity.bytes,
        sha256=identity.sha256,
        train_bytes=sum(each.text_bytes for each in sides[0]),
        val_bytes=sum(each.answer_bytes for each in sides[1]),
        documents=len(encoded),
        key=_digest(train, val),
        train_rows=train,
        val_rows=val,
        details=details,
    )


def check_settings(config: TrainConfig) -> None:
    """Raises ConfigError for settings that conversations do not have."""
    for name in _OF_TEXT:
        if value := getattr(config, name):
            raise ConfigError(name, f"{value} with conversations", "0, as they are packed once")


def _encode(
    conversations: Sequence[Conversation],
    source: str,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    context_length: int,
) -> tuple[list[Answered], dict[str, int]]:
    """Those that have an answer within the context, and how many were truncated and dropped."""
    encoded, counts = [], {"truncated": 0, "dropped": 0}
    masked = 0
    beginning = len(tokenizer.encode_prompt(""))
    bar = progress_bar(
        iterable=answered(conversations, template, tokenizer),
        total=len(conversations),
        unit=" conversations",
        desc="encoding",
    )
    for each in bar:
        masked += each.masked
        if len(each.ids) > context_length + 1:
            counts["truncated"] += 1
            each = _truncated(each, context_length + 1, beginning)
        if each.are_answers[1:].any():
            encoded.append(each)
        else:
            counts["dropped"] += 1
    _log_counts(source, counts, masked, context_length)
    if not encoded:
        raise CorpusError(source, "no answer within the context", "a longer context")
    return encoded, counts


def _truncated(each: Answered, length: int, beginning: int) -> Answered:
    """The last ``length`` tokens, the beginning-of-text tokens before them kept.

    A token of the answers that are left stands for as many bytes as one of all of them.
    """
    rest = len(each.ids) - (length - beginning)
    are_answers = np.delete(each.are_answers, slice(beginning, rest))
    are_answers[: beginning + 1] = False  # what came before it is gone
    share = are_answers.sum() / max(1, each.are_answers.sum())
    return dataclasses.replace(
        each,
        ids=np.delete(each.ids, slice(beginning, rest)),
        are_answers=are_answers,
        answer_bytes=round(each.answer_bytes * share),
    )


def _log_counts(source: str, counts: dict[str, int], masked: int, context_length: int) -> None:
    if count := counts["truncated"]:
        longer = counted(count, "conversation is", "conversations are")
        logger.warning(
            f"note: {source}: {longer} longer than the context of {context_length:,} tokens: the beginning "
            "is left out"
        )
    if count := counts["dropped"]:
        empty = counted(
            count,
            "conversation has no answer left and is",
            "conversations have no answer left and are",
        )
        logger.warning(f"note: {source}: {empty} dropped")
    if masked:
        logger.warning(
            f"note: {source}: the template writes {counted(masked, 'answer')} otherwise once others follow: "
            "not learned, as the last answer of each conversation is"
        )


def _split(
    encoded: Sequence[Answered], source: str, val_fraction: float, mode: Mode
) -> NDArray[np.bool_]:
    """Which conversations validate."""
    if val_fraction == 1:
        return np.ones(len(encoded), dtype=bool)
    group_of: dict[bytes, int] = {}
    groups = np.array([group_of.setdefault(each.digest, len(group_of)) for each in encoded])
    if len(group_of) < 2:
        raise CorpusError(
            source, "one conversation", "several, of which some validate", "use more data"
        )
    sizes = np.bincount(groups, [each.text_bytes for each in encoded]).astype(np.int64)
    if mode == "position":
        before = np.cumsum(sizes) - sizes
        validates = before >= sizes.sum() * (1 - val_fraction)
        validates[-1], validates[0] = True, False
    else:
        validates = draw(sizes, val_fraction)
    by_conversation: NDArray[np.bool_] = validates[groups]
    return by_conversation


def _pack(encoded: Sequence[Answered], length: int) -> PackedRows:
    sizes = [len(each.ids) for each in encoded]
    return PackedRows(
        np.concatenate([np.empty(0, np.uint32), *(e.ids.astype(np.uint32) for e in encoded)]),
        np.concatenate([np.empty(0, bool), *(each.are_answers for each in encoded)]),
        np.cumsum([0, *sizes]),
        pack([size - 1 for size in sizes], length),
        length,
    )


def pack(sizes: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Rows of at most ``room`` places each, as the numbers of what is in them.

    The longest first, each into the row in which the least room is left: best-fit decreasing, as Krell et al.
    2021 (arXiv:2107.02027) pack.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # room left -> rows
    rooms: list[int] = []  # its keys, sorted
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        size = sizes[number]
        place = bisect.bisect_left(rooms, size)
        if place < len(rooms):
            left = rooms[place]
            row = open_rows[left].pop()
            if not open_rows[left]:
                del open_rows[left], rooms[place]
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(number)
        left -= size
        if left:
            if left not in open_rows:
                bisect.insort(rooms, left)
            open_rows.setdefault(left, []).append(row)
    return tuple(map(tuple, rows))


def _digest(*sides: PackedRows) -> str:
    digest = hashlib.sha256()
    for side in sides:
        for array in (side.tokens, side.are_answers, side.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{side.length} {side.rows}".encode())
    return digest.hexdigest()
