"""The validation loss: its value, and the memory it takes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from minilm.config import TrainConfig
from minilm.config.presets import PRESETS
from minilm.data.dataset import Dataset
from minilm.model.transformer import Transformer
from minilm.text.tokenizers import ByteTokenizer
from minilm.training import evaluation
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest
from tests.conftest import ROOT, TINY_MODEL


def dataset(tokens: int) -> Dataset:
    """Random bytes; as text they count as one byte a token."""
    drawn = np.random.default_rng(0).integers(0, 256, tokens, dtype=np.uint16)
    sizes = {"bytes": tokens, "train_bytes": tokens, "val_bytes": tokens, "documents": 1}
    return Dataset(drawn, drawn, ByteTokenizer(), "test", sha256="", **sizes)


@pytest.mark.parametrize("tokens", [65, 300, 129])
def test_it_is_the_mean_over_every_target(
    monkeypatch: pytest.MonkeyPatch, auto_dtype: str, tokens: int
) -> None:
    config = PRESETS["nano"].model_config(**TINY_MODEL | {"vocab_size": 256})
    model = Transformer(config, torch.Generator().manual_seed(1)).train()
    runtime = resolve(TrainConfig(device="cpu", compile="off"), flops=1.0)
    data, t = dataset(tokens), config.context_length
    monkeypatch.setattr(evaluation, "TOKENS_PER_BATCH", 2 * t)
    assert runtime.dtype_name == auto_dtype
    with torch.no_grad(), runtime.autocast():
        nats = 0.0
        for start in range(0, tokens - 1, t):
            window = torch.from_numpy(data.val[start : start + t + 1].astype(np.int64))
            chances = model(window[None, :-1])[0].double().log_softmax(-1)
            nats -= float(chances[torch.arange(len(window) - 1), window[1:]].sum())
    result = evaluation.evaluate(model, data, t, runtime)
    assert math.isclose(result.loss, nats / (tokens - 1), rel_tol=1e-5)
    assert math.isclose(result.bits_per_byte, nats / math.log(2) / tokens, rel_tol=1e-5)
    assert model.training


@pytest.mark.parametrize("shared", [False, True])
def test_a_signal_ends_it_after_the_batch(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Of several processes, after one at which all ask whether a signal came to any."""
    config = PRESETS["nano"].model_config(**TINY_MODEL | {"vocab_size": 256})
    model = Transformer(config, torch.Generator().manual_seed(1)).train()
    runtime = resolve(TrainConfig(device="cpu", compile="off"), flops=1.0)
    monkeypatch.setattr(evaluation, "TOKENS_PER_BATCH", 32)
    stop, loss, batches = StopRequest(), evaluation.next_token_loss, []

    def signalled(*arguments: torch.Tensor) -> torch.Tensor:
        batches.append(1)
        if len(batches) == 3:
            stop.received = signal.SIGTERM
            stop.signum = None if shared else stop.received
        return loss(*arguments)

    monkeypatch.setattr(evaluation, "next_token_loss", signalled)
    stop.shared = shared
    assert evaluation.evaluate(model, dataset(10_000), 16, runtime, stop=stop) is None
    assert len(batches) == (evaluation.BATCHES_BETWEEN_SIGNALS if shared else 3)
    assert model.training


MEMORY = """
import dataclasses, resource, sys
from tests.training.test_evaluation import *

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

config = PRESETS["nano"].model_config(vocab_size=256, num_layers=1)
model = Transformer(config)
runtime = resolve(TrainConfig(device="cpu", compile="off", dtype=sys.argv[1]), flops=1.0)
data = dataset(20 * evaluation.TOKENS_PER_BATCH)
few = dataclasses.replace(data, val=data.val[: 3 * evaluation.TOKENS_PER_BATCH])
evaluation.evaluate(model, few, config.context_length, runtime)
before = peak()
evaluation.evaluate(model, data, config.context_length, runtime)
print(peak() - before)
"""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_validation_split(dtype: str) -> None:
    # glibc raises this threshold to 32 MiB by itself once a program has freed a block as large,
    # as encoding a text does; what is below it lives on the heap, which one small block can pin.
    heap = {"MALLOC_MMAP_THRESHOLD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**27)}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, dtype],
        env=os.environ | heap,
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert int(done.stdout) < 50e6
