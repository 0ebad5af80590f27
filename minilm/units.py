"""Counts, sizes and durations as text: 124.4M parameters, 474.7 MiB, 3 min 20 s.

MB is 10^6 bytes and MiB is 2^20 bytes; this project prints MiB and says so.
"""

from __future__ import annotations

import re

from minilm.errors import InputError

# Of conversations a loss is the mean over the first: every count of tokens says which of both it is.
TOKENS_OF_ANSWERS, TOKENS_OF_CONVERSATIONS = "tokens of answers", "tokens of conversations"


def format_count(count: float) -> str:
    """A count with a decimal suffix: 999 -> 999, 124439808 -> 124.4M, 8030261248 -> 8.03B."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= limit:
            scaled = count / limit
            return f"{scaled:.2f}{suffix}" if scaled < 10 else f"{scaled:.1f}{suffix}"
    return f"{count:g}"


def counted(count: int, one: str, several: str = "") -> str:
    """A count with its noun, by default with an s where it is not 1: 1 step, 2,000 steps."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def format_decimal(value: float, digits: int) -> str:
    """A number with so many decimals, or in a short form where it is huge: 22.4970, 1.35e+13."""
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def format_bytes(count: float) -> str:
    """A size in binary units: 497759232 -> 474.7 MiB."""
    scaled = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(scaled) < 1024:
            return f"{scaled:.0f} {unit}" if unit == "bytes" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A duration: 7.25 -> 7.2 s, 200 -> 3 min 20 s, 7260 -> 2 h 1 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", re.ASCII)


def parse_seconds(text: str, where: str) -> float:
    """Seconds of a duration: 90s, 20m, 1.5h. Raises InputError naming ``where`` for other text."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InputError(where, repr(text[:40]), "a duration such as 90s, 20m or 1.5h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


_SIZE = re.compile(r"(\d{1,20})(?:\.(\d{1,20}))?(?:e(\d{1,2}))?\s*([kmgtp]?)(i?)(b?)", re.ASCII)
_MAX_SIZE = 2**63 - 1
# In a smaller number without a unit, the unit was probably forgotten: 24 is not 24 bytes.
_MIN_WITHOUT_UNIT = 10**6


def parse_bytes(text: str, where: str = "size") -> int:
    """Bytes of a size such as 24GB (24 * 10^9), 80GiB (80 * 2^30), 8e9 or 40g.

    Raises InputError naming ``where`` for other text, for 0 or more than 64 bits hold, and for a
    number below a million without a unit.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    expected = "a size such as 24GB, 80GiB or 512MB"
    if match is None or (match[5] and not match[4]):
        raise InputError(where, repr(text[:40]), expected)
    whole, decimals, exponent, prefix, binary, _ = (group or "" for group in match.groups())
    unit = (1024 if binary else 1000) ** " kmgtp".index(prefix or " ")
    size: int = int(whole + decimals) * 10 ** int(exponent or 0) * unit // 10 ** len(decimals)
    if not (prefix or match[6]) and size < _MIN_WITHOUT_UNIT:
        raise InputError(where, f"{text.strip()[:40]!r} without a unit", expected)
    if not 1 <= size <= _MAX_SIZE:
        raise InputError(where, repr(text[:40]), f"{expected}, from 1 byte to 8 EiB")
    return size
