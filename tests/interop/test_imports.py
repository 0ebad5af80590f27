"""Models of architectures that are imported only: the same logits as transformers, or a refusal by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from minilm import inspect
from minilm.checkpoint import load
from minilm.cli.convert import main
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.test_convert import error

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
Capture = pytest.CaptureFixture[str]

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2_SIZES = {"vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
GPT2_SIZES |= {"bos_token_id": 1, "eos_token_id": 2}
OPT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 32,
    "word_embed_proj_dim": 32,
    "activation_function": "gelu",
    "pad_token_id": 1,
}
GRANITE = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.25,
}
# By the names of transformers 4; 5 knows them, and saves its own.
ROPE = {"rope_theta": 5000.0}
PARTIAL_ROPE = ROPE | {"partial_rotary_factor": 0.5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("Phi3", SIZES),
    "phi3-window": (
        "Phi3",
        SIZES | PARTIAL_ROPE | {"sliding_window": 7, "tie_word_embeddings": True},
    ),
    "smollm3": ("SmolLM3", SIZES | ROPE | {"no_rope_layers": [1, 1]}),
    "stablelm": ("StableLm", SIZES | PARTIAL_ROPE),
    "stablelm-parallel": (
        "StableLm",
        SIZES | {"use_parallel_residual": True, "use_qkv_bias": True},
    ),
    "olmo": ("Olmo", SIZES | {"clip_qkv": None}),
    "granite": ("Granite", SIZES | GRANITE | {"tie_word_embeddings": True}),
    "granite-untied": (
        "Granite",
        SIZES | GRANITE | {"tie_word_embeddings": False, "attention_bias": True},
    ),
    "opt": ("OPT", OPT),
    "opt-plain": ("OPT", OPT | {"enable_bias": False, "tie_word_embeddings": False}),
    "gpt_bigcode": ("GPTBigCode", GPT2_SIZES),
}


def saved(folder: Path, class_name: str, fields: dict[str, Any]) -> Any:
    """A random model of transformers, saved, with a tokenizer of bytes."""
    config = getattr(transformers, f"{class_name}Config")(**fields)
    torch.manual_seed(0)
    model = getattr(transformers, f"{class_name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = "norm" in name and name.endswith("weight")
            parameter.uniform_(0.5, 1.5) if is_gain else parameter.normal_(std=0.3)
        model.tie_weights()
    model.save_pretrained(folder)
    ByteTokenizer().save(folder / "tokenizer.json")
    return model


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_model_computes_the_same(tmp_path: Path, name: str) -> None:
    hf_model = saved(tmp_path / "hf", *MODELS[name])
    assert inspect(str(tmp_path / "hf")).verified
    assert main([str(tmp_path / "hf"), "--to", "minilm", "--out", str(tmp_path / "run")]) == 0
    model = load(tmp_path / "run").model
    tokens = torch.randint(2, 256, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = hf_model(tokens).logits
        torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=2e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("gemma", {}, "config.json: hidden_activation: GeGLU by tanh"),
        ("gemma2", {}, "config.json: model_type: norms after attention and feed-forward, GeGLU"),
        ("gemma3_text", {}, "config.json: model_type: norms after attention and feed-forward"),
        ("olmo2", {}, "config.json: model_type: norms after attention and feed-forward"),
        ("phi", {}, "config.json: model_type: an LM head with a bias"),
        ("olmo", {"clip_qkv": 8.0}, "config.json: clip_qkv: 8.0, expected null"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "config.json: no_rope_layers: layers without RoPE"),
        ("stablelm", {"qk_layernorm": True}, "config.json: qk_layernorm: true, expected false"),
        ("opt", {}, "config.json: activation_function: 'relu', expected one of gelu"),
        ("opt", {"do_layer_norm_before": False}, "config.json: do_layer_norm_before: false"),
        ("opt", {"word_embed_proj_dim": 512}, "config.json: word_embed_proj_dim: 512"),
        ("gpt_bigcode", {"multi_query": False}, "config.json: multi_query: false"),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
            "config.json: rope_parameters: rope_type 'longrope'",
        ),
        ("granite", {"logits_scaling": "8"}, "config.json: logits_scaling: '8'"),
        ("granite", {"logits_scaling": 0}, "config.json: logits_scaling: 0"),
        ("mixtral", {}, "config.json: model_type: 'mixtral', expected one of gpt2"),
    ],
)
def test_what_minilm_cannot_follow_is_refused_by_its_field(
    tmp_path: Path, capsys: Capture, model_type: str, fields: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "hf"
    name = model_type if model_type in MODELS else "phi3"
    saved(folder, *MODELS[name])
    config = json.loads((folder / "config.json").read_text()) | {"model_type": model_type}
    for default in ("no_rope_layers", "activation_function", "rope_parameters"):
        config.pop(default, None)
    (folder / "config.json").write_text(json.dumps(config | fields))
    capsys.readouterr()
    assert message in error(capsys, folder, "--to", "minilm", "--out", tmp_path / "run")
