"""A progress bar: in a terminal, and in a notebook, which has none; silent elsewhere."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(bar_format: str | None = None, **options: Any) -> tqdm[Any]:
    """tqdm's bar with these ``options``; a notebook's own where the package ipywidgets is installed."""
    from tqdm.auto import tqdm

    if not _in_notebook():
        return tqdm(bar_format=bar_format, disable=None, **options)  # None: only in a terminal
    if bar_format is not None:  # a notebook's bar has its own width
        bar_format = re.sub(r"\{bar:\d+\}", "{bar}", bar_format)
    return tqdm(bar_format=bar_format, **options)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
