"""Token shards: a corpus encoded once into memory-mapped files, found again by content.

    CACHE/tokens/KEY/
      tokenizer.json   written first; an interrupted build continues from it
      train.bin        little-endian uint16 where V <= 65536, else uint32, nothing else
      val.bin
      meta.json        sizes and sources; written last, so an entry that has it is complete

KEY is a hash of everything that decides the tokens, the raw text's hash among it: other data, or
the same data changed, is another entry. Two processes that build one entry write the same bytes,
each file whole by a rename, so neither can harm the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from minilm.data.corpus_stats import Identity, Size, identify, measure
from minilm.errors import CorpusError, FormatError, InputError
from minilm.files import atomic_writer, write_json
from minilm.progress import progress_bar
from minilm.text.cleaning import cleaning_versions
from minilm.text.corpora import Corpus
from minilm.text.tokenizers import Tokenizer, build_tokenizer, load_tokenizer

FORMAT = 1
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Dataset:
    """A corpus as tokens. ``train`` and ``val``, (n,) each, are memory-mapped and read-only.

    ``bytes`` and ``sha256`` are of the raw text; ``train_bytes`` and ``val_bytes`` count the
    cleaned text of each split as UTF-8, the separators between ``documents`` left out.
    """

    train: NDArray[np.unsignedinteger[Any]]
    val: NDArray[np.unsignedinteger[Any]]
    tokenizer: Tokenizer
    source: str
    bytes: int
    sha256: str
    train_bytes: int
    val_bytes: int
    documents: int

    @property
    def train_tokens(self) -> int:
        return len(self.train)

    @property
    def val_tokens(self) -> int:
        return len(self.val)


def default_cache() -> Path:
    """Where data is kept: $MINILM_CACHE, else $XDG_CACHE_HOME/minilm, else ~/.cache/minilm."""
    if folder := os.environ.get("MINILM_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "minilm")
    return Path("~/.cache/minilm").expanduser()


def prepare(
    corpus: Corpus,
    *,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
    cache: Path,
    context_length: int,
) -> Dataset:
    """Return the tokens of ``corpus``, from ``cache`` if they are there.

    The first int(characters * (1 - val_fraction)) characters are for training, the rest for
    validation. ``tokenizer`` is a kind, to be built (bpe from the training part alone, char from
    all), or an existing one; ``vocab_size`` goes with the kind bpe.
    Raises CorpusError for text that cannot be used or a split shorter than context_length + 1
    tokens, TokenizerError as the tokenizer does, InputError where ``cache`` cannot be written.
    """
    if not 0 < val_fraction < 1:
        raise CorpusError("--val-fraction", str(val_fraction), "0 < fraction < 1")
    identity = identify(corpus)
    key = _key(corpus, identity, tokenizer, vocab_size, val_fraction)
    entry = cache / "tokens" / key
    meta = _read_meta(entry)
    if meta is None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            if (entry / "meta.json").exists():  # damaged: nothing in it is to be trusted
                (entry / "meta.json").unlink()
                (entry / "tokenizer.json").unlink(missing_ok=True)
            meta = _build(entry, corpus, identity, tokenizer, vocab_size, val_fraction)
        except OSError as error:
            raise InputError(
                error.filename or entry,
                f"cannot be written ({error.strerror or error})",
                "a writable cache folder with room",
                "set MINILM_CACHE to one",
            ) from None
    _check_lengths(corpus, meta, val_fraction, context_length)
    train, val = (np.memmap(entry / f"{split}.bin", dtype=meta.dtype, mode="r") for split in SPLITS)
    return Dataset(
        train=train,
        val=val,
        tokenizer=load_tokenizer(entry / "tokenizer.json"),
        source=corpus.source,
        bytes=identity.bytes,
        sha256=identity.sha256,
        train_bytes=meta.train_bytes,
        val_bytes=meta.val_bytes,
        documents=meta.documents,
    )


@dataclass(frozen=True)
class _Meta:
    """The content of meta.json."""

    dtype: str  # numpy's name
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    documents: int
    tokenizer_sha256: str


def _key(
    corpus: Corpus,
    identity: Identity,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
) -> str:
    recipe = (
        ["json", _sha256(tokenizer.to_json().encode())]
        if isinstance(tokenizer, Tokenizer)
        else [tokenizer, vocab_size, tokenizers.__version__]
    )
    everything = [
        FORMAT,
        dataclasses.asdict(identity),
        cleaning_versions(corpus.cleaning),
        recipe,
        val_fraction,
    ]
    return _sha256(json.dumps(everything).encode())


def _read_meta(entry: Path) -> _Meta | None:
    """The entry's meta.json, if the entry is complete and its files are as it says."""
    try:
        meta = _Meta(**json.loads((entry / "meta.json").read_bytes()))
        width = np.dtype(meta.dtype).itemsize
        whole = (
            (entry / "train.bin").stat().st_size == meta.train_tokens * width
            and (entry / "val.bin").stat().st_size == meta.val_tokens * width
            and _sha256((entry / "tokenizer.json").read_bytes()) == meta.tokenizer_sha256
        )
    except (OSError, ValueError, TypeError):
        return None
    return meta if whole else None


