"""A tensor's component and kind by its name alone, for modules and files that are not declared."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Container, Mapping
from typing import Any

from minilm.architectures.gguf_names import COMPONENTS
from minilm.formats.header import whole_number
from minilm.ledger.components import LM_HEAD

# Linear's and attention's, in_proj_bias; recurrent layers' bias_ih_l0 and bias_hh_l0_reverse, cells'
# bias_ih.
_BIAS = re.compile(r"bias|.*_bias|bias_(ih|hh)(_l\d+(_reverse)?)?")
# Patterns for a part of a name are searched behind a dot: names may have a thousand characters, and a
# pattern that begins with one character is searched many times faster than one with alternatives.
_EMBEDDING = re.compile(r"[._](wte|wpe|embed\w*|(token|position)_embd)([._]|$)")
_GGUF = re.compile(r"(?:blk\.\d+\.)?([a-z0-9_]+)\.(?:weight|bias)")

# But for the head's: a layer of any module may be called `output`.
_GGUF_COMPONENTS = {
    stem: component for stem, component in COMPONENTS.items() if component != LM_HEAD
}

# What modules register as buffers, by the end of the name: rotary frequencies, BatchNorm's
# statistics, position ids, the bias correction of routers (DeepSeek-V3's, in GGUF exp_probs_b; Step's,
# Inkling's), Gemma 4's scalar a layer, I-BERT's integers and ranges, tables of fixed positions, fairseq's
# mark of a dtype, codebooks that are running means (EnCodec's, Mimi's), the decay of MiniMax's linear
# attention, and xIELU's constants.
_BUFFER = re.compile(
    r"\.((rotary|[xy]_pos)_emb(eddings)?\.inv_freq|(rotary_emb|lerope)\.alpha|running_(mean|var)"
    r"|num_batches_tracked|(position|token_type)_ids|_float_tensor"
    r"|relative_position_index|masked_bias|e_score_correction_bias|exp_probs_b(\.bias)?|(moe|mlp)\.router_bias"
    r"|llm\.layers\.\d+\.mlp\.gate\.bias|layer_scalar|pos_idx_to_embed|summary_idxs"
    r"|(n|num)_points_scale|gate\.tid2eid|(weight|bias)_integer|(weight|fc|act)_scaling_factor|x_(min|max)|LayerNorm\.shift"
    r"|codebook\.(embed|embed_avg|embed_sum|cluster_size|cluster_usage|inited|initialized)"
    r"|self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)|act_fn\.(beta|eps))\Z"
)
_GGUF_BUFFER = re.compile(r"rope_freqs\.weight|rope_factors_\w+\.weight")
_HALF = re.compile(r"(blk\.\d+\.)attn_[kv]_b\.weight")
_WHOLE_AND_HALVES = ("attn_kv_b", "attn_k_b", "attn_v_b")
# Each an own tensor, or (in GGUF, and as GraniteMoE's linear layers) stacked in one.
_ROUTED = re.compile(
    r"\.experts\.|_exps\.|\.ffn_(gate|up|down)\.\d+\."
    r"|\.block_sparse_moe\.(input|output)_linear\."
)


# Next-token (multi-token prediction) modules: in layers behind the last, or under a name of their own.
_LAYER_NUMBER = re.compile(
    r"(?:(?:model|language_model|text_model)\.)*layers\.(\d+)\.|blk\.(\d+)\."
)
_NEXT_TOKEN = re.compile(r"(?:model\.)?mtp(?:_\w+)?\.")
_NEXT_TOKEN_FIELDS = ("num_nextn_predict_layers", "num_mtp_modules")


_LAYER = re.compile(r"\.\d{1,9}(?=\.)", re.ASCII)
_NUMBER = re.compile(r"\.\d+(?=\.|$)", re.ASCII)


def component_by_name(name: str) -> str:
    """The component of an undeclared tensor: by its GGUF name, else its module's path without indices."""
    gguf = _GGUF.fullmatch(name)
    if gguf is not None and gguf[1] in _GGUF_COMPONENTS:
        return _GGUF_COMPONENTS[gguf[1]]
    owner = name.rpartition(".")[0] or name
    return re.sub(r"\.\d+(?=\.|$)", "", "." + owner).strip(".") or owner


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by the names that torch's own modules use."""
    return _BIAS.fullmatch(name.rpartition(".")[2]) is not None


