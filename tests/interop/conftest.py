"""A real llama.cpp for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.llama_cpp import LlamaCpp, started


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[LlamaCpp]:
    yield from started()