def _build(
    entry: Path,
    corpus: Corpus,
    identity: Identity,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
) -> _Meta:
    size = measure(corpus)
    train_characters = int(size.characters * (1 - val_fraction))
    if isinstance(tokenizer, str):
        tokenizer = _built_tokenizer(
            entry / "tokenizer.json", corpus, tokenizer, vocab_size, train_characters
        )
    else:
        tokenizer.save(entry / "tokenizer.json")
    meta = _encode(entry, corpus, identity, size, tokenizer, train_characters)
    write_json(entry / "meta.json", dataclasses.asdict(meta))
    return meta


def _built_tokenizer(
    path: Path, corpus: Corpus, kind: str, vocab_size: int | None, train_characters: int
) -> Tokenizer:
    try:
        return load_tokenizer(path)  # an earlier build was interrupted after it
    except FormatError:
        pass
    # A tokenizer trained on the validation text would bias the validation loss; but a table of
    # characters must be complete, or that text could not be encoded at all.
    training = None if kind == "char" else train_characters
    texts = functools.partial(_split_texts, corpus, training)
    tokenizer = build_tokenizer(kind, texts, vocab_size)
    tokenizer.save(path)
    return tokenizer


def _split_texts(corpus: Corpus, characters: int | None) -> Iterator[str]:
    """The first ``characters`` of the corpus, or all of them."""
    left = characters
    for chunk in corpus.chunks():
        if left is None:
            yield chunk.text
        elif left > 0:
            yield chunk.text[:left]
            left -= len(chunk.text)
        else:
            return


def _encode(
    entry: Path,
    corpus: Corpus,
    identity: Identity,
    size: Size,
    tokenizer: Tokenizer,
    train_characters: int,
) -> _Meta:
    """Write both shards in one pass over the corpus, of which a chunk at a time is in memory."""
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
    separator = np.array(
        [tokenizer.end_of_text] if tokenizer.end_of_text is not None and size.documents > 1 else [],
        dtype=dtype,
    )
    digest = hashlib.sha256()
    characters = 0
    with (
        contextlib.ExitStack() as stack,
        progress_bar(total=size.utf8_bytes, unit="B", unit_scale=True, desc="encoding") as bar,
    ):
        shards = {
            split: _Shard(stack.enter_context(atomic_writer(entry / f"{split}.bin")))
            for split in SPLITS
        }
        for chunk in corpus.chunks(digest.update):
            boundary = min(max(train_characters - characters, 0), len(chunk.text))
            characters += len(chunk.text)
            parts = {"train": chunk.text[:boundary], "val": chunk.text[boundary:]}
            for split, text in parts.items():
                if text:
                    shards[split].write(tokenizer.encode(text).astype(dtype))
                    shards[split].text_bytes += len(text.encode())
            if chunk.ends_document:
                # With the document's last character, on whichever side of the split that is.
                shards["val" if parts["val"] else "train"].write(separator)
            bar.update(len(chunk.text.encode()))
        if (digest.hexdigest(), characters) != (identity.sha256, size.characters):
            raise CorpusError(
                corpus.source, "text that changed while it was read", "the same text", "try again"
            )
    return _Meta(
        dtype=dtype.str,
        train_tokens=shards["train"].tokens,
        val_tokens=shards["val"].tokens,
        train_bytes=shards["train"].text_bytes,
        val_bytes=shards["val"].text_bytes,
        documents=size.documents,
        tokenizer_sha256=_sha256((entry / "tokenizer.json").read_bytes()),
    )


class _Shard:
    """A file of tokens that is being written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tokens = 0
        self.text_bytes = 0

    def write(self, tokens: NDArray[np.unsignedinteger[Any]]) -> None:
        self._stream.write(tokens.tobytes())
        self.tokens += len(tokens)


def _check_lengths(corpus: Corpus, meta: _Meta, val_fraction: float, context_length: int) -> None:
    for split, tokens in (("training", meta.train_tokens), ("validation", meta.val_tokens)):
        if tokens < context_length + 1:
            raise CorpusError(
                corpus.source,
                f"{tokens} {split} tokens with --val-fraction {val_fraction}",
                f"at least {context_length + 1}, one more than the context length",
                "use more data or a smaller --model.context-length",
            )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
