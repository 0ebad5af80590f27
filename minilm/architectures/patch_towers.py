"""Towers of one model each: LFM3-VL's with convolutions, Hunyuan-VL's, Kimi's, MiniMax-M3's, C-RADIO.

Names, shapes and defaults: huggingface/transformers `models/{lfm3_vl,hunyuan_vl,kimi_k25,minimax_m3_vl,
radio}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.building_blocks import d, layer_kinds
from minilm.architectures.config_fields import (
    Config,
    flag,
    head_width,
    layer_list,
    layers,
    quotient,
    scaled_size,
    sides,
    size,
)
from minilm.architectures.moe import LayerGroup, groups_by_value
from minilm.architectures.task_heads import UndeclaredClassError
from minilm.architectures.vision_tower import (
    F,
    Part,
    W,
    Y,
    clip_layers,
    gain,
    matrix,
    once,
    projector,
    tower_symbols,
    vector,
    without_bias,
)
from minilm.ledger.layout import Tensors
from minilm.ledger.symbols import as_polynomial

_CONV, _ATTENDS = _KINDS = ("conv", "full_attention")


def lfm3_vl(config: Config, name: str) -> Part:
    """Convolutions over the picture in most layers, attention in the others; no learned positions."""
    block, depth = f"{name}.layers.{{i}}", layers(config, "num_hidden_layers", 14)
    kinds = layer_kinds(
        config, "layer_types", depth, _KINDS, lambda i: _KINDS[i >= 2 and i % 2 == 0]
    )
    width, heads = size(config, "hidden_size", 1024), size(config, "num_attention_heads", 16)
    head = quotient(width, heads, "hidden_size", "num_attention_heads")
    taps = size(config, "conv_kernel_size", 3)
    keys, queries = size(config, "num_key_value_heads", 8) * head, heads * head
    conv, attention = f"{block}.conv", f"{block}.self_attn"
    mixers: dict[str, Tensors] = {
        _CONV: (
            without_bias(f"{conv}.in_proj", 3 * W, W),
            without_bias(f"{conv}.out_proj", W, W),
            without_bias(f"{conv}.spatial_conv", W, 1, taps, taps),
        ),
        _ATTENDS: (
            without_bias(f"{attention}.q_proj", queries, W),
            without_bias(f"{attention}.k_proj", keys, W),
            without_bias(f"{attention}.v_proj", keys, W),
            without_bias(f"{attention}.out_proj", W, queries),
            *(gain(f"{attention}.{n}_layernorm", head) for n in "qk"),
        ),
    }
    pixels = size(config, "in_channels", 3) * size(config, "patch_size", 16) ** 2
    tensors = (
        without_bias(f"{name}.patchifier", W, pixels * size(config, "temporal_patch_size", 2)),
        *(t for kind, at in groups_by_value(kinds).items() for t in _within(mixers[kind], at)),
        without_bias(f"{block}.feed_forward.w1", F, W, repeat=Y),
        without_bias(f"{block}.feed_forward.w2", W, F, repeat=Y),
        without_bias(f"{block}.feed_forward.w3", F, W, repeat=Y),
        gain(f"{block}.operator_norm", W, Y),
        gain(f"{block}.ffn_norm", W, Y),
        gain(f"{name}.embedding_norm", W),
    )
    return Part(tensors, {"W": width, "Y": depth, "F": size(config, "intermediate_size", 2560)})


def _within(tensors: Tensors, group: LayerGroup) -> Tensors:
    """In some of the tower's layers."""
    repeat = Y if group.layers is None else group.repeat
    return tuple(replace(t, repeat=repeat, layers=group.layers) for t in tensors)


def hunyuan_vl(config: Config, name: str) -> Part:
    block, width = f"{name}.layers.{{i}}", size(config, "hidden_size", 1152)
    patch, merge = size(config, "patch_size", 16), size(config, "spatial_merge_size", 2)
    heads = size(config, "num_attention_heads", 16)
    head = quotient(width, heads, "hidden_size", "num_attention_heads")
    queries = as_polynomial(head * heads)
    side = size(config, "max_image_size", 2048) // patch
    attention = (("q_proj", queries, W), ("k_proj", queries, W), ("v_proj", queries, W))
    merger, joined = f"{name}.perceive", 4 * W
    tensors = (
        *matrix(f"{name}.embeddings.patch_embedding", (W, _channels(config), patch, patch)),
        without_bias(f"{name}.embeddings.position_embedding", side**2 + 1, W),
        *vector(f"{block}.input_layernorm", W, Y),
        *(t for n, a, b in attention for t in matrix(f"{block}.self_attn.{n}", (a, b), Y)),
        *matrix(f"{block}.self_attn.o_proj", (W, queries), Y),
        *vector(f"{block}.post_attention_layernorm", W, Y),
        *matrix(f"{block}.mlp.dense_h_to_4h", (F, W), Y),
        *matrix(f"{block}.mlp.dense_4h_to_h", (W, F), Y),
        *projector(
            [
                *matrix(f"{merger}.proj.0", (2 * W, W, merge, merge)),
                *matrix(f"{merger}.proj.2", (joined, 2 * W, 1, 1)),
                *matrix(f"{merger}.mlp", (d, joined)),
                once(f"{merger}.image_newline", (joined,)),
                *(once(f"{merger}.image_{n}", (d,)) for n in ("begin", "end", "sep")),
                gain(f"{merger}.before_rms", W),
                gain(f"{merger}.after_rms", d),
            ]
        ),
    )
    return Part(tensors, tower_symbols(config, 1152, 27, 4304))


