"""DeepSeek-V2, V3 and V3.2 as their files store them: latent attention (MLA), shared and routed experts.

Queries (where q is given) and keys with values pass through latents of widths q and c; r of each head's
n + r query and key elements are rotated by RoPE, and those of the key are the same in all heads. The
first layers are dense. V3's router holds a correction bias, which is a buffer, and its files add
multi-token prediction modules as layers L and after. V3.2's indexer, j small heads of width w with one
key, selects the tokens that attention sees; GLM-5 shares a selection among layers. MiniCPM3 and Youtu
are V3 without experts; A.X K1 normalises what its experts put out; Sarvam is V3 without the latent of
queries. Names: deepseek-ai/DeepSeek-V2, V3 and V3.2-Exp. Defaults: huggingface/transformers
`models/{deepseek_v2,deepseek_v3,deepseek_v32,glm4_moe_lite,glm_moe_dsa,axk1,minicpm3,youtu,sarvam_mla}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    L,
    d,
    embedding,
    h,
    layer_kinds,
    linear,
    lm_head,
    norm,
)
from minilm.architectures.config_fields import (
    flag,
    layers,
    optional_size,
    size,
    size_or_null,
    whole_number,
    with_fields_of,
)
from minilm.architectures.decoder import ATTENTION, BLOCK, MLP, pre_norms
from minilm.architectures.moe import (
    LayerGroup,
    routed_fields,
    sparse_feed_forward,
    sparse_layers,
    split_layers,
    with_stacked_experts,
)
from minilm.architectures.mtp import with_mtp
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Tensor
from minilm.ledger.symbols import ONE, as_polynomial, symbol

# Sarvam's own names of fields, beside those of DeepSeek-V3.
_SARVAM_FIELDS = {
    "num_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_mtp_layers": "num_nextn_predict_layers",
}

q, c, r, n, v, j, w = (symbol(letter) for letter in "qcrnvjw")


@dataclass(frozen=True, kw_only=True)
class _Defaults:
    vocabulary: int
    d_model: int
    layers: int
    heads: int
    # Of queries (None: no latent), and of keys with values.
    latents: tuple[int | None, int] = (1536, 512)
    head_widths: tuple[int, int, int | None] = (64, 128, 128)  # r, n, v (None: d / heads)
    feed_forward: int
    experts: tuple[int, int | None, int] | None
    shared: int = 1
    dense: int = 0
    mtp: int = 0
    context: int
    tied: bool = False
    corrects: bool = True  # the router has a correction bias
    feed_forward_bias: bool = False  # where the field mlp_bias says so
    indexer: tuple[int, int] | None = None  # its heads, and their width
    lists_layers: bool = False  # `mlp_layer_types` may say which layers are dense
    output_norm: str = ""  # of layers with experts
    stacked: bool = False  # all experts' matrices in two tensors


_V32 = _Defaults(
    vocabulary=129280,
    d_model=7168,
    layers=61,
    heads=128,
    feed_forward=18432,
    experts=(256, 8, 2048),
    dense=3,
    context=163840,
    indexer=(64, 128),
    lists_layers=True,
)
_DEFAULTS = {
    "deepseek_v2": _Defaults(
        vocabulary=102400,
        d_model=4096,
        layers=32,
        heads=32,
        feed_forward=11008,
        experts=(64, None, 1407),
        shared=2,
        context=2048,
        corrects=False,
        feed_forward_bias=True,
    ),
    "deepseek_v3": _Defaults(
        vocabulary=129280,
        d_model=7168,
        layers=61,
        heads=128,
        feed_forward=18432,
        experts=(256, 8, 2048),
        dense=3,
        mtp=1,
        context=4096,
    ),
    "deepseek_v32": _V32,
    "glm_moe_dsa": replace(
        _V32,
        vocabulary=154880,
        d_model=6144,
        layers=78,
        heads=64,
        latents=(2048, 512),
        head_widths=(64, 192, 256),
        feed_forward=12288,
        context=202752,
        indexer=(32, 128),
    ),
    "glm4_moe_lite": _Defaults(
        vocabulary=154880,
        d_model=2048,
        layers=47,
        heads=20,
        latents=(768, 512),
        head_widths=(64, 192, 256),
        feed_forward=10240,
        experts=(64, 4, 1536),
        dense=1,
        context=202752,
        lists_layers=True,
    ),
    "axk1": _Defaults(
        vocabulary=163840,
        d_model=7168,
        layers=61,
        heads=64,
        feed_forward=18432,
        experts=(192, 8, 2048),
        dense=1,
        context=32768,
        lists_layers=True,
        output_norm="post_mlp_layernorm",
    ),
    "mistral4": _Defaults(
        vocabulary=131072,
        d_model=4096,
        layers=36,
        heads=32,
        latents=(1024, 256),
        head_widths=(64, 64, 128),
        feed_forward=12288,
        experts=(128, 4, 2048),
        context=1048576,
        corrects=False,
        stacked=True,
    ),
    "minicpm3": _Defaults(
        vocabulary=73448,
        d_model=2560,
        layers=62,
        heads=40,
        latents=(768, 256),
        head_widths=(32, 64, None),
        feed_forward=6400,
        experts=None,
        context=32768,
        tied=True,
        feed_forward_bias=True,
    ),
    "youtu": _Defaults(
        vocabulary=128256,
        d_model=2048,
        layers=32,
        heads=16,
        feed_forward=6144,
        experts=None,
        context=131072,
        tied=True,
    ),
    "sarvam_mla": _Defaults(
        vocabulary=262144,
        d_model=4096,
        layers=32,
        heads=64,
        latents=(None, 512),
        feed_forward=16384,
        experts=(128, 8, 2048),
        dense=1,
        context=4096,
    ),
}


def _shared(config: Mapping[str, Any], defaults: _Defaults) -> int:
    """Shared experts where the number is left out, or null for none."""
    return 0 if "n_shared_experts" in config else defaults.shared


def _index_sizes(
    config: Mapping[str, Any], defaults: tuple[int, int], query_latent: int | None
) -> dict[str, int]:
    """Heads of the indexer, and their width."""
    if query_latent is None:
        raise ConfigError("config.json: q_lora_rank", "null", "a width: the indexer needs it")
    heads, width = defaults
    return {
        "j": size(config, "index_n_heads", heads),
        "w": size(config, "index_head_dim", width),
    }


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    if family == "sarvam_mla":
        config = with_fields_of(config, _SARVAM_FIELDS)
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    split = split_layers(num_layers, _has_experts(config, defaults, num_layers))
    tied = flag(config, "tie_word_embeddings", defaults.tied)
    query_latent = optional_size(config, "q_lora_rank", defaults.latents[0])
    d_model = size(config, "hidden_size", defaults.d_model)
    heads = size(config, "num_attention_heads", defaults.heads)
    rotary, plain, values = defaults.head_widths
    symbols = {
        "V": size(config, "vocab_size", defaults.vocabulary),
        "L": num_layers,
        **split.symbols,
        "d": d_model,
        "h": heads,
        **({"q": query_latent} if query_latent else {}),
        "c": size(config, "kv_lora_rank", defaults.latents[1]),
        "r": size(config, "qk_rope_head_dim", rotary),
        "n": size(config, "qk_nope_head_dim", plain),
        "v": size_or_null(config, "v_head_dim", values or max(1, d_model // heads)),
    }
    if defaults.indexer:
        symbols |= _index_sizes(config, defaults.indexer, query_latent)
    own_index = _indexed_layers(config, num_layers) if defaults.indexer else None
    sparse = sparse_feed_forward(
        config,
        MLP,
        split,
        defaults.experts or (0, None, 0),
        fields=routed_fields(config),
        shared=("shared_experts", "n_shared_experts", _shared(config, defaults)),
        correction="gate.e_score_correction_bias" if defaults.corrects else "",
        bias=defaults.feed_forward_bias and flag(config, "mlp_bias", False),
    )
    if split.dense:
        symbols["f"] = size(config, "intermediate_size", defaults.feed_forward)
    symbols |= sparse.symbols
    tensors = (
        embedding("model.embed_tokens"),
        *pre_norms(),
        *latent_attention(
            ATTENTION,
            has_query_latent=query_latent is not None,
            bias=flag(config, "attention_bias", False),
        ),
        *indexer(own_index),
        *sparse.tensors,
        *_output_norm(defaults.output_norm, split.experts),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    layout = Layout(
        family,
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        buffers=sparse.buffers,
        attention=_attention_kinds(config, own_index, num_layers),
        context_length=size(config, "max_position_embeddings", defaults.context),
    )
    if defaults.stacked:
        layout = with_stacked_experts(layout, MLP)
    if not defaults.corrects or defaults.experts is None:
        return layout
    has_tables = family != "glm_moe_dsa"
    return with_mtp(layout, config, "num_nextn_predict_layers", defaults.mtp, has_tables=has_tables)


def _has_experts(
    config: Mapping[str, Any], defaults: _Defaults, num_layers: int
) -> Callable[[int], bool]:
    if defaults.experts is None:
        return lambda i: False
    first = whole_number(config, "first_k_dense_replace", defaults.dense)
    frequency = size(config, "moe_layer_freq", 1)

    def by_number(i: int) -> bool:
        return i >= first and i % frequency == 0

    return sparse_layers(config, num_layers, by_number) if defaults.lists_layers else by_number


def _attention_kinds(
    config: Mapping[str, Any], own_index: Sequence[int] | None, num_layers: int
) -> tuple[AttentionSpec, ...]:
    # The latent and the rotary part of the key are all that is cached.
    plain = AttentionSpec(L, c + r, h * (n + r), h * v)
    if own_index is None:
        return (plain,)
    selects = replace(plain, selected=size(config, "index_topk", 2048))
    # Its heads' scores, and their weighted sum.
    indexes = replace(selects, cache=plain.cache + w, index=j * (w + 1))
    own = len(own_index)
    if own == num_layers:
        return (indexes,)
    kinds = (
        replace(indexes, layers=as_polynomial(own)),
        replace(selects, layers=as_polynomial(num_layers - own)),
    )
    return kinds if own else kinds[1:]


def _indexed_layers(config: Mapping[str, Any], num_layers: int) -> Sequence[int]:
    """The layers that select by themselves; the others take the selection of the one before."""
    if config["model_type"] != "glm_moe_dsa":
        return range(num_layers)
    pattern = config.get("index_topk_pattern")
    if isinstance(pattern, str):
        pattern = [{"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern]
    kinds = config.get("indexer_types")
    fields = {"indexer_types": pattern if kinds is None else kinds}
    frequency = max(whole_number(config, "index_topk_freq", 1), 1)
    offset = whole_number(config, "index_skip_topk_offset", 2)

    def by_number(i: int) -> str:
        return "full" if max(i - offset + 1, 0) % frequency == 0 else "shared"

    listed = layer_kinds(fields, "indexer_types", num_layers, ("full", "shared"), by_number)
    own = [i for i, kind in enumerate(listed) if kind == "full"]
    return range(num_layers) if len(own) == num_layers else own


def latent_attention(prefix: str, *, has_query_latent: bool, bias: bool) -> tuple[Tensor, ...]:
    """The way down to the latents and up to the heads, and the output."""
    latent = components.ATTENTION_LATENT_NORM
    if has_query_latent:
        query = (
            *linear(f"{prefix}.q_a_proj", q, d, components.ATTENTION_QUERY_LATENT, bias=bias),
            *norm(f"{prefix}.q_a_layernorm", latent, width=q),
            *linear(f"{prefix}.q_b_proj", h * (n + r), q, components.ATTENTION_QUERY),
        )
    else:
        query = linear(f"{prefix}.q_proj", h * (n + r), d, components.ATTENTION_QUERY)
    down = components.ATTENTION_KEY_VALUE_LATENT
    return (
        *query,
        *linear(f"{prefix}.kv_a_proj_with_mqa", c + r, d, down, bias=bias),
        *norm(f"{prefix}.kv_a_layernorm", latent, width=c),
        *linear(f"{prefix}.kv_b_proj", h * (n + v), c, components.ATTENTION_KEY_VALUE),
        *linear(f"{prefix}.o_proj", d, h * v, components.ATTENTION_OUTPUT, bias=bias),
    )


def indexer(own: Sequence[int] | None) -> tuple[Tensor, ...]:
    """Small heads with one key: their queries come from the latent, and each head has a weight."""
    if not own:
        return ()
    prefix = f"{ATTENTION}.indexer"
    repeat, at = (L, None) if isinstance(own, range) else (as_polynomial(len(own)), own)
    part = components.ATTENTION_INDEXER
    return (
        *linear(f"{prefix}.wq_b", j * w, q, part, repeat=repeat, layers=at),
        *linear(f"{prefix}.wk", w, d, part, repeat=repeat, layers=at),
        *norm(f"{prefix}.k_norm", part, width=w, bias=True, repeat=repeat, layers=at),
        *linear(f"{prefix}.weights_proj", j, d, part, repeat=repeat, layers=at),
    )


def _output_norm(name: str, group: LayerGroup | None) -> tuple[Tensor, ...]:
    if not name or group is None:
        return ()
    part = components.FEED_FORWARD_OUTPUT_NORM
    return norm(f"{BLOCK}.{name}", part, repeat=group.repeat, layers=group.layers)
