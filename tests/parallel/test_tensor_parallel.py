"""What models and processes tensor parallelism is refused for, each in a line; test_processes.py trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import World
from minilm.parallel.tensor_checks import check, check_training
from minilm.training import run_spec, setup
from minilm.training.resume_state import Progress
from minilm.training.signals import StopRequest
from minilm.training.train_step import TrainStep
from tests.conftest import TINY_MODEL, train_tiny


@pytest.mark.parametrize(
    ("fields", "processes", "got"),
    [
        ({}, 3, "2 with 3 processes"),
        ({}, 1, "2 with 1 process, expected a number that divides them"),
        ({"num_heads": 1}, 2, "2 with 1 key/value heads and 64 hidden units"),
        ({"num_kv_heads": 1}, 2, "2 with 1 key/value heads"),
        ({"d_feed_forward": 35}, 2, "and 35 hidden units"),
        ({"convolution": 2}, 2, "a convolution"),
    ],
)
def test_what_cannot_be_shared_out(fields: dict[str, Any], processes: int, got: str) -> None:
    config = ModelConfig(vocab_size=11, **TINY_MODEL | fields)
    world = World(size=processes, store=object())
    with pytest.raises(ConfigError, match=f"tensor_parallel: .*{got}"):
        check(config, 2, world)
    check(config, 1, world)


def test_it_takes_torchrun(text_file: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="tensor_parallel: 2 with one process, expected 2 or more that torchrun"
    ):
        train_tiny(tmp_path / "run", text_file.parent / "none.txt", cache, tensor_parallel=2)
    assert not (tmp_path / "run").exists()


def test_what_is_trained_in_part_is_refused() -> None:
    model = Transformer(ModelConfig(vocab_size=11, **TINY_MODEL))
    check_training(model, 2)
    model.final_norm.requires_grad_(False)
    with pytest.raises(ConfigError, match="an adapter or frozen parameters"):
        check_training(model, 2)
    model = Transformer(ModelConfig(vocab_size=11, **TINY_MODEL | {"dropout": 0.1}))
    with pytest.raises(
        ConfigError, match=r"dropout 0.1, expected a run begun with --model\.dropout 0"
    ):
        check_training(model, 2)


def test_it_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.training.train_step.world", lambda: World(size=2, tensor=2))
    runtime = SimpleNamespace(compile_required=True)
    spec: Any = SimpleNamespace(model=None, config=None, runtime=runtime)
    with pytest.raises(ConfigError, match="compile: on with tensor_parallel, expected auto or off"):
        TrainStep(spec, Progress(), StopRequest())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 3}, "batch_size: 3, shared out by 4 processes, expected at least a row"),
        ({"batch_size": 8, "initial_batch_size": 2}, "initial_batch_size: 2, shared out by 4"),
        ({"batch_size": 1, "tensor_parallel": 2}, "batch_size: 1, shared out by 2 processes"),
    ],
)
def test_a_batch_has_a_row_for_each_process(
    settings: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    for module in (run_spec, setup):
        monkeypatch.setattr(module, "world", lambda: World(size=4, store=object()))
    with pytest.raises(ConfigError, match=message):
        train_tiny(tmp_path / "run", text_file, cache, **settings)
    assert not (tmp_path / "run").exists()
