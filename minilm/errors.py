"""What a user can cause and mend. Everything else that goes wrong is a bug and keeps its traceback."""

from __future__ import annotations

from typing import Any

from minilm.safe_text import one_line


class InputError(ValueError):
    """Bad usage or bad input, told in one line: where, what came, what was expected, what to do.

    The command line prints it as ``error: WHERE: CAME, expected EXPECTED; REMEDY`` and exits 2.
    """

    def __init__(self, where: object, came: str, expected: str, remedy: str = "") -> None:
        self.where, self.came, self.expected, self.remedy = where, came, expected, remedy
        text = f"{where}: {came}, expected {expected}" + (f"; {remedy}" if remedy else "")
        # Names come from files and may hold newlines or terminal escapes: one printable line.
        super().__init__(one_line(text))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is, since subclasses take other arguments: processes send it to each other."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[InputError], args: tuple[Any, ...], state: dict[str, Any]) -> InputError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ConfigError(InputError):
    """A field of a configuration has a value that cannot be."""


class FormatError(InputError):
    """A file is not what its name or its header says."""


class CorpusError(InputError):
    """A text source is missing, empty, or not text."""


class TokenizerError(InputError):
    """A text cannot be encoded, or a tokenizer file cannot be used."""


class MissingExtraError(InputError):
    """An optional dependency is needed and is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            purpose,
            f"the package {package} is not installed",
            f"the optional extra '{extra}'",
            f"run: pip install 'minilm[{extra}]'",
        )
