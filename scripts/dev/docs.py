"""python scripts/dev/docs.py: fill the console blocks of the documents with what the commands print.

tests/test_docs.py does the same and compares, so what is printed in a document is what a user sees.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```console\n\$ python (scripts/\S+)([^\n]*)\n.*?```", re.S)


def refreshed(text: str) -> str:
    """The document with the output of every console block as it is now, at 80 columns."""
    return BLOCK.sub(_run, text)


def _run(block: "re.Match[str]") -> str:
    script, arguments = block.groups()
    done = subprocess.run(
        [sys.executable, script, *shlex.split(arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    output = "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())
    return f"```console\n$ python {script}{arguments}\n{output}\n```"


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(refreshed(document.read_text(encoding="utf-8")), encoding="utf-8")
