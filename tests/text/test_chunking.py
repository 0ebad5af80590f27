"""Chunking: nothing lost, bounded sizes, independent of the input's division, at token boundaries."""

import itertools
import unicodedata

import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.text.chunking import split_into_chunks

TEXTS = st.text(alphabet="ab \n\r\t'é́ſ가각.7", max_size=200)


@given(TEXTS, st.integers(1, 30), st.lists(st.integers(0, 200)))
def test_chunks_join_to_the_text_and_do_not_depend_on_its_division(text, size, boundaries):
    ends = sorted({min(boundary, len(text)) for boundary in boundaries} | {0, len(text)})
    texts = [text[a:b] for a, b in itertools.pairwise(ends)]
    chunks = list(split_into_chunks(texts, size))
    assert "".join(chunks) == text
    assert all(0 < len(chunk) <= size for chunk in chunks)
    assert chunks == list(split_into_chunks([text], size))


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["word", "é", "x's", "7", "..", " ", "  ", "\n", "\r\n", "\t"])))
def test_chunks_end_at_boundaries_of_pre_tokenization_and_of_normalization(texts):
    text = "".join(texts)
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    chunks = list(split_into_chunks([text], 12))
    for chunk, following in itertools.pairwise(chunks):
        if chunk[-1].isspace() or not following[0].isspace():
            assert len(chunk) == 12  # a stretch without a boundary: words, or whitespace alone
            return
    words = [word for word, _ in split(text)]
    assert [word for chunk in chunks for word, _ in split(chunk)] == words
    for form in ("NFC", "NFKC"):
        whole = unicodedata.normalize(form, text)
        assert "".join(unicodedata.normalize(form, chunk) for chunk in chunks) == whole


def test_newlines_are_preferred_and_a_long_word_is_split_at_the_limit():
    assert list(split_into_chunks(["one\n  two three four"], 12)) == [
        "one",
        "\n  two three",
        " four",
    ]
    assert list(split_into_chunks(["one\n\n  two three"], 10)) == ["one", "\n\n  two", " three"]
    assert list(split_into_chunks(["x" * 10], 4)) == ["xxxx", "xxxx", "xx"]
    assert list(split_into_chunks(["", "ab", ""], 4)) == ["ab"]
