"""The tokenizers library as it can be called safely: its errors as one line, its threads across a fork."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from minilm.errors import TokenizerError
from minilm.safe_text import short_repr


@contextlib.contextmanager
def one_line_errors(where: str) -> Iterator[None]:
    """The library raises bare Exceptions, and a panic of Rust is not even one of these."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        got = f"what the tokenizers library rejects ({short_repr(str(error))[1:-1]})"
        raise TokenizerError(where, got, "what its tokenizer.json is for") from None


def enable_parallelism() -> None:
    """Let the library use threads, without its warning at a later fork.

    It warns if a process that has used them forks and TOKENIZERS_PARALLELISM is not set. A forked child
    does not have these threads and would wait for them forever, so it must not use any. A value that
    the user has set is kept.
    """
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=_disable_parallelism)


def _disable_parallelism() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
