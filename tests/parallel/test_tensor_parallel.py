"""What models and processes tensor parallelism is refused for, each in a line; test_processes.py trains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import World
from minilm.parallel.tensor_parallel import check
from minilm.training.resume_state import Progress
from minilm.training.signals import StopRequest
from minilm.training.train_step import TrainStep
from tests.conftest import TINY_MODEL


@pytest.mark.parametrize(
    ("fields", "processes", "got"),
    [
        ({}, 3, "2 with 3 processes"),
        ({"num_heads": 1}, 2, "2 with 1 key/value heads and 64 hidden units"),
        ({"num_kv_heads": 1}, 2, "2 with 1 key/value heads"),
        ({"d_feed_forward": 35}, 2, "and 35 hidden units"),
        ({"dropout": 0.1}, 2, "dropout 0.1, expected --model.dropout 0"),
        ({"convolution": 2}, 2, "a convolution"),
    ],
)
def test_what_cannot_be_shared_out(fields: dict[str, Any], processes: int, got: str) -> None:
    model = Transformer(ModelConfig(vocab_size=11, **TINY_MODEL | fields))
    with pytest.raises(ConfigError, match=f"tensor_parallel: .*{got}"):
        check(model, 2, processes)


def test_what_is_frozen_is_refused() -> None:
    model = Transformer(ModelConfig(vocab_size=11, **TINY_MODEL))
    check(model, 2, 4)
    model.final_norm.requires_grad_(False)
    with pytest.raises(ConfigError, match="an adapter or frozen parameters"):
        check(model, 2, 4)


def test_it_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.training.train_step.world", lambda: World(size=2, tensor=2))
    runtime = SimpleNamespace(compile_required=True)
    spec: Any = SimpleNamespace(model=None, config=None, runtime=runtime)
    with pytest.raises(ConfigError, match="compile: on with tensor_parallel, expected auto or off"):
        TrainStep(spec, Progress(), StopRequest())
