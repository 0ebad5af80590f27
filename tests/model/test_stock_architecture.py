"""The presets that promise a stock architecture are one: transformers' GPT-NeoX gives the same logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minilm.config.presets import PRESETS
from minilm.model.transformer import Transformer

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)

HEAD = "embed_out" if transformers.__version__.startswith("4.") else "lm_head"
# Names in a block, GPT-NeoX to minilm; query, key and value are one matrix in GPT-NeoX, head by head.
NAMES = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "attention.dense": "attention.output",
    "mlp.dense_h_to_4h": "feed_forward.up",
    "mlp.dense_4h_to_h": "feed_forward.down",
}


def as_gpt_neox(model: Transformer) -> dict[str, Tensor]:
    config, state = model.config, model.state_dict()
    weights = {
        "gpt_neox.embed_in.weight": state["embedding.token.weight"],
        "gpt_neox.final_layer_norm.weight": state["final_norm.weight"],
        "gpt_neox.final_layer_norm.bias": state["final_norm.bias"],
        f"{HEAD}.weight": state["lm_head.weight"],
    }
    for layer in range(config.num_layers):
        block, layer_name = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        for kind in ("weight", "bias"):
            for name, own_name in NAMES.items():
                weights[f"{layer_name}.{name}.{kind}"] = state[f"{block}.{own_name}.{kind}"]
            parts = [
                state[f"{block}.attention.{name}.{kind}"] for name in ("query", "key", "value")
            ]
            heads = [part.unflatten(0, (config.num_heads, config.head_dim)) for part in parts]
            fused = torch.stack(heads, dim=1).flatten(0, 2)  # (heads * 3 * width, ...)
            weights[f"{layer_name}.attention.query_key_value.{kind}"] = fused
    return weights


@pytest.mark.parametrize("name", ["nano", "small"])
def test_the_logits_are_those_of_a_gpt_neox(name: str) -> None:
    model = Transformer(PRESETS[name].model_config(), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the outputs and the head begin at zero
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    config = model.config
    stock = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.d_feed_forward,
            max_position_embeddings=config.context_length,
            layer_norm_eps=config.norm_epsilon,
            rotary_pct=1.0,
            use_parallel_residual=False,
            tie_word_embeddings=False,
        )
    ).eval()
    missing, unexpected = stock.load_state_dict(as_gpt_neox(model), strict=False)
    assert missing == unexpected == []
    tokens = torch.randint(config.vocab_size, (2, config.context_length))
    with torch.no_grad():
        torch.testing.assert_close(stock(tokens).logits, model(tokens), rtol=1e-3, atol=1e-3)
