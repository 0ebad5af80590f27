"""Errors: one printable line, and the same error after another process has sent it."""

import pickle

import pytest

from minilm import errors
from minilm.errors import InputError, MissingExtraError

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_pickled(kind: type[InputError]) -> None:
    error = kind("a.bin", "three bytes", "four")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert set(vars(error)) == {"where", "got", "expected", "remedy"}


def test_the_kinds_that_are_tested_are_all_there_are() -> None:
    assert {InputError, *InputError.__subclasses__()} >= set(KINDS) > {InputError}
    assert MissingExtraError in KINDS


def test_a_name_from_a_file_cannot_break_the_line() -> None:
    assert str(InputError("a\nb", "\x1b[31m", "text")) == "a\\x0ab: \\x1b[31m, expected text"


def test_a_long_value_does_not_flood_the_terminal() -> None:
    error = InputError("config.json", "[" + "0, " * 100_000 + "0]", "a number", "write one")
    assert len(str(error)) < 1100
    assert str(error).endswith("..., expected a number; write one")
