"""Text out of files made harmless, for a terminal, an error message, a page."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxlevel = 2


def one_line(text: str) -> str:
    """``text`` without control characters: a name cannot move the cursor or break a line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def running_text(text: str) -> str:
    """``text`` with newlines and tabs as they are; other control characters become U+FFFD."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) else "\ufffd" for c in text
    )


def short_repr(value: object) -> str:
    """``value`` as an error message quotes it: a few words of it, however long it is."""
    return _SHORT.repr(value)
