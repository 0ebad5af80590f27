"""Models to transformers and back: the same logits, the same greedy tokens, the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minilm.checkpoint import load
from minilm.cli.convert import main
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation
from minilm.generation.sampling import Sampling
from tests.interop.shapes import SHAPES, make_run

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
Capture = pytest.CaptureFixture[str]


def converted(source: Path, to: str, out: Path) -> Path:
    assert main([str(source), "--to", to, "--out", str(out)]) == 0
    return out


def tokens_of(seed: int, length: int) -> torch.Tensor:
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_same(tmp_path: Path, name: str) -> None:
    class_name, fields = SHAPES[name]
    source = make_run(tmp_path / "run", fields)
    folder = converted(source, "huggingface", tmp_path / "out")
    loaded = load(source)
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(hf_model).__name__ == class_name
    tokens = tokens_of(0, 32)
    with torch.no_grad():
        expected = loaded.model(tokens)
        assert expected.std() > 0.5
        torch.testing.assert_close(hf_model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    prompt = tokens[0, :6]
    generated = hf_model.generate(
        prompt[None], max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    generation = Generation(
        FastDecoder(loaded.model), loaded.tokenizer, [prompt.tolist()], Sampling(temperature=0)
    )
    while generation.unfinished and len(generation.sequences[0]) < 26:
        generation.step()
    assert generation.sequences[0] == generated[0].tolist()[: len(generation.sequences[0])]
    assert len(generation.sequences[0]) > 10


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_is_the_same_file(tmp_path: Path, name: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    folder = converted(source, "huggingface", tmp_path / "out")
    back = converted(folder, "minilm", tmp_path / "back")
    first, second = load(source).model, load(back).model
    assert second.state_dict().keys() == first.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    assert (back / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
