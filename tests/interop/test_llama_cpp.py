"""Exported GGUF files in a real llama.cpp: every shape loads, and computes what minilm computes."""

from __future__ import annotations

import json
import math
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minilm import inspect
from minilm.checkpoint import load
from minilm.errors import ConfigError
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation, generate
from minilm.generation.sampling import Sampling
from minilm.interop.gguf import export, find_supported
from minilm.interop.model_source import open_source
from minilm.model.transformer import next_token_loss
from minilm.text.tokenizer_file import load_tokenizer
from minilm.training.train import train
from tests.conftest import make_text
from tests.interop.llama_cpp import LlamaCpp, quantize
from tests.interop.published_tokenizers import (
    BEGIN,
    CHAT_TEMPLATE,
    END,
    KINDS,
    TOOL,
    TURN,
    published_tokenizer,
    save_tokenizer,
)
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run, random_fields

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")

from tests.interop.test_gguf import RUNS, converted

# Keys and values are cached in float16, and GELU is computed by tanh from a table in float16: the root of
# the mean square of the difference, in standard deviations of the logits.
GATED_BOUND, GELU_BOUND = 0.01, 0.02


def check_same_results(llama_cpp: LlamaCpp, source: Path, path: Path, context_length: int) -> None:
    """The logits of a random text, and greedy tokens wherever the best is clear."""
    llama_cpp.open(path)
    loaded = load(source)
    tokens = torch.randint(
        1, 256, (context_length - 8,), generator=torch.Generator().manual_seed(0)
    )
    expected = loaded.model(tokens[None])[0].numpy()
    logits = llama_cpp.logits(tokens.tolist())
    scale = expected.std()
    bound = GATED_BOUND if loaded.model.config.gated else GELU_BOUND
    assert np.sqrt(np.mean((logits - expected) ** 2)) < bound * scale
    sequence = tokens.tolist()
    for token in llama_cpp.ask("greedy", tokens=sequence, count=6):
        row = loaded.model(torch.tensor([sequence]))[0, -1]
        assert row.max() - row[token] < 5 * bound * scale
        sequence.append(token)


