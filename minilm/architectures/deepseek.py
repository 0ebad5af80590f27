"""DeepSeek-V2, V3 and V3.2 as their files store them: latent attention (MLA), shared and routed experts.

Queries (where q is given) and keys with values pass through latents of widths q and c; r of each
head's n + r query and key elements are rotated by RoPE, and those of the key are the same in all heads.
The first layers are dense. V3's router holds a correction bias, which is a buffer, and its files add
multi-token prediction modules as layers L and after. V3.2's indexer, j small heads of width w with one key,
selects the tokens that attention sees; GLM-5 shares a selection among layers. MiniCPM3 and Youtu are V3
without experts; A.X K1 normalises what its experts put out. Names: deepseek-ai/DeepSeek-V2, V3 and V3.2-Exp.
Defaults: huggingface/transformers
`models/{deepseek_v2,deepseek_v3,deepseek_v32,glm4_moe_lite,glm_moe_dsa,axk1,minicpm3,youtu}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilm.architectures.building_blocks import (
    TIED_HEAD,
    L,
    V,
    d,
    embedding,
    h,
    layer_kinds,
    linear,
    lm_head,
    m,
    norm,
)
from minilm.architectures.config_fields import (
    field_name,
    flag,
    layers,
    optional_size,
    size,
    whole_number,
)
from minilm.architectures.moe import (
    LayerGroup,
    correction_bias,
    dense_feed_forward,
    read_experts,
    routed_experts,
    shared_expert,
    sparse_layers,
    split_layers,
)
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

q, c, r, n, v, N, j, w = (symbol(letter) for letter in "qcrnvNjw")


@dataclass(frozen=True, kw_only=True)
class _Defaults:
    vocabulary: int
    d_model: int
    layers: int
    heads: int
    latents: tuple[int, int] = (1536, 512)  # of queries, and of keys with values
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
}


@dataclass(frozen=True)
class _Block:
    """What is the same in every layer."""

    has_query_latent: bool
    attention_bias: bool
    feed_forward_bias: bool
    num_shared_experts: int
    corrects: bool
    indexed: Sequence[int] | None  # the layers with an indexer of their own: a range if all


def _shared(config: Mapping[str, Any], defaults: _Defaults) -> int:
    """Shared experts where the number is left out, or null for none."""
    return 0 if "n_shared_experts" in config else defaults.shared


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of these types' ForCausalLM for a config.json."""
    family = config["model_type"]
    defaults = _DEFAULTS[family]
    num_layers = layers(config, "num_hidden_layers", defaults.layers)
    num_mtp = _mtp_modules(config, defaults.mtp) if _has_mtp(defaults) else 0
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
        "v": size(config, "v_head_dim", values or max(1, d_model // heads)),
    }
    if split.dense:
        symbols["f"] = size(config, "intermediate_size", defaults.feed_forward)
    if split.experts and defaults.experts:
        symbols |= read_experts(
            config,
            layers=split.expert_layers + num_mtp,
            total=field_name(config, "n_routed_experts", "num_local_experts"),
            defaults=defaults.experts,
        )
    if defaults.indexer:
        symbols["j"] = size(config, "index_n_heads", defaults.indexer[0])
        symbols["w"] = size(config, "index_head_dim", defaults.indexer[1])
    block = _Block(
        has_query_latent=query_latent is not None,
        attention_bias=flag(config, "attention_bias", False),
        feed_forward_bias=defaults.feed_forward_bias and flag(config, "mlp_bias", False),
        num_shared_experts=whole_number(config, "n_shared_experts", _shared(config, defaults)),
        corrects=defaults.corrects,
        indexed=_indexed_layers(config, num_layers) if defaults.indexer else None,
    )
    tensors = (
        embedding("model.embed_tokens"),
        *_attention(block, LayerGroup()),
        *_feed_forward(block, split.dense, split.experts),
        *_output_norm(defaults.output_norm, split.experts),
        *norm("model.norm", components.FINAL_NORM, repeat=ONE),
        *lm_head("lm_head", tied=tied),
    )
    mtp: tuple[Tensor, ...] = ()
    if num_mtp:
        symbols["N"] = num_mtp
        modules = LayerGroup(N, range(num_layers, num_layers + num_mtp))
        mtp = _mtp(block, modules, has_experts=split.experts is not None)
    return Layout(
        family,
        tensors,
        symbols,
        ties=TIED_HEAD if tied else (),
        buffers=_correction_bias(split.experts) if block.corrects else (),
        mtp=mtp,
        attention=_attention_kinds(config, block, num_layers),
        context_length=size(config, "max_position_embeddings", defaults.context),
    )


def _has_mtp(defaults: _Defaults) -> bool:
    """Whether files may hold modules for multi-token prediction: those of V3's kind do."""
    return defaults.corrects and defaults.experts is not None


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
    config: Mapping[str, Any], block: _Block, num_layers: int
) -> tuple[AttentionSpec, ...]:
    # The latent and the rotary part of the key are all that is cached.
    plain = AttentionSpec(L, c + r, h * (n + r), h * v)
    if block.indexed is None:
        return (plain,)
    selects = replace(plain, selected=size(config, "index_topk", 2048))
    indexes = replace(selects, cache=plain.cache + w, index=j * w)
    own = len(block.indexed)
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


