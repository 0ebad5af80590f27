"""Pre-tokens and their tokens against the tokenizers library."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from minilm.text import pretokens
from minilm.text.pretokens import WordTokens, split
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import BPETokenizer

LIBRARY = pre_tokenizers.ByteLevel(add_prefix_space=False)
# Characters of every branch of the pattern, and on both sides of what is known.
CHARACTERS = (
    "ab'strevmld019 \t\n\r\x0b\x0c\x1c\x1f_.!é²½Ⅷ日\u3000\u2028\xa0\x85\u200b\u1c89😀\ua7cb"
)


def library_split(text: str) -> list[str]:
    """By the offsets, which are of characters."""
    return [text[first:last] for _, (first, last) in LIBRARY.pre_tokenize_str(text)]


@given(text=st.one_of(st.text(st.sampled_from(CHARACTERS)), st.text()))
@example(text="I'll don't  we've\n\n x  ")
@settings(max_examples=300, deadline=None)
def test_a_text_is_split_as_the_library_does(text: str) -> None:
    words = split(text)
    assert words is None or words == library_split(text)


def test_every_character_that_is_known_is_of_the_librarys_kind() -> None:
    known = 0
    for number in range(0x10000):
        character = chr(number)
        if 0xD800 <= number < 0xE000:
            continue
        # It joins what is of its own kind alone; spaces part from all but spaces.
        for text in (f"a{character}", f"1{character}", f"!{character}"):
            words = split(text)
            if words is not None:
                known += 1
                assert words == library_split(text), hex(number)
    assert known > 3 * 50_000
    assert split("a\u1c89") is None, "a letter since Unicode 16"
    assert split("😀") is None


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    built = build_tokenizer(
        "bpe", lambda: iter(["the cat's mat, the 12 hats\n" * 50, CHARACTERS]), 320
    )
    assert isinstance(built, BPETokenizer)
    return built


@given(
    text=st.lists(st.sampled_from([*CHARACTERS, "the cat", " hats", "<|endoftext|>"])).map("".join)
)
@settings(max_examples=200, deadline=None)
def test_a_text_is_encoded_as_the_library_does(text: str, tokenizer: BPETokenizer) -> None:
    library = Tokenizer.from_str(tokenizer.to_json())
    library.encode_special_tokens = True
    assert tokenizer.encode(text).tolist() == library.encode(text).ids


def test_words_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretokens, "MOST_WORDS", 3)
    asked: list[str] = []

    def encode(word: str) -> list[int]:
        asked.append(word)
        return [len(word)]

    words, long = WordTokens(encode), "x" * (pretokens.LONGEST_WORD + 1)
    assert words.of(["a", "bb", "a", long, long]).tolist() == [1, 2, 1, len(long), len(long)]
    assert asked == ["a", "bb", long, long]
    for word in "cdefg":
        words.of([word])
        assert len(words) <= 3
