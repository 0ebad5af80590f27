"""Decode a stream of bytes to text: UTF-8, or UTF-16 and UTF-32 where the file shows that it is one.

UTF-16 shows itself by a byte-order mark, or by a NUL in every second byte, as Latin text has it there.
Errors give the byte offset. What is not text is refused even where repairs were asked for: mended
bytes of a binary file, or of a text in another encoding, would be garbage.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from minilm.errors import CorpusError

# The largest shares to be repaired, of bytes in UTF-8, of characters in UTF-16 and UTF-32. Windows-1252 has
# the accented letters of Western European languages above 127, which are fewer in any of their texts; random
# bytes are 3% lone surrogates in UTF-16, each replaced by U+FFFD; NULs may separate the lines of a list.
LARGEST_SHARES = {"not UTF-8": 0.25, "U+FFFD": 0.02, "NUL": 0.1, "control characters": 0.02}

_HEAD_BYTES = 4096
_FEWEST = 64  # no shares are computed of fewer bytes or characters
# Neither NUL nor what texts have: backspace to carriage return, and the escape of terminals.
_CONTROL = bytes({*range(1, 32)} - {*range(8, 14), 27})
_CONTROL_CHARACTER = re.compile(f"[{re.escape(_CONTROL.decode())}]")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_LEAVE_OUT = "leave the file out with a glob"
_ICONV = f"{_LEAVE_OUT}, or convert it first: iconv -f ITS-ENCODING -t UTF-8"

# The first bytes of compressed files; office documents and e-books are zip archives.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\0": "xz",
}
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(
    raw: Iterable[bytes],
    where: str,
    *,
    replace_invalid: bool = False,
    allow_nul: bool = False,
    note: Callable[[str, str], object] | None = None,
) -> Iterator[str]:
    """Yield the text of ``raw``, which may split a character; line ends and a UTF-8 mark are kept.

    ``replace_invalid`` decodes bytes that are not UTF-8 as Windows-1252, which they usually are, instead
    of raising; ``allow_nul`` accepts NUL characters. ``note`` is told, with ``where``, of an encoding
    other than UTF-8. Raises CorpusError with ``where`` and the byte offset for a compressed file,
    for invalid bytes, for a NUL, and for too many of what would be repaired. In UTF-16 and UTF-32 the shares
    are always examined, as small numbers of 16 bits look like UTF-16.
    """
    remaining = iter(raw)
    head = b""
    for piece in remaining:
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    _refuse_compressed(head, where)
    encoding, mark = _detect(head)
    stream = itertools.chain([head[len(mark) :]], remaining)
    if encoding == "utf-8":
        yield from _decode_utf8(stream, where, replace_invalid, allow_nul)
        return
    if note is not None:
        note(where, f"decoded as {encoding.upper()}")
    yield from _decode_wide(stream, where, encoding, len(mark), replace_invalid, allow_nul)


def _refuse_compressed(head: bytes, where: str) -> None:
    for first_bytes, kind in _COMPRESSED.items():
        if head.startswith(first_bytes):
            raise CorpusError(where, f"a file of {kind}", "text", "decompress it first")


def _detect(head: bytes) -> tuple[str, bytes]:
    """The encoding of a file that begins with ``head``, and its byte-order mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, mark
    even, odd = head[: len(head) // 2 * 2 : 2], head[1::2]
    if len(odd) >= 4:
        shares = even.count(0) / len(even), odd.count(0) / len(odd)
        if max(shares) > 0.7 and min(shares) < 0.05:
            return ("utf-16-le" if shares[1] > shares[0] else "utf-16-be"), b""
    return "utf-8", b""


def _decode_utf8(
    raw: Iterable[bytes], where: str, replace_invalid: bool, allow_nul: bool
) -> Iterator[str]:
    pending = b""
    offset = 0  # of pending[0] in the stream
    counts: Counter[str] = Counter()
    for piece, final in _mark_last(raw):
        pending += piece
        nul = -1 if allow_nul else pending.find(b"\0")
        try:
            # surrogateescape maps invalid bytes to U+DC80..U+DCFF, which valid UTF-8 never contains.
            text, num_decoded = codecs.utf_8_decode(
                pending, "surrogateescape" if replace_invalid else "strict", final
            )
        except UnicodeDecodeError as error:
            invalid = error.start
            if nul < 0 or invalid < nul:
                raise CorpusError(
                    where,
                    f"invalid UTF-8 (byte 0x{pending[invalid]:02x}) at byte {offset + invalid}",
                    "UTF-8 text",
                    _advice(pending, "repair it with --clean encoding"),
                ) from None
            num_decoded, text = nul, ""
        if nul >= 0:
            raise CorpusError(
                where,
                f"a NUL byte at byte {offset + nul}, so probably binary data",
                "UTF-8 text",
                _advice(pending, "remove such bytes with --clean control"),
            )
        offset += num_decoded
        if replace_invalid or allow_nul:
            counts.update(_count(pending[:num_decoded], text))
            encodings = "another encoding (UTF-16 without a byte-order mark?)"
            _refuse_excess(counts, offset, "bytes", where, encodings)
        pending = pending[num_decoded:]
        if replace_invalid:
            text = _ESCAPED_BYTE.sub(_decode_windows_1252, text)
        if text:
            yield text


def _decode_wide(
    raw: Iterable[bytes],
    where: str,
    encoding: str,
    offset: int,
    replace_invalid: bool,
    allow_nul: bool,
) -> Iterator[str]:
    """Decode UTF-16 or UTF-32 from which a mark of ``offset`` bytes is removed."""
    decoder = codecs.getincrementaldecoder(encoding)("replace" if replace_invalid else "strict")
    name = encoding.upper()
    counts: Counter[str] = Counter()
    characters = 0
    for piece, final in _mark_last(raw):
        waiting = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            position = offset - waiting + error.start
            raise CorpusError(
                where,
                f"invalid {name} ({error.reason}) at byte {position}",
                f"{name} text, as its first bytes say",
                _ICONV,
            ) from None
        if not allow_nul and "\0" in text:
            raise CorpusError(
                where, f"a NUL character in {name}, so probably binary data", "text", _LEAVE_OUT
            )
        offset += len(piece)
        characters += len(text)
        counts.update(_count_characters(text))
        _refuse_excess(counts, characters, "characters", where, "another encoding")
        if text:
            yield text


def _advice(data: bytes, repair: str) -> str:
    """What to do about a file with ``data``: ``repair`` it only where that gives a text."""
    text, _ = codecs.utf_8_decode(data, "surrogateescape", True)
    return _ICONV if _excess(_count(data, text), len(data)) else f"{_LEAVE_OUT}, or {repair}"


def _count(data: bytes, text: str) -> dict[str, int]:
    """How many bytes of ``data``, decoded as ``text``, are of each kind in LARGEST_SHARES."""
    return {
        "not UTF-8": len(_ESCAPED_BYTE.findall(text)),
        "NUL": data.count(0),
        "control characters": len(data) - len(data.translate(None, _CONTROL)),
    }


def _count_characters(text: str) -> dict[str, int]:
    """As `_count`, of the characters of a text that was not UTF-8."""
    return {
        "U+FFFD": text.count("\ufffd"),
        "NUL": text.count("\0"),
        "control characters": len(_CONTROL_CHARACTER.findall(text)),
    }


def _refuse_excess(
    counts: Mapping[str, int], total: int, unit: str, where: str, encodings: str
) -> None:
    """Raises CorpusError where there are too many of a kind among ``total`` of ``unit``."""
    excess = _excess(counts, total)
    if excess is not None:
        raise CorpusError(
            where,
            f"{counts[excess] / total:.0%} of its {unit} are {excess}, so it is binary or in {encodings}",
            f"at most {LARGEST_SHARES[excess]:.0%} to repair",
            _ICONV,
        )


def _excess(counts: Mapping[str, int], total: int) -> str | None:
    """The kind of which there are too many among ``total`` bytes or characters."""
    for kind, count in counts.items():
        if total >= _FEWEST and count > LARGEST_SHARES[kind] * total:
            return kind
    return None


def _decode_windows_1252(match: re.Match[str]) -> str:
    return bytes([ord(match[0]) - 0xDC00]).decode("cp1252", "replace")


def _mark_last(raw: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for piece in raw:
        yield piece, False
    # The decoder then reports a sequence that is incomplete at the end of the stream.
    yield b"", True
