"""A text with what is difficult in texts, and a tokenizer of each kind for it."""

import pytest

from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizer_training import build_tokenizer

TEXT = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\r\n  indented, it's 1234\t\n\n"
    "naïve café, e\u0301, 日本語, 👩‍👧 and 🇫🇷;   three spaces\x85 \u2028 \ufeff ſ ǅ ½ \x01\n"
) * 3
SPECIAL = f"a {END_OF_TEXT} b{END_OF_TEXT}"
KINDS = ("byte", "char", "bpe")


def build(kind, text=TEXT + SPECIAL, vocab_size=None):
    return build_tokenizer(kind, lambda: iter([text]), vocab_size)


@pytest.fixture(scope="session")
def built():
    return {"byte": build("byte"), "char": build("char"), "bpe": build("bpe", vocab_size=400)}
