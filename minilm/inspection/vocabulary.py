"""The number of tokens of a tokenizer: rows of the embedding beyond it are padding."""

from __future__ import annotations

from pathlib import Path

from minilm.errors import FormatError
from minilm.formats.header import Header, whole_number
from minilm.formats.json_file import read_object
from minilm.runs.files import TOKENIZER

# In bytes. Parsing a larger file would take longer than the rest of the inspection.
MAX_VOCABULARY_BYTES = 4_000_000


def vocabulary_size(folder: Path | None, header: Header | None) -> int | None:
    """Tokens of the folder's tokenizer.json or of a GGUF file; None where it is unknown."""
    tokens = whole_number(header.metadata, "tokenizer.ggml.tokens.length") if header else None
    if tokens is not None:
        return tokens
    path = folder / TOKENIZER if folder else None
    if path is None or not path.is_file() or path.stat().st_size > MAX_VOCABULARY_BYTES:
        return None
    try:
        tokenizer = read_object(path)
    except (FormatError, OSError):
        return None  # the count does not need it
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = tokenizer.get("added_tokens")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if isinstance(added, list):
        ids += [token.get("id") for token in added if isinstance(token, dict)]
    return max((number for number in ids if type(number) is int), default=-1) + 1 or None