def kimi_k25(config: Config, name: str) -> Part:
    """MoonViT over the frames of a video: learned positions of a square, computed ones of time."""
    block, embed = f"{name}.encoder.blocks.{{i}}", f"{name}.patch_embed"
    height, width = sides(config, "patch_size", 14)
    rows, columns = size(config, "pos_emb_height", 64), size(config, "pos_emb_width", 64)
    tensors = (
        *matrix(f"{embed}.proj", (W, 3, height, width)),
        once(f"{embed}.pos_emb.weight", (rows, columns, W)),
        *vector(f"{block}.norm0", W, Y),
        *vector(f"{block}.norm1", W, Y),
        *matrix(f"{block}.wqkv", (3 * W, W), Y),
        *matrix(f"{block}.wo", (W, W), Y),
        *matrix(f"{block}.mlp.fc0", (F, W), Y),
        *matrix(f"{block}.mlp.fc1", (W, F), Y),
        *vector(f"{name}.encoder.final_layernorm", W),
    )
    return Part(tensors, tower_symbols(config, 1152, 27, 4304))


def moonvit(config: Config, name: str) -> Part:
    """The same over one picture, with other names of its fields: moonshotai/Kimi-VL-A3B-Instruct."""
    places = {f"pos_emb_{n}": size(config, f"init_pos_emb_{n}", 64) for n in ("height", "width")}
    return kimi_k25({**config, **places}, name)


def kimi_vl_projector(config: Config, vision: Config, name: str) -> Tensors:
    del config
    down, across = sides(vision, "merge_kernel_size", (2, 2))
    merged = down * across * W
    return (
        *vector(f"{name}.pre_norm", W),
        *matrix(f"{name}.linear_1", (merged, merged)),
        *matrix(f"{name}.linear_2", (d, merged)),
    )


def kimi_k25_projector(config: Config, vision: Config, name: str) -> Tensors:
    down, across = sides(vision, "merge_kernel_size", (2, 2))
    merged = down * across * W
    return (
        *vector(f"{name}.pre_norm", size(config, "projection_hidden_size", 1152)),
        *matrix(f"{name}.proj.0", (merged, merged)),
        *matrix(f"{name}.proj.2", (d, merged)),
    )


def minimax_m3(config: Config, name: str) -> Part:
    """CLIP's layers over patches of several frames, with rotary positions."""
    block, patch = f"{name}.encoder.layers.{{i}}", size(config, "patch_size", 14)
    frames = size(config, "temporal_patch_size", 2)
    tensors = (
        without_bias(
            f"{name}.embeddings.patch_embedding", W, _channels(config), frames, patch, patch
        ),
        *vector(f"{name}.pre_layrnorm", W),  # so in the files
        *clip_layers(block),
    )
    return Part(tensors, tower_symbols(config, 1280, 32, 5120))


def radio(config: Config, name: str) -> Part:
    """C-RADIO's: class tokens and registers before the patches, and scales behind each part."""
    if flag(config, "use_swiglu_ffn", False):
        expected = "false, a feed-forward without a gate"
        raise UndeclaredClassError("config.json: use_swiglu_ffn", "true", expected)
    block, patch = f"{name}.blocks.{{i}}", size(config, "patch_size", 16)
    width, pixels = size(config, "hidden_size", 1280), _channels(config) * patch**2
    head_width(width, size(config, "num_attention_heads", 16), "hidden_size")
    side = quotient(size(config, "max_img_size", 2048), patch, "max_img_size", "patch_size")
    tokens = size(config, "num_cls_tokens", 3) + size(config, "num_registers", 7)
    frames = config.get("video_temporal_patch_size")
    several = size(config, "video_temporal_patch_size", 2) * pixels
    fused = matrix(f"{block}.attn.qkv", (3 * W, W), Y)
    embed = f"{name}.patch_generator"
    tensors = (
        once(f"{embed}.cls_token.token", (tokens, W)),
        without_bias(f"{embed}.embedder", W, pixels),
        once(f"{embed}.pos_embed", (1, side**2, W)),
        *(() if frames is None else (without_bias(f"{embed}.video_embedder", W, several),)),
        *vector(f"{block}.norm1", W, Y),
        *(fused if flag(config, "qkv_bias", True) else fused[:1]),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *(once(f"{block}.layer_scale{n}.lambda1", (W,), repeat=Y) for n in (1, 2)),
        *vector(f"{block}.norm2", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
    )
    symbols = {
        "W": width,
        "Y": layers(config, "num_hidden_layers", 32),
        "F": scaled_size(config, "mlp_ratio", 4.0, width),
    }
    chosen = len(layer_list(config, "summary_idxs", (0, 1)))
    summary = once(f"{name.removesuffix('.model')}.summary_idxs", (chosen,))
    return Part(tensors, symbols, (summary,))


def _channels(config: Config) -> int:
    return size(config, "num_channels", 3)
