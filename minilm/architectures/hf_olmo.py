"""OLMo as its own code stores it: one matrix for queries, keys and values, one for gate and feed-forward.

Its norms have weights where a config says so. Names and shapes: allenai/OLMo `olmo/model.py`; defaults,
`olmo/config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.architectures.building_blocks import T, d, f, fused_attention, linear, read_heads
from minilm.architectures.config_fields import choice, flag, require, size
from minilm.architectures.decoder import Defaults, decoder, pre_norms, query_key_norms
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor

_DEFAULTS = Defaults(50304, 12, (768, 12, None, None), context=1024, tied=True)
_BODY = "model.transformer"
_BLOCK = f"{_BODY}.blocks.{{i}}"


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of OLMoForCausalLM for a config.json. Blocks in groups and of experts are not declared."""
    require(config, "block_group_size", 1)
    require(config, "moe_interleave", False)
    kv_heads = {"n_kv_heads": 1} if flag(config, "multi_query_attention", False) else {}
    heads = read_heads(
        {**config, **kv_heads},
        width="d_model",
        heads="n_heads",
        kv_heads="n_kv_heads",
        head_dim=None,
        defaults=_DEFAULTS.heads,
    )
    inner = size(config, "mlp_hidden_size", size(config, "mlp_ratio", 4) * heads.symbols["d"])
    kinds = ("swiglu", "gelu", "relu")
    is_gated = choice(config, "activation_type", kinds[0], kinds) == "swiglu"
    symbols = {"f": inner // 2 if is_gated else inner}
    positions: tuple[Tensor, ...] = ()
    if not (flag(config, "rope", False) or flag(config, "alibi", False)):
        symbols["T"] = size(config, "max_sequence_length", _DEFAULTS.context)
        part = components.POSITION_EMBEDDING
        positions = (Tensor(f"{_BODY}.wpe.weight", (T, d), part, Role.LOOKED_UP),)
    bias = flag(config, "include_bias", True)
    norm_bias = flag(config, "bias_for_layer_norm", bias)
    has_gains = flag(config, "layer_norm_with_affine", True)
    norms: tuple[Tensor, ...] = ()
    if has_gains:
        norms = pre_norms(f"{_BLOCK}.attn_norm", f"{_BLOCK}.ff_norm", bias=norm_bias)
    of_heads = flag(config, "attention_layer_norm", False)
    if of_heads and flag(config, "attention_layer_norm_with_affine", True):
        names, widths = (f"{_BLOCK}.q_norm", f"{_BLOCK}.k_norm"), (d, heads.keys)
        norms += query_key_norms(*names, widths=widths, bias=norm_bias)
    tied = flag(config, "weight_tying", True)
    up, down = components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN
    both = components.FEED_FORWARD_GATE_UP
    return decoder(
        {**config, "tie_word_embeddings": tied},
        _DEFAULTS,
        heads,
        *norms,
        *fused_attention(f"{_BLOCK}.att_proj", f"{_BLOCK}.attn_out", heads, bias=bias),
        *linear(f"{_BLOCK}.ff_proj", *((2 * f, d, both) if is_gated else (f, d, up)), bias=bias),
        *linear(f"{_BLOCK}.ff_out", d, f, down, bias=bias),
        symbols=symbols,
        before=positions,
        table=f"{_BODY}.wte",
        final_norm=f"{_BODY}.ln_f" if has_gains else "",
        norm_bias=norm_bias,
        head=f"{_BODY}.ff_out",
        head_bias=bias and not tied,
        fields={
            "vocab_size": "vocab_size"
            if config.get("embedding_size") is None
            else "embedding_size",
            "num_hidden_layers": "n_layers",
            "max_position_embeddings": "max_sequence_length",
        },
    )
