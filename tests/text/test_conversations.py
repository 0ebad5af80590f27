"""Records of conversations: what is read of them, and what each bad one lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minilm.errors import CorpusError
from minilm.text.conversations import Conversation
from minilm.text.corpora import open_corpus
from minilm.text.corpus import Corpus

QUESTION, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
GOOD = {"messages": [QUESTION, ANSWER]}
PAIR = {"prompt": "Why?", "completion": "So."}


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Corpus]:
    def write(records: Sequence[Any], name: str = "chat.jsonl", **how: Any) -> Corpus:
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return open_corpus(str(tmp_path / name), cache=tmp_path, **how)

    return write


def read(corpus: Corpus) -> list[Conversation]:
    return list(corpus.conversations(lambda where, text: None))


def test_both_kinds_become_messages(corpus: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    records = [{"messages": [system, QUESTION, ANSWER, QUESTION], "source": "a"}, "", GOOD]
    chat = corpus(records)
    assert chat.has_conversations()
    long, short = read(chat)
    assert long.messages == (system, QUESTION, ANSWER), (
        "what follows the last answer teaches nothing"
    )
    assert short.messages == (QUESTION, ANSWER)
    assert short.where.endswith("chat.jsonl line 3")
    assert read(corpus([PAIR]))[0].messages == (QUESTION, ANSWER)


def test_an_array_over_several_lines(corpus: Any) -> None:
    text = json.dumps([GOOD, GOOD, {"messages": []}], indent=1)
    chat = corpus([text], "chat.json")
    assert chat.has_conversations()
    line = text[: text.rindex("{")].count("\n") + 1
    with pytest.raises(CorpusError, match=rf"chat\.json line {line}: no message"):
        read(chat)


def test_they_are_cleaned_as_texts_are(corpus: Any) -> None:
    answer = {"role": "assistant", "content": "a\r\nb  \nc\ud800"}
    [chat] = read(corpus([{"messages": [QUESTION, answer]}], cleaning=("whitespace",)))
    assert chat.messages[1]["content"] == "a\nb\nc\ufffd"


@pytest.mark.parametrize(
    "record",
    [{"text": "a", **GOOD}, {"text": "a"}, {"prompt": "a"}, {"messages": "a text"}, "a"],
)
def test_what_is_text_stays_text(corpus: Any, record: Any) -> None:
    chat = corpus([json.dumps(record)])
    assert not chat.has_conversations()
    assert next(chunk.text for chunk in chat.chunks()).startswith("a")


@pytest.mark.parametrize("how", [{"text_field": "prompt"}, {"raw_text": True}])
def test_it_can_be_asked_for_as_text(corpus: Any, how: Any) -> None:
    assert not corpus([PAIR], **how).has_conversations()


def messages(*entries: Any) -> dict[str, Any]:
    return {"messages": list(entries)}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "list in place of an object, expected an object with messages"),
        ({"chat": []}, "no messages, expected an object with messages, as the first record has"),
        (PAIR, "no messages but prompt and completion"),
        ({"messages": {}}, "messages that are {}, expected a list"),
        (messages(), "no message of the role assistant"),
        (messages(QUESTION), "no message of the role assistant"),
        (messages("hello"), "message 1 is 'hello', expected an object with role and content"),
        (messages({"content": "a"}), "message 1: no role, expected one of system, developer, user"),
        (messages(QUESTION, {"role": "gpt"}), "message 2 with the role 'gpt', expected one of"),
        (messages({"role": ["user"]}), "message 1 with the role ['user']"),
        (messages({"role": "user"}), "message 1: no content, expected a text"),
        (messages(QUESTION, ANSWER | {"content": None}), "message 2: None, expected a text"),
        (messages(QUESTION, ANSWER | {"content": [1]}), "message 2: [1], expected a text"),
        (messages(QUESTION, ANSWER | {"content": " \n"}), "message 2: an empty answer"),
        (messages(QUESTION | {"content": "\0"}, ANSWER), "message 1 with a NUL character"),
        ('{"messages": [', "not JSON"),
    ],
)
def test_a_bad_record_is_named_by_its_line(corpus: Any, record: Any, message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read(corpus([GOOD, "", record]))
    assert message in str(caught.value)
    place = "record 2" if isinstance(record, str) else "line 3"
    assert f"chat.jsonl {place}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (PAIR | {"completion": ""}, "line 2: completion: an empty answer"),
        (PAIR | {"prompt": 3}, "line 2: prompt: 3, expected a text"),
        ({"prompt": "a"}, "line 2: no completion, expected an object with prompt and completion"),
        (GOOD, "line 2: no prompt and no completion but messages"),
    ],
)
def test_a_bad_pair(corpus: Any, record: Any, message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read(corpus([PAIR, record]))
    assert message in str(caught.value)


def test_a_text_among_them_is_refused(corpus: Any, tmp_path: Path) -> None:
    corpus([GOOD], "a.jsonl")
    corpus(["text"], "b.txt")
    chat = open_corpus(str(tmp_path), cache=tmp_path)
    assert chat.has_conversations()
    with pytest.raises(CorpusError, match=r"b\.txt: text beside conversations"):
        read(chat)


def test_where_text_is_expected_one_line_says_what_takes_them(corpus: Any) -> None:
    with pytest.raises(CorpusError, match=r"conversations, expected text; `minilm finetune`"):
        list(corpus([GOOD]).chunks())


@pytest.fixture
def parquet() -> Any:
    reason = "the extra 'parquet' is not installed"
    return pytest.importorskip("pyarrow.parquet", reason=reason)


@pytest.mark.parametrize("columns", [{"messages": [GOOD["messages"]] * 2}, {**PAIR, "id": 7}])
def test_columns_of_parquet(parquet: Any, tmp_path: Path, columns: dict[str, Any]) -> None:
    import pyarrow

    table = {
        name: value if isinstance(value, list) else [value] * 2 for name, value in columns.items()
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "chat.parquet")
    chat = open_corpus(str(tmp_path / "chat.parquet"), cache=tmp_path)
    assert chat.has_conversations()
    assert [each.messages for each in read(chat)] == [(QUESTION, ANSWER)] * 2
    assert [each.where[-18:] for each in read(chat)] == [f"chat.parquet row {n}" for n in (1, 2)]
    with pytest.raises(CorpusError, match=r"conversations, expected text; `minilm finetune`"):
        list(chat.chunks())
    parquet.write_table(pyarrow.table({"story": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(CorpusError, match=r"other\.parquet row 1: no (messages|prompt)"):
        read(open_corpus(str(tmp_path), cache=tmp_path))


def test_a_bad_row_of_parquet_is_named(parquet: Any, tmp_path: Path) -> None:
    import pyarrow

    table = {"prompt": ["Why?", None], "completion": ["So.", "So."]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet row 2: prompt: None, expected a text"):
        read(open_corpus(str(tmp_path / "a.parquet"), cache=tmp_path))


def test_what_is_text_in_parquet_stays_text(parquet: Any, tmp_path: Path) -> None:
    import pyarrow

    rows = {"text": ["a"], "prompt": ["b"], "completion": ["c"]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    chat = open_corpus(str(tmp_path / "a.parquet"), cache=tmp_path)
    assert not chat.has_conversations()
    assert [chunk.text for chunk in chat.chunks()] == ["a"]
    asked = open_corpus(str(tmp_path / "a.parquet"), cache=tmp_path, text_field="prompt")
    assert [chunk.text for chunk in asked.chunks()] == ["b"]
