"""Documents in one text: any division of the text gives the same, and nothing of a document is lost."""

from hypothesis import given
from hypothesis import strategies as st

from minilm.text.separators import END_OF_TEXT, split_documents

PIECES = st.lists(st.sampled_from([END_OF_TEXT, "a", "\n", "<|", "<|endoftext|", "|>", "é b"]))


def documents(texts):
    return ["".join(document) for document in split_documents(texts)]


@given(PIECES, st.integers(1, 20))
def test_any_division_gives_the_same_documents(pieces, size):
    text = "".join(pieces)
    first, *others = text.split(END_OF_TEXT)
    expected = [part for part in [first, *(other.lstrip("\n") for other in others)] if part]
    divided = [text[i : i + size] for i in range(0, len(text), size)]
    assert documents([text]) == documents(divided) == expected


def test_stories_as_they_are_published():
    text = "One.\nTwo.\n<|endoftext|>\nThree.\n<|endoftext|>\n\n<|endoftext|>"
    assert documents([text]) == ["One.\nTwo.\n", "Three.\n"]
