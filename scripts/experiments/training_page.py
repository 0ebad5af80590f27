"""The tables of the documents that experiments write, and the text that some of these are given."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from minilm import files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def text_option(description: str) -> Path:
    """The file of --data, by the command line. Exits with status 2 where it is not there."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the text")
    path: Path = parser.parse_args().data
    if not path.is_file():
        print(f"error: --data: {path}: no such file", file=sys.stderr)
        raise SystemExit(2)
    return path


def write_table(name: str, table: str, path: Path = PAGE) -> None:
    """Put ``table`` between the marks of ``name``."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    page = marked.sub(lambda part: part[1] + table + part[2], path.read_text(encoding="utf-8"))
    files.write_bytes(path, page.encode())
