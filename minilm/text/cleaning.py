"""Optional cleaning steps for text, each a function from a stream of chunks to another.

They run in the order of CLEANING_STEPS, whatever the order of the request:

    encoding    ftfy repairs mojibake ("cafÃ©"), line by line; the corpus reader decodes bytes that
                are not UTF-8 as Windows-1252
    html        removes tags, comments, scripts and styles; entities become characters, block elements
                become line breaks
    control     removes control characters except newline and tab, zero-width spaces and byte-order
                marks; every kind of line end becomes a newline. Keeps the zero-width joiner and
                non-joiner, which emoji, Persian and Indic text need
    nfc, nfkc   Unicode normalization
    whitespace  line ends become newlines, spaces before them are removed, runs of blank lines become
                one blank line; tabs are kept

The result does not depend on the division into chunks, except that to bound memory `encoding`, `nfc`
and `nfkc` split lines longer than MAX_LINE_CHARACTERS.
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
MAX_LINE_CHARACTERS = 2**20


def clean(chunks: Iterable[str], steps: Sequence[str]) -> Iterator[str]:
    """Yield the text of one document cleaned by ``steps``, divided differently into chunks.

    Raises InputError for an unknown step, MissingExtraError if a step's package is missing.
    """
    functions: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
        "encoding": _fix_encoding,
        "html": _strip_html,
        "control": _remove_control,
        "nfc": functools.partial(
            _map_lines, change=functools.partial(unicodedata.normalize, "NFC")
        ),
        "nfkc": functools.partial(
            _map_lines, change=functools.partial(unicodedata.normalize, "NFKC")
        ),
        "whitespace": _normalize_whitespace,
    }
    for step in ordered_steps(steps):
        chunks = functions[step](chunks)
    return iter(chunks)


def ordered_steps(steps: Sequence[str]) -> tuple[str, ...]:
    """The distinct ``steps`` in the order in which they are applied.

    Raises InputError for an unknown step, MissingExtraError if a step's package is missing.
    """
    for step in steps:
        if step not in CLEANING_STEPS:
            raise InputError("--clean", repr(step), "one of " + ", ".join(CLEANING_STEPS))
    if "encoding" in steps and importlib.util.find_spec("ftfy") is None:
        raise MissingExtraError("ftfy", "clean", "--clean encoding")
    return tuple(step for step in CLEANING_STEPS if step in steps)


def cleaning_versions(steps: Sequence[str]) -> list[str]:
    """Each of the ``steps`` with the version of its implementation."""
    versions = {
        "encoding": lambda: f"ftfy {importlib.metadata.version('ftfy')}",
        "html": lambda: f"html.parser {platform.python_version()}",
        "nfc": lambda: f"Unicode {unicodedata.unidata_version}",
        "nfkc": lambda: f"Unicode {unicodedata.unidata_version}",
    }
    return [f"{step} {versions[step]() if step in versions else 1}" for step in steps]


def normalize_line_ends(chunks: Iterable[str]) -> Iterator[str]:
    r"""Every kind of line end becomes a newline: \r\n, and \r alone."""
    pending = ""  # a trailing carriage return, which may be the first half of a line end
    for chunk in chunks:
        text = pending + chunk
        pending = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(pending)].replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield text
    if pending:
        yield "\n"


def _fix_encoding(chunks: Iterable[str]) -> Iterator[str]:
    import ftfy

    def fix(lines: str) -> str:
        # Not splitlines: it would split at U+0085, which is part of the mojibake "â\x80\x85".
        return "\n".join(ftfy.fix_encoding(line) for line in lines.split("\n"))

    return _map_lines(chunks, fix)


def _strip_html(chunks: Iterable[str]) -> Iterator[str]:
    page = _HTMLText()
    for chunk in chunks:
        page.feed(chunk)
        if text := page.pop_text():
            yield text
    page.close()
    if text := page.pop_text():
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
        self._texts: list[str] = []
        self._last_character = "\n"  # so that a page does not begin with a line break
        self._open_dropped: str | None = None  # the dropped element that is open

    def pop_text(self) -> str:
        """Return the text since the last call."""
        text = "".join(self._texts)
        self._texts.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._dropped:
            self._open_dropped = tag
        elif tag in self._blocks:
            self._break_line()

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open_dropped:
            self._open_dropped = None
        elif tag in self._blocks:
            self._break_line()

    def handle_data(self, data: str) -> None:
        if self._open_dropped is None and data:
            self._texts.append(data)
            self._last_character = data[-1]

    def _break_line(self) -> None:
        if self._last_character != "\n":
            self._texts.append("\n")
            self._last_character = "\n"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")


def _remove_control(chunks: Iterable[str]) -> Iterator[str]:
    for chunk in normalize_line_ends(chunks):
        if text := _CONTROL.sub("", chunk):
            yield text


def _normalize_whitespace(chunks: Iterable[str]) -> Iterator[str]:
    pending = ""  # trailing spaces and newlines, whose treatment depends on the next chunk
    # A newline before the text makes its leading blank lines a run like any other.
    prefix = "\n"
    for chunk in normalize_line_ends(chunks):
        text = pending + chunk
        end = len(text.rstrip(" \n"))
        pending = text[end:]
        if end:
            yield _normalize_lines(prefix + text[:end])[len(prefix) :]
            prefix = ""
    if text := _normalize_lines(prefix + pending)[len(prefix) :]:
        yield text


def _normalize_lines(text: str) -> str:
    stripped = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    return re.sub("\n{3,}", "\n\n", stripped)


def _map_lines(chunks: Iterable[str], change: Callable[[str], str]) -> Iterator[str]:
    """Apply ``change`` to whole lines, so that the result does not depend on the chunks."""
    pending = ""
    for chunk in chunks:
        pending += chunk
        end = pending.rfind("\n") + 1
        if not end and len(pending) > MAX_LINE_CHARACTERS:
            end = len(pending)
        if end:
            yield change(pending[:end])
            pending = pending[end:]
    if pending:
        yield change(pending)
