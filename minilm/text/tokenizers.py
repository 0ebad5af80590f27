"""Tokenizers of bytes, characters or byte-level BPE, and any other of the tokenizers library.

All are stored as tokenizer.json in the Hugging Face tokenizers format; the library, loading that file,
gives the same ids and text. Bytes and characters are encoded with numpy, which is faster; BPE is
trained and encoded by the library.

Legend: n tokens of a text, V vocabulary.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from minilm.errors import FormatError, TokenizerError
from minilm.files import write_bytes
from minilm.formats.checks import open_regular
from minilm.formats.json_file import read_object
from minilm.safe_text import short_repr
from minilm.text.chunking import split_into_chunks
from minilm.text.separators import END_OF_TEXT

TOKENIZER_KINDS = ("byte", "char", "bpe")
DEFAULT_BPE_VOCAB_SIZE = 4096
GENERATION_CONFIG = "generation_config.json"
# Published files have up to 40 MB, and make a text some 200 times as long at most.
MAX_TOKENIZER_BYTES = 100_000_000
MAX_GROWTH = 1000

Ids = Sequence[int] | NDArray[np.integer[Any]]


class Tokenizer(ABC):
    """Text to token ids and back.

    ``kind`` is one of TOKENIZER_KINDS or "library"; ids are 0 <= id < ``vocab_size``. ``end_of_text``
    is the id that separates documents and ends a generated text, None where there is none;
    ``other_ends`` are further ids that end a generated text.
    """

    kind: str
    vocab_size: int
    end_of_text: int | None
    other_ends: frozenset[int] = frozenset()

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of ``text``, (n,), as torch indexes. Raises TokenizerError where it has none."""

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text to be continued, with the beginning-of-text token if there is one."""
        return [int(token) for token in self.encode(text)]

    def decode(self, ids: Ids) -> str:
        """Return the text of ``ids``, (n,), 0 <= id < V; bytes that are not UTF-8 become U+FFFD.

        Raises TokenizerError for an id out of range.
        """
        array = np.asarray(ids, dtype=np.int64)
        outside = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if outside.size:
            first = int(outside[0])
            raise TokenizerError(
                f"token {first}", f"id {array[first]}", f"0 <= id < {self.vocab_size}"
            )
        return self._decode(array)

    @abstractmethod
    def _decode(self, ids: NDArray[np.int64]) -> str:
        """Decode ids that are in range."""

    @abstractmethod
    def to_json(self) -> str:
        """Return the content of tokenizer.json; equal tokenizers give equal text."""

    def to_shared_json(self) -> str:
        """The content of tokenizer.json for other programs: the end of a text is a special token."""
        return self.to_json()

    def save(self, path: Path) -> None:
        """Write tokenizer.json to ``path`` atomically. Raises OSError."""
        write_bytes(path, self.to_json().encode())


def build_tokenizer(
    kind: str,
    texts: Callable[[], Iterator[str]],
    vocab_size: int | None = None,
    *,
    separated: bool = False,
) -> Tokenizer:
    """Build a tokenizer of ``kind`` from the text that each call of ``texts`` streams.

    ``vocab_size`` is for bpe only, where None means DEFAULT_BPE_VOCAB_SIZE; a small text may give fewer
    tokens. With ``separated`` a char tokenizer has an end-of-text token, which the other kinds always
    have. The same text always gives the same tokenizer, however it is divided.
    Raises TokenizerError for an unknown kind or an invalid vocabulary size.
    """
    if kind not in TOKENIZER_KINDS:
        raise TokenizerError("--tokenizer", repr(kind), "one of " + ", ".join(TOKENIZER_KINDS))
    if kind == "bpe":
        return _train_bpe(texts(), DEFAULT_BPE_VOCAB_SIZE if vocab_size is None else vocab_size)
    if vocab_size is not None:
        raise TokenizerError(
            "--vocab-size",
            f"{vocab_size} with --tokenizer {kind}",
            "a size with --tokenizer bpe only",
            "leave it out: the other kinds have a fixed one",
        )
    return ByteTokenizer() if kind == "byte" else CharTokenizer(_characters(texts()), separated)


def load_tokenizer(path: Path, vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.json, of minilm, GPT-2 or any other model.

    The tokens that end a text are those of a generation_config.json beside it, if there is one. Raises
    FormatError for a missing or broken file, and for more tokens than the model's ``vocab_size``.
    """
    tokenizer = _read_tokenizer(path)
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
            if vocabulary == _BYTE_VOCABULARY and not content.get("added_tokens"):
                return ByteTokenizer()
            if vocabulary == _shared_byte_vocabulary():
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


