"""Tokens to text: the same text however it comes, whole characters, and never past a stop string."""

from __future__ import annotations

import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from minilm.generation.text_stream import TextStream
from minilm.text.tokenizers import ByteTokenizer, LibraryTokenizer

TOKENIZER = ByteTokenizer()


def streamed(data: bytes, *stops: str) -> tuple[list[str], bool]:
    stream, parts = TextStream(TOKENIZER, stops), []
    for byte in data:
        parts.append(stream.add(byte))
        if stream.stopped:
            break
    return [*parts, stream.flush()], stream.stopped


@given(st.text())
def test_whole_characters_come_one_by_one(text: str) -> None:
    parts, _ = streamed(text.encode())
    assert "".join(parts) == text
    assert all(len(part) <= 1 for part in parts)


@given(st.binary(max_size=8))
def test_bytes_that_are_no_text_do_not_stay_behind(data: bytes) -> None:
    parts, _ = streamed(data)
    if b"\xef\xbf\xbd" not in data:
        assert "".join(parts).replace("\ufffd", "") == data.decode(errors="ignore")


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_nothing_from_the_first_stop_string_on(text: str, stops: list[str]) -> None:
    parts, stopped = streamed(text.encode(), *stops)
    # The text ends with the first token that completes one of them.
    ends = [end for end in range(len(text) + 1) if any(s in text[:end] for s in stops)]
    assert stopped == bool(ends)
    visible = text[: ends[0]] if ends else text
    starts = [visible.find(stop) for stop in stops if stop in visible]
    assert "".join(parts) == visible[: min(starts, default=len(visible))]


def test_what_may_become_a_stop_string_is_held_back() -> None:
    stream = TextStream(TOKENIZER, ["END"])
    assert [stream.add(byte) for byte in b"aENbEN"] == ["a", "", "", "ENb", "", ""]
    assert stream.flush() == "EN"


def test_a_special_token_does_not_take_the_space_that_follows() -> None:
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={"<unk>": 0, "\u2581a": 1, "\u2581b": 2}, merges=[], unk_token="<unk>")
    )
    backend.add_special_tokens(["<unk>"])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = LibraryTokenizer(backend)
    stream = TextStream(tokenizer)
    text = "".join(stream.add(token) for token in (1, 0, 2)) + stream.flush()
    assert text == tokenizer.decode([1, 0, 2]) == "a b"
