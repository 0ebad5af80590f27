"""Cutting: nothing lost, bounded, independent of how the text came, at harmless places."""

import itertools
import unicodedata

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.text.chunking import split_into_chunks

TEXTS = st.text(alphabet="ab \n\r\t'é́ſ가각.7", max_size=200)


@given(TEXTS, st.integers(1, 30), st.lists(st.integers(0, 200)))
def test_pieces_join_to_the_text_and_do_not_depend_on_how_it_came(text, size, places):
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    parts = [text[a:b] for a, b in itertools.pairwise(ends)]
    pieces = list(split_into_chunks(parts, size))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
    assert pieces == list(split_into_chunks([text], size))


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["word", "é", "x's", "7", "..", " ", "  ", "\n", "\r\n", "\t"])))
def test_cuts_are_boundaries_of_pre_tokenization_and_of_normalization(parts):
    text = "".join(parts)
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    pieces = list(split_into_chunks([text], 12))
    if any(len(piece) == 12 and not text.isspace() for piece in pieces[:-1]):
        return  # a stretch without a safe place
    words = [word for word, _ in split(text)]
    assert [word for piece in pieces for word, _ in split(piece)] == words
    for form in ("NFC", "NFKC"):
        whole = unicodedata.normalize(form, text)
        assert "".join(unicodedata.normalize(form, piece) for piece in pieces) == whole


def test_newlines_are_preferred_and_a_long_word_is_cut_at_the_limit():
    assert list(split_into_chunks(["one\n  two three four"], 12)) == [
        "one",
        "\n  two three",
        " four",
    ]
    assert list(split_into_chunks(["one\n\n  two three"], 10)) == ["one", "\n\n  two", " three"]
    assert list(split_into_chunks(["x" * 10], 4)) == ["xxxx", "xxxx", "xx"]
    assert list(split_into_chunks(["", "ab", ""], 4)) == ["ab"]
