"""Conversations as a dataset: packed whole, split by conversation, each row once an epoch."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.config import TrainConfig
from minilm.data.batches import IGNORED
from minilm.data.conversations import Conversations, PackedRows, pack, prepare_conversations
from minilm.errors import CorpusError
from minilm.text.chat_template import ChatTemplate
from minilm.text.corpora import open_corpus
from minilm.text.tokenizers import ByteTokenizer

# Of bytes: the question, a colon, the answer and NUL.
TEMPLATE = ChatTemplate(
    "{% for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' else ':') }}"
    "{% endfor %}",
    {"eos_token": "<|endoftext|>"},
)
LONGER = st.lists(st.integers(1, 20), max_size=60)


def prepared(path: Path, pairs: list[tuple[str, str]], **how: Any) -> Conversations:
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in pairs]
    (path / "chat.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = {"val_fraction": 0.2, "split": "position", "context_length": 64} | how
    return prepare_conversations(
        open_corpus(str(path / "chat.jsonl"), cache=path),
        tokenizer=ByteTokenizer(),
        template=TEMPLATE,
        **settings,
    )


def texts(rows: PackedRows) -> list[str]:
    """Each conversation of a side."""
    pieces = np.split(rows.tokens, rows.starts[1:-1])
    return [bytes(piece.astype(np.uint8)).decode() for piece in pieces]


@given(LONGER)
def test_packing_leaves_nothing_out_and_fits(sizes: list[int]) -> None:
    rows = pack(sizes, 20)
    assert Counter(number for row in rows for number in row) == Counter(range(len(sizes)))
    filled = [sum(sizes[number] for number in row) for row in rows]
    assert all(0 < size <= 20 for size in filled)
    # Of two rows that are at most half full one would not have been begun.
    assert sum(size <= 10 for size in filled) <= 1
    assert rows == pack(sizes, 20)


def test_a_batch_has_each_conversation_beside_the_others(tmp_path: Path) -> None:
    data = prepared(tmp_path, [("a", "bc"), ("defg", "hijklmno"), ("p", "q"), ("r", "s")])
    assert texts(data.train_rows) == ["a:bc\0", "defg:hijklmno\0", "p:q\0"]
    assert texts(data.val_rows) == ["r:s\0"]
    assert data.row_length(64) == 16, "no longer than the longest conversation needs"
    assert len(data.train_rows.rows) == 2
    batch = data.train_rows.batch([0, 1], 3)
    inputs, targets, positions = batch.arrays
    row = [bytes(each.astype(np.uint8)) for each in inputs]
    assert row == [b"defg:hijklmnop:q", b"a:bc" + bytes(12), bytes(16)]
    learned = [bytes(each[each != IGNORED].astype(np.uint8)) for each in targets]
    assert learned == [b"hijklmno\0q\0", b"bc\0", b""]
    assert positions[0].tolist() == [*range(13), *range(3)]
    assert positions[1].tolist() == [*range(4), *[0] * 12]
    assert (batch.tokens, batch.labels) == (13 + 4 + 3, 9 + 3 + 2)
    assert data.train_rows.labels == 14
    assert data.train_tokens == 20
    assert data.train_places == 32
    assert data.val_labels == 2
    assert data.val_bytes == 1, "of the answers alone"


PAIRS = [(f"question {number}", "a" * (1 + number % 7)) for number in range(40)]


@pytest.mark.parametrize("split", ["position", "document", "shuffle"])
def test_both_sides_are_disjoint_by_conversation(tmp_path: Path, split: str) -> None:
    pairs = [*PAIRS, *PAIRS[:10], *PAIRS[30:]]
    data = prepared(tmp_path, pairs, split=split)
    train, val = (set(texts(rows)) for rows in (data.train_rows, data.val_rows))
    assert not train & val
    assert len(train | val) == 40
    assert data.documents == len(texts(data.train_rows)) + len(texts(data.val_rows)) == 60
    assert 0.05 < len(val) / 40 < 0.4
    if split == "position":
        assert {int(text.split()[1].split(":")[0]) for text in val} == set(range(40 - len(val), 40))
    other = prepared(tmp_path, pairs, split=split)
    assert other.key == data.key


def test_all_of_them_validate_where_that_is_asked(tmp_path: Path) -> None:
    data = prepared(tmp_path, PAIRS[:1], val_fraction=1.0)
    assert data.train_tokens == 0
    assert data.val_tokens == len("question 0:a")


def batches(data: Conversations, config: TrainConfig, steps: int, rows: int) -> list[np.ndarray]:
    """The inputs of each row that these steps have, in order."""
    return [
        row
        for step in range(steps)
        for micro_step in range(config.gradient_accumulation)
        for row in data.training_batch(
            config, step=step, micro_step=micro_step, rows=rows, length=32, merges=None
        ).arrays[0]
    ]


def test_each_epoch_has_every_row_once_in_another_order(tmp_path: Path) -> None:
    data = prepared(tmp_path, PAIRS)
    count = len(data.train_rows.rows)
    assert count % 2 == 1, "a batch of two reaches into the next epoch"
    seen = [bytes(row) for row in batches(data, TrainConfig(), count, 2)]
    first, second = seen[:count], seen[count:]
    assert Counter(first) == Counter(second)
    assert set(Counter(first).values()) == {1}
    assert first != second
    assert seen == [bytes(row) for row in batches(data, TrainConfig(), count, 2)]
    assert seen != [bytes(row) for row in batches(data, TrainConfig(seed=1), count, 2)]
    accumulated = batches(data, TrainConfig(gradient_accumulation=2), count, 1)
    assert seen == [bytes(row) for row in accumulated], "as if it were one batch"


@pytest.mark.parametrize("at_most", [0, 10, 40, 100])
def test_an_evaluation_has_each_row_once_or_some_of_them(tmp_path: Path, at_most: int) -> None:
    data = prepared(tmp_path, PAIRS, val_fraction=0.5)
    whole = list(data.validation_batches(32, 2, at_most))
    rows = [bytes(row) for batch in whole for row in batch.arrays[0] if row.any()]
    assert len(rows) == data.num_validation_rows(32, at_most) == len(set(rows))
    assert {batch.arrays[0].shape for batch in whole} == {(2, 32)}
    if not at_most:
        assert sum(batch.labels for batch in whole) == data.val_labels


def test_a_long_one_loses_its_beginning_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [("a" * 30, "b" * 10), ("c", "d" * 40), ("e", "f"), ("g", "h")]
    with caplog.at_level(logging.WARNING):
        data = prepared(tmp_path, pairs, context_length=16)
    assert texts(data.train_rows) == ["aaaaa:" + "b" * 10 + "\0", "d" * 16 + "\0", "e:f\0"]
    assert data.description["truncated"] == 2
    assert caplog.text.count("note:") == 1
    assert "2 conversations are longer than the context of 16 tokens" in caplog.text


def test_the_beginning_of_text_stays_before_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spans = ByteTokenizer.chat_spans

    def with_beginning(self: ByteTokenizer, text: str) -> Any:
        ids, starts, ends = spans(self, text)
        return type(spans(self, text))(
            np.concatenate([[1], ids]), np.concatenate([[0], starts]), np.concatenate([[0], ends])
        )

    monkeypatch.setattr(ByteTokenizer, "chat_spans", with_beginning)
    monkeypatch.setattr(ByteTokenizer, "encode_prompt", lambda self, text: [1])
    pairs = [("a" * 9, "b" * 9), ("c", "d"), ("e", "f")]
    data = prepared(tmp_path, pairs, context_length=4)
    assert texts(data.train_rows)[0] == "\1bbb\0"
    learned = data.train_rows.are_answers[:5]
    assert learned.tolist() == [False, False, True, True, True], "what came before it is gone"
    with caplog.at_level(logging.WARNING), pytest.raises(CorpusError, match="no answer within"):
        prepared(tmp_path, pairs, context_length=1)
    assert "3 conversations have no answer left and are dropped" in caplog.text


def test_one_conversation_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="one conversation, expected several"):
        prepared(tmp_path, [PAIRS[0]] * 3)


def test_what_the_template_rewrites_is_counted_in_one_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = ChatTemplate(
        "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}{{ m['content'] + '|' }}"
        "{% endif %}{% endfor %}"
    )
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        prepare_conversations(
            open_corpus(str(path), cache=tmp_path),
            tokenizer=ByteTokenizer(),
            template=last,
            val_fraction=1.0,
            split="position",
            context_length=16,
        )
    assert "the template writes 1 answer otherwise once others follow" in caplog.text
