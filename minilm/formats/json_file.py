"""JSON files that come from elsewhere: small, UTF-8, an object; anything else is one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minilm.errors import FormatError

LARGEST_FILE = 100_000_000


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Raises FormatError, or OSError as the file gives it."""
    with path.open("rb") as stream:
        raw = stream.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise FormatError(path, "a file over 100 MB", "a small JSON file")
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"not JSON ({error})"[:200], "a JSON object") from None
    if not isinstance(value, dict):
        raise FormatError(path, f"a JSON {type(value).__name__}", "a JSON object")
    return value
