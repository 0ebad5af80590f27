"""Language models that write by diffusion, each in the shape of another: how llama.cpp converts them."""

from __future__ import annotations

from tests.architectures.gguf_conversions import WIDTH, Config, Conversion
from tests.architectures.gguf_rules import EXPERT_WIDTH, VOCABULARY, head_width

SEES_ALL = {"causal_attention": lambda config: False}

# llada.py reads these names, which are OLMo's of before transformers.
LLADA = (
    (r"^lm_head", "model.transformer.ff_out"),
    (r"^model\.embed_tokens", "model.transformer.wte"),
    (r"^model\.norm", "model.transformer.ln_f"),
    (r"^model\.layers", "model.transformer.blocks"),
    (r"self_attn\.o_proj", "attn_out"),
    (r"self_attn\.", ""),
    (r"mlp\.gate_proj", "ff_proj"),
    (r"mlp\.down_proj", "ff_out"),
    (r"mlp\.", ""),
    (r"input_layernorm", "attn_norm"),
    (r"post_attention_layernorm", "ff_norm"),
)


def without_head_dim(config: Config) -> Config:
    """The width that its head has by the others."""
    return {"head_dim": head_width(config)}


CONVERSIONS: dict[str, Conversion] = {
    "Dream": Conversion("dream", {}, SEES_ALL, model_type="qwen2"),
    "LLaDA": Conversion("llada", {}, {**SEES_ALL, **VOCABULARY}, model_type="llama", renames=LLADA),
    "LLaDA-MoE": Conversion(
        "llada-moe",
        {"moe_intermediate_size": WIDTH},
        {
            **SEES_ALL,
            **EXPERT_WIDTH,
            "feed_forward_length": None,
            "key_length": None,
            "value_length": None,
        },
        experts="num_experts",
        model_type="qwen3_moe",
        derived=without_head_dim,
    ),
    "RND1": Conversion(
        "rnd1",
        {"moe_intermediate_size": WIDTH},
        {**SEES_ALL, **EXPERT_WIDTH},
        head_dim=True,
        experts="num_experts",
        model_type="qwen3_moe",
    ),
}
