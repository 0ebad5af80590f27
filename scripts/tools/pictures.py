"""python scripts/tools/pictures.py RUN: write the pictures of the documents for that run.

docs/images/run.svg is the end of `make train`; docs/images/page.png is the top of `inspect.py RUN
--html FILE` in a headless Chromium, docs/images/learning.png its parameters through time if it was trained
with --train.watch true.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from rich.console import Console  # noqa: E402

from minilm import files  # noqa: E402
from minilm.cli import inspect  # noqa: E402
from minilm.cli.train_results import show  # noqa: E402
from minilm.inspection.inspector import inspect as inspect_run  # noqa: E402
from minilm.runs.files import PARAMETERS  # noqa: E402
from minilm.training.finish import finished_run  # noqa: E402


def main() -> int:
    """Print the run to a recording console and export it; take a picture of its page."""
    if len(sys.argv) != 2:
        print(f"usage: {os.path.basename(sys.argv[0])} RUN", file=sys.stderr)
        return 2
    run_dir = Path(sys.argv[1])
    outcome = finished_run(run_dir)
    if outcome is None:
        print(f"error: {run_dir}: no run that reached its end", file=sys.stderr)
        return 2
    console = Console(record=True, width=88, highlight=False, file=io.StringIO())
    # As at the end of training, the module is compared too.
    verified = show(replace(outcome, report=inspect_run(str(run_dir))), console)
    IMAGES.mkdir(parents=True, exist_ok=True)
    files.write_bytes(IMAGES / "run.svg", console.export_svg(title="make train").encode())
    photograph(run_dir)
    return 0 if verified else 1


def photograph(run_dir: Path) -> None:
    """A picture of the run's page."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        inspect.main([str(run_dir), "--html", str(page), "--json", os.devnull])
        screenshot(page, IMAGES / "page.png", width=1100, height=1500)
        if (run_dir / PARAMETERS).exists():
            show_only(page, "learning")
            screenshot(page, IMAGES / "learning.png", width=1100, height=620)


def show_only(page: Path, section: str) -> None:
    """Leave nothing of a page but one section."""
    style = f"<style>.bar-top, footer, main > :not(#{section}) {{ display: none; }}</style></head>"
    text = page.read_text(encoding="utf-8").replace("</head>", style)
    page.write_text(text, encoding="utf-8")


def screenshot(page: Path, picture: Path, *, width: int, height: int) -> None:
    """Write a picture of a page, where there is a Chromium to open it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-headless-shell")
    if chromium is None:
        print(f"no chromium on PATH: {picture} stays as it is", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars"
        command = [chromium, *flags.split(), f"--window-size={width},{height}"]
        command += [f"--user-data-dir={folder}/profile", f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
