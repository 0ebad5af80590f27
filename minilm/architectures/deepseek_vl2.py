"""DeepSeek-VL2 of remote code: DeepSeek's language model with experts, SigLIP as timm has it, a projector.

The smallest has Llama's attention, the others a latent. The tower is used once a picture. Names, shapes and
defaults: deepseek-ai/DeepSeek-VL2 `deepseek_vl2/models/{modeling_deepseek_vl_v2,siglip_vit}.py` and
`configuration_deepseek.py`; the pooling, which is not used, huggingface/pytorch-image-models
`timm/layers/attention_pool.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from minilm.architectures.config_fields import (
    Config,
    choice,
    few,
    flag,
    layers,
    scaled_size,
    size,
    squares,
    sub_config,
)
from minilm.architectures.joint_text import Model, joined, text_layout
from minilm.architectures.task_heads import UndeclaredClassError, class_name_of, undeclared_class
from minilm.architectures.vision_tower import (
    F,
    P,
    Part,
    W,
    Y,
    matrix,
    once,
    projector,
    vector,
)
from minilm.ledger.layout import Layout, Tensor, Tensors

_MODEL = Model(
    "deepseek_v2", "", lambda config, vision, name: (), inside="language.", own_ties=True
)
_LANGUAGE = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "moe_intermediate_size": 1407,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "first_k_dense_replace": 0,
    "max_position_embeddings": 2048,
    "num_nextn_predict_layers": 0,
}
_PROJECTORS = ("downsample_mlp_gelu", "identity", "linear", "mlp_gelu")


def layout(config: Config) -> Layout:
    """The tensors of DeepseekVLV2ForCausalLM for a config.json."""
    name = class_name_of(config)
    if name and name != "DeepseekVLV2ForCausalLM":
        raise undeclared_class(config)
    if config.get("tile_tag", "2D") != "2D":
        raise UndeclaredClassError("config.json: tile_tag", shortened(config["tile_tag"]), "2D")
    text = text_layout({"text_config": _language(sub_config(config, "language_config"))}, _MODEL)
    vision, between = (sub_config(config, f"{n}_config") for n in ("vision", "projector"))
    maps = projector(_projector(between))
    return joined(text, config["model_type"], _tower(vision), Part(maps))


def _language(config: Config) -> dict[str, Any]:
    """The fields under the type that has these attention and routers."""
    fields = {**_LANGUAGE, **config}
    if not flag(config, "use_mla", True):
        return {**fields, "model_type": "deepseek"}
    if fields.get("n_routed_experts") is None:  # every layer is dense
        fields["first_k_dense_replace"] = layers(fields, "num_hidden_layers")
    else:
        size(fields, "n_shared_experts")
    corrects = fields.get("topk_method") == "noaux_tc"
    return {**fields, "model_type": "deepseek_v3" if corrects else "deepseek_v2"}


def _tower(config: Config) -> Part:
    width = config.get("width")
    if isinstance(width, Mapping):
        raise UndeclaredClassError("config.json: width", shortened(width), "a size, of one tower")
    for name, value in (("class_token", False), ("global_pool", "map")):
        if config.get(name, value) != value:
            raise UndeclaredClassError(f"config.json: {name}", shortened(config[name]), f"{value}")
    block, pool, patch = "vision.blocks.{i}", "vision.attn_pool", size(config, "patch_size", 16)
    picture = size(config, "image_size", 384)
    rows, columns = squares((picture, picture), (patch, patch))
    wide = size(config, "width", 1024)
    symbols = {
        "W": wide,
        "Y": layers(config, "layers", 24),
        "F": scaled_size(config, "mlp_ratio", 4, wide),
        "P": rows * columns,
    }
    tensors = (
        *matrix("vision.patch_embed.proj", (W, 3, patch, patch)),
        once("vision.pos_embed", (1, P, W)),
        *vector(f"{block}.norm1", W, Y),
        *matrix(f"{block}.attn.qkv", (3 * W, W), Y),
        *matrix(f"{block}.attn.proj", (W, W), Y),
        *vector(f"{block}.norm2", W, Y),
        *matrix(f"{block}.mlp.fc1", (F, W), Y),
        *matrix(f"{block}.mlp.fc2", (W, F), Y),
        *vector("vision.norm", W),
        once(f"{pool}.latent", (1, 1, W)),
        *matrix(f"{pool}.q", (W, W)),
        *matrix(f"{pool}.kv", (2 * W, W)),
        *matrix(f"{pool}.proj", (W, W)),
        *vector(f"{pool}.norm", W),
        *matrix(f"{pool}.mlp.fc1", (F, W)),
        *matrix(f"{pool}.mlp.fc2", (W, F)),
    )
    return Part(tensors, symbols)


def _projector(config: Config) -> Tensors:
    kind = choice(config, "projector_type", _PROJECTORS[0], _PROJECTORS)
    inputs, outputs = size(config, "input_dim", 1152), size(config, "n_embed", 2048)
    tensors: list[Tensor] = [once(n, (outputs,)) for n in ("image_newline", "view_seperator")]
    if flag(config, "token_pooling", False):
        tensors += matrix("projector.token_pooling_layer", (inputs, 4 * inputs))
    if kind == "linear":
        tensors += matrix("projector.layers", (outputs, inputs))
    if kind not in ("downsample_mlp_gelu", "mlp_gelu"):
        return tuple(tensors)
    inner, depth = outputs, few("depth", size(config, "depth", 2))
    if kind == "downsample_mlp_gelu":
        inputs *= size(config, "downsample_ratio", 2) ** 2
        inner *= size(config, "mlp_ratio", 1)
        depth = max(2, depth)
    for number in range(depth):
        is_last = number == depth - 1
        tensors += matrix(f"projector.layers.{2 * number}", (outputs if is_last else inner, inputs))
        inputs = inner
    return tuple(tensors)