@final
class ByteTokenizer(Tokenizer):
    """The ids are the bytes of UTF-8; the NUL byte, which text does not contain, ends documents.

    Stored as byte-level BPE without merges.
    """

    kind = "byte"
    vocab_size = 256
    end_of_text: int | None = 0

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.frombuffer(_utf8(text), dtype=np.uint8).astype(np.int64)

    def _decode(self, ids: NDArray[np.int64]) -> str:
        return ids.astype(np.uint8).tobytes().decode("utf-8", "replace")

    def to_json(self) -> str:
        return self._backend(_BYTE_VOCABULARY).to_str(pretty=True)

    def to_shared_json(self) -> str:
        """The NUL byte under the name of the end of a text.

        Its usual name is a letter, U+0100: as a special token it would be recognised in texts.
        """
        backend = self._backend(_shared_byte_vocabulary())
        backend.add_special_tokens([END_OF_TEXT])
        return backend.to_str(pretty=True)

    @staticmethod
    def _backend(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        return backend


@final
class CharTokenizer(Tokenizer):
    """One id for each character (Unicode code point) of a table, in its order.

    Where documents are ``separated``, one more, the last, is of END_OF_TEXT.
    """

    kind = "char"

    def __init__(self, characters: Sequence[str], separated: bool = False) -> None:
        """``characters``: distinct single characters, at least one."""
        self._characters = _code_points("".join(characters))
        size = len(characters)
        assert len(self._characters) == len(set(characters)) == size > 0
        self._is_separated = separated
        self.vocab_size = size + separated
        self.end_of_text: int | None = size if separated else None
        # code point -> id, or the size where there is none; the extra entry is for higher code points.
        self._ids = np.full(int(self._characters.max()) + 2, size, dtype=np.int64)
        self._ids[self._characters] = np.arange(size, dtype=np.int64)

    def encode(self, text: str) -> NDArray[np.int64]:
        points = _code_points(text)
        ids: NDArray[np.int64] = self._ids[np.minimum(points, len(self._ids) - 1)]
        unknown = np.flatnonzero(ids == len(self._characters))
        if unknown.size:
            position = int(unknown[0])
            raise TokenizerError(
                f"character {position}",
                f"{text[position]!r} (U+{ord(text[position]):04X})",
                f"one of the {len(self._characters)} characters the tokenizer was built from",
                "a model trained with a byte or bpe tokenizer takes any text",
            )
        return ids

    def _decode(self, ids: NDArray[np.int64]) -> str:
        ids = ids[ids < len(self._characters)]
        return self._characters[ids].tobytes().decode("utf-32-le", "surrogatepass")

    def to_json(self) -> str:
        characters = self._decode(np.arange(len(self._characters)))
        vocabulary = {character: number for number, character in enumerate(characters)}
        if self._is_separated:
            vocabulary[END_OF_TEXT] = len(characters)
        backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary))
        if self._is_separated:
            backend.add_special_tokens([END_OF_TEXT])
        # A dot would not match a newline.
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return backend.to_str(pretty=True)


@final
class BPETokenizer(Tokenizer):
    """Byte-level BPE with GPT-2's pre-tokenization.

    A literal "<|endoftext|>" in a text is ordinary text, unlike in the library, which by default
    encodes it as the special token. Decoding skips special tokens, as in the library.
    """

    kind = "bpe"

    # The unit of work of the library's threads.
    CHUNK_CHARACTERS = 2**14

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """``backend`` has GPT-2's pre-tokenization; it is modified and must not be used elsewhere."""
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.end_of_text: int | None = backend.token_to_id(END_OF_TEXT)

    def encode(self, text: str) -> NDArray[np.int64]:
        _utf8(text)
        _enable_parallelism()
        chunks = list(split_into_chunks([text], self.CHUNK_CHARACTERS))
        batch = self._backend.encode_batch_fast(chunks, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in batch]
        return np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)

    def _decode(self, ids: NDArray[np.int64]) -> str:
        return self._backend.decode(ids.tolist(), skip_special_tokens=True)

    def to_json(self) -> str:
        return self._backend.to_str(pretty=True)

    def merges(self) -> NDArray[np.int64]:
        """The two tokens that each token was merged from, (V, 2); (-1, -1) for single bytes."""
        pairs = np.full((self.vocab_size, 2), -1, dtype=np.int64)
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        for left, right in json.loads(self._backend.to_str())["model"]["merges"]:
            pairs[vocabulary[left + right]] = vocabulary[left], vocabulary[right]
        return pairs


