"""A corpus encoded into files of tokens of bounded size; what is finished outlasts a process that is killed.

    train.bin, train-1.bin, ...       the tokens of each split, in order
    val.bin, ...
    journal.json                      the files that are finished, and how much text is in them
    unshuffled-train.bin, ...         of a split that is shuffled: its tokens in the corpus's order, and
    unshuffled-train.ends, ...        as little-endian int64 after how many of a file's tokens each unit ends

The files of both splits end together, after the piece of text with which they have SHARD_BYTES. A process
that continues reads the text up to there without encoding it, and writes the bytes that one would have
written.
The last two kinds are removed by `remove_intermediate`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from array import array
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.cache import TOKENIZER
from minilm.data.corpus_stats import Size
from minilm.data.splits import Piece, Split, shuffled_order
from minilm.data.token_store import ShardedTokens
from minilm.errors import CorpusError
from minilm.files import atomic_writer, write_bytes, write_json
from minilm.progress import progress_bar
from minilm.text.parallel_encoding import MOST_PROCESSES, available_processors, encode_in_order
from minilm.text.tokenizers import BPETokenizer, LibraryTokenizer, Tokenizer

SPLITS = ("train", "val")
JOURNAL, UNSHUFFLED = "journal.json", "unshuffled-"

SHARD_BYTES = 2**26  # half a minute of encoding by a processor
# Of less text than this, processes take longer to start than they save.
PARALLEL_BYTES = 2**25

Tokens = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Shard:
    """A file of tokens: how many, and the SHA-256 of its bytes."""

    tokens: int
    sha256: str


@dataclass
class Encoded:
    """The files of each split, and the text that is in them."""

    pieces: int = 0
    characters: int = 0
    text_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    shards: dict[str, list[Shard]] = field(default_factory=lambda: {name: [] for name in SPLITS})


@dataclass(frozen=True)
class Journal:
    """What is finished: ``encoded``, of a corpus of that ``size`` by that tokenizer.json.

    ``prefix`` begins the names of the files, whose tokens have that ``dtype``.
    """

    prefix: str
    dtype: str
    size: Size
    tokenizer_sha256: str
    encoded: Encoded


def encode(
    entry: Path,
    source: str,
    sha256: str,
    size: Size,
    tokenizer: Tokenizer,
    division: Split,
    journal: Journal | None,
) -> Encoded:
    """Write all tokens of ``division``, after those in the ``journal``, into the folder ``entry``.

    It has the tokenizer.json. Raises CorpusError where the text that is read has not that ``sha256``.
    """
    dtype, prefix = token_dtype(tokenizer), UNSHUFFLED if division.shuffled else ""
    encoded = journal.encoded if journal else Encoded()
    separated = tokenizer.end_of_text is not None and size.documents > 1
    separator = np.array([tokenizer.end_of_text] if separated else [], dtype)
    digest = hashlib.sha256()
    pieces = division.pieces(digest.update)
    bytes_left = size.utf8_bytes - sum(encoded.text_bytes.values())
    with progress_bar(total=size.utf8_bytes, unit="B", unit_scale=True, desc="encoding") as bar:
        for piece in itertools.islice(pieces, encoded.pieces):
            bar.update(len(piece.text.encode()))
        with contextlib.closing(_tokens(pieces, tokenizer, entry, dtype, bytes_left)) as stream:
            ended = False
            while not ended:
                with _open_shards(entry, prefix, encoded) as shards:
                    ended = True
                    for piece, tokens in stream:
                        bar.update(_add(piece, tokens, separator, shards[piece.split], encoded))
                        if sum(shard.bytes for shard in shards.values()) >= SHARD_BYTES:
                            ended = False
                            break
                    read = (digest.hexdigest(), encoded.characters)
                    if ended and read != (sha256, division.characters):
                        remove_shards(entry, encoded)
                        problem = "text that changed while it was read"
                        raise CorpusError(source, problem, "the same text", "try again")
                if not ended:
                    tokenizer_sha256 = sha256_of_file(entry / TOKENIZER)
                    finished = Journal(prefix, dtype.str, size, tokenizer_sha256, encoded)
                    write_json(entry / JOURNAL, dataclasses.asdict(finished))
    if division.shuffled:
        for split in SPLITS:
            encoded.shards[split] = shuffle(entry, split, encoded.shards[split], dtype)
    for split in SPLITS:
        if not encoded.shards[split]:
            write_bytes(shard_path(entry, split, 0), b"")
    return encoded


def _add(
    piece: Piece, tokens: Tokens, separator: Tokens, shard: _OpenShard, encoded: Encoded
) -> int:
    """Add a piece's tokens to the file of its split, and return its bytes as text."""
    shard.write(tokens)
    if piece.ends_document:
        shard.write(separator)
    if piece.ends_unit:
        shard.unit_ends.append(shard.tokens)
    text_bytes = len(piece.text.encode())
    encoded.pieces += 1
    encoded.characters += len(piece.text)
    encoded.text_bytes[piece.split] += text_bytes
    return text_bytes


def _tokens(
    pieces: Iterator[Piece],
    tokenizer: Tokenizer,
    entry: Path,
    dtype: np.dtype[Any],
    num_bytes: int,
) -> Generator[tuple[Piece, Tokens], None, None]:
    """Each piece with its tokens, encoded by several processes where that is worth it."""
    processes = min(available_processors(), MOST_PROCESSES)
    is_slow = isinstance(tokenizer, BPETokenizer | LibraryTokenizer)
    if is_slow and processes > 1 and num_bytes >= PARALLEL_BYTES:
        yield from encode_in_order(
            pieces,
            lambda piece: piece.text,
            tokenizer=entry / TOKENIZER,
            dtype=dtype,
            processes=processes,
        )
        return
    for piece in pieces:
        yield piece, tokenizer.encode(piece.text).astype(dtype)


