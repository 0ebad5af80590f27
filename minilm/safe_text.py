"""Text from untrusted files, made safe for a terminal, an error message or an HTML page."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxlevel = 2


def one_line(text: str) -> str:
    """``text`` with its control characters escaped: it cannot move the cursor or end the line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def running_text(text: str) -> str:
    """``text`` with newlines and tabs kept and other control characters replaced by U+FFFD."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) else "\ufffd" for c in text
    )


def short_repr(value: object) -> str:
    """``repr(value)``, shortened to what fits an error message."""
    return _SHORT.repr(value)
