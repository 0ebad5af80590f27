"""Decode a stream of bytes as UTF-8; errors give the byte offset."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from minilm.errors import CorpusError

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def decode(
    blocks: Iterable[bytes], where: str, *, replace_invalid: bool = False, allow_nul: bool = False
) -> Iterator[str]:
    """Yield the text of ``blocks``, which may split a character; line ends are kept.

    ``replace_invalid`` decodes bytes that are not UTF-8 as Windows-1252, which they usually are, instead
    of raising; ``allow_nul`` accepts NUL characters.
    Raises CorpusError with ``where`` and the byte offset for invalid UTF-8 and for a NUL byte.
    """
    pending = b""
    offset = 0  # of pending[0] in the stream
    for block, final in _mark_last(blocks):
        pending += block
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
                    "leave the file out with a glob, or repair it with --clean encoding",
                ) from None
            num_decoded, text = nul, ""
        if nul >= 0:
            raise CorpusError(
                where,
                f"a NUL byte at byte {offset + nul}, so probably binary data",
                "UTF-8 text",
                "leave the file out with a glob, or remove such bytes with --clean control",
            )
        offset += num_decoded
        pending = pending[num_decoded:]
        if replace_invalid:
            text = _ESCAPED_BYTE.sub(_decode_windows_1252, text)
        if text:
            yield text


def _decode_windows_1252(match: re.Match[str]) -> str:
    return bytes([ord(match[0]) - 0xDC00]).decode("cp1252", "replace")


def _mark_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for block in blocks:
        yield block, False
    # The decoder then reports a sequence that is incomplete at the end of the stream.
    yield b"", True
