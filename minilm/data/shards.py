"""Token shards: a corpus encoded once into memory-mapped files, found again by content.

    CACHE/tokens/KEY/
      tokenizer.json   written first; an interrupted build continues from it
      train.bin        little-endian uint16 where V <= 65536, else uint32, nothing else
      train-1.bin ...  of a large text; `encoding` writes these files
      val.bin ...
      meta.json        sizes and hashes; written last, so an entry that has it is complete

Of a mixture, whose texts are entries of their own, it has mixture-tokenizer.json alone.

KEY is a hash of everything that decides the tokens, the raw text's hash among it: other data, or
the same data changed, is another entry. Two processes that build or mend one entry write the same
bytes, each file whole by a rename, and the one that is first removes only what the other can do without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from minilm.data.cache import MIXTURE_TOKENIZER, TOKENIZER, is_key, mark_used, prune, size_limit
from minilm.data.corpus_stats import Identity, identify, measure
from minilm.data.dataset import Dataset
from minilm.data.encoding import (
    SPLITS,
    Shard,
    are_whole,
    encode,
    map_tokens,
    read_journal,
    remove_intermediate,
    sha256_of_file,
    shard_path,
    token_dtype,
)
from minilm.data.mixture import Mixture, mixed
from minilm.data.split_check import read_sample, split_difference
from minilm.data.splits import Mode, Split, divide
from minilm.errors import CorpusError, FormatError, InputError
from minilm.files import write_json
from minilm.safe_text import one_line
from minilm.text.cleaning import cleaning_versions
from minilm.text.corpus import Corpus
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizer_training import BPE_CHARACTERS, build_tokenizer
from minilm.text.tokenizers import Tokenizer
from minilm.units import counted

FORMAT = 3

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
    if corpus.parts:
        return _prepare_mixture(
            corpus,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            val_fraction=val_fraction,
            cache=cache,
            context_length=context_length,
            split=split,
        )
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
        with _writing(entry):
            try:
                meta = _build(entry, corpus, identity, tokenizer, vocab_size, val_fraction, split)
            except (
                FileNotFoundError
            ):  # another process has finished, and removed what it was made of
                if (meta := _read_meta(entry)) is None:
                    raise
            for removed in prune(cache, limit, keep=key):
                logger.info(f"removed from the token cache, as its size is limited: {removed.path}")
    _check_lengths(corpus, meta, val_fraction, context_length)
    mark_used(entry)
    dataset = _dataset(entry, meta)
    if split == "position" and val_fraction < 1:
        _warn_of_difference(entry, meta, dataset.tokenizer.vocab_size)
    return dataclasses.replace(dataset, source=corpus.source)


def _prepare_mixture(
    corpus: Corpus,
    *,
    tokenizer: str | Tokenizer,
    vocab_size: int | None,
    val_fraction: float,
    cache: Path,
    context_length: int,
    split: Mode,
) -> Mixture:
    """Each part as an entry of its own, by one tokenizer: that of the training text of all of them."""
    identity = identify(corpus)
    if isinstance(tokenizer, str):
        entry = (
            cache / "tokens" / _key(corpus, identity, tokenizer, vocab_size, val_fraction, split)
        )
        with _writing(entry):
            # `prepare` says of each part what was done to it.
            sizes = [measure(part, with_notes=False) for part, _ in corpus.parts]
            divisions = [
                divide(part, size, split, val_fraction)
                for (part, _), size in zip(corpus.parts, sizes, strict=True)
            ]
            separated = sum(size.documents for size in sizes) > 1
            path = entry / MIXTURE_TOKENIZER
            tokenizer = _built_tokenizer(path, divisions, tokenizer, vocab_size, separated)
        mark_used(entry)
    texts = [part for part, _ in corpus.parts]
    if corpus.dedup:  # which documents of a part are duplicates depends on the others
        texts = [
            dataclasses.replace(part, dedup=f"{part.dedup} {number} in {identity.sha256}")
            for number, part in enumerate(texts)
        ]
    parts = [
        prepare(
            part,
            tokenizer=tokenizer,
            vocab_size=None,
            val_fraction=val_fraction,
            cache=cache,
            context_length=context_length,
            split=split,
        )
        for part in texts
    ]
    return mixed(parts, [weight for _, weight in corpus.parts], corpus.source, identity.sha256)


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


@contextlib.contextmanager
def _writing(entry: Path) -> Iterator[None]:
    """Make the folder, which goes again where the block fails before it writes into it.

    Raises InputError where it, or what the block writes, cannot be written.
    """
    try:
        entry.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # there is something in it
                entry.rmdir()
            raise
    except OSError as error:
        raise InputError(
            error.filename or entry,
            f"cannot be written ({error.strerror or error})",
            "a writable cache folder with room",
            "set MINILM_CACHE to one",
        ) from None


def _dataset(entry: Path, meta: _Meta) -> Dataset:
    dtype = np.dtype(meta.dtype)
    return Dataset(
        train=map_tokens(entry, "train", meta.shards["train"], dtype),
        val=map_tokens(entry, "val", meta.shards["val"], dtype),
        tokenizer=load_tokenizer(entry / TOKENIZER),
        source=meta.source,
        bytes=meta.bytes,
        sha256=meta.sha256,
        train_bytes=meta.train_bytes,
        val_bytes=meta.val_bytes,
        documents=meta.documents,
        key=entry.name,
    )


def _warn_of_difference(entry: Path, meta: _Meta, vocab_size: int) -> None:
    train, val = (
        read_sample(
            [
                (shard_path(entry, split, number), shard.tokens)
                for number, shard in enumerate(meta.shards[split])
            ],
            meta.dtype,
        )
        for split in SPLITS
    )
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
    shards: dict[str, list[Shard]]  # of each split
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
        else [tokenizer, vocab_size, tokenizers.__version__, BPE_CHARACTERS]
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
    if corpus.dedup:
        everything.append(corpus.dedup)
    if corpus.parts:  # a folder with the same files is divided otherwise
        everything.append([dataclasses.asdict(identify(part)) for part, _ in corpus.parts])
    return _sha256(json.dumps(everything).encode())


def _read_meta(entry: Path) -> _Meta | None:
    """The entry's meta.json, if the entry is complete and its files are as it says."""
    try:
        record = json.loads((entry / "meta.json").read_bytes())
        if "train_sha256" in record:  # of earlier versions: one file of each split
            record["shards"] = {
                split: [
                    {"tokens": record[f"{split}_tokens"], "sha256": record.pop(f"{split}_sha256")}
                ]
                for split in SPLITS
            }
        shards = {split: [Shard(**each) for each in record["shards"][split]] for split in SPLITS}
        meta = _Meta(**(record | {"shards": shards}))
        whole = (
            meta.train_tokens == sum(shard.tokens for shard in shards["train"])
            and meta.val_tokens == sum(shard.tokens for shard in shards["val"])
            and sha256_of_file(entry / TOKENIZER) == meta.tokenizer_sha256
            and all(are_whole(entry, each, shards[each], np.dtype(meta.dtype)) for each in SPLITS)
        )
    except (OSError, ValueError, TypeError, KeyError):
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
    journal = read_journal(entry)
    size = journal.size if journal else measure(corpus)
    division = divide(corpus, size, split, val_fraction)
    if isinstance(tokenizer, str):
        separated = size.documents > 1
        path = entry / TOKENIZER
        tokenizer = _built_tokenizer(path, [division], tokenizer, vocab_size, separated)
    else:
        tokenizer.save(entry / TOKENIZER)
    encoded = encode(entry, corpus.source, identity.sha256, size, tokenizer, division, journal)
    train_tokens, val_tokens = (
        sum(shard.tokens for shard in encoded.shards[each]) for each in SPLITS
    )
    meta = _Meta(
        source=one_line(corpus.source),
        bytes=identity.bytes,
        sha256=identity.sha256,
        dtype=token_dtype(tokenizer).str,
        train_tokens=train_tokens,
        val_tokens=val_tokens,
        train_bytes=encoded.text_bytes["train"],
        val_bytes=encoded.text_bytes["val"],
        documents=size.documents,
        shards=encoded.shards,
        tokenizer_sha256=sha256_of_file(entry / TOKENIZER),
    )
    write_json(entry / "meta.json", dataclasses.asdict(meta))
    remove_intermediate(entry)
    return meta


def _built_tokenizer(
    path: Path, divisions: Sequence[Split], kind: str, vocab_size: int | None, separated: bool
) -> Tokenizer:
    if not path.with_name("meta.json").exists():  # of a damaged entry nothing is to be trusted
        with contextlib.suppress(FormatError):
            return load_tokenizer(path)  # an earlier build was interrupted after it

    def texts() -> Iterator[str]:
        # A tokenizer trained on the validation text would bias the validation loss; but a table of
        # characters must be complete, or that text could not be encoded at all.
        for division in divisions:
            for piece in division.pieces():
                if piece.split == "train" or kind == "char":
                    yield piece.text

    characters = sum(division.characters for division in divisions)
    tokenizer = build_tokenizer(kind, texts, vocab_size, separated=separated, characters=characters)
    tokenizer.save(path)
    return tokenizer


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
            counted(meta.val_tokens, "token")
            + (f" for validation with --val-fraction {val_fraction}" if val_fraction < 1 else ""),
            "at least 2",
            "use more data" + (" or a larger --val-fraction" if val_fraction < 1 else ""),
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
