"""Tokenizers of bytes, characters or byte-level BPE, and any other of the tokenizers library.

All are stored as tokenizer.json in the Hugging Face tokenizers format; the library, loading that file,
gives the same ids and text. Bytes and characters are encoded with numpy, which is faster; of BPE the
library encodes each word once (pretokens.py).

Legend: n tokens of a text, V vocabulary.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, pre_tokenizers

from minilm.errors import TokenizerError
from minilm.files import write_bytes
from minilm.text.byte_vocabulary import BYTE_VOCABULARY, SHARED_BYTE_VOCABULARY
from minilm.text.chunking import split_into_chunks
from minilm.text.pretokens import WordTokens, split
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizers_library import enable_parallelism, one_line_errors

Ids = Sequence[int] | NDArray[np.integer[Any]]


class TokenSpans(NamedTuple):
    """Tokens of a text, (n,), and the characters that each covers, from ``starts`` to before ``ends``.

    Tokens that share a character, as the bytes of one do, all cover it.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Tokenizer(ABC):
    """Text to token ids and back.

    ``kind`` is "byte", "char", "bpe" or "library"; ids are 0 <= id < ``vocab_size``. ``end_of_text``
    is the id that separates documents and ends a generated text, None where there is none;
    ``other_ends`` are further ids that end a generated text. ``folder`` is where it was read from: a chat
    template may be beside it.
    """

    kind: str
    vocab_size: int
    end_of_text: int | None
    other_ends: frozenset[int] = frozenset()
    folder: Path | None = None

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of ``text``, (n,), as torch indexes. Raises TokenizerError where it has none."""

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text to be continued, with the beginning-of-text token if there is one."""
        return [int(token) for token in self.encode(text)]

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The tokens whose names in a conversation stand for themselves, and their ids."""
        return {} if self.end_of_text is None else {END_OF_TEXT: self.end_of_text}

    def encode_chat(self, text: str) -> list[int]:
        """The ids of what a chat template wrote.

        The names of special tokens in it are these tokens. It begins as a prompt does: with one
        beginning-of-text token if there is one, be it of the template or not.
        """
        ids: list[int] = self.chat_spans(text).ids.tolist()
        return ids

    def chat_spans(self, text: str) -> TokenSpans:
        """As `encode_chat`, with what each token covers; nothing, of a beginning that was added."""
        special = self.special_tokens
        names = sorted(special, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        position, parts = 0, [TokenSpans(*np.empty((3, 0), np.int64))]
        for piece in pieces:
            if piece in special:
                spans = TokenSpans(*(np.array([x]) for x in (special[piece], 0, len(piece))))
            else:
                spans = self._spans(piece)
            parts.append(TokenSpans(spans.ids, position + spans.starts, position + spans.ends))
            position += len(piece)
        return TokenSpans(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _spans(self, text: str) -> TokenSpans:
        """As `encode`, with what each token covers."""
        ids = self.encode(text)
        place = np.arange(len(text))
        return TokenSpans(ids, place, place + 1)

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

    def _spans(self, text: str) -> TokenSpans:
        ids = self.encode(text)
        place = np.repeat(np.arange(len(text)), [len(character.encode()) for character in text])
        return TokenSpans(ids, place, place + 1)

    def _decode(self, ids: NDArray[np.int64]) -> str:
        return ids.astype(np.uint8).tobytes().decode("utf-8", "replace")

    def to_json(self) -> str:
        return self._backend(BYTE_VOCABULARY).to_str(pretty=True)

    def to_shared_json(self) -> str:
        """The NUL byte under the name of the end of a text.

        Its usual name is a letter, U+0100: as a special token it would be recognised in texts.
        """
        backend = self._backend(SHARED_BYTE_VOCABULARY)
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
        self._characters = code_points("".join(characters))
        size = len(characters)
        assert len(self._characters) == len(set(characters)) == size > 0
        self._is_separated = separated
        self.vocab_size = size + separated
        self.end_of_text: int | None = size if separated else None
        # code point -> id, or the size where there is none; the extra entry is for higher code points.
        self._ids = np.full(int(self._characters.max()) + 2, size, dtype=np.int64)
        self._ids[self._characters] = np.arange(size, dtype=np.int64)

    def encode(self, text: str) -> NDArray[np.int64]:
        points = code_points(text)
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


class _BackedTokenizer(Tokenizer):
    """A tokenizer that is one of the Hugging Face library, ``backend``."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def special_tokens(self) -> Mapping[str, int]:
        tokens = self._backend.get_added_tokens_decoder()
        return {token.content: number for number, token in tokens.items()}

    @functools.cached_property
    def _spans_backend(self) -> tokenizers.Tokenizer:
        """A copy that does not leave spaces at the ends of tokens out of what they cover."""
        backend = copy.deepcopy(self._backend)
        encodes_special = backend.encode_special_tokens
        backend.post_processor = None
        backend.encode_special_tokens = encodes_special
        return backend

    def _library_spans(self, text: str) -> TokenSpans:
        encoding = self._spans_backend.encode(text, add_special_tokens=False)
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return TokenSpans(np.array(encoding.ids, np.int64), spans[:, 0], spans[:, 1])

    def to_json(self) -> str:
        return self._backend.to_str(pretty=True)


