"""load_tokenizer: a tokenizer out of a tokenizer.json, which may be anybody's and is not trusted.

A file that minilm wrote becomes the tokenizer that wrote it, and so does one of GPT-2's style; any other is
left to the tokenizers library. Refused: what is no such file, and steps that would multiply a text.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import tokenizers

from minilm.errors import FormatError, TokenizerError
from minilm.formats.checks import open_regular
from minilm.formats.huggingface import GENERATION_CONFIG
from minilm.formats.json_file import read_object
from minilm.safe_text import short_repr
from minilm.text.byte_vocabulary import BYTE_VOCABULARY, SHARED_BYTE_VOCABULARY
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    LibraryTokenizer,
    Tokenizer,
)
from minilm.text.tokenizers_library import one_line_errors

# Published files have up to 40 MB, and make a text some 200 times as long at most.
MAX_TOKENIZER_BYTES = 100_000_000
MAX_GROWTH = 1000


def load_tokenizer(path: Path, vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.json, of minilm, GPT-2 or any other model.

    The tokens that end a text are those of a generation_config.json beside it, if there is one. Raises
    FormatError for a missing or broken file, and for more tokens than the model's ``vocab_size``.
    """
    tokenizer = _read_tokenizer(path)
    tokenizer.folder = path.parent
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise FormatError(
            path, f"{tokenizer.vocab_size} tokens", f"at most the model's vocab_size {vocab_size}"
        )
    generation_config = path.parent / GENERATION_CONFIG
    if generation_config.is_file():
        eos_token_id = read_object(generation_config).get("eos_token_id")
        if eos_token_id is None:
            return tokenizer
        ids = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
        if not all(type(number) is int and 0 <= number < tokenizer.vocab_size for number in ids):
            got = f"eos_token_id {short_repr(eos_token_id)}"
            raise FormatError(generation_config, got, f"ids of the {tokenizer.vocab_size} tokens")
        if ids:
            tokenizer.end_of_text, tokenizer.other_ends = ids[0], frozenset(ids[1:])
    return tokenizer


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        with open_regular(path) as (stream, size):
            if size > MAX_TOKENIZER_BYTES:
                raise FormatError(path, f"{size} bytes", f"at most {MAX_TOKENIZER_BYTES}")
            text = stream.read(size).decode()
        content = json.loads(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # refuses a lone surrogate
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(
            path, f"cannot be read ({error.strerror or error})", "a tokenizer.json"
        ) from None
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise FormatError(path, f"not JSON ({error})", "a tokenizer.json") from None
    match _section_types(content):
        case ("BPE", "ByteLevel", "ByteLevel") if _adds_no_tokens(content):
            vocabulary = content["model"].get("vocab")
            if vocabulary == BYTE_VOCABULARY and not content.get("added_tokens"):
                return ByteTokenizer()
            if vocabulary == SHARED_BYTE_VOCABULARY:
                return ByteTokenizer()
            if _is_gpt2_style(content):
                return BPETokenizer(_load_backend(path, text))
        case ("WordLevel", "Split", "Fuse"):
            vocabulary = content["model"].get("vocab")
            separated = _last_added_token(content) == END_OF_TEXT
            if separated and isinstance(vocabulary, dict):
                vocabulary.pop(END_OF_TEXT, None)
            if _is_character_table(vocabulary):
                characters = sorted(vocabulary, key=vocabulary.__getitem__)
                return CharTokenizer(characters, separated)
    if _section_types(content)[0] in LibraryTokenizer.MODELS:
        backend = _load_backend(path, text)
        if backend.get_vocab_size():
            return LibraryTokenizer(backend)
    raise FormatError(
        path,
        "a tokenizer of types " + ", ".join(map(str, _section_types(content))),
        f"one of minilm, or a model of type {', '.join(LibraryTokenizer.MODELS)}",
    )


def _section_types(content: Any) -> tuple[Any, ...]:
    """The types of a tokenizer.json's model, pre-tokenizer and decoder; None for a missing one."""
    fields = content if isinstance(content, dict) else {}
    sections = [fields.get(name) for name in ("model", "pre_tokenizer", "decoder")]
    return tuple(s.get("type") if isinstance(s, dict) else None for s in sections)


def _adds_no_tokens(content: dict[str, Any]) -> bool:
    """Whether the post-processor adds no tokens to a text."""
    processor = content.get("post_processor")
    return processor is None or (
        isinstance(processor, dict) and processor.get("type") == "ByteLevel"
    )


def _is_gpt2_style(content: dict[str, Any]) -> bool:
    """Whether text can be split as in `minilm.text.chunking`, and every byte be encoded."""
    pre_tokenizer, vocabulary = content["pre_tokenizer"], content["model"].get("vocab")
    return (
        isinstance(vocabulary, dict)
        and BYTE_VOCABULARY.keys() <= vocabulary.keys()
        and pre_tokenizer.get("add_prefix_space") is False
        and pre_tokenizer.get("use_regex", True) is True
    )


def _last_added_token(content: dict[str, Any]) -> Any:
    added = content.get("added_tokens")
    last = added[-1] if isinstance(added, list) and added else None
    return last.get("content") if isinstance(last, dict) else None


def _is_character_table(vocabulary: Any) -> bool:
    return (
        isinstance(vocabulary, dict)
        and len(vocabulary) > 0
        and all(len(character) == 1 for character in vocabulary)
        and all(type(number) is int for number in vocabulary.values())
        and sorted(vocabulary.values()) == list(range(len(vocabulary)))
    )


def _load_backend(path: Path, text: str) -> tokenizers.Tokenizer:
    try:
        with one_line_errors("tokenizer.json"):
            backend = tokenizers.Tokenizer.from_str(text)
    except TokenizerError as error:
        raise FormatError(path, error.got, "a tokenizer.json") from None
    for name, parts in (
        ("normalizer and pre_tokenizer", (backend.normalizer, backend.pre_tokenizer)),
        ("decoder", (backend.decoder,)),
    ):
        growth = math.prod(_growth(json.loads(part.__getstate__())) for part in parts if part)
        if growth > MAX_GROWTH:
            got = f"a {name} that may make a text {growth:.0g} times as long"
            raise FormatError(path, got, f"at most {MAX_GROWTH} times")
    return backend


def _growth(step: dict[str, Any]) -> float:
    """How much longer, in bytes, a step of a normalizer, pre-tokenizer or decoder may make a text.

    Every step of a sequence multiplies: 40 that write a letter twice fill any memory.
    """
    match step:
        case {"type": "Sequence", **lists}:
            return math.prod(_growth(each) for steps in lists.values() for each in steps)
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return max(1.0, len(new.encode()) / len(old.encode()))
        case {"type": "Replace", "content": str(new)} | {"type": "Prepend", "prepend": str(new)}:
            return 1.0 + len(new.encode())
        case {"type": "Precompiled", "precompiled_charsmap": str(encoded)}:
            return max(1.0, _longest_replacement(base64.b64decode(encoded)))
        case {"type": "Metaspace", "replacement": str(new)}:
            return float(len(new.encode()))
        case {"type": "ByteLevel" | "CTC"}:
            return 2.0
    return 1.0


def _longest_replacement(charsmap: bytes) -> int:
    """Of SentencePiece's precompiled map: a trie after its size in bytes, then texts that end in zeros."""
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(map(len, texts.split(b"\0")))
