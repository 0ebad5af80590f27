"""Numbers as people read them: 124.4M parameters, 474.7 MiB, 3 min 20 s.

MB is 10^6 bytes and MiB is 2^20 bytes; this project prints MiB and says so.
"""

from __future__ import annotations


def format_count(count: float) -> str:
    """A count with a decimal suffix: 999 -> 999, 124439808 -> 124.4M, 8030261248 -> 8.03B."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= limit:
            scaled = count / limit
            return f"{scaled:.2f}{suffix}" if scaled < 10 else f"{scaled:.1f}{suffix}"
    return f"{count:g}"


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
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
