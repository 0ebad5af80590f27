"""python scripts/tools/examples.py FOLDER: what docs/inspect.md looks into and docs/scaling.md plans.

They are made here, with random numbers of a fixed seed: configurations of published models without
weights, and a few tiny models with them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import numpy as np  # noqa: E402
from safetensors.numpy import save  # noqa: E402

from minilm import files  # noqa: E402
from minilm.architectures import layout_of  # noqa: E402

Weights = dict[str, "np.ndarray[Any, Any]"]

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 1000,
    "n_positions": 64,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
# Touvron et al. 2023 (arXiv:2307.09288).
LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
LLAMA_2_70B = LLAMA_2_7B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}


def write(folder: Path) -> None:
    """Write every example below ``folder``/examples."""
    examples = folder / "examples"
    _model(examples / "deepseek-v3", DEEPSEEK_V3, {})
    _model(examples / "llama-2-7b", LLAMA_2_7B, {})
    _model(examples / "llama-2-70b", LLAMA_2_70B, {})
    weights = _weights(GPT2, seed=1)
    _model(examples / "tiny-gpt2", GPT2, weights)
    _model(examples / "tiny-gpt2-tuned", GPT2 | {"tie_word_embeddings": False}, _tuned(weights))
    _model(
        examples / "tiny-llama-gptq",
        LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        _gptq(_weights(LLAMA, seed=2)),
    )


def _model(folder: Path, config: Mapping[str, Any], weights: Weights) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "config.json", config)
    if weights:
        files.write_bytes(folder / "model.safetensors", save(weights))


def _weights(config: Mapping[str, Any], seed: int) -> Weights:
    """Normal matrices of standard deviation 0.02, gains of one, biases of zero."""
    draw = np.random.default_rng(seed)
    weights: Weights = {}
    for tensor in layout_of(config).named_tensors():
        if len(tensor.shape) == 2:
            weights[tensor.name] = draw.normal(0, 0.02, tensor.shape).astype(np.float32)
        else:
            weights[tensor.name] = np.full(tensor.shape, float(tensor.role.value == "scaled"), "f4")
    return weights


def _tuned(weights: Weights) -> Weights:
    """The same after a LoRA of rank 4 was merged into one matrix, and with its head untied."""
    draw, name = np.random.default_rng(3), "transformer.h.1.attn.c_attn.weight"
    rows, columns = weights[name].shape
    update = draw.normal(0, 0.02, (rows, 4)) @ draw.normal(0, 0.02, (4, columns))
    head = weights["transformer.wte.weight"].copy()
    return weights | {name: weights[name] + update.astype(np.float32), "lm_head.weight": head}


def _gptq(weights: Weights) -> Weights:
    """Every matrix of the blocks packed as GPTQ stores it: 8 weights in an int32, a scale a group."""
    packed: Weights = {}
    for name, value in weights.items():
        if "_proj" not in name:
            packed[name] = value.astype(np.float16)
            continue
        (outputs, inputs), stem = value.shape, name.removesuffix(".weight")
        packed[f"{stem}.qweight"] = np.zeros((inputs // 8, outputs), np.int32)
        packed[f"{stem}.qzeros"] = np.zeros((inputs // 128, outputs // 8), np.int32)
        packed[f"{stem}.scales"] = np.ones((inputs // 128, outputs), np.float16)
        packed[f"{stem}.g_idx"] = np.arange(inputs, dtype=np.int32) // 128
    return packed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the checkpoints of docs/inspect.md.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="gets a folder examples in it")
    write(parser.parse_args().folder)
