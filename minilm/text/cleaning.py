"""Cleaning steps for text, on request and by name, each a stream from chunks to chunks.

The steps run in the order of CLEANING_STEPS whatever the order they are asked in:

    encoding    mojibake ("cafÃ©") is mended by ftfy, a line at a time; bytes that are not UTF-8
                are read as Windows-1252 by the corpus reader
    html        tags, comments, scripts and styles go, entities become characters, block elements
                become line breaks
    control     control characters but newline and tab go, so do zero-width spaces and byte-order
                marks; every kind of line end becomes a newline. The zero-width joiner and
                non-joiner stay: emoji, Persian and Indic text are spelled with them
    nfc, nfkc   Unicode normalization
    whitespace  line ends become newlines, spaces before them go, runs of blank lines become one
                blank line; tabs stay

The result does not depend on how the text is cut into chunks, but for a line longer than
LONGEST_LINE in `encoding`, `nfc` and `nfkc`: memory is bounded instead.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from html.parser import HTMLParser

from minilm.errors import InputError, MissingExtraError

CLEANING_STEPS = ("encoding", "html", "control", "nfc", "nfkc", "whitespace")
LONGEST_LINE = 2**20  # characters


def clean(chunks: Iterable[str], steps: Sequence[str]) -> Iterator[str]:
    """Yield the text of one document cleaned by ``steps``, in chunks that may be cut differently.

    Raises InputError for an unknown step, MissingExtraError where a step's package is missing.
    """
    functions: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
        "encoding": _mend_encoding,
        "html": _strip_html,
        "control": _remove_control,
        "nfc": functools.partial(_by_line, change=functools.partial(unicodedata.normalize, "NFC")),
        "nfkc": functools.partial(
            _by_line, change=functools.partial(unicodedata.normalize, "NFKC")
        ),
        "whitespace": _tidy_whitespace,
    }
    for step in ordered_steps(steps):
        chunks = functions[step](chunks)
    return iter(chunks)


def ordered_steps(steps: Sequence[str]) -> tuple[str, ...]:
    """Check the names of ``steps`` and return them once each, in the order they are applied.

    Raises InputError for an unknown step, MissingExtraError where a step's package is missing.
    """
    for step in steps:
        if step not in CLEANING_STEPS:
            raise InputError("--clean", repr(step), "one of " + ", ".join(CLEANING_STEPS))
    if "encoding" in steps and importlib.util.find_spec("ftfy") is None:
        raise MissingExtraError("ftfy", "clean", "--clean encoding")
    return tuple(step for step in CLEANING_STEPS if step in steps)


def cleaning_versions(steps: Sequence[str]) -> list[str]:
    """What the result of ``steps`` depends on beside the text: each with its implementation."""
    versions = {
        "encoding": lambda: f"ftfy {importlib.metadata.version('ftfy')}",
        "html": lambda: f"html.parser {platform.python_version()}",
        "nfc": lambda: f"Unicode {unicodedata.unidata_version}",
        "nfkc": lambda: f"Unicode {unicodedata.unidata_version}",
    }
    return [f"{step} {versions[step]() if step in versions else 1}" for step in steps]


def _mend_encoding(chunks: Iterable[str]) -> Iterator[str]:
    import ftfy

    def mend(lines: str) -> str:
        # Not splitlines: U+0085 ends a line there and is part of "â\x80\x85" here.
        return "\n".join(ftfy.fix_encoding(line) for line in lines.split("\n"))

    return _by_line(chunks, mend)


def _strip_html(chunks: Iterable[str]) -> Iterator[str]:
    page = _HTMLText()
    for chunk in chunks:
        page.feed(chunk)
        if text := page.take():
            yield text
    page.close()
    if text := page.take():
        yield text


_DROPPED_ELEMENTS = "script style"
_BLOCK_ELEMENTS = (
    "address article aside blockquote body br caption dd details dialog div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html li main nav ol option "
    "p pre section summary table tbody td tfoot th thead title tr ul"
)


class _HTMLText(HTMLParser):
    """Collects the visible text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._dropped = frozenset(_DROPPED_ELEMENTS.split())
        self._blocks = frozenset(_BLOCK_ELEMENTS.split())
        self._parts: list[str] = []
        self._last = "\n"  # the last character taken; a page does not begin with a line break
        self._inside: str | None = None  # the element that is being dropped

    def take(self) -> str:
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._dropped:
            self._inside = tag
        elif tag in self._blocks:
            self._break_line()

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None
        elif tag in self._blocks:
            self._break_line()

    def handle_data(self, data: str) -> None:
        if self._inside is None and data:
            self._parts.append(data)
            self._last = data[-1]

    def _break_line(self) -> None:
        if self._last != "\n":
            self._parts.append("\n")
            self._last = "\n"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")


def _remove_control(chunks: Iterable[str]) -> Iterator[str]:
    for chunk in _unify_line_ends(chunks):
        if text := _CONTROL.sub("", chunk):
            yield text


def _tidy_whitespace(chunks: Iterable[str]) -> Iterator[str]:
    held = ""  # spaces and newlines at the end: what becomes of them depends on what follows
    # Blank lines at the very beginning are a run like any other: as if after a line end.
    before = "\n"
    for chunk in _unify_line_ends(chunks):
        text = held + chunk
        end = len(text.rstrip(" \n"))
        held = text[end:]
        if end:
            yield _tidy_lines(before + text[:end])[len(before) :]
            before = ""
    if text := _tidy_lines(before + held)[len(before) :]:
        yield text


def _tidy_lines(text: str) -> str:
    stripped = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    return re.sub("\n{3,}", "\n\n", stripped)


def _unify_line_ends(chunks: Iterable[str]) -> Iterator[str]:
    held = ""  # a carriage return at the end may be the first half of a line end
    for chunk in chunks:
        text = held + chunk
        held = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield text
    if held:
        yield "\n"


def _by_line(chunks: Iterable[str], change: Callable[[str], str]) -> Iterator[str]:
    """Apply ``change`` to whole lines, so that where the chunks were cut does not show."""
    pending = ""
    for chunk in chunks:
        pending += chunk
        end = pending.rfind("\n") + 1
        if not end and len(pending) > LONGEST_LINE:
            end = len(pending)
        if end:
            yield change(pending[:end])
            pending = pending[end:]
    if pending:
        yield change(pending)
