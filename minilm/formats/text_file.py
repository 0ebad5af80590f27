"""Small text files from others, such as a chat template, with a limit."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError
from minilm.formats.checks import open_regular
from minilm.formats.json_file import MAX_JSON_BYTES


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises FormatError or OSError."""
    with open_regular(path) as (stream, _):
        raw = stream.read(MAX_JSON_BYTES + 1)
    try:
        if len(raw) <= MAX_JSON_BYTES:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    raise FormatError(
        path, "no UTF-8, or too much of it", f"at most {MAX_JSON_BYTES} bytes of UTF-8"
    )
