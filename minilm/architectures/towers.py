"""Towers over pictures that several image-text models have, by the `model_type` of their vision_config.

Each is used once a picture: none of its FLOPs is a token's. Names, shapes and defaults:
huggingface/transformers `models/{clip,siglip,siglip2,idefics2,idefics3,smolvlm,pixtral,internvl,qwen2_vl,
qwen2_5_vl,qwen3_vl,glm4v}`.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import repr as shortened

from minilm.architectures import page_towers, patch_towers, siglip_towers, video_towers
from minilm.architectures.config_fields import (
    Config,
    choice,
    flag,
    sides,
    size,
    squares,
    with_canonical_names,
    within,
)
from minilm.architectures.davit import davit
from minilm.architectures.sam import sam_tower
from minilm.architectures.task_heads import UndeclaredClassError
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    clip_tower,
    gain,
    matrix,
    once,
    projector,
    siglip_part,
    siglip_tower,
    tower_symbols,
    vector,
    vision_symbols,
    without_bias,
)
from minilm.ledger.layout import Role


def tower(config: Config, name: str, default: str) -> Part:
    """The tower of a vision_config below ``name``, of the type ``default`` where it says none.

    Raises UndeclaredClassError for a type without one.
    """
    kind = str(config.get("model_type") or default)
    if kind not in TOWERS:
        expected = f"one of {', '.join(TOWERS)}"
        raise UndeclaredClassError("config.json: vision_config", shortened(kind), expected)
    return TOWERS[kind](with_canonical_names({**config, "model_type": kind}), name)


def _clip(config: Config, name: str) -> Part:
    symbols = vision_symbols(config, width=768, depth=12, inner=3072, image=224, patch=32)
    channels, patch = size(config, "num_channels", 3), size(config, "patch_size", 32)
    return Part(clip_tower(name, channels=channels, patch=patch), symbols)


def _siglip(config: Config, name: str) -> Part:
    return siglip_part(config, name, patch=16, head=flag(config, "vision_use_head", True))


def _siglip2(config: Config, name: str) -> Part:
    symbols = vision_symbols(config, width=768, depth=12, inner=3072, image=224, patch=16)
    symbols["P"] = size(config, "num_patches", 256)
    tensors = siglip_tower(
        name,
        channels=size(config, "num_channels", 3),
        patch=size(config, "patch_size", 16),
        has_pooling_head=flag(config, "vision_use_head", True),
        is_flat=True,
    )
    return Part(tensors, symbols)


def _idefics2(config: Config, name: str) -> Part:
    return siglip_part(config, name, patch=32)


def _idefics3(config: Config, name: str) -> Part:
    return siglip_part(config, name, patch=32, width=1152)


def _video_llama_3(config: Config, name: str) -> Part:
    """Its positions are rotary."""
    part = siglip_part(config, name, patch=16)
    tensors = tuple(t for t in part.tensors if "position_embedding" not in t.name)
    return Part(tensors, {letter: part.symbols[letter] for letter in "WYF"})


def _pixtral(config: Config, name: str) -> Part:
    block, patch = f"{name}.transformer.layers.{{i}}", size(config, "patch_size", 16)
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    forward = (("gate_proj", F, W), ("up_proj", F, W), ("down_proj", W, F))
    channels = size(config, "num_channels", 3)
    return Part(
        (
            without_bias(f"{name}.patch_conv", W, channels, patch, patch),
            gain(f"{name}.ln_pre", W),
            gain(f"{block}.attention_norm", W, Y),
            *(without_bias(f"{block}.attention.{n}", W, W, repeat=Y) for n in attention),
            gain(f"{block}.ffn_norm", W, Y),
            *(without_bias(f"{block}.feed_forward.{n}", a, b, repeat=Y) for n, a, b in forward),
        ),
        tower_symbols(config, 1024, 24, 4096),
    )


def _internvl(config: Config, name: str) -> Part:
    """BEiT's, with a norm of queries and keys on request."""
    block, embeddings = f"{name}.encoder.layer.{{i}}", f"{name}.embeddings"
    patch, picture = sides(config, "patch_size", 14), sides(config, "image_size", 448)
    pixels = (W, size(config, "num_channels", 3), *patch)
    bias = flag(config, "attention_bias", False)
    tensors = [
        once(f"{embeddings}.cls_token", (1, 1, W)),
        *matrix(f"{embeddings}.patch_embeddings.projection", pixels),
    ]
    if flag(config, "use_mask_token", False):
        tensors.append(once(f"{embeddings}.mask_token", (1, 1, W)))
    if flag(config, "use_absolute_position_embeddings", True):
        tensors.append(once(f"{embeddings}.position_embeddings", (1, P + 1, W)))
    for attention in ("q_proj", "k_proj", "v_proj"):
        weight, added = matrix(f"{block}.attention.{attention}", (W, W), Y)
        tensors += [weight, added] if bias else [weight]
    tensors += matrix(f"{block}.attention.projection_layer", (W, W), Y)
    norms = [f"{block}.layernorm_before", f"{block}.layernorm_after"]
    if choice(config, "norm_type", "layer_norm", ("layer_norm", "rms_norm")) == "layer_norm":
        tensors += [t for each in norms for t in vector(each, W, Y)]
    else:
        tensors += [gain(each, W, Y) for each in norms]
    if flag(config, "use_qk_norm", False):
        tensors += [gain(f"{block}.attention.{n}_norm", W, Y) for n in "qk"]
    tensors += [once(f"{block}.lambda_{n}", (W,), Role.SCALED, Y) for n in (1, 2)]
    tensors += [
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
    ]
    if not flag(config, "use_mean_pooling", True):
        tensors += vector(f"{name}.layernorm", W)
    rows, columns = squares(picture, patch)
    symbols = {**tower_symbols(config, 1024, 24, 4096), "P": rows * columns}
    return Part(tuple(tensors), symbols)


