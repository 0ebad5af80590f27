"""Which passes of a run are captured, and that replays compute the run. On a GPU: tests/test_gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilm.training.runtime import Runtime
from minilm.training.train import train
from tests.conftest import TINY_MODEL, TINY_SETTINGS
from tests.fake_graphs import FakeGraph, graphs  # noqa: F401

# Of 8 steps the first two of each batch shape run without a graph.
STAGED = {"gradient_accumulation": 3, "initial_context_length": 8, "max_steps": 8}


def weights(folder: Path, text: Path, cache: Path, **settings: Any) -> bytes:
    options = TINY_SETTINGS | {"max_steps": 8, "gradient_clip": 1.0} | settings
    train(
        run_dir=folder,
        model=TINY_MODEL | {"dropout": 0.1},
        tokenizer="byte",
        settings=options,
        cache=cache,
        data=str(text),
    )
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "replays"), [({}, [6, 6]), (STAGED, [2, 4, 2, 2, 4, 2])], ids=["plain", "staged"]
)
def test_the_weights_are_those_of_a_run_without_graphs(
    settings: dict[str, Any],
    replays: list[int],
    graphs: list[FakeGraph],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    expected = weights(tmp_path / "eager", text_file, cache, **settings)
    assert not graphs
    monkeypatch.setattr(Runtime, "cuda_graph", True)
    assert weights(tmp_path / "graphs", text_file, cache, **settings) == expected
    assert [graph.replays for graph in graphs] == replays
