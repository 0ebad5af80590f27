"""python scripts/bench.py train|inspect ...: minilm beside other programs, medians and ratios, JSON.

Each comparison is in scripts/benchmarks/. Both programs run on the same machine in one run, in turn.
"""

import os
import sys

# The checkout this file is in, instead of scripts/, whose inspect.py would shadow the library's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

COMPARISONS = {
    "train": ("training", "training speed beside nanoGPT's"),
    "generate": ("generation", "tokens a second beside transformers"),
    "inspect": ("inspection", "the inspector beside other counters"),
}


def main() -> int:
    """Dispatch on the first argument."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: bench.py COMPARISON ...\n")
        print("\n".join(f"  {name:<10}{text}" for name, (_, text) in COMPARISONS.items()))
        return 0 if arguments else 2
    if arguments[0] not in COMPARISONS:
        expected = ", ".join(COMPARISONS)
        print(f"error: {arguments[0]!r}: no such comparison, expected {expected}", file=sys.stderr)
        return 2
    from importlib import import_module

    module = import_module(f"scripts.benchmarks.{COMPARISONS[arguments[0]][0]}")
    status: int = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