def is_embedding(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a token or position table: wte, wpe, embed_tokens, token_embd, ..."""
    return len(shape) == 2 and (
        name == "shared.weight" or _EMBEDDING.search("." + name) is not None
    )


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a buffer: by its name, or a causal mask (1, 1, T, T) called bias."""
    is_mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return (
        _BUFFER.search("." + name) is not None
        or _GGUF_BUFFER.fullmatch(name) is not None
        or (is_mask and name.endswith("bias"))
    )


def frozen_norm_tensors(names: Collection[str], *, is_recent: bool = False) -> set[str]:
    """Weights and biases of frozen batch norms, which are buffers, as their statistics are.

    A norm that is trained counts its batches; files of before torch 0.4.1 have no counts at all, and say
    nothing, unless one ``is_recent``.
    """
    counted = {name.removesuffix(_COUNT) for name in names if name.endswith(_COUNT)}
    if not counted and not is_recent:
        return set()
    normed = {name.removesuffix(_MEAN) for name in names if name.endswith(_MEAN)}
    return {f"{norm}.{part}" for norm in normed - counted for part in ("weight", "bias")}


_COUNT, _MEAN = ".num_batches_tracked", ".running_mean"

_OLDER = {
    ".gamma": ".weight",
    ".beta": ".bias",
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


# Dory's attention and feed-forward in two layers, which transformers saves as one.
_PAIRED = re.compile(
    r"backbone\.layers\.(\d{1,9})\.(mixer|attn_alpha|mlp_alpha)((?:\..*)?)", re.ASCII
)
_RATES = {"attn_alpha": "lambda_1", "mlp_alpha": "lambda_2"}


def current_name(name: str) -> str:
    """What a tensor is called today: a norm's gamma and beta, and a normed weight's length and direction."""
    paired = _PAIRED.fullmatch(name)
    if paired is not None:
        layer, half = divmod(int(paired[1]), 2)
        part = _RATES.get(paired[2], ("self_attn", "mlp")[half])
        return f"backbone.layers.{layer}.{part}{paired[3]}"
    for old, new in _OLDER.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


# transformers renames these only where a name begins with them: beside a head, a prefix stands before.
_OF_BODIES = {
    "model.embed.weight": "model.embed_tokens.weight",
    "model.embed_tokens.weight": "model.word_embeddings.weight",
    **{
        former: current
        for part in ("base", "fn", "scale")
        for former, current in (
            (f"model.hc_head_{part}", f"model.hc_head.hc_{part}"),
            (f"model.hc_head.hc_pre.hc_head_{part}", f"model.hc_pre.hc_head.hc_head_{part}"),
        )
    },
}


def declared_name(name: str, declared: Container[str]) -> str:
    """``name``, or what it is called today, or in a model with a head, where only that is declared."""
    others = (current_name(name), _OF_BODIES.get(name, name))
    return next((o for o in others if o in declared and name not in declared), name)


def next_token_layers(config: Mapping[str, Any], metadata: Mapping[str, str]) -> range:
    """The numbers of the layers that are next-token modules, by a config.json or GGUF's metadata."""
    architecture = metadata.get("general.architecture", "")
    number = whole_number(metadata, f"{architecture}.nextn_predict_layers")
    layers = whole_number(metadata, f"{architecture}.block_count")
    if number is not None and layers is not None and number < layers:
        return range(layers - number, layers)
    for fields in (config, config.get("text_config")):
        if isinstance(fields, Mapping):
            first = fields.get("num_hidden_layers")
            count = next((fields[key] for key in _NEXT_TOKEN_FIELDS if key in fields), None)
            if type(first) is int and type(count) is int:
                return range(first, first + count)
    return range(0)


def is_next_token(name: str, layers: range) -> bool:
    """Whether a tensor belongs to a next-token module; ``layers`` are the numbers of such."""
    match = _LAYER_NUMBER.match(name)
    return _NEXT_TOKEN.match(name) is not None or (
        match is not None and int((match[1] or match[2])[:9]) in layers
    )


def is_half(name: str, names: Container[str]) -> bool:
    """Whether it is half of a tensor that the file also holds whole, as GGUF files of MLA may.

    attn_kv_b is what config.json declares; attn_k_b and attn_v_b are its rows, one of them transposed.
    """
    match = _HALF.fullmatch(name)
    return match is not None and all(
        f"{match[1]}{stem}.weight" in names for stem in _WHOLE_AND_HALVES
    )


def is_routed(name: str) -> bool:
    """Whether a tensor belongs to routed experts, of which a token uses only some."""
    return _ROUTED.search("." + name) is not None


def layer_and_matrix(name: str) -> tuple[str, str] | None:
    """blocks.3.attention.query.weight -> (blocks.3, attention.query.weight); further numbers are one."""
    match = _LAYER.search("." + name)
    if match is None:
        return None
    end = match.end() - 1
    return name[:end], _with_numbers_as_one(name[end:])[1:]


@functools.lru_cache(2**10)
def _with_numbers_as_one(name: str) -> str:
    return _NUMBER.sub(".*", name)