def _ovis2(config: Config, name: str) -> Part:
    """A picture becomes probabilities over a vocabulary of its own."""
    body, patch = f"{name}.transformer", size(config, "patch_size", 14)
    block, channels = f"{body}.encoder.layers.{{i}}", size(config, "num_channels", 3)
    merged = size(config, "hidden_stride", 1) ** 2 * W
    words, field = size(config, "vocab_size", 16384), "num_visual_indicator_tokens"
    words -= within(size(config, field, 5), words, "vocab_size", field)
    attention = [
        t
        for n in ("q_proj", "k_proj", "v_proj", "out_proj")
        for t in matrix(f"{block}.attention.{n}", (W, W), Y)
    ]
    forward = [
        *matrix(f"{block}.ffn.gate_proj", (F, W), Y),
        *matrix(f"{block}.ffn.up_proj", (F, W), Y),
        *matrix(f"{block}.ffn.down_proj", (W, F), Y),
    ]
    qkv_bias, mlp_bias = flag(config, "qkv_bias", False), flag(config, "mlp_bias", False)
    tensors = (
        *matrix(f"{body}.embeddings.patch_embedding", (W, channels, patch, patch)),
        without_bias(f"{body}.embeddings.position_embedding", P, W),
        gain(f"{body}.embeddings.rms_norm", W),
        *(t for t in attention if qkv_bias or not t.name.endswith(".bias")),
        *(t for t in forward if mlp_bias or not t.name.endswith(".bias")),
        gain(f"{block}.rms_norm1", W, Y),
        gain(f"{block}.rms_norm2", W, Y),
        gain(f"{body}.rms_norm", W),
        *projector([without_bias(f"{name}.head_linear", words, merged)]),
        *projector(vector(f"{name}.head_norm", words)),
    )
    return Part(
        tensors,
        vision_symbols(config, width=1024, depth=24, inner=2816, image=224, patch=14),
    )


def _paddleocr(config: Config, name: str) -> Part:
    fields = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "image_size": 384,
        "patch_size": 14,
        **config,
    }
    return siglip_part(fields, name, patch=14)


TOWERS: dict[str, Callable[[Config, str], Part]] = {
    "clip_vision_model": _clip,
    "cohere_compass_vision": video_towers.qwen3_vl,
    "deepseek_ocr2_vision": page_towers.deepseek_ocr2,
    "exaone4_5_vision": video_towers.exaone4_5,
    "florence_vision": davit,
    "glm_ocr_vision": video_towers.glm_ocr,
    "got_ocr2_vision": sam_tower,
    "pp_chart2table_vision": sam_tower,
    "ovis2_vision": _ovis2,
    "paddleocr_vl_vision": _paddleocr,
    "glm4v_moe_vision": video_towers.glm4v,
    "glm4v_vision": video_towers.glm4v,
    "granite_docling_vision": siglip_towers.granite_docling,
    "hunyuan_vl_vision": patch_towers.hunyuan_vl,
    "idefics2_vision": _idefics2,
    "idefics3_vision": _idefics3,
    "internvl_vision": _internvl,
    "janus_vision_model": siglip_towers.janus,
    "kimi_k25_vision": patch_towers.kimi_k25,
    "lfm3_vl_vision": patch_towers.lfm3_vl,
    "minicpm_ocr_vision": siglip_towers.minicpm,
    "minicpmv4_6_vision": siglip_towers.minicpm,
    "minicpmv4_7_vision": siglip_towers.minicpm,
    "minimax_m3_vl_vision": patch_towers.minimax_m3,
    "moonvit": patch_towers.moonvit,
    "pixtral": _pixtral,
    "qwen2_5_omni_vision_encoder": video_towers.qwen2_5_omni,
    "qwen2_5_vl_vision": video_towers.qwen2_5_vl,
    "qwen2_vl_vision": video_towers.qwen2_vl,
    "qwen3_omni_moe_vision_encoder": video_towers.qwen3_omni,
    "qwen3_5_moe_vision": video_towers.qwen3_vl,
    "qwen3_5_vision": video_towers.qwen3_vl,
    "qwen3_vl_moe_vision": video_towers.qwen3_vl,
    "qwen3_vl_vision": video_towers.qwen3_vl,
    "radio": patch_towers.radio,
    "siglip2_vision_model": _siglip2,
    "siglip_vision_model": _siglip,
    "smolvlm_vision": _idefics3,
    "unlimited_ocr_vision": page_towers.unlimited_ocr,
    "video_llama_3_vision": _video_llama_3,
}
