"""The token cache and the copies of datasets: what is there, and removing what was not used for longest.

An entry is a folder CACHE/tokens/KEY that minilm/data/shards.py writes: a text's tokens, or the tokenizer
that was trained for a mixture. Its time of use is its modification time. Only files that are written there
are removed: a training process that has one mapped keeps it until it ends. A copy is a file
CACHE/datasets/NAME.jsonl of minilm/text/hugging_face.py; it would have to be fetched again, so it is removed
on request alone. CACHE/tuning.json has choices that were measured (minilm/generation/tuning.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from minilm.errors import FormatError, InputError
from minilm.files import target_of_temporary
from minilm.formats.json_file import read_object
from minilm.units import parse_bytes

# meta.json is removed first: an entry without it is incomplete.
META = "meta.json"
TUNING = "tuning.json"
TOKENIZER = "tokenizer.json"
MIXTURE_TOKENIZER = "mixture-tokenizer.json"
NAMES = re.compile(
    r"(meta|(mixture-)?tokenizer|journal)\.json|(unshuffled-)?(train|val)(-\d+)?\.(bin|ends)"
)
LIMIT, LIMIT_VARIABLE = "20GiB", "MINILM_CACHE_SIZE"
# An entry without meta.json, or a temporary file, may be in the making.
SECONDS_TO_BUILD = 24 * 3600.0


@dataclass(frozen=True)
class CacheEntry:
    """An entry of tokens, or the copy of a dataset; ``used`` is in seconds since the epoch.

    ``source`` and ``tokens`` are None for a copy, for the tokenizer of a mixture, and for an entry that is
    not complete.
    """

    path: Path
    bytes: int
    used: float
    source: str | None
    tokens: int | None
    is_copy: bool = False
    is_tokenizer: bool = False


def default_cache() -> Path:
    """Where data is kept: $MINILM_CACHE, else $XDG_CACHE_HOME/minilm, else ~/.cache/minilm.

    Raises InputError where that is below the home directory of a user who has none, or is a file.
    """
    if folder := os.environ.get("MINILM_CACHE"):
        cache = Path(os.path.expanduser(folder))
        if cache.is_file():
            raise InputError("MINILM_CACHE", f"{folder}, a file", "a folder, or none yet")
        return cache
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "minilm")
    path = os.path.expanduser("~/.cache/minilm")
    if path.startswith("~"):
        raise InputError(
            "~/.cache/minilm",
            "no home directory",
            "a folder for encoded texts",
            "set MINILM_CACHE to one",
        )
    return Path(path)


def size_limit() -> int:
    """Bytes that the tokens may take: $MINILM_CACHE_SIZE, else 20 GiB. Raises InputError for another text."""
    return parse_bytes(os.environ.get(LIMIT_VARIABLE) or LIMIT, LIMIT_VARIABLE)


def read_entries(cache: Path) -> list[CacheEntry]:
    """Every entry, the one used last first."""
    folder = cache / "tokens"
    paths = folder.iterdir() if folder.is_dir() else ()
    entries = []
    for path in paths:
        if is_key(path.name) and path.is_dir():
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                entries.append(_read(path))
    return sorted(entries, key=lambda entry: -entry.used)


def read_copies(cache: Path) -> list[CacheEntry]:
    """Every copy of a dataset, the one used last first."""
    copies = []
    for path in (cache / "datasets").glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            copies.append(
                CacheEntry(path, status.st_size, status.st_mtime, None, None, is_copy=True)
            )
    return sorted(copies, key=lambda copy: -copy.used)


def count_choices(cache: Path) -> int:
    """Choices that were measured, for all processors; of a file that cannot be read none is used."""
    with contextlib.suppress(FormatError, OSError):
        processors = read_object(cache / TUNING).values()
        return sum(len(choices) for choices in processors if isinstance(choices, dict))
    return 0


def is_key(name: str) -> bool:
    """Whether it is the name of an entry: a SHA-256."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def mark_used(entry: Path) -> None:
    """Make an entry the one used last, where the folder can be written."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def prune(
    cache: Path, limit: int, *, keep: str | None = None, with_copies: bool = False
) -> list[CacheEntry]:
    """Remove what was not used for longest until ``limit`` bytes are left, and return what was removed.

    The entry with the key ``keep`` stays, and so does one that may be in the making. What killed processes
    left in any of them goes.
    """
    _remove_temporaries(cache)
    entries = read_entries(cache)
    if with_copies:
        entries = sorted([*entries, *read_copies(cache)], key=lambda entry: -entry.used)
    total = sum(entry.bytes for entry in entries)
    removed = []
    for entry in reversed(entries):
        is_incomplete = entry.tokens is None and not (entry.is_copy or entry.is_tokenizer)
        in_the_making = is_incomplete and time.time() - entry.used < SECONDS_TO_BUILD
        if total <= limit or entry.path.name == keep or in_the_making:
            continue
        if entry.is_copy:
            entry.path.unlink(missing_ok=True)
        else:
            _remove(entry.path)
        total -= entry.bytes
        removed.append(entry)
    return removed


def _remove_temporaries(cache: Path) -> None:
    """Those of processes that ended before they could: nothing was written to them for long."""
    oldest = time.time() - SECONDS_TO_BUILD
    for file in (cache / "tokens").glob("*/.*.tmp"):
        with contextlib.suppress(OSError):  # another process has removed it
            target = target_of_temporary(file.name)
            if target and NAMES.fullmatch(target) and file.stat().st_mtime < oldest:
                file.unlink()


def _read(path: Path) -> CacheEntry:
    source = tokens = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        meta = json.loads((path / "meta.json").read_bytes())
        source, tokens = str(meta["source"]), int(meta["train_tokens"]) + int(meta["val_tokens"])
    sizes = []
    for file in path.iterdir():
        with contextlib.suppress(OSError):  # it may be gone since
            sizes.append(file.stat().st_size)
    is_tokenizer = (path / MIXTURE_TOKENIZER).exists()
    used = path.stat().st_mtime
    return CacheEntry(path, sum(sizes), used, source, tokens, is_tokenizer=is_tokenizer)


def _remove(path: Path) -> None:
    (path / META).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process has removed it
        for file in path.iterdir():
            if NAMES.fullmatch(target_of_temporary(file.name) or file.name):
                file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody put something else there
        path.rmdir()
