"""Errors that a user can cause and fix; anything else is a bug and keeps its traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm.safe_text import one_line

LONGEST_GOT = 1000  # characters


class InputError(ValueError):
    """Bad usage or bad input, in one line: where, what it got, what it expected, what to do.

    The command line prints ``error: WHERE: GOT, expected EXPECTED; REMEDY`` and exits with 2. What it got
    may be a text of any length from a file: its beginning is kept.
    """

    def __init__(self, where: object, got: str, expected: str, remedy: str = "") -> None:
        if len(got) > LONGEST_GOT:
            got = got[:LONGEST_GOT] + "..."
        self.where, self.got, self.expected, self.remedy = where, got, expected, remedy
        text = f"{where}: {got}, expected {expected}" + (f"; {remedy}" if remedy else "")
        # Names from files may hold newlines or terminal escapes.
        super().__init__(one_line(text))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes: subclasses take other arguments, and workers send errors back."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[InputError], args: tuple[Any, ...], state: dict[str, Any]) -> InputError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigError(InputError):
    """A field of a configuration has an invalid value."""


class FormatError(InputError):
    """A file is not what its name or header says."""


class CorpusError(InputError):
    """A text source is missing, empty, or not text."""


class TokenizerError(InputError):
    """A text cannot be encoded, or a tokenizer file cannot be used."""


class MissingExtraError(InputError):
    """An optional dependency is needed but not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            purpose,
            f"the package {package} is not installed",
            f"the optional extra '{extra}'",
            f"run: pip install 'minilm[{extra}]'",
        )


@contextlib.contextmanager
def naming_file(config: Path) -> Iterator[None]:
    """Errors about a field of ``config``, or about the tokenizer.json beside it, name that file.

    What reads fields does not know where they come from.
    """
    try:
        yield
    except (ConfigError, FormatError, TokenizerError) as error:
        where = str(error.where)
        if where == "tokenizer.json":
            where = f"{config.parent / where}"
        elif where.startswith("config.json"):
            where = f"{config}{where.removeprefix('config.json')}"
        elif isinstance(error, ConfigError) and not where.startswith(f"{config.parent}"):
            where = f"{config}: {where}"
        raise type(error)(where, error.got, error.expected, error.remedy) from None
