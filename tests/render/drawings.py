"""The three drawings of a report read back: rows and texts as a reader sees them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise

from markdown_it import MarkdownIt
from rich.console import Console

from minilm.inspection.report import Report
from minilm.render.document import Document, Section, Table
from minilm.render.html import page
from minilm.render.markdown import markdown
from minilm.render.terminal import print_report

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def printed(report: Report, width: int = 80, *, full: bool = False, tensors: bool = False) -> str:
    """What the terminal shows."""
    stream = StringIO()
    console = Console(file=stream, width=width, highlight=False)
    print_report(report, console, full=full, tensors=tensors)
    return stream.getvalue()


def squeezed(text: str) -> str:
    """Without white space: a cell that was folded is whole again."""
    return "".join(text.split())


def markdown_text(report: Report) -> str:
    """Every text of the Markdown report with its tensors, one a line."""
    texts = []
    for token in MARKDOWN.parse(markdown(report, tensors=True)):
        texts.append(token.content if token.type == "code_block" else "")
        for child in token.children or ():
            texts.append("" if child.type == "html_inline" else child.content)
    return "\n".join(texts)


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.element = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.element = tag
        self.texts += [value for name, value in attrs if name.startswith("data-") and value]

    def handle_data(self, data: str) -> None:
        if self.element not in ("script", "style"):
            self.texts.append(data)


def html_text(report: Report) -> str:
    """Every text of the page, and the list of tensors that its script shows."""
    text = page(report)
    reader = _Texts()
    reader.feed(text)
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    tensors, name = json.loads(data)["tensors"], ""
    for same, ending, kind in zip(
        tensors["names"][::2], tensors["names"][1::2], tensors["rows"], strict=True
    ):
        name = name[:same] + tensors["endings"][ending]
        reader.texts += [name, *tensors["kinds"][kind]]
    return "\n".join(reader.texts)


def texts_of(section: Section) -> list[str]:
    """Every text of a section: titles, cells, lines, paragraphs, code."""
    texts = []
    for block in section.blocks:
        if isinstance(block, Table):
            texts += [block.caption, *(column.title for column in block.columns)]
            texts += [cell for row in block.rows for cell in row]
        else:
            fields = vars(block)
            texts += [fields[name] for name in ("title", "text") if name in fields]
            texts += fields.get("lines", ())
    return [text for text in texts if text]


def every_text(document: Document) -> list[str]:
    """Every text of a document."""
    heading = [document.target, document.architecture, document.total, document.about]
    return [
        *heading,
        document.verdict,
        *(text for section in document.sections for text in texts_of(section)),
    ]


def markdown_rows(text: str) -> list[list[str]]:
    """Every row of every table, as a Markdown reader shows it."""
    rows: list[list[str]] = []
    for before, token in pairwise(MARKDOWN.parse(text)):
        if token.type == "tr_open":
            rows.append([])
        elif before.type in ("th_open", "td_open"):
            # Of HTML, only the <code> around a name is left out; any other would show here.
            shown = "".join(child.content for child in token.children or ())
            rows[-1].append(shown.removeprefix("<code>").removesuffix("</code>"))
    return rows


def printed_rows(text: str, first_title: str) -> list[list[str]]:
    """The rows of the printed table whose first column has this title, by double spaces.

    A long last cell goes on in the lines below, whose first column is empty.
    """
    lines = text.splitlines()
    start = next(
        n for n, line in enumerate(lines) if re.match(rf"{re.escape(first_title)}  ", line)
    )
    rows = []
    for line in lines[start:]:
        if not line:
            break
        if line.startswith("  ") and len(rows) > 1:
            rows[-1][-1] += f" {line.strip()}"
        else:
            rows.append(re.split(r" {2,}", line.rstrip()))
    return rows


def number(cell: str) -> int:
    """1,234 -> 1234."""
    return int(cell.replace(",", ""))
