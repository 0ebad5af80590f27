"""bench.py COMPARISON ...: minilm beside other programs on the same machine in one run, in turn; JSON."""

from __future__ import annotations

import sys
from importlib import import_module

COMPARISONS = {
    "train": ("training", "training speed beside nanoGPT's"),
    "generate": ("generation", "tokens a second beside transformers"),
    "inspect": ("inspection", "the inspector beside other counters"),
}


def main() -> int:
    """Dispatch on the first argument; exit status 0 done, 2 bad usage."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: bench.py COMPARISON ...\n")
        print("\n".join(f"  {name:<10}{text}" for name, (_, text) in COMPARISONS.items()))
        return 0 if arguments else 2
    if arguments[0] not in COMPARISONS:
        expected = ", ".join(COMPARISONS)
        print(f"error: {arguments[0]!r}: no such comparison, expected {expected}", file=sys.stderr)
        return 2
    module = import_module(f"scripts.benchmarks.{COMPARISONS[arguments[0]][0]}")
    status: int = module.main(arguments[1:])
    return status
