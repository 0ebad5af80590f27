"""Decoding: any cut of the bytes, exact byte offsets in the errors, and bytes that are mended."""

import array
import bz2
import gzip
import io
import lzma
import random
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import CorpusError
from minilm.text.decoding import decode


def blocks_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


# Control characters apart: a text of many is refused where bytes are to be replaced.
TEXT = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r")


@given(st.text(alphabet=TEXT))
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


SENTENCES = "Ein Satz über „Äpfel“.\r\n" * 20
CHINESE = "你好，世界。今天天气很好\n" * 30


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [SENTENCES, CHINESE, "a", ""])
def test_a_byte_order_mark_says_the_encoding(text, encoding, size):
    notes = []
    data = ("\ufeff" + text).encode(encoding)
    decoded = decode(blocks_of(data, size), "a", note=lambda *note: notes.append(note))
    assert "".join(decoded) == text
    assert notes == [("a", f"decoded as {encoding.upper()}")]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_nul_in_every_second_byte_is_utf_16(encoding, size):
    data = SENTENCES.encode(encoding)
    assert "".join(decode(blocks_of(data, size), "a")) == SENTENCES
    repaired = decode(blocks_of(data, size), "a", replace_invalid=True, allow_nul=True)
    assert "".join(repaired) == SENTENCES


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_broken_utf_16_names_the_byte(size):
    data = ("\ufeff" + SENTENCES).encode("utf-16-le")
    for broken, offset in [
        (data[:-1], len(data) - 2),
        (data[:100] + b"\x00\xdc" + data[102:], 100),
    ]:
        with pytest.raises(CorpusError, match=rf"invalid UTF-16-LE .* at byte {offset},"):
            list(decode(blocks_of(broken, size), "a"))
    with pytest.raises(CorpusError, match="a NUL character in UTF-16-LE"):
        list(decode(blocks_of(data + b"\0\0", size), "a"))


@pytest.mark.parametrize(
    "data",
    [
        CHINESE.encode("utf-16-le"),  # without its mark
        CHINESE.encode("gb18030"),
        ("Привет, мир. " * 20).encode("cp1251"),
        bytes(range(256)) * 20,
        (b"\0\0\0\1\2\3ab" * 50),
    ],
    ids=["utf-16", "gb18030", "cp1251", "binary", "nul"],
)
def test_no_advice_and_no_repair_leads_to_garbage(data):
    for repair in (False, True):
        with pytest.raises(CorpusError) as caught:
            list(decode([data], "a", replace_invalid=repair, allow_nul=repair))
        assert "--clean" not in str(caught.value)
        assert "iconv" in str(caught.value)


RANDOM = random.Random(0).randbytes(40_000)
SMALL_NUMBERS = array.array("H", [number % 30 + 1 for number in range(20_000)]).tobytes()


@pytest.mark.parametrize("size", [7, 4096])
@pytest.mark.parametrize(
    ("data", "excess"),
    [
        (b"\xff\xfe\0\0" + RANDOM, "U\\+FFFD"),  # the mark of UTF-32-LE
        (b"\xff\xfe" + RANDOM, "U\\+FFFD"),
        (b"\xff\xfe" + ("ab\0" * 2000).encode("utf-16-le"), "NUL"),
        (SMALL_NUMBERS, "control characters"),
    ],
    ids=["utf-32", "utf-16", "nul", "numbers"],
)
def test_no_repair_of_utf_16_or_utf_32_gives_garbage(data, excess, size):
    with pytest.raises(CorpusError, match=f"of its characters are {excess}, so it is binary"):
        list(decode(blocks_of(data, size), "a", replace_invalid=True, allow_nul=True))


def test_small_numbers_of_16_bits_are_no_text():
    with pytest.raises(CorpusError, match="are control characters"):
        list(decode([SMALL_NUMBERS], "a"))


def test_a_few_broken_characters_of_utf_16_are_replaced():
    data = ("\ufeff" + SENTENCES * 3).encode("utf-16-le") + b"\x00\xdc"
    assert "".join(decode([data], "a", replace_invalid=True)) == SENTENCES * 3 + "\ufffd"


def test_western_european_texts_are_still_repaired():
    text = "« Où es-tu né ? » « À Orléans, l'été, près d'un hôtel où l'on fêtait Noël. »\n" * 40
    assert "".join(decode([text.encode("cp1252")], "a", replace_invalid=True)) == text
    with pytest.raises(CorpusError, match="--clean encoding"):
        list(decode([text.encode("cp1252")], "a"))


@pytest.mark.parametrize("kind", ["gzip", "zip", "zstd", "bzip2", "xz"])
@pytest.mark.parametrize("repairs", [False, True])
def test_a_compressed_file_is_called_what_it_is(kind, repairs):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a.txt", "text")
    data = {
        "gzip": gzip.compress(b"text"),
        "zip": archive.getvalue(),
        "zstd": bytes.fromhex("28b52ffd0458210000746578744d"),
        "bzip2": bz2.compress(b"text"),
        "xz": lzma.compress(b"text"),
    }[kind]
    with pytest.raises(CorpusError) as caught:
        list(decode([data], "a.txt.gz", replace_invalid=repairs, allow_nul=repairs))
    assert str(caught.value) == f"a.txt.gz: a file of {kind}, expected text; decompress it first"
