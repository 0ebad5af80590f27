"""JSON objects from untrusted files, with limits; anything else is a FormatError of one line."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from minilm.errors import FormatError
from minilm.formats.checks import open_regular
from minilm.safe_text import short_repr

# The index of a model with 140,000 tensors takes 14 MB, and the header of one file of 74,000 has 600,000
# values. A parsed value takes up to 100 bytes and a character up to four, so parsing stays within 200 MB.
MAX_JSON_BYTES = 32_000_000
MAX_JSON_VALUES = 650_000
MAX_JSON_DEPTH = 127  # serde_json's limit, with which the safetensors library reads


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Raises FormatError or OSError."""
    with open_regular(path) as (stream, _):
        return parse_object(path, stream.read(MAX_JSON_BYTES + 1))


def parse_object(
    path: Path, raw: bytes, *, strict: bool = False, remedy: str = ""
) -> dict[str, Any]:
    """Parse the JSON object in ``raw``.

    ``strict`` refuses a repeated key, and numbers that the safetensors library refuses: NaN, infinities
    and -0. ``path`` and ``remedy`` are for the message. Raises FormatError.
    """

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise error(f"a name that occurs twice: {short_repr(repeated)}", "each name once")
        return entries

    def error(got: str, expected: str = "a JSON object") -> FormatError:
        return FormatError(path, got, expected, remedy)

    max_bytes = MAX_JSON_BYTES if raw.isascii() else MAX_JSON_BYTES // 4
    if len(raw) > max_bytes:
        raise error(f"over {max_bytes} bytes of JSON", "less")
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise error(f"over {MAX_JSON_VALUES} values of JSON", "fewer")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique_keys if strict else None,
            parse_int=_natural_or_negative if strict else _whole_number,
            parse_float=_finite_number if strict else None,
            parse_constant=_finite_number if strict else None,
        )
        if raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH:
            _check_depth(value)
        if rb"\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # refuses a lone surrogate
    except FormatError:
        raise
    except (ValueError, RecursionError) as reason:  # also a number of too many digits
        raise error(f"not JSON ({short_repr(str(reason))[1:-1]})") from None
    if not isinstance(value, dict):
        raise error(f"a JSON {type(value).__name__}")
    return value


def _whole_number(digits: str) -> int:
    """Parse an integer; converting a longer one would take quadratic time."""
    if len(digits) > 100:
        raise ValueError("a number of over 100 digits")
    return int(digits)


def _natural_or_negative(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0")
    return _whole_number(digits)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{short_repr(text)[1:-1]}, which is no finite number")
    return value


def _check_depth(value: object) -> None:
    """Raise ValueError where objects and lists nest so deeply that later a recursion would not end."""
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for outer in level
            for child in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"objects and lists nested over {MAX_JSON_DEPTH} deep")
