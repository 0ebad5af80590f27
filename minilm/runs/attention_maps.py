"""attention.json of a run: how much each token of a text attends to those before it, in each layer and head.

``tokens`` are the texts of T tokens, ``layers`` the numbers of the layers, ``maps`` has for each of them a
string a head: row by row, of each token itself and those before it, so T(T + 1)/2 letters of `LEVELS`. A
letter is the square root of a weight, in steps of a 63rd. ``step`` is that of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minilm import files
from minilm.errors import FormatError
from minilm.formats.json_file import read_object
from minilm.runs import files as run_files

# From 0 to 63.
LEVELS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
MAX_TOKENS = 48
MAX_MAPS = 160  # layers times heads


@dataclass(frozen=True)
class AttentionMaps:
    """The content of an attention.json."""

    step: int
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    maps: tuple[tuple[str, ...], ...]


def letters(shares: Iterable[float]) -> str:
    """Numbers from 0 to 1 as a letter each."""
    return "".join(LEVELS[round(min(max(share, 0.0), 1.0) * (len(LEVELS) - 1))] for share in shares)


def write_attention_maps(run_dir: Path, maps: AttentionMaps) -> None:
    """Write attention.json."""
    files.write_json(run_dir / run_files.ATTENTION, asdict(maps))


def read_attention_maps(run_dir: Path) -> AttentionMaps | None:
    """Those of a run; None where there are none, or something else. A page does without."""
    path = run_dir / run_files.ATTENTION
    if not path.exists():
        return None
    try:
        value = read_object(path)
    except FormatError:
        return None
    fields: list[Any] = [value.get(key) for key in ("step", "tokens", "layers", "maps")]
    step, tokens, layers, maps = fields
    if not (
        _is_count(step)
        and _is_list_of(tokens, str, MAX_TOKENS)
        and _is_list_of(layers, int, MAX_MAPS)
        and all(map(_is_count, layers))
        and _is_list_of(maps, list, MAX_MAPS)
        and len(maps) == len(layers)
        and sum(map(len, maps)) <= MAX_MAPS
        and all(_is_map(each, len(tokens)) for heads in maps for each in heads)
        and len({len(heads) for heads in maps}) == 1
        and maps[0]
    ):
        return None
    return AttentionMaps(step, tuple(tokens), tuple(layers), tuple(map(tuple, maps)))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_list_of(value: Any, kind: type, most: int) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= most
        and all(type(each) is kind for each in value)
    )


def _is_map(value: Any, tokens: int) -> bool:
    letters = tokens * (tokens + 1) // 2
    return isinstance(value, str) and len(value) == letters and set(value) <= set(LEVELS)