@final
class LibraryTokenizer(Tokenizer):
    """Any other tokenizer of the Hugging Face library.

    A text is encoded as a whole, since its pre-tokenization is unknown. Only a prompt gets the special
    tokens of the file's post-processor, except one at the end.
    """

    kind = "library"
    MODELS = ("BPE", "Unigram", "WordPiece")
    # The names of end-of-text tokens in published models.
    ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>")

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """``backend`` is modified and must not be used elsewhere."""
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        ends = (backend.token_to_id(name) for name in self.ENDS)
        self.end_of_text: int | None = next((number for number in ends if number is not None), None)

    def encode(self, text: str) -> NDArray[np.int64]:
        _utf8(text)
        _enable_parallelism()
        with _one_line_errors("text"):
            encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int64)

    def encode_prompt(self, text: str) -> list[int]:
        _utf8(text)
        with _one_line_errors("text"):
            encoding = self._backend.encode(text, add_special_tokens=True)
        ids = list(encoding.ids)
        # A generation_config.json may name any token as the end: only an added one is left out.
        ends = ids and encoding.special_tokens_mask[-1] and ids[-1] == self.end_of_text
        return ids[:-1] if ends else ids

    def _decode(self, ids: NDArray[np.int64]) -> str:
        with _one_line_errors("tokens"):
            return self._backend.decode(ids.tolist(), skip_special_tokens=True)

    def to_json(self) -> str:
        return self._backend.to_str(pretty=True)


def _train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    smallest = len(_BYTE_VOCABULARY) + 1
    if vocab_size < smallest:
        raise TokenizerError(
            "--vocab-size", str(vocab_size), f"at least {smallest}: every byte and {END_OF_TEXT}"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair that occurs once is not worth a token
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    _enable_parallelism()
    backend.train_from_iterator(split_into_chunks(texts, BPETokenizer.CHUNK_CHARACTERS), trainer)
    return BPETokenizer(backend)


def _characters(texts: Iterable[str]) -> list[str]:
    occurs = np.zeros(sys.maxunicode + 1, dtype=bool)
    for text in texts:
        occurs[_code_points(text)] = True
    characters = [chr(point) for point in np.flatnonzero(occurs)]
    if not characters:
        raise TokenizerError("--tokenizer char", "an empty text", "a text with characters")
    return characters


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        # Command-line arguments that are not in the locale's encoding contain surrogates.
        raise TokenizerError(
            f"character {error.start}",
            f"the surrogate U+{ord(text[error.start]):04X}",
            "text that UTF-8 can hold",
        ) from None


def _byte_vocabulary() -> dict[str, int]:
    """GPT-2's names of the bytes: printable Latin-1 characters, and U+0100 and up for other bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), 256),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {names[byte]: byte for byte in range(256)}


_BYTE_VOCABULARY = _byte_vocabulary()


def _shared_byte_vocabulary() -> dict[str, int]:
    """As `ByteTokenizer.to_shared_json` names the bytes."""
    return {END_OF_TEXT if byte == 0 else name: byte for name, byte in _BYTE_VOCABULARY.items()}


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
        and _BYTE_VOCABULARY.keys() <= vocabulary.keys()
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
        with _one_line_errors("tokenizer.json"):
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


@contextlib.contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    """The library raises bare Exceptions, and a panic of Rust is not even one of these."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        got = f"what the tokenizers library rejects ({short_repr(str(error))[1:-1]})"
        raise TokenizerError(where, got, "what its tokenizer.json is for") from None


def _enable_parallelism() -> None:
    """Let the library use threads, without its warning at a later fork.

    It warns if a process that has used them forks and TOKENIZERS_PARALLELISM is not set. A forked child
    does not have these threads and would wait for them forever, so it must not use any. A value that
    the user has set is kept.
    """
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=_disable_parallelism)


def _disable_parallelism() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
