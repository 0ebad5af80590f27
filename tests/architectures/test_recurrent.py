"""Types with recurrent layers: published counts, a state that does not grow, what reports say of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.costs.activation_estimate import estimate
from minilm.costs.flops import flops_per_token, tensor_flops
from minilm.costs.memory import kv_cache_elements, lora_parameters, state_bytes
from minilm.costs.memory_need import cache_need
from minilm.errors import ConfigError
from minilm.inspection.inspector import inspect
from minilm.ledger import components
from minilm.ledger.layout import Role

Config = dict[str, Any]
JAMBA: Config = {"model_type": "jamba"}
QWEN3_NEXT: Config = {"model_type": "qwen3_next"}
LFM2: Config = {
    "model_type": "lfm2",
    "num_hidden_layers": 16,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
}

# Totals of the Hub's files as public repositories quote them; Qwen3-Next's is that of Qwen3-Coder-Next.
PUBLISHED: dict[str, tuple[Config, int]] = {
    "Mamba 130M": ({"model_type": "mamba", "num_hidden_layers": 24}, 129_135_360),
    "Jamba": (JAMBA, 51_570_323_328),
    "LFM2 1.2B": (LFM2 | {"hidden_size": 2048, "block_ff_dim": 12288}, 1_170_340_608),
    "LFM2 350M": (
        LFM2 | {"hidden_size": 1024, "num_attention_heads": 16, "block_ff_dim": 6656},
        354_483_968,
    ),
    "Qwen3-Next 80B": (QWEN3_NEXT, 79_674_391_296),
    "Granite 4.0 H Tiny": (
        {
            "model_type": "granitemoehybrid",
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "num_local_experts": 64,
            "num_experts_per_tok": 6,
            "intermediate_size": 512,
            "mamba_n_heads": 48,
            "mamba_d_state": 128,
            "vocab_size": 100352,
            "tie_word_embeddings": True,
            "layer_types": ["attention" if i % 10 == 5 else "mamba" for i in range(40)],
        },
        6_939_037_248,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    config, count = PUBLISHED[name]
    assert layout_of(config).count() == count


def test_the_cache_grows_with_the_context_and_the_state_does_not() -> None:
    layout = layout_of(JAMBA)
    # 4 layers of keys and values of 8 heads of 128; 28 of 8192 channels with 16 states and 4 inputs.
    assert kv_cache_elements(layout, context=100, batch=2) == 2 * 100 * 4 * 2 * 8 * 128
    assert state_bytes(layout, batch=2) == 2 * 28 * 8192 * (16 + 4) * 4
    need = cache_need(layout, "bfloat16")
    assert need(200, 2) - need(100, 2) == 2 * 100 * 4 * 2 * 8 * 128 * 2
    assert need(100, 2) == 2 * 100 * 4 * 2 * 8 * 128 * 2 + state_bytes(layout, batch=2)


def test_flops_have_the_convolution_and_adapters_do_not() -> None:
    layout = layout_of({"model_type": "mamba"})
    taps = 32 * 1536 * 4
    assert layout.count(components=(components.CONVOLUTION,), role=Role.MULTIPLIED) == taps
    projections = 768 * 3072 + 1536 * 80 + 48 * 1536 + 1536 * 768
    multiplied = 50280 * 768 + 32 * projections + taps
    assert flops_per_token(layout, context=9)["forward_per_token"] == 2 * multiplied
    sides = 768 + 3072 + 1536 + 80 + 48 + 1536 + 1536 + 768
    assert lora_parameters(layout, 4) == 32 * 4 * sides


def test_a_shared_block_costs_flops_in_every_layer_that_has_it() -> None:
    kinds = ["mamba", "hybrid", "mamba", "hybrid", "hybrid"]
    fields = {"model_type": "zamba2", "num_hidden_layers": 5, "layers_block_type": kinds}
    one, two = (layout_of(fields | {"num_mem_blocks": number}) for number in (1, 2))
    assert one.count() < two.count()
    costs = [flops_per_token(layout, context=9) for layout in (one, two)]
    assert costs[0] == costs[1]
    by_tensor = [(named.name, flops) for named, flops in tensor_flops(one)]
    context_free = costs[0]["forward_per_token"] - costs[0]["attention_per_token"]
    assert sum(flops for _, flops in by_tensor) == context_free
    (query,) = (flops for name, flops in by_tensor if name.endswith("self_attn.q_proj.weight"))
    assert query == 3 * 2 * 5120 * 5120


@pytest.mark.parametrize(
    "config",
    [
        JAMBA,
        LFM2,
        {"model_type": "minimax"},
        {"model_type": "qwen3_5_text"},
        {"model_type": "mamba2"},
    ],
)
def test_a_report_has_the_state_and_says_what_flops_leave_out(
    config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    report = inspect(path, batch=3)
    assert report.memory["recurrent_state"] == {
        "batch": 3,
        "float32": state_bytes(layout_of(config), batch=3),
    }
    # A short convolution keeps inputs, and what it takes is counted.
    is_scan = config is not LFM2
    assert (report.memory["activations"] is None) == is_scan
    assert any("without the recurrence" in note for note in report.notes) == is_scan


def test_short_convolutions_have_an_estimate_of_activations_and_scans_have_none() -> None:
    config = LFM2 | {"hidden_size": 64, "block_auto_adjust_ff_dim": False, "block_ff_dim": 160}
    some, one_more = (
        estimate(layout_of(config | {"num_hidden_layers": layers})) for layers in (16, 17)
    )
    assert some is not None
    assert one_more is not None
    # Two norms in and out; the first matrix's three widths, the convolution's input and output, the last
    # matrix's input; gate twice, up, down's input.
    assert one_more.blocks - some.blocks == 2 * ((4 + 3 + 3) * 64 + 4 * 160)
    assert one_more.num_layers == 17
    for model_type in ("mamba", "rwkv", "jamba", "qwen3_next", "recurrent_gemma", "xlstm", "zaya"):
        assert estimate(layout_of({"model_type": model_type})) is None


def test_a_report_without_recurrent_layers_has_neither(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen3"}))
    report = inspect(path)
    assert "recurrent_state" not in report.memory
    assert not any("recurrence" in note for note in report.notes)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "MX"}, "hybrid_override_pattern"),
        ({"model_type": "nemotron_h", "layers_block_type": 5}, "layers_block_type"),
        ({"model_type": "nemotron_h", "layers_block_type": ["moe"] * 10**6}, "layers_block_type"),
        ({"model_type": "mamba", "expand": 1e308}, "expand"),
        ({"model_type": "mamba2", "num_heads": 5}, "num_heads"),
        ({"model_type": "bamba", "mamba_n_heads": 7}, "mamba_n_heads"),
        ({"model_type": "lfm2", "block_ffn_dim_multiplier": 1e300}, "block_ffn_dim_multiplier"),
        ({"model_type": "recurrent_gemma", "block_types": []}, "block_types"),
        (
            {
                "model_type": "zamba2",
                "num_hidden_layers": 200,
                "layers_block_type": ["hybrid"] * 200,
            },
            "layers_block_type",
        ),
        ({"model_type": "zamba2", "tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "zamba", "num_hidden_layers": 2}, "num_hidden_layers"),
        ({"model_type": "zamba", "n_mamba_heads": 3}, "n_mamba_heads"),
        ({"model_type": "zamba2", "attention_hidden_size": 2560}, "attention_hidden_size"),
        (
            {
                "model_type": "kimi_linear",
                "linear_attn_config": {"full_attn_layers": [1], "kda_layers": [1]},
            },
            "full_attn_layers",
        ),
        (QWEN3_NEXT | {"linear_num_value_heads": 5}, "linear_num_value_heads"),
        (QWEN3_NEXT | {"layer_types": ["mamba3"] * 48}, "layer_types"),
    ],
)
def test_a_wrong_field_is_named(config: Config, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        layout_of(config)


def test_the_dense_layer_of_kimi_linear_is_named_as_in_the_published_files() -> None:
    config = {"model_type": "kimi_linear", "auto_map": {"AutoModelForCausalLM": "modeling_kimi.K"}}
    names = {tensor.name for tensor in layout_of(config).named_tensors()}
    assert "model.layers.0.mlp.gate_proj.weight" in names
    assert "model.layers.1.block_sparse_moe.shared_experts.gate_proj.weight" in names
    assert layout_of(config).count() == layout_of({"model_type": "kimi_linear"}).count()
