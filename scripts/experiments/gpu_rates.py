"""gpu_rates.py [--peer]: steps and tokens a second on one CUDA card, without the rest of a run.

Training: `TrainStep` on random tokens, the median of 3 times 20 steps, as a graph or not, compiled or
not. Generating: GPT-2 124M with random weights, 256 tokens after 16, greedy; the first text of the process
apart from the median of the next three. --peer: transformers' `generate` too. A line of JSON each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from minilm.config import ModelConfig, TrainConfig  # noqa: E402
from minilm.config.presets import PRESETS  # noqa: E402
from minilm.data.dataset import Dataset  # noqa: E402
from minilm.generation.decoder import make_decoder  # noqa: E402
from minilm.generation.generate import Generation  # noqa: E402
from minilm.generation.sampling import Sampling  # noqa: E402
from minilm.model.transformer import Transformer  # noqa: E402
from minilm.training.resume_state import Progress  # noqa: E402
from minilm.training.runtime import Runtime  # noqa: E402
from minilm.training.signals import StopRequest  # noqa: E402
from minilm.training.train_step import TrainStep  # noqa: E402

CUDA = torch.device("cuda")
GPT2 = PRESETS["gpt2"].model | {"dropout": 0.0}
CHARACTERS = PRESETS["small"].model | {"num_layers": 6, "vocab_size": 65, "dropout": 0.2}
PROMPT, NEW_TOKENS = list(range(100, 116)), 256


def train(preset: str, model: dict[str, Any], rows: int, *, compiled: bool, graphs: bool) -> None:
    """Print the rate of one way to compute a step."""
    config = ModelConfig(**model)
    settings = PRESETS[preset].train | {"batch_size": rows, "gradient_accumulation": 1}
    transformer = Transformer(config).to(CUDA).train()
    runtime = Runtime(CUDA, torch.bfloat16, compiled, graphs=graphs)
    runtime.prepare(transformer)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 2_000_000).astype(np.uint16)
    tokenizer: Any = SimpleNamespace(end_of_text=None)  # nothing is encoded
    dataset = Dataset(
        train=tokens,
        val=tokens,
        tokenizer=tokenizer,
        source="",
        bytes=0,
        sha256="",
        train_bytes=0,
        val_bytes=0,
        documents=1,
    )
    spec: Any = SimpleNamespace(
        model=transformer,
        config=TrainConfig(**settings),
        runtime=runtime,
        dataset=dataset,
    )
    step = TrainStep(spec, Progress(), StopRequest())
    seconds = [_seconds(step, 20) for _ in range(4)][1:]  # the first compiles and captures
    rate = rows * config.context_length / statistics.median(seconds)
    how = {"preset": preset, "rows": rows, "compiled": compiled, "graphs": graphs}
    print(json.dumps(how | {"tokens_per_second": round(rate)}), flush=True)


def _seconds(step: TrainStep, count: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        step.run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / count


def generate(rows: int, dtype: torch.dtype) -> None:
    """Print the rate of texts at once."""
    tokenizer: Any = SimpleNamespace(end_of_text=None, other_ends=(), vocab_size=50257)
    model = Transformer(ModelConfig(**GPT2)).eval().requires_grad_(False).to(CUDA, dtype)
    decoder, rates = make_decoder(model), []
    for _ in range(4):
        begin = time.perf_counter()
        prompts, length = [PROMPT] * rows, len(PROMPT) + NEW_TOKENS
        generation = Generation(
            decoder, tokenizer, prompts, Sampling(temperature=0), max_length=length
        )
        for _ in range(NEW_TOKENS):
            generation.step()
        rates.append(rows * NEW_TOKENS / (time.perf_counter() - begin))
    _print_rates("minilm", rows, dtype, rates)


def generate_peer(rows: int, dtype: torch.dtype) -> None:
    """The same with transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(eos_token_id=None, bos_token_id=None)
    model = GPT2LMHeadModel(config).eval().to(CUDA, dtype)
    inputs, rates = torch.tensor([PROMPT] * rows, device=CUDA), []
    for _ in range(4):
        begin = time.perf_counter()
        model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        torch.cuda.synchronize()
        rates.append(rows * NEW_TOKENS / (time.perf_counter() - begin))
    _print_rates("transformers", rows, dtype, rates)


def _print_rates(program: str, rows: int, dtype: torch.dtype, rates: list[float]) -> None:
    measured = {
        "first": round(rates[0]),
        "tokens_per_second": round(statistics.median(rates[1:])),
    }
    how = {"program": program, "texts": rows, "dtype": str(dtype).removeprefix("torch.")}
    print(json.dumps(how | measured), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="store_true")
    peer = parser.parse_args().peer
    for compiled, graphs in ((False, False), (False, True), (True, True)):
        train("small", CHARACTERS, 64, compiled=compiled, graphs=graphs)
    for graphs in (False, True):
        train("gpt2", GPT2, 16, compiled=True, graphs=graphs)
    for dtype, rows in ((torch.bfloat16, 1), (torch.bfloat16, 16), (torch.float32, 1)):
        generate(rows, dtype)
        if peer:
            generate_peer(rows, dtype)
