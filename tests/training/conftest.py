"""Tests of training run twice: as on a processor with fast bfloat16, and as on one without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import train_tiny


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def auto_dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """What dtype `auto` becomes on the CPU, whatever processor the tests run on."""
    dtype = str(request.param)
    with pytest.MonkeyPatch.context() as patch:
        capabilities = {"amx_bf16": dtype == "bfloat16"}
        patch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        yield dtype


@pytest.fixture(scope="module")
def auto_run(
    auto_dtype: str, tmp_path_factory: pytest.TempPathFactory, text_file: Path, cache: Path
) -> Path:
    """A finished run like `tiny_run`, in the dtype that `auto` becomes; tests must not change it."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "auto", text_file, cache, dtype="auto")
