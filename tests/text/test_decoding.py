"""Decoding: any cut of the bytes, exact byte offsets in the errors, and bytes that are mended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import CorpusError
from minilm.text.decoding import decode


def blocks_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_division_of_the_bytes_gives_the_text(text):
    for size in (1, 2, 3, 1000):
        assert "".join(decode(blocks_of(text.encode(), size), "a.txt")) == text
        assert (
            "".join(decode(blocks_of(text.encode(), size), "a.txt", replace_invalid=True)) == text
        )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize(
    ("data", "offset"),
    [
        ("héé".encode() + b"\xff rest", 5),
        (b"\x80", 0),
        ("aé".encode() + b"\xe2\x82", 3),  # the end of the file cuts a euro sign
        (b"caf\xe9 noir", 3),
    ],
)
def test_invalid_utf8_names_the_file_and_the_byte(data, offset, size):
    with pytest.raises(CorpusError) as caught:
        list(decode(blocks_of(data, size), "a.txt"))
    message = str(caught.value)
    assert message.startswith("a.txt: invalid UTF-8")
    assert f"at byte {offset}," in message
    assert "--clean encoding" in message


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_nul_names_the_file_and_the_byte(size):
    data = "é binary \0 here".encode()
    with pytest.raises(CorpusError, match=r"^a\.bin: a NUL byte at byte 10"):
        list(decode(blocks_of(data, size), "a.bin"))
    assert "".join(decode(blocks_of(data, size), "a.bin", allow_nul=True)) == data.decode()


def test_the_first_error_is_reported():
    with pytest.raises(CorpusError, match="NUL byte at byte 1"):
        list(decode([b"a\0b\xff"], "a.bin"))
    with pytest.raises(CorpusError, match=r"invalid UTF-8 .* at byte 1"):
        list(decode([b"a\xffb\0"], "a.bin"))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_invalid_bytes_are_decoded_as_windows_1252(size):
    data = "é ".encode() + "“naïve” café €".encode("cp1252") + b"\x81"
    assert (
        "".join(decode(blocks_of(data, size), "a", replace_invalid=True))
        == "é “naïve” café €\ufffd"
    )
