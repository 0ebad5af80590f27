"""What is compiled: its dropout, how often it is compiled, and that its saved states are those of any run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.utils import counters

from minilm.config import ModelConfig, TrainConfig, loss_chunks
from minilm.model.chunked_loss import chunked_loss
from minilm.model.transformer import Transformer
from minilm.runs.logs import read_metrics
from minilm.training import runtime
from minilm.training.resume_state import read_state
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_dropout_keeps_its_rate_and_no_two_of_its_masks_are_alike(
    device: str, checkpointing: bool
) -> None:
    """Blocks that add 1, 2, 4 and 8 to zeros, each where its mask keeps it: a sum has all four masks.

    (b, t, d) each. The gradient of each number counts what the backward pass keeps.
    """
    shape = 64, 16, 64
    config = ModelConfig(vocab_size=11, **TINY_MODEL | {"d_model": shape[2], "dropout": 0.5})
    model = Transformer(config).to(device).train()
    blocks = model.blocks
    biases = []
    for block in blocks:
        for layer in (block.attention.output, block.feed_forward.down):
            torch.nn.init.zeros_(layer.weight)
            biases.append(torch.nn.init.constant_(layer.bias, 2 ** len(biases)))

    def kept(blocks: torch.nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, None)
        return x * (1 - config.dropout)

    settings = TrainConfig(
        compile="on", device=device, dtype="float32", activation_checkpointing=checkpointing
    )
    chosen = resolve(settings, 0.0)
    chosen.prepare(model)
    compiled = chosen.compiled(kept, StopRequest())
    masks: list[Tensor] = []  # 1 where a number was kept, else -1
    torch.manual_seed(0)
    for _ in range(2):  # steps
        total = compiled(blocks, torch.zeros(shape, device=device))
        total.sum().backward()
        for k, bias in enumerate(biases):
            mask = total.detach().long() >> k & 1
            assert torch.equal(bias.grad, mask.sum((0, 1)).float())  # type: ignore[arg-type]
            bias.grad = None
            masks.append(2.0 * mask - 1)

    def independent(products: Tensor) -> bool:
        return abs(float(products.mean())) < 5 / products.numel() ** 0.5

    for mask in masks:
        assert independent(mask), "the rate"
        for dimension, distance in ((0, 1), (1, 1), (2, 1), (2, 2), (2, 3)):
            assert independent(mask * mask.roll(distance, dimension)), (dimension, distance)
    assert all(independent(one * other) for one, other in itertools.combinations(masks, 2))


@pytest.fixture(params=["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def go(
    request: pytest.FixtureRequest,
    text_file: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Path]:
    """Train in a folder of that name, compiled: traced by Dynamo alone, or made into code too."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=request.param))
    if request.param == "eager":
        monkeypatch.setattr(runtime, "has_cpp_compiler", lambda: True)
    torch._dynamo.reset()
    counters.clear()

    def run(name: str) -> Path:
        settings = TINY_SETTINGS | {"compile": "on", "log_every": 1, "eval_every": 12}
        options = {"tokenizer": "byte", "settings": settings, "cache": cache}
        options["model"] = TINY_MODEL | {"num_layers": 1}
        return train(data=str(text_file), run_dir=tmp_path / name, **options).run_dir

    return run


def test_a_rate_that_changes_compiles_nothing_and_a_run_is_resumed_twice(
    go: Callable[[str], Path],
    sigterm_after: Callable[[int], AbstractContextManager[None]],
    cache: Path,
) -> None:
    whole = go("whole")
    lines = read_metrics(whole / "metrics.jsonl")
    assert len({line["lr"] for line in lines if "lr" in line}) == 10
    assert counters["stats"]["unique_graphs"] == 1
    with sigterm_after(4):
        stopped = go("stopped")
    assert read_state(stopped).progress.step == 4
    with sigterm_after(8):
        resume(stopped, cache=cache)
    state = read_state(stopped)
    assert state.progress.step == 8
    assert not any("_orig_mod" in name for name in state.tensors), "a wrapper's name"
    resume(stopped, cache=cache)
    one, other = (load_file(run / "model.safetensors") for run in (whole, stopped))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# torch's own, of its compiler.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compiled_loss_in_chunks_is_the_loss(
    device: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two chunks, and a vocabulary whose rows are padded on CUDA."""
    for name in ("LOGITS_PER_CHUNK", "LOGITS_PER_CHUNK_ON_CUDA"):
        monkeypatch.setattr(loss_chunks, name, 2**18)
    model = Transformer(ModelConfig(vocab_size=1001, **TINY_MODEL | {"num_layers": 1})).to(device)
    tokens = torch.arange(320, device=device).view(20, 16)
    chosen = resolve(TrainConfig(compile="on", device=device, dtype=dtype), 0.0)

    def in_chunks(model: Transformer, tokens: Tensor) -> Tensor:
        return chunked_loss(model.lm_head, model.features(tokens).flatten(0, 1), tokens.flatten())

    results = []
    for loss in (in_chunks, chosen.compiled(in_chunks, StopRequest())):
        with chosen.autocast():
            value = loss(model, tokens)
        value.backward()
        results.append((value.detach(), *(p.grad for p in model.parameters())))
        model.zero_grad()
    bound = 1e-5 if dtype == "float32" else 3e-2
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() <= bound * one.norm() + 1e-6
