"""`python -m minilm VERB ...`: the same as `minilm VERB ...`."""

from __future__ import annotations

import sys

from minilm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
