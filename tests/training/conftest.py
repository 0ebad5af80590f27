"""Tests of training run twice: as on a processor with fast bfloat16, and as on one without."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm.runs.stop_reason import StopReason
from minilm.training.train import train
from minilm.training.trainer import Trainer
from tests.conftest import TINY_MODEL, TINY_SETTINGS, train_tiny


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


@pytest.fixture
def go(text_file: Path, cache: Path, tmp_path: Path) -> Any:
    """Train a tiny model into tmp_path/NAME with some settings replaced."""

    def start(name: str = "run", model: dict | None = None, **settings: Any) -> Any:
        return train(
            data=str(text_file),
            run_dir=tmp_path / name,
            tokenizer="byte",
            model=TINY_MODEL | (model or {}),
            settings=TINY_SETTINGS | {"dtype": "auto"} | settings,
            cache=cache,
        )

    return start


@pytest.fixture
def sigterm_after(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], AbstractContextManager[None]]:
    """Within the block, a run is sent SIGTERM after so many steps."""

    @contextlib.contextmanager
    def block(steps: int) -> Iterator[None]:
        limit_reached = Trainer._limit_reached

        def stop(trainer: Trainer) -> StopReason | None:
            if trainer.progress.step == steps:
                trainer.stop.signum = signal.SIGTERM
            return limit_reached(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_limit_reached", stop)
            yield

    return block
