"""`cache`: texts that were encoded, copies of datasets, choices that were measured; and removing them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from minilm.cli.entry import DONE, parse_arguments, run_command
from minilm.data.cache import (
    LIMIT_VARIABLE,
    TUNING,
    CacheEntry,
    count_choices,
    default_cache,
    prune,
    read_copies,
    read_entries,
    size_limit,
)
from minilm.units import counted, format_bytes, format_count, format_seconds, parse_bytes


@dataclass(frozen=True)
class Arguments:
    """The tokens that training keeps of each text, and copies of datasets: what is removed is made again.
    Choices of dtype, attention and products: removed, they are measured again, and may come out otherwise.
    """

    prune: str | None = None
    """Remove what was not used for longest until this size is left: 5GB, 500MiB, 0."""
    forget_tuning: tyro.conf.FlagCreatePairsOff[bool] = False
    """Remove the choices that were measured."""


def main(arguments: Sequence[str] | None = None, program: str = "minilm cache") -> int:
    """Parse, remove if that is asked for, list."""
    command_line = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, command_line, program)))


def _run(options: Arguments) -> int:
    cache, limit = default_cache(), size_limit()
    if options.prune is not None:
        size = 0 if options.prune.strip() == "0" else parse_bytes(options.prune, "--prune")
        for entry in prune(cache, size, with_copies=True):
            print(f"removed  {_line(entry)}")
    if options.forget_tuning and (cache / TUNING).is_file():
        print(f"removed  {cache / TUNING}, {counted(count_choices(cache), 'choice')}")
        (cache / TUNING).unlink()
    entries = read_entries(cache)
    copies = read_copies(cache)
    for entry in (*entries, *copies):
        print(_line(entry))
    total = format_bytes(sum(entry.bytes for entry in entries))
    texts = counted(sum(not entry.is_tokenizer for entry in entries), "text")
    print(
        f"{cache / 'tokens'}: {texts}, {total}; what was not used for longest is removed above "
        f"{format_bytes(limit)} ({LIMIT_VARIABLE})"
    )
    if copies:
        copied = format_bytes(sum(copy.bytes for copy in copies))
        print(
            f"{cache / 'datasets'}: {counted(len(copies), 'copy', 'copies')} of datasets, "
            f"{copied}; removed by --prune alone"
        )
    if (cache / TUNING).is_file():
        print(
            f"{cache / TUNING}: {counted(count_choices(cache), 'choice')} of dtype, attention and products, "
            "measured; removed by --forget-tuning alone"
        )
    return DONE


def _line(entry: CacheEntry) -> str:
    unused = f"used {format_seconds(max(0.0, time.time() - entry.used))} ago"
    if entry.tokens is not None:
        content = f"{format_count(entry.tokens)} tokens"
    elif entry.is_copy:
        content = "a dataset"
    else:
        content = "a tokenizer" if entry.is_tokenizer else "unfinished"
    size = format_bytes(entry.bytes)
    return f"{entry.path.name[:12]}  {size:>11}  {content:>14}  {unused:<20}  {entry.source or ''}"
