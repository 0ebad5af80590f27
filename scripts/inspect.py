"""python scripts/inspect.py TARGET: the same as `minilm inspect`. Run with --help.

The standard library has an `inspect` too. A program that runs from this folder and imports it finds
this file first, so under that name this file steps aside and becomes the standard one.
"""

import os
import sys

if __name__ == "inspect":
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "inspect", os.path.join(os.path.dirname(os.__file__), "inspect.py")
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["inspect"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["inspect"])
else:
    # The checkout that this file is in, instead of scripts/, for what is imported from here on.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    from scripts import start

    if __name__ == "__main__":
        sys.exit(start("minilm.cli.inspect"))
