"""GGUF files: what is refused, and that a stock llama.cpp computes what minilm computes."""

from __future__ import annotations

import json
import math
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
from minilm.cli.convert import main
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation, generate
from minilm.generation.sampling import Sampling
from minilm.model.transformer import next_token_loss
from minilm.training.train import train
from tests.conftest import make_text
from tests.interop.shapes import GATED, NO_BIASES, SHAPES, TINY, make_run

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
Capture = pytest.CaptureFixture[str]

RUNS = [
    name
    for name, (_, fields) in SHAPES.items()
    if fields.get("feed_forward") not in ("relu2", "geglu") and not fields.get("sliding_window")
]
# As llama.cpp computes GELU: by its approximation through tanh, from a table of float16.
ROUGH = {"gpt2", "gpt2-tied", "neox", "neox-theta", "pythia"}


def converted(source: Path, out: Path, file_format: str = "f32") -> Path:
    assert main([str(source), "--to", "gguf", "--out", str(out), "--gguf-format", file_format]) == 0
    return out


@pytest.mark.parametrize("file_format", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", RUNS)
def test_every_parameter_is_in_the_file(tmp_path: Path, name: str, file_format: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    report = inspect(str(converted(source, tmp_path / "out.gguf", file_format)))
    added = 64 * 4 if name == "neox-theta" else 0  # biases of zeros, which llama.cpp asks for
    scaling = 16 if name == "llama-3.1" else 0  # buffers, not parameters
    assert report.parameters.total == inspect(str(source)).parameters.total + added
    assert report.verified, report.mismatches
    assert scaling == 0 or report.parameters.buffers == scaling


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (TINY | {"feed_forward": "relu2"}, "model.feed_forward: relu2"),
        (GATED | {"feed_forward": "geglu"}, "model.feed_forward: geglu"),
        (GATED | NO_BIASES | {"sliding_window": 5}, "model.sliding_window: 5 in a context of 32"),
        (TINY | {"ngram": 2}, "model.ngram: 2"),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_its_field(
    tmp_path: Path, capsys: Capture, fields: dict[str, Any], message: str
) -> None:
    source = make_run(tmp_path / "run", fields)
    assert main([str(source), "--to", "gguf", "--out", str(tmp_path / "out.gguf")]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_characters_have_no_counterpart(tmp_path: Path, capsys: Capture, cache: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_text(make_text(300))
    train(
        data=str(data),
        run_dir=tmp_path / "run",
        tokenizer="char",
        model=TINY,
        settings={"max_steps": 1, "eval_every": 1, "compile": "off"},
        cache=cache,
    )
    assert main([str(tmp_path / "run"), "--to", "gguf", "--out", str(tmp_path / "o.gguf")]) == 2
    assert "a char tokenizer, expected bytes or BPE" in capsys.readouterr().err


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def opened(llama_cpp: Any, path: Path) -> Any:
    return llama_cpp.Llama(str(path), n_ctx=0, logits_all=True, verbose=False, n_threads=2)


def logits_of(model: Any, tokens: list[int]) -> np.ndarray:
    """(n, V), after each of the tokens."""
    model.reset()
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


@pytest.mark.parametrize("name", RUNS)
def test_llama_cpp_computes_the_same(llama_cpp: Any, tmp_path: Path, name: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    model = opened(llama_cpp, converted(source, tmp_path / "out.gguf"))
    tokens = torch.randint(1, 256, (32,), generator=torch.Generator().manual_seed(0)).tolist()
    expected = load(source).model(torch.tensor([tokens]))[0].numpy()
    logits = logits_of(model, tokens)
    scale = expected.std()
    assert np.abs(logits - expected).max() < (0.05 if name in ROUGH else 0.01) * scale


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


def test_trained_models_go_on_alike(llama_cpp: Any, trained: Path) -> None:
    model = opened(llama_cpp, converted(trained / "run", trained / "f32.gguf"))
    loaded = load(trained / "run")
    prompt = "The dog sees\n  the old house. é🙂 1234"
    tokens = model.tokenize(prompt.encode(), add_bos=False, special=False)
    assert tokens == loaded.tokenizer.encode_prompt(prompt)
    generation = Generation(
        FastDecoder(loaded.model), loaded.tokenizer, [tokens], Sampling(temperature=0)
    )
    generated = []
    for _ in range(60 - len(tokens)):
        generated.append(int(logits_of(model, tokens + generated)[-1].argmax()))
        if not generation.unfinished or generation.step() != {0: generated[-1]}:
            break
    assert len(generated) > 10
    assert (
        generated[: len(generation.sequences[0]) - len(tokens)]
        == generation.sequences[0][len(tokens) :]
    )


def test_eight_bits_cost_less_than_a_percent_of_perplexity(llama_cpp: Any, trained: Path) -> None:
    loaded = load(trained / "run")
    ids = [int(token) for token in loaded.tokenizer.encode(make_text(2000, seed=1))]
    windows = [ids[start : start + 64] for start in range(0, 64 * 8, 64)]
    rows = torch.tensor(windows)
    expected = math.exp(float(next_token_loss(loaded.model, rows[:, :-1], rows[:, 1:])))
    model = opened(llama_cpp, converted(trained / "run", trained / "q8_0.gguf", "q8_0"))
    nats = []
    for window in windows:
        chances = torch.from_numpy(logits_of(model, window[:-1])).double().log_softmax(-1)
        nats.append(-chances[torch.arange(63), torch.tensor(window[1:])])
    perplexity = math.exp(float(torch.stack(nats).mean()))
    assert abs(perplexity / expected - 1) < 0.01


def test_its_server_answers_as_minilm_does(llama_cpp: Any, trained: Path) -> None:
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
