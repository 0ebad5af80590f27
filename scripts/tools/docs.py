"""python scripts/tools/docs.py: fill the console blocks of the documents with what the commands print.

tests/test_docs.py does the same and compares, so what is printed in a document is what a user sees.
Commands run in a folder that has the examples of scripts/tools/examples.py in it.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```console\n\$ python (scripts/\S+)([^\n]*)\n.*?```", re.S)


def refreshed(text: str) -> str:
    """The document with the output of every console block as it is now, at 80 columns."""
    with tempfile.TemporaryDirectory() as folder:
        if "examples/" in text:
            runpy.run_path(str(ROOT / "scripts" / "tools" / "examples.py"))["write"](Path(folder))
        return BLOCK.sub(lambda block: _run(block, Path(folder)), text)


def _run(block: "re.Match[str]", folder: Path) -> str:
    script, arguments = block.groups()
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *shlex.split(arguments)],
        cwd=folder,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: a check failed, which a document may show
        raise SystemExit(f"{script}{arguments}: {done.stderr}")
    output = "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())
    return f"```console\n$ python {script}{arguments}\n{output}\n```"


if __name__ == "__main__":
    for document in DOCUMENTS:
        files.write_bytes(document, refreshed(document.read_text(encoding="utf-8")).encode())
