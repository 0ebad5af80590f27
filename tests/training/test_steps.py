"""What a step must not do: wait for the device, or leave something behind for each that went before."""

from __future__ import annotations

import gc
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minilm.config import TrainConfig
from minilm.config.presets import PRESETS
from minilm.data.shards import prepare
from minilm.model.attention import without_plans
from minilm.model.transformer import Transformer
from minilm.text.corpora import open_corpus
from minilm.training import runtime
from minilm.training.data_source import DataSource
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest
from minilm.training.time_left import TimeLeft
from minilm.training.trainer import Trainer
from tests.conftest import TINY_MODEL

pytestmark = pytest.mark.usefixtures("auto_dtype")

# What reads a value back from a device, which on CUDA waits for all that was queued before.
READS_BACK = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::item",
}


class Operations(TorchDispatchMode):
    """Counts every operation that reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.seen[function.name().partition(".")[0]] += 1
        return function(*args, **(kwargs or {}))


def resident_bytes() -> int:
    """Of this process now, not at its peak; 0 on systems without /proc."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.fixture
def make_trainer(text_file: Path, cache: Path, tmp_path: Path) -> Any:
    def build(**settings: Any) -> Trainer:
        config = TrainConfig(
            **{"batch_size": 4, "warmup_steps": 5, "device": "cpu", "compile": "off"} | settings
        )
        corpus = open_corpus(str(text_file), cleaning=(), cache=cache)
        data = prepare(
            corpus,
            tokenizer="byte",
            vocab_size=None,
            val_fraction=0.1,
            cache=cache,
            context_length=TINY_MODEL["context_length"],
        )
        model = Transformer(PRESETS["nano"].model_config(**TINY_MODEL | {"vocab_size": 256}))
        runtime = resolve(config, flops=1.0)
        source = DataSource(str(text_file), (), cache)
        spec = RunSpec(tmp_path, model, config, data, source, runtime)
        return Trainer(spec, StopRequest())

    return build


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw"}, {"gradient_accumulation": 2, "l1_weight": 1e-4}],
)
def test_a_step_reads_nothing_back(make_trainer: Any, settings: dict) -> None:
    trainer = make_trainer(**settings)
    trainer.train_step.run()  # AdamW makes its state at its first step
    with Operations() as operations:
        trainer.train_step.run()
    assert operations.seen["aten::mm"] > 10  # it did see the step
    assert not READS_BACK & operations.seen.keys()
    with Operations() as operations:
        trainer.train_step.reading()
    assert READS_BACK & operations.seen.keys(), "and this is what it looks like when one is read"


def test_attention_has_no_plans_while_lengths_are_staged(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card, where cuDNN would build them for each stage; recomputation is by the same kernels."""
    monkeypatch.setattr(
        runtime, "without_plans", lambda device: without_plans(torch.device("cuda"))
    )
    step = make_trainer(initial_context_length=4, growth_fraction=0.5, max_steps=8).train_step
    step.model.blocks[0].register_full_backward_hook(
        lambda *_: passes.append(("backward", torch.backends.cuda.cudnn_sdp_enabled()))
    )
    passes: list[tuple[Any, bool]] = []
    loss = step.loss

    def noted(model: Transformer, inputs: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        passes.append((inputs.shape[1], torch.backends.cuda.cudnn_sdp_enabled()))
        value: torch.Tensor = loss(model, inputs, *others)
        return value

    step.loss = noted
    for _ in range(5):
        step.run()
    assert passes[::2] == [(4, False), (4, False), (8, False), (8, False), (16, True)]
    assert passes[1::2] == [("backward", has_plans) for _, has_plans in passes[::2]]


@pytest.mark.parametrize("steps", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_steps_leave_nothing_behind(make_trainer: Any, steps: int) -> None:
    trainer = make_trainer(max_steps=10_000)

    def after(steps: int) -> tuple[int, int, int]:
        for _ in range(steps):
            trainer.train_step.run()
        trainer.train_step.reading()
        gc.collect()
        # By type: some modules of torch warn when an object of theirs is asked for its class.
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        return len(tensors), sum(each.nbytes for each in tensors), resident_bytes()

    # 4 KB a step, where one step allocates and frees some 500; a page may be as large as 2 MiB.
    most, growth, before = 4000 * steps + 2**21, math.inf, after(100)
    for _ in range(3):  # what a step leaves behind grows each time; two such pages come once
        now = after(steps)
        assert now[:2] == before[:2]
        growth, before = min(growth, now[2] - before[2]), now
        if growth < most:
            break
    assert growth < most


def test_a_gradient_that_is_not_finite_is_never_saved(make_trainer: Any, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.train_step.run()
    assert trainer.save()
    trainer.train_step.run()
    trainer.train_step.norm = torch.tensor(
        math.nan
    )  # the loss was finite, the weights no longer are
    assert not trainer.save()
    trainer.checkpoints.close()
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-000000001.safetensors"]


@pytest.mark.parametrize("gradient_clip", [0.0, 1.0])
def test_an_overflow_of_float16_changes_no_weight(make_trainer: Any, gradient_clip: float) -> None:
    trainer = make_trainer(dtype="float16", gradient_clip=gradient_clip)
    trainer.train_step.run()
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_step.scaler.load_state_dict(
        trainer.train_step.scaler.state_dict() | {"scale": 1e30}
    )
    trainer.train_step.run()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert trainer.train_step.scaler.get_scale() == pytest.approx(5e29)
    line = trainer.train_step.reading()
    assert line is not None
    assert "grad_norm" not in line  # it was infinite


def test_the_seconds_left_are_said_beside_the_limit_that_comes_before(make_trainer: Any) -> None:
    left = TimeLeft(make_trainer(max_steps=10_000, max_seconds=120.0).spec)
    assert left.add_step(9.0, step=1, elapsed=9.0) is None  # the first one warms up
    assert left.add_step(1.0, step=2, elapsed=10.0) is None
    text = left.add_step(1.0, step=3, elapsed=11.0)
    assert text is not None
    assert text.startswith("about 3 h ")
    assert text.endswith("evaluations included; max_seconds ends the steps after 2 min 0 s")
    assert not left.needs_steps()


def test_the_seconds_left_have_the_evaluation_at_the_end(make_trainer: Any) -> None:
    def seconds(**settings: Any) -> float:
        spec = make_trainer(max_steps=4, eval_every=4, **settings).spec
        left, text = TimeLeft(spec), None
        for step in (1, 2, 3):
            text = left.add_step(64.0 * 3, step=step, elapsed=0.0)
        assert text is not None
        amounts = re.findall(r"(\d+) (h|min|s)", text.partition(" for ")[0])
        return sum(int(n) * {"h": 3600, "min": 60, "s": 1}[unit] for n, unit in amounts)

    # A step of 64 tokens takes 192 s, so that a token of an evaluation takes a second.
    places = make_trainer().spec.dataset.val_places
    assert seconds(eval_tokens=0) == pytest.approx(192 + places, abs=60)
    assert seconds(eval_tokens=64) == pytest.approx(192 + 64 + places, abs=60)