def _attention(block: _Block, group: LayerGroup) -> tuple[Tensor, ...]:
    """The norm in front, the way down to the latents and up to the heads, and the output."""

    def matrix(
        name: str, outputs: Polynomial, inputs: Polynomial, component: str, bias: bool = False
    ) -> tuple[Tensor, ...]:
        return linear(
            f"model.layers.{{i}}.self_attn.{name}",
            outputs,
            inputs,
            component,
            bias=bias,
            repeat=group.repeat,
            layers=group.layers,
        )

    def latent_norm(name: str, width: Polynomial) -> tuple[Tensor, ...]:
        return norm(
            f"model.layers.{{i}}.self_attn.{name}",
            components.ATTENTION_LATENT_NORM,
            width=width,
            repeat=group.repeat,
            layers=group.layers,
        )

    bias = block.attention_bias
    queries = h * (n + r)
    if block.has_query_latent:
        query = (
            *matrix("q_a_proj", q, d, components.ATTENTION_QUERY_LATENT, bias),
            *latent_norm("q_a_layernorm", q),
            *matrix("q_b_proj", queries, q, components.ATTENTION_QUERY),
        )
    else:
        query = matrix("q_proj", queries, d, components.ATTENTION_QUERY)
    return (
        *norm(
            "model.layers.{i}.input_layernorm",
            components.ATTENTION_NORM,
            repeat=group.repeat,
            layers=group.layers,
        ),
        *query,
        *matrix("kv_a_proj_with_mqa", c + r, d, components.ATTENTION_KEY_VALUE_LATENT, bias),
        *latent_norm("kv_a_layernorm", c),
        *matrix("kv_b_proj", h * (n + v), c, components.ATTENTION_KEY_VALUE),
        *matrix("o_proj", d, h * v, components.ATTENTION_OUTPUT, bias),
        *_indexer(block, group),
        *norm(
            "model.layers.{i}.post_attention_layernorm",
            components.FEED_FORWARD_NORM,
            repeat=group.repeat,
            layers=group.layers,
        ),
    )


def _indexer(block: _Block, group: LayerGroup) -> tuple[Tensor, ...]:
    """Small heads with one key: their queries come from the latent, and each head has a weight."""
    if not block.indexed:
        return ()
    prefix = "model.layers.{i}.self_attn.indexer"
    if group == LayerGroup() and not isinstance(block.indexed, range):
        group = LayerGroup(as_polynomial(len(block.indexed)), block.indexed)
    repeat, at = group.repeat, group.layers
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
    return norm(
        f"model.layers.{{i}}.{name}",
        components.FEED_FORWARD_OUTPUT_NORM,
        repeat=group.repeat,
        layers=group.layers,
    )


def _feed_forward(
    block: _Block, dense: LayerGroup | None, experts: LayerGroup | None
) -> tuple[Tensor, ...]:
    mlp = "model.layers.{i}.mlp"
    shared = block.num_shared_experts
    return (
        *dense_feed_forward(mlp, dense, bias=block.feed_forward_bias),
        *routed_experts(mlp, experts),
        # The shared experts are stored as one that is as wide as all of them.
        *shared_expert(
            f"{mlp}.shared_experts",
            experts if shared else None,
            width=shared * m,
            bias=block.feed_forward_bias,
        ),
    )


def _mtp_modules(config: Mapping[str, Any], default: int) -> int:
    """How many there are; ``default`` where the field is absent."""
    name = "num_nextn_predict_layers"
    return layers(config, name, default) if whole_number(config, name, default) else 0


def _correction_bias(group: LayerGroup | None) -> tuple[Tensor, ...]:
    """What V3 adds to the router's scores when it chooses."""
    return correction_bias("model.layers.{i}.mlp.gate.e_score_correction_bias", group)


def _mtp(block: _Block, group: LayerGroup, *, has_experts: bool) -> tuple[Tensor, ...]:
    """Each module: its copies of embedding and head, two norms, a projection, and one more layer."""
    module = "model.layers.{i}"
    repeat, at = group.repeat, group.layers

    def table(name: str, role: Role) -> Tensor:
        return Tensor(f"{module}.{name}.weight", (V, d), components.MTP, role, repeat, at)

    def gain(name: str) -> tuple[Tensor, ...]:
        return norm(f"{module}.{name}", components.MTP, repeat=repeat, layers=at)

    tensors = (
        table("embed_tokens", Role.LOOKED_UP),
        *gain("enorm"),
        *gain("hnorm"),
        *linear(f"{module}.eh_proj", d, 2 * d, components.MTP, repeat=repeat, layers=at),
        *_attention(block, group),
        *_feed_forward(block, None if has_experts else group, group if has_experts else None),
        *(_correction_bias(group) if has_experts and block.corrects else ()),
        *gain("shared_head.norm"),
        table("shared_head.head", Role.MULTIPLIED),
    )
    return tuple(replace(tensor, component=components.MTP) for tensor in tensors)
