"""JSON that comes from elsewhere: bounded, UTF-8, an object; anything else is one clear line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.checks import open_regular
from minilm.safe_text import short_repr

# The index of a model with 140,000 tensors takes 14 MB. A parsed value takes up to 100 bytes and a
# letter up to four, so what passes these limits fits into 200 MB.
LARGEST = 32_000_000
MOST_VALUES = 500_000


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Raises FormatError, or OSError as the file gives it."""
    with open_regular(path) as (stream, _):
        return parse_object(path, stream.read(LARGEST + 1))


def parse_object(
    path: Path, raw: bytes, *, unique: bool = False, remedy: str = ""
) -> dict[str, Any]:
    """The JSON object that ``raw`` spells; ``unique`` refuses a key that occurs twice in an object.

    ``path`` and ``remedy`` are for the message. Raises FormatError.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise broken(f"a name that occurs twice: {short_repr(twice)}", "each name once")
        return entries

    def broken(came: str, expected: str = "a JSON object") -> FormatError:
        return FormatError(path, came, expected, remedy)

    largest = LARGEST if raw.isascii() else LARGEST // 4
    if len(raw) > largest:
        raise broken(f"over {largest} bytes of JSON", "less")
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise broken(f"over {MOST_VALUES} values of JSON", "fewer")
    try:
        hook = distinct if unique else None
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=hook, parse_int=_whole_number)
        if rb"\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:  # also an integer of too many digits
        raise broken(f"not JSON ({short_repr(str(error))[1:-1]})") from None
    if not isinstance(value, dict):
        raise broken(f"a JSON {type(value).__name__}")
    return value


def _whole_number(digits: str) -> int:
    """What takes quadratic time to read is no size of anything."""
    if len(digits) > 100:
        raise ValueError("a number of over 100 digits")
    return int(digits)
