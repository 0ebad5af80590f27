"""What the tests of the search share: skipped, with their reason, where Optuna is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minilm.config.presets import find_preset
from minilm.hyperparameters.budget import Budget
from minilm.hyperparameters.space import Space


@pytest.fixture
def optuna() -> Any:
    """The library, where it is installed."""
    return pytest.importorskip("optuna", reason="the extra 'search' is not installed")


@pytest.fixture
def space() -> Callable[..., Space]:
    """A search around a preset, on a text of so many tokens that is not there."""

    def make(
        budget: Budget,
        preset: str = "nano",
        model: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        tokens: int = 100_000,
    ) -> Space:
        text: Any = SimpleNamespace(
            train_places=10**6, val_places=10**5, train_tokens=10**6, train_bytes=3 * 10**6
        )
        text.row_length = lambda length: length
        fields = find_preset(preset)
        base = fields.model_config(**{"vocab_size": 512, **(model or {})})
        return Space(
            preset=fields,
            base=base,
            dataset=text,
            model=model or {},
            settings=settings or {},
            budget=budget,
            tokens=tokens,
        )

    return make


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A path with characters that a URL would have to escape."""
    return tmp_path / "a {study}?#%41.db"
