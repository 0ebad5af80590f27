"""python scripts/dev/pictures.py RUN: write docs/images/run.svg, the end of `make train` for that run."""

import io
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402

from minilm.cli.train import show  # noqa: E402


def main() -> int:
    """Print the run to a recording console and export it."""
    if len(sys.argv) != 2:
        print(f"usage: {os.path.basename(sys.argv[0])} RUN", file=sys.stderr)
        return 2
    run_dir = Path(sys.argv[1])
    console = Console(record=True, width=88, highlight=False, file=io.StringIO())
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    verified = show(run_dir, summary, console)
    (ROOT / "docs" / "images").mkdir(parents=True, exist_ok=True)
    console.save_svg(str(ROOT / "docs" / "images" / "run.svg"), title="make train")
    return 0 if verified else 1


if __name__ == "__main__":
    sys.exit(main())
