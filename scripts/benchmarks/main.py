"""bench.py COMPARISON ...: minilm beside other programs on the same machine in one run, in turn; JSON."""

from __future__ import annotations

import sys
from importlib import import_module

from minilm.cli.entry import run_command
from minilm.errors import InputError

COMPARISONS = {
    "train": ("training", "training speed beside nanoGPT's"),
    "generate": ("generation", "tokens a second beside transformers"),
    "inspect": ("inspection", "the inspector beside other counters"),
}


def main() -> int:
    """Dispatch on the first argument; exit status 0 done, 2 bad usage."""
    return run_command(lambda: _run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: bench.py COMPARISON ...\n")
        print("\n".join(f"  {name:<10}{text}" for name, (_, text) in COMPARISONS.items()))
        return 0 if arguments else 2
    if arguments[0] not in COMPARISONS:
        raise InputError(repr(arguments[0]), "no such comparison", ", ".join(COMPARISONS))
    module = import_module(f"scripts.benchmarks.{COMPARISONS[arguments[0]][0]}")
    status: int = module.main(arguments[1:])
    return status