@pytest.mark.parametrize("name", RUNS)
def test_every_shape_computes_the_same(llama_cpp: LlamaCpp, tmp_path: Path, name: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    path = converted(source, tmp_path / "out.gguf")
    check_same_results(llama_cpp, source, path, 32)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("file_format", ["f16", "bf16", "q8_0", "q4_0"])
def test_every_format_loads(
    llama_cpp: LlamaCpp, tmp_path: Path, name: str, file_format: str
) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    llama_cpp.open(converted(source, tmp_path / "out.gguf", file_format))
    assert len(llama_cpp.ask("greedy", tokens=[1, 2, 3], count=4)) == 4


def test_random_shapes_compute_the_same(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """300 that can be exported; the others are refused at export."""
    choose = random.Random(0)
    architectures: list[str] = []
    refusals: list[str] = []
    while len(architectures) < 300:
        fields = random_fields(choose)
        source = make_run(tmp_path / "run", fields)
        path = tmp_path / "out.gguf"
        try:
            architectures.append(export(open_source(source), path, "f32", "random"))
        except ConfigError as error:
            refusals.append(str(error))
        else:
            check_same_results(llama_cpp, source, path, fields["context_length"])
        shutil.rmtree(source)
    assert all(line.startswith("model.") for line in refusals)
    assert set(architectures) == {"gpt2", "gptneox", "llama", "qwen2", "qwen3", "starcoder2"}


def test_the_deepest_model_loads(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    fields = GATED | NO_BIASES | {"d_model": 8, "num_heads": 1, "d_feed_forward": 8}
    source = make_run(tmp_path / "run", fields | {"num_layers": 512})
    llama_cpp.open(converted(source, tmp_path / "out.gguf"))
    deeper = make_run(tmp_path / "deeper", fields | {"num_layers": 513})
    with pytest.raises(ConfigError, match="num_layers: 513, expected at most 512"):
        find_supported(open_source(deeper).config)


PROMPTS = [
    "the cat sees the old house.",
    "  two spaces, don't WE'LL\n\n\tand 1234567 numbers 12",
    "été — 世界 🙂 \u0301 end ",
    f"a {TOOL} in the text{TURN}and a turn",
    "",
]


@pytest.mark.parametrize("kind", KINDS)
def test_published_tokenizers_encode_the_same(
    llama_cpp: LlamaCpp, tmp_path: Path, kind: str
) -> None:
    from gguf import GGUFReader

    source = make_run(tmp_path / "run", GATED | NO_BIASES | {"vocab_size": 520})
    save_tokenizer(source, kind)
    description = llama_cpp.open(converted(source, tmp_path / "out.gguf"))
    tokenizer = load_tokenizer(source / "tokenizer.json")
    backend = published_tokenizer(kind)
    begin, end = backend.token_to_id(BEGIN), backend.token_to_id(END)
    assert (description["bos"], description["eos"]) == (begin, end)
    assert description["add_bos"] == (kind != "qwen2")
    for prompt in PROMPTS:
        tokens = llama_cpp.ask("tokenize", text=prompt, special=True)
        assert tokens == tokenizer.encode(prompt).tolist(), prompt
        assert (
            llama_cpp.ask("detokenize", tokens=tokens).strip() == tokenizer.decode(tokens).strip()
        )
    # What is not special is a token in any text, what is special only where it is asked for.
    tokens = llama_cpp.ask("tokenize", text=TOOL + TURN, special=False)
    assert backend.token_to_id(TOOL) in tokens
    assert backend.token_to_id(TURN) not in tokens
    file = GGUFReader(tmp_path / "out.gguf")
    assert file.fields["tokenizer.chat_template"].contents() == CHAT_TEMPLATE
    assert file.fields["tokenizer.ggml.padding_token_id"].contents() == end


K_QUANTS = {
    "q2_k": 10,
    "q3_k_m": 12,
    "q4_k_m": 15,
    "q5_k_m": 17,
    "q6_k": 18,
}  # llama.h, llama_ftype


@pytest.mark.parametrize("name", K_QUANTS)
def test_llama_cpp_quantizes_further(llama_cpp: LlamaCpp, tmp_path: Path, name: str) -> None:
    fields = GATED | NO_BIASES | {"d_model": 256, "d_feed_forward": 512}
    source = make_run(tmp_path / "run", fields)
    path = converted(source, tmp_path / "f16.gguf", "f16")
    quantize(path, tmp_path / "quantized.gguf", K_QUANTS[name])
    report = inspect(str(tmp_path / "quantized.gguf"))
    assert report.verified
    assert report.parameters.total == inspect(str(source)).parameters.total
    assert (tmp_path / "quantized.gguf").stat().st_size < 0.6 * path.stat().st_size
    llama_cpp.open(tmp_path / "quantized.gguf")
    assert len(llama_cpp.ask("greedy", tokens=[1, 2, 3], count=4)) == 4


# Trained models, on bytes and on BPE, with learned positions and RoPE, without and with a gate.
TRAINED = {
    "byte-neox": ("byte", TINY | {"vocab_size": 256}),
    "bpe-neox": ("bpe", TINY | {"vocab_size": 400}),
    "bpe-gpt2": ("bpe", TINY | {"vocab_size": 400, "position": "learned"}),
    "byte-llama": ("byte", GATED | NO_BIASES | {"d_feed_forward": 64}),
}


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer, model = TRAINED[request.param]
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(make_text(20_000))
    train(
        data=str(folder / "text.txt"),
        run_dir=folder / "run",
        tokenizer=tokenizer,
        model=model | {"d_model": 64, "context_length": 64},
        settings={"max_steps": 150, "eval_every": 150, "compile": "off", "device": "cpu"},
        cache=folder / "cache",
    )
    return folder


def test_trained_models_go_on_alike(llama_cpp: LlamaCpp, trained: Path) -> None:
    llama_cpp.open(converted(trained / "run", trained / "f32.gguf"))
    loaded = load(trained / "run")
    prompt = "The dog sees\n  the old house. é🙂 1234"
    tokens = llama_cpp.ask("tokenize", text=prompt, special=False)
    assert tokens == loaded.tokenizer.encode_prompt(prompt)
    generation = Generation(
        FastDecoder(loaded.model), loaded.tokenizer, [tokens], Sampling(temperature=0)
    )
    generated = []
    for _ in range(60 - len(tokens)):
        generated.append(int(llama_cpp.logits(tokens + generated, last=True)[0].argmax()))
        if not generation.unfinished or generation.step() != {0: generated[-1]}:
            break
    assert len(generated) > 10
    assert (
        generated[: len(generation.sequences[0]) - len(tokens)]
        == generation.sequences[0][len(tokens) :]
    )


def test_eight_bits_cost_less_than_a_percent_of_perplexity(
    llama_cpp: LlamaCpp, trained: Path
) -> None:
    loaded = load(trained / "run")
    ids = [int(token) for token in loaded.tokenizer.encode(make_text(2000, seed=1))]
    windows = [ids[start : start + 64] for start in range(0, 64 * 8, 64)]
    rows = torch.tensor(windows)
    expected = math.exp(float(next_token_loss(loaded.model, rows[:, :-1], rows[:, 1:])))
    llama_cpp.open(converted(trained / "run", trained / "q8_0.gguf", "q8_0"))
    nats = []
    for window in windows:
        chances = torch.from_numpy(llama_cpp.logits(window[:-1])).double().log_softmax(-1)
        nats.append(-chances[torch.arange(63), torch.tensor(window[1:])])
    perplexity = math.exp(float(torch.stack(nats).mean()))
    assert abs(perplexity / expected - 1) < 0.01


def test_its_server_answers_as_minilm_does(trained: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("fastapi", reason="llama-cpp-python[server] is not installed")
    path = converted(trained / "run", trained / "served.gguf")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        body = {"prompt": "the cat", "max_tokens": 20, "temperature": 0, "repeat_penalty": 1.0}
        answer = completion(f"http://127.0.0.1:{port}/v1/completions", body)
    finally:
        server.terminate()
        server.wait(30)
    expected = generate(*load(trained / "run"), "the cat", max_new_tokens=20, temperature=0)
    assert answer["choices"][0]["text"] == expected


def completion(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    for _ in range(300):
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except OSError:  # not listening yet
            time.sleep(0.2)
    raise AssertionError("the server did not answer")