@final
class BPETokenizer(_BackedTokenizer):
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
        super().__init__(backend)
        self.end_of_text: int | None = backend.token_to_id(END_OF_TEXT)
        self._words = WordTokens(self._encode_word)

    def encode(self, text: str) -> NDArray[np.int64]:
        _utf8(text)
        chunks = list(split_into_chunks([text], self.CHUNK_CHARACTERS))
        parts = [
            None if (words := split(chunk)) is None else self._words.of(words) for chunk in chunks
        ]
        left = [chunk for chunk, part in zip(chunks, parts, strict=True) if part is None]
        enable_parallelism()
        batch = iter(self._backend.encode_batch_fast(left, add_special_tokens=False))
        ids = [np.array(next(batch).ids, np.int64) if part is None else part for part in parts]
        return np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = self._backend.encode(word, add_special_tokens=False).ids
        return ids

    def _spans(self, text: str) -> TokenSpans:
        _utf8(text)
        return self._library_spans(text)

    def _decode(self, ids: NDArray[np.int64]) -> str:
        return self._backend.decode(ids.tolist(), skip_special_tokens=True)

    def merges(self) -> NDArray[np.int64]:
        """The two tokens that each token was merged from, (V, 2); (-1, -1) for single bytes."""
        pairs = np.full((self.vocab_size, 2), -1, dtype=np.int64)
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        for left, right in json.loads(self._backend.to_str())["model"]["merges"]:
            pairs[vocabulary[left + right]] = vocabulary[left], vocabulary[right]
        return pairs


@final
class LibraryTokenizer(_BackedTokenizer):
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
        super().__init__(backend)
        ends = (backend.token_to_id(name) for name in self.ENDS)
        self.end_of_text: int | None = next((number for number in ends if number is not None), None)

    def encode(self, text: str) -> NDArray[np.int64]:
        _utf8(text)
        enable_parallelism()
        with one_line_errors("text"):
            encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int64)

    def encode_prompt(self, text: str) -> list[int]:
        _utf8(text)
        with one_line_errors("text"):
            encoding = self._backend.encode(text, add_special_tokens=True)
        ids = list(encoding.ids)
        # A generation_config.json may name any token as the end: only an added one is left out.
        ends = ids and encoding.special_tokens_mask[-1] and ids[-1] == self.end_of_text
        return ids[:-1] if ends else ids

    def chat_spans(self, text: str) -> TokenSpans:
        # The library looks for its added tokens itself, some of which take spaces around them.
        _utf8(text)
        with one_line_errors("text"):
            spans = self._library_spans(text)
        beginning = self.encode_prompt("")
        if spans.ids[: len(beginning)].tolist() == beginning:
            return spans
        nothing = np.zeros(len(beginning), np.int64)
        added = TokenSpans(np.array(beginning, np.int64), nothing, nothing)
        return TokenSpans(*(np.concatenate(arrays) for arrays in zip(added, spans, strict=True)))

    def _decode(self, ids: NDArray[np.int64]) -> str:
        with one_line_errors("tokens"):
            return self._backend.decode(ids.tolist(), skip_special_tokens=True)


def code_points(text: str) -> NDArray[np.uint32]:
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