@contextlib.contextmanager
def _open_shards(entry: Path, prefix: str, encoded: Encoded) -> Iterator[dict[str, _OpenShard]]:
    """The next file of each split; those that have tokens are ``encoded`` after the block."""
    shards = {}
    with contextlib.ExitStack() as stack:
        for split in SPLITS:
            number = len(encoded.shards[split])
            path = shard_path(entry, prefix + split, number)
            shards[split] = _OpenShard(path, stack)
        yield shards
        if prefix:
            for split, shard in shards.items():
                path = shard_path(entry, prefix + split, len(encoded.shards[split]), "ends")
                write_bytes(path, np.array(shard.unit_ends, "<i8").tobytes())
    for split, shard in shards.items():
        if shard.tokens:
            encoded.shards[split].append(shard.finished())


class _OpenShard:
    """A file of tokens that is being written, as soon as there are any."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._path, self._stack = path, stack
        self._stream: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self.tokens = self.bytes = 0
        self.unit_ends = array("q")

    def write(self, tokens: Tokens) -> None:
        if not len(tokens):
            return
        if self._stream is None:
            self._stream = self._stack.enter_context(atomic_writer(self._path))
        data = tokens.tobytes()
        self._stream.write(data)
        self._digest.update(data)
        self.tokens += len(tokens)
        self.bytes += len(data)

    def finished(self) -> Shard:
        return Shard(self.tokens, self._digest.hexdigest())


def shuffle(entry: Path, split: str, shards: Sequence[Shard], dtype: np.dtype[Any]) -> list[Shard]:
    """Write the units in the unshuffled files of a split in random order."""
    tokens = map_tokens(entry, UNSHUFFLED + split, shards, dtype)
    ends = [np.zeros(1, np.int64)]
    first = 0
    for number, each in enumerate(shards):
        path = shard_path(entry, UNSHUFFLED + split, number, "ends")
        ends.append(first + np.fromfile(path, "<i8"))
        first += each.tokens
    bounds = np.concatenate(ends)
    order = iter(shuffled_order(len(bounds) - 1).tolist())
    shuffled: list[Shard] = []
    ended = False
    while not ended:
        with contextlib.ExitStack() as stack:
            shard = _OpenShard(shard_path(entry, split, len(shuffled)), stack)
            ended = True
            for unit in order:
                for start in range(bounds[unit], bounds[unit + 1], _UNIT_TOKENS):
                    end = min(start + _UNIT_TOKENS, int(bounds[unit + 1]))
                    shard.write(tokens[start:end])
                if shard.bytes >= SHARD_BYTES:
                    ended = False
                    break
        if shard.tokens:
            shuffled.append(shard.finished())
    return shuffled


_UNIT_TOKENS = 2**20  # of a long unit, what is in memory


def read_journal(entry: Path) -> Journal | None:
    """That of a preparation that was stopped, if its files are as it says."""
    try:
        record = json.loads((entry / JOURNAL).read_bytes())
        files = record["encoded"]["shards"]
        shards = {split: [Shard(**each) for each in files[split]] for split in SPLITS}
        journal = Journal(
            record["prefix"],
            record["dtype"],
            Size(**record["size"]),
            record["tokenizer_sha256"],
            Encoded(**(record["encoded"] | {"shards": shards})),
        )
        dtype = np.dtype(journal.dtype)
        whole = journal.tokenizer_sha256 == sha256_of_file(entry / TOKENIZER) and all(
            are_whole(entry, journal.prefix + split, shards[split], dtype) for split in SPLITS
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return journal if whole else None


def remove_shards(entry: Path, encoded: Encoded) -> None:
    """Remove the files that are ``encoded``, and what `remove_intermediate` does."""
    remove_intermediate(entry)
    for split in SPLITS:
        for number in range(len(encoded.shards[split])):
            shard_path(entry, split, number).unlink(missing_ok=True)


def remove_intermediate(entry: Path) -> None:
    """Remove what a finished entry does not have."""
    for path in (entry / JOURNAL, *entry.glob(f"{UNSHUFFLED}*")):
        path.unlink(missing_ok=True)


def shard_path(entry: Path, name: str, number: int, ending: str = "bin") -> Path:
    """The file of a split, or of an unshuffled one, with that number, counted from 0."""
    return entry / (f"{name}-{number}.{ending}" if number else f"{name}.{ending}")


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """That of its tokens in a file."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")


def are_whole(entry: Path, name: str, shards: Sequence[Shard], dtype: np.dtype[Any]) -> bool:
    """Whether files of tokens are as ``shards`` says. Raises OSError where one is missing."""
    for number, shard in enumerate(shards):
        path = shard_path(entry, name, number)
        # A changed token would be an index outside the embedding, or train on other text.
        if path.stat().st_size != shard.tokens * dtype.itemsize:
            return False
        if sha256_of_file(path) != shard.sha256:
            return False
    return True


def map_tokens(
    entry: Path, name: str, shards: Sequence[Shard], dtype: np.dtype[Any]
) -> Tokens | ShardedTokens:
    """The tokens in the files of a split, memory-mapped."""
    arrays = [
        np.memmap(shard_path(entry, name, number), dtype=dtype, mode="r")
        for number, shard in enumerate(shards)
        if shard.tokens  # an empty file cannot be mapped
    ]
    if len(arrays) < 2:
        return arrays[0] if arrays else np.empty(0, dtype)
    return ShardedTokens(arrays)


def sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
