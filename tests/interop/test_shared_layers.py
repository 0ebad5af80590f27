"""Exports of models whose layers share blocks: each layer gets a copy, or nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from minilm import inspect
from minilm.checkpoint import load
from minilm.cli.convert import main
from tests.interop.shapes import GATED, NO_BIASES, TINY, make_run

Capture = pytest.CaptureFixture[str]

LLAMA: dict[str, Any] = (
    GATED
    | NO_BIASES
    | {
        "num_layers": 5,
        "shared_layers": 2,
        "sharing": "cycle",
        "num_heads": 8,
        "num_kv_heads": 2,
    }
)
# Biases of zeros are written besides.
NEOX: dict[str, Any] = TINY | {
    "num_layers": 5,
    "shared_layers": 2,
    "sharing": "group",
    "qkv_bias": False,
    "attention_output_bias": False,
}


@pytest.mark.parametrize("fields", [LLAMA, NEOX], ids=["llama", "neox"])
def test_transformers_computes_the_same(
    tmp_path: Path, capsys: Capture, fields: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra is not installed")
    source, out = make_run(tmp_path / "run", fields), tmp_path / "out"
    assert main([str(source), "--to", "huggingface", "--out", str(out)]) == 0
    before, after = inspect(source), inspect(out)
    assert after.verified
    assert before.sharing is not None
    assert f"2 shared blocks as 5 layers, {before.sharing.unshared:,} parameters for " in (
        capsys.readouterr().out
    )
    assert (out / "model.safetensors").stat().st_size > (
        source / "model.safetensors"
    ).stat().st_size
    model = load(source).model
    tokens = torch.randint(256, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(tokens)
        logits = transformers.AutoModelForCausalLM.from_pretrained(out)(tokens).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert main([str(out), "--to", "minilm", "--out", str(tmp_path / "back")]) == 0
    back = load(tmp_path / "back").model
    assert back.config.shared_layers == 0
    with torch.no_grad():
        torch.testing.assert_close(back(tokens), expected, rtol=1e-5, atol=1e-5)


def test_a_gguf_file_has_the_copies(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source, out = make_run(tmp_path / "run", LLAMA), tmp_path / "out.gguf"
    arguments = [str(source), "--to", "gguf", "--gguf-format", "f32", "--out", str(out)]
    assert main(arguments) == 0
    report, sharing = inspect(out), inspect(source).sharing
    assert report.verified
    assert sharing is not None
    assert report.parameters.total == sharing.unshared
    import gguf

    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(out).tensors}
    with safe_open(source / "model.safetensors", "np") as stored:
        for layer, block in enumerate([0, 1, 0, 1, 0]):
            up = stored.get_tensor(f"blocks.{block}.feed_forward.up.weight")
            assert (tensors[f"blk.{layer}.ffn_up.weight"] == up).all()


@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_it_refuses_where_that_is_asked_for(tmp_path: Path, capsys: Capture, to: str) -> None:
    if to == "gguf":
        pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    source, out = make_run(tmp_path / "run", LLAMA), tmp_path / "out"
    arguments = [str(source), "--to", to, "--out", str(out), "--shared-layers", "refuse"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {source / 'config.json'}: model.shared_layers: 2 blocks in 5 layers, expected a "
        "block for each layer in another format; leave out --shared-layers refuse to write copies\n"
    )
    assert not out.exists()
    own = make_run(tmp_path / "own", LLAMA | {"shared_layers": 0})
    arguments[0] = str(own)
    assert main(arguments) == 0
