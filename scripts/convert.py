"""python scripts/convert.py: the same as `minilm convert`. Run with --help."""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports below without a word

# The checkout this file is in, instead of scripts/, whose inspect.py would shadow the library's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from minilm.cli.convert import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
