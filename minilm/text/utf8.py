"""Decode a stream of bytes as UTF-8 text, and say where it is not text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from minilm.errors import CorpusError

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def decode(
    blocks: Iterable[bytes], where: str, *, mend: bool = False, allow_nul: bool = False
) -> Iterator[str]:
    """Yield the text of ``blocks``, which may be cut anywhere; newlines stay as they are.

    ``mend`` reads the bytes that are not UTF-8 as Windows-1252, the usual culprit, instead of
    raising. ``allow_nul`` lets NUL characters through.
    Raises CorpusError with ``where`` and the byte offset for invalid UTF-8 and for a NUL byte.
    """
    pending = b""
    offset = 0  # of pending[0] in the stream
    for block, final in _mark_last(blocks):
        pending += block
        nul = -1 if allow_nul else pending.find(b"\0")
        try:
            # surrogateescape marks each bad byte as U+DC80..U+DCFF, which valid UTF-8 never holds.
            text, used = codecs.utf_8_decode(
                pending, "surrogateescape" if mend else "strict", final
            )
        except UnicodeDecodeError as error:
            bad = error.start
            if nul < 0 or bad < nul:
                raise CorpusError(
                    where,
                    f"invalid UTF-8 (byte 0x{pending[bad]:02x}) at byte {offset + bad}",
                    "UTF-8 text",
                    "leave the file out with a glob, or mend it with --clean encoding",
                ) from None
            used, text = nul, ""
        if nul >= 0:
            raise CorpusError(
                where,
                f"a NUL byte at byte {offset + nul}, so probably binary data",
                "UTF-8 text",
                "leave the file out with a glob, or remove such bytes with --clean control",
            )
        offset += used
        pending = pending[used:]
        if mend:
            text = _ESCAPED_BYTE.sub(_as_windows_1252, text)
        if text:
            yield text


def _as_windows_1252(match: re.Match[str]) -> str:
    return bytes([ord(match[0]) - 0xDC00]).decode("cp1252", "replace")


def _mark_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    for block in blocks:
        yield block, False
    # An empty final block lets the decoder see a sequence that the end of the stream cuts short.
    yield b"", True
