"""How many tokens a tokenizer has, as far as that can be told quickly: rows beyond it are padding."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError
from minilm.formats.header import Header
from minilm.formats.json_file import read_object
from minilm.runs.files import TOKENIZER

# Above this, parsing would take longer than the whole inspection may.
LARGEST_TOKENIZER = 4_000_000


def vocabulary_size(folder: Path | None, header: Header | None) -> int | None:
    """Tokens of the folder's tokenizer.json or of a GGUF file; None where that is not known."""
    if header is not None and "tokenizer.ggml.tokens.length" in header.metadata:
        return int(header.metadata["tokenizer.ggml.tokens.length"])
    path = folder / TOKENIZER if folder else None
    if path is None or not path.is_file() or path.stat().st_size > LARGEST_TOKENIZER:
        return None
    try:
        value = read_object(path)
    except (FormatError, OSError):
        return None  # a tokenizer that cannot be read takes nothing from the count
    model = value.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = value.get("added_tokens")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if isinstance(added, list):
        ids += [token.get("id") for token in added if isinstance(token, dict)]
    known = [number for number in ids if type(number) is int]
    return max(known) + 1 if known else None
