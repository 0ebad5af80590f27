"""`minilm VERB ...`: the same code as scripts/VERB.py."""

from __future__ import annotations

import sys
from importlib import import_module

from minilm.version import __version__

VERBS = {
    "train": "train a model on text and leave a run folder",
    "inspect": "count every parameter and prove the count",
    "generate": "text from a trained model",
    "convert": "a model for transformers and llama.cpp, or theirs as a run",
    "cache": "the texts that were encoded, and removing them",
}


def main() -> int:
    """Dispatch on the first argument."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: minilm VERB ...\n")
        print("\n".join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items()))
        print("\n`minilm help VERB` lists the options of one; `minilm --version`.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        print(f"error: {verb!r}: no such verb, expected {', '.join(VERBS)}", file=sys.stderr)
        return 2
    run = import_module(f"minilm.cli.{verb}").main
    status: int = run(arguments[1:], f"minilm {verb}")
    return status
