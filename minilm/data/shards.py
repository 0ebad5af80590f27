"""Token shards: a corpus encoded once into memory-mapped files, found again by content.

    CACHE/tokens/KEY/
      tokenizer.json   written first; an interrupted build continues from it
      train.bin        little-endian uint16 where V <= 65536, else uint32, nothing else
      val.bin
      meta.json        sizes and hashes; written last, so an entry that has it is complete

KEY is a hash of everything that decides the tokens, the raw text's hash among it: other data, or
the same data changed, is another entry. Two processes that build or mend one entry write the same
bytes, each file whole by a rename, and remove none, so neither can harm the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from minilm.data.cache import is_key, mark_used, prune, size_limit
from minilm.data.corpus_stats import Identity, Size, identify, measure
from minilm.data.dataset import Dataset
from minilm.data.split_check import read_sample, split_difference
from minilm.data.splits import Mode, Split, divide, shuffled_order
from minilm.errors import CorpusError, FormatError, InputError
from minilm.files import atomic_writer, write_json
from minilm.progress import progress_bar
from minilm.safe_text import one_line
from minilm.text.cleaning import cleaning_versions
from minilm.text.corpus import Corpus
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import build_tokenizer
from minilm.text.tokenizers import Tokenizer

FORMAT = 3
SPLITS = ("train", "val")

logger = logging.getLogger(__name__)


def prepare(
    corpus: Corpus,
    *,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
    cache: Path,
    context_length: int,
    split: Mode = "position",
) -> Dataset:
    """Return the tokens of ``corpus``, from ``cache`` if they are there.

    By default the first int(characters * (1 - val_fraction)) characters are for training, the rest
    for validation, which is all of it where the fraction is 1; `minilm.data.splits` has the other modes of
    ``split``. ``tokenizer`` is a kind, to
    be built (bpe from the training part alone, char from all), or an existing one; ``vocab_size`` goes
    with the kind bpe.
    Raises CorpusError for text that cannot be used, or of fewer than context_length + 1 tokens for
    training or 2 for validation, TokenizerError as the tokenizer does, InputError where ``cache``
    cannot be written.
    """
    if not 0 < val_fraction <= 1:
        raise CorpusError("--val-fraction", str(val_fraction), "0 < fraction <= 1")
    limit = size_limit()
    identity = identify(corpus)
    key = _key(corpus, identity, tokenizer, vocab_size, val_fraction, split)
    entry = cache / "tokens" / key
    meta = _read_meta(entry)
    if meta is None and (entry / "meta.json").exists():
        meta = _read_meta(entry)  # another process may have completed it since
        if meta is None:
            logger.warning(f"note: the token cache {entry} is damaged: it is made anew")
    if meta is None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            meta = _build(entry, corpus, identity, tokenizer, vocab_size, val_fraction, split)
            for removed in prune(cache, limit, keep=key):
                logger.info(f"removed from the token cache, as its size is limited: {removed.path}")
        except OSError as error:
            raise InputError(
                error.filename or entry,
                f"cannot be written ({error.strerror or error})",
                "a writable cache folder with room",
                "set MINILM_CACHE to one",
            ) from None
    _check_lengths(corpus, meta, val_fraction, context_length)
    mark_used(entry)
    dataset = _dataset(entry, meta)
    if split == "position" and val_fraction < 1:
        _warn_of_difference(entry, meta, dataset.tokenizer.vocab_size)
    return dataclasses.replace(dataset, source=corpus.source)


def find(cache: Path, key: str, *, tokenizer: Tokenizer, sha256: str) -> Dataset | None:
    """The tokens that `prepare` stored under ``key``: of a text with that SHA-256, by that tokenizer.

    None where they are not there, whole. The text itself is not needed.
    """
    entry = cache / "tokens" / key
    meta = _read_meta(entry) if is_key(key) else None
    if meta is None or meta.sha256 != sha256:
        return None
    if meta.tokenizer_sha256 != _sha256(tokenizer.to_json().encode()):
        return None
    mark_used(entry)
    return _dataset(entry, meta)


def _dataset(entry: Path, meta: _Meta) -> Dataset:
    def tokens(split: str, count: int) -> NDArray[np.unsignedinteger[Any]]:
        if not count:  # an empty file cannot be mapped
            return np.empty(0, meta.dtype)
        return np.memmap(entry / f"{split}.bin", dtype=meta.dtype, mode="r")

    return Dataset(
        train=tokens("train", meta.train_tokens),
        val=tokens("val", meta.val_tokens),
        tokenizer=load_tokenizer(entry / "tokenizer.json"),
        source=meta.source,
        bytes=meta.bytes,
        sha256=meta.sha256,
        train_bytes=meta.train_bytes,
        val_bytes=meta.val_bytes,
        documents=meta.documents,
        key=entry.name,
    )


def _warn_of_difference(entry: Path, meta: _Meta, vocab_size: int) -> None:
    train = read_sample(entry / "train.bin", meta.dtype, meta.train_tokens)
    val = read_sample(entry / "val.bin", meta.dtype, meta.val_tokens)
    bytes_per_token = (meta.train_bytes + meta.val_bytes) / (meta.train_tokens + meta.val_tokens)
    difference = split_difference(train, val, vocab_size, bytes_per_token)
    if difference:
        other = "--split document or shuffle" if meta.documents > 1 else "--split shuffle"
        logger.warning(
            f"note: the end of the text, which validates, is unlike the rest: {difference}; if the text "
            f"is sorted, use {other}"
        )


@dataclass(frozen=True)
class _Meta:
    """The content of meta.json."""

    source: str
    bytes: int  # of the raw text, as its SHA-256
    sha256: str
    dtype: str  # numpy's name
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    documents: int
    train_sha256: str
    val_sha256: str
    tokenizer_sha256: str


def _key(
    corpus: Corpus,
    identity: Identity,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
    split: Mode,
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
        split,
        corpus.text_field,
        corpus.raw_text,
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
            # A changed token would be an index outside the embedding, or train on other text.
            and _sha256_of_file(entry / "train.bin") == meta.train_sha256
            and _sha256_of_file(entry / "val.bin") == meta.val_sha256
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
    split: Mode,
) -> _Meta:
    size = measure(corpus)
    division = divide(corpus, size, split, val_fraction)
    if isinstance(tokenizer, str):
        path = entry / "tokenizer.json"
        tokenizer = _built_tokenizer(path, division, tokenizer, vocab_size, size.documents > 1)
    else:
        tokenizer.save(entry / "tokenizer.json")
    meta = _encode(entry, corpus, identity, size, tokenizer, division)
    write_json(entry / "meta.json", dataclasses.asdict(meta))
    return meta


def _built_tokenizer(
    path: Path, division: Split, kind: str, vocab_size: int | None, separated: bool
) -> Tokenizer:
    if not (path.parent / "meta.json").exists():  # of a damaged entry nothing is to be trusted
        with contextlib.suppress(FormatError):
            return load_tokenizer(path)  # an earlier build was interrupted after it

    def texts() -> Iterator[str]:
        # A tokenizer trained on the validation text would bias the validation loss; but a table of
        # characters must be complete, or that text could not be encoded at all.
        for piece in division.pieces():
            if piece.split == "train" or kind == "char":
                yield piece.text

    tokenizer = build_tokenizer(kind, texts, vocab_size, separated=separated)
    tokenizer.save(path)
    return tokenizer


def _encode(
    entry: Path,
    corpus: Corpus,
    identity: Identity,
    size: Size,
    tokenizer: Tokenizer,
    division: Split,
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
        outputs = {
            split: stack.enter_context(atomic_writer(entry / f"{split}.bin")) for split in SPLITS
        }
        # Units are encoded in the corpus's order first, into a file that no other process sees.
        shards = {
            split: _Shard(
                stack.enter_context(tempfile.TemporaryFile(dir=entry))
                if division.shuffled
                else outputs[split]
            )
            for split in SPLITS
        }
        for piece in division.pieces(digest.update):
            shard = shards[piece.split]
            characters += len(piece.text)
            num_bytes = len(piece.text.encode())
            shard.write(tokenizer.encode(piece.text).astype(dtype))
            shard.text_bytes += num_bytes
            if piece.ends_document:
                shard.write(separator)
            if piece.ends_unit and division.shuffled:
                shard.unit_ends.append(shard.tokens)
            bar.update(num_bytes)
        if (digest.hexdigest(), characters) != (identity.sha256, division.characters):
            raise CorpusError(
                corpus.source, "text that changed while it was read", "the same text", "try again"
            )
        if division.shuffled:
            for split, shard in shards.items():
                _shuffle(shard, outputs[split], dtype)
    return _Meta(
        source=one_line(corpus.source),
        bytes=identity.bytes,
        sha256=identity.sha256,
        dtype=dtype.str,
        train_tokens=shards["train"].tokens,
        val_tokens=shards["val"].tokens,
        train_bytes=shards["train"].text_bytes,
        val_bytes=shards["val"].text_bytes,
        documents=size.documents,
        train_sha256=shards["train"].digest.hexdigest(),
        val_sha256=shards["val"].digest.hexdigest(),
        tokenizer_sha256=_sha256((entry / "tokenizer.json").read_bytes()),
    )


def _shuffle(shard: _Shard, output: IO[bytes], dtype: np.dtype[Any]) -> None:
    """Write the units of ``shard`` into ``output`` in random order."""
    shard.stream.flush()
    tokens = np.memmap(shard.stream, dtype=dtype, mode="r")
    starts = [0, *shard.unit_ends]
    shuffled = _Shard(output)
    for unit in shuffled_order(len(shard.unit_ends)):
        shuffled.write(tokens[starts[unit] : starts[unit + 1]])
    shard.digest = shuffled.digest


class _Shard:
    """A file of tokens that is being written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()
        self.tokens = 0
        self.text_bytes = 0
        self.unit_ends: list[int] = []

    def write(self, tokens: NDArray[np.unsignedinteger[Any]]) -> None:
        data = tokens.tobytes()
        self.stream.write(data)
        self.digest.update(data)
        self.tokens += len(tokens)


def _check_lengths(corpus: Corpus, meta: _Meta, val_fraction: float, context_length: int) -> None:
    if meta.train_tokens < context_length + 1 and val_fraction < 1:
        raise CorpusError(
            corpus.source,
            f"{meta.train_tokens} training tokens with --val-fraction {val_fraction}",
            f"at least {context_length + 1}, one more than the context length",
            "use more data or a smaller --model.context-length",
        )
    if meta.val_tokens < 2:
        raise CorpusError(
            corpus.source,
            f"{meta.val_tokens} validation tokens with --val-fraction {val_fraction}",
            "at least 2",
            "use more data or a larger --val-fraction",
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
