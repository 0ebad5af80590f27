"""What programs of this folder share: the environment is checked before anything else is imported.

Nothing is imported here but the standard library, so that an interpreter without the dependencies gets
to the message that says which one to use.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The dependencies of pyproject.toml, by the names they are imported by.
DEPENDENCIES = (
    *("einops", "jinja2", "markupsafe", "numpy", "rich", "safetensors", "tokenizers", "torch"),
    *("tqdm", "tyro"),
)


def start(module: str) -> int:
    """Run ``module``.main() and return its exit status: what the front doors (scripts/NAME.py) do."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback
    check_dependencies()
    status: int = importlib.import_module(module).main()
    return status


def check_dependencies() -> None:
    """End the program with 2 and one line where a dependency is not installed."""
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: this Python lacks {_remedy(missing)}", file=sys.stderr)
        raise SystemExit(2)


def _remedy(missing: list[str]) -> str:
    """What the running interpreter lacks, and which one to use instead."""
    from shlex import quote

    others = len(missing) - 1
    first = "torch" if "torch" in missing else missing[0]
    text = first + (f" and {others} other dependencies" if others else "")
    environment = os.path.join(ROOT, ".venv")
    python = os.path.join(os.path.relpath(environment), "bin", "python")
    if not os.path.exists(python) or os.path.realpath(sys.prefix) == os.path.realpath(environment):
        return f"{text}: run `make train`, which installs them into .venv"
    activate = os.path.join(os.path.dirname(python), "activate")
    return f"{text}: use {quote(python)} {quote(sys.argv[0])}, or run: . {quote(activate)}"
