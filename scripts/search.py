"""python scripts/search.py: the same as `minilm search`. Run with --help."""

import os
import sys

# The checkout that this file is in, instead of scripts/, whose inspect.py would shadow the library's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from scripts import start  # noqa: E402

if __name__ == "__main__":
    sys.exit(start("minilm.cli.search"))
