"""What stands between a tower over pictures and the text: one function a family, by its config.

Each takes the whole config, the tower's, and the name of the part. Names, shapes and defaults:
huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from reprlib import repr as shortened

from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import (
    Config,
    few,
    flag,
    layers,
    number,
    size,
    sizes,
    sub_config,
    whole_number,
)
from minilm.architectures.page_towers import channels
from minilm.architectures.task_heads import UndeclaredClassError
from minilm.architectures.vision_tower import W, gain, matrix, once, vector, without_bias
from minilm.errors import ConfigError
from minilm.ledger.layout import Tensors
from minilm.ledger.symbols import Polynomial, as_polynomial


def feature_layers(config: Config, default: int | tuple[int, ...] = -2) -> int:
    """How many of the tower's layers the projector reads: one, or those of a list."""
    name = "vision_feature_layer"
    chosen = default if config.get(name) is None else config[name]
    chosen = chosen if isinstance(chosen, (list, tuple)) else [chosen]
    if not chosen or any(type(each) is not int for each in chosen):
        raise ConfigError(f"config.json: {name}", shortened(chosen), "a layer or a list of layers")
    return len(chosen)


def two_maps(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    tensors = (
        *matrix(f"{name}.linear_1", (d, feature_layers(config) * W)),
        *matrix(f"{name}.linear_2", (d, d)),
    )
    bias = flag(config, "multimodal_projector_bias", True)
    return tuple(t for t in tensors if bias or not t.name.endswith(".bias"))


def with_newline(config: Config, vision: Config, name: str) -> Tensors:
    return (once("image_newline", (d,)), *two_maps(config, vision, name))


def vipllava(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    many = feature_layers(config, (-2, -5, -8, -11, 6))
    return (
        *vector(f"{name}.projector_layernorm", many * W),
        *matrix(f"{name}.linear_1", (d, many * W)),
        *matrix(f"{name}.linear_2", (d, d)),
    )


def paligemma(config: Config, vision: Config, name: str) -> Tensors:
    del vision  # its projection_dim is the whole's
    width = size(config, "projection_dim", 2048)
    return matrix(f"{name}.linear", (width, W))


def cohere2_vision(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    inner = size(config, "alignment_intermediate_size", 36864)
    merged = size(config, "downsample_factor", 2) ** 2 * W
    return (
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner // 2)),
    )


def pixels_merged(config: Config, width: Polynomial = W) -> Polynomial:
    """The width of the squares that InternVL puts together, so many of a side."""
    ratio = number(config, "downsample_ratio", 0.5)
    if not 0.01 <= ratio <= 1:
        raise ConfigError("config.json: downsample_ratio", f"{ratio}", "from 0.01 to 1")
    return int(1 / ratio) ** 2 * width


def internvl(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = pixels_merged(config)
    return (
        *vector(f"{name}.layer_norm", merged),
        *matrix(f"{name}.linear_1", (d, merged)),
        *matrix(f"{name}.linear_2", (d, d)),
    )


def mistral3(config: Config, vision: Config, name: str) -> Tensors:
    merged = size(config, "spatial_merge_size", 2) ** 2 * W
    fields = {"multimodal_projector_bias": False, **config}
    fields.setdefault("vision_feature_layer", -1)
    return (
        gain(f"{name}.norm", W),
        without_bias(f"{name}.patch_merger.merging_layer", W, merged),
        *two_maps(fields, vision, name),
    )


def idefics3(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "scale_factor", 2) ** 2 * W
    return (without_bias(f"{name}.modality_projection.proj", d, merged),)


def lfm2_vl(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "downsample_factor", 2) ** 2 * W
    inner = as_polynomial(size(config, "projector_hidden_size", 2560))
    maps = (
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner)),
    )
    bias = flag(config, "projector_bias", True)
    norms = vector(f"{name}.layer_norm", merged)
    return (
        *(norms if flag(config, "projector_use_layernorm", True) else ()),
        *(t for t in maps if bias or not t.name.endswith(".bias")),
    )


def deepseek_vl(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision
    return (*matrix(f"{name}.linear1", (d, W)), *matrix(f"{name}.linear2", (d, d)))


def deepseek_vl_hybrid(config: Config, vision: Config, name: str) -> Tensors:
    """Half of the width from each of two towers; what SAM puts out passes two more convolutions."""
    del vision
    high = sub_config(config, "high_res_vision_config")
    channels, width = size(high, "output_channels", 256), size(high, "hidden_size", 768)
    half = size(sub_config(config, "text_config"), "hidden_size", 4096) // 2
    neck = "model.high_res_vision_neck"
    return (
        once("model.high_res_vision_alpha", (1,)),
        without_bias(f"{neck}.conv1", channels, width, 1, 1),
        *vector(f"{neck}.layer_norm1", channels),
        without_bias(f"{neck}.conv2", channels, channels, 3, 3),
        *vector(f"{neck}.layer_norm2", channels),
        without_bias("model.high_res_vision_proj.conv1", 2 * channels, channels, 3, 3),
        without_bias("model.high_res_vision_proj.conv2", 4 * channels, 2 * channels, 3, 3),
        *matrix(f"{name}.vision_proj", (half, W)),
        *matrix(f"{name}.high_res_vision_proj", (half, 4 * channels)),
        *matrix(f"{name}.proj", (d, d)),
    )


def deepseek_ocr2(config: Config, vision: Config, name: str) -> Tensors:
    del config
    width = size(sub_config(vision, "encoder_config"), "hidden_size", 4096)
    return (*matrix(f"{name}.projector.layers", (d, width)), once(f"{name}.view_seperator", (d,)))


def unlimited_ocr(config: Config, vision: Config, name: str) -> Tensors:
    del config
    last = channels(vision, 1024)[-1]
    return (
        *matrix(f"{name}.projector.layers", (d, W + last)),
        once(f"{name}.view_seperator", (d,)),
        once(f"{name}.image_newline", (d,)),
    )


def florence2(config: Config, vision: Config, name: str) -> Tensors:
    """With learned positions of rows and columns, which are half of the width each."""
    del config
    outputs = sizes(vision, "embed_dim", (128, 256, 512, 1024))[-1]
    width, rows = size(vision, "projection_dim", 1024), size(vision, "max_position_embeddings", 50)
    table = f"{name}.image_position_embed"
    return (
        without_bias(f"{name}.image_projection", width, outputs),
        *vector(f"{name}.image_proj_norm", width),
        without_bias(f"{table}.row_embeddings", rows, outputs // 2),
        without_bias(f"{table}.column_embeddings", rows, outputs - outputs // 2),
    )


def pixel_shuffled(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "pixel_shuffle_factor", 4) ** 2 * W
    return (without_bias(f"{name}.modality_projection", d, merged),)


def ultravbert(config: Config, vision: Config, name: str) -> Tensors:
    return (*pixel_shuffled(config, vision, name), gain(f"{name}.norm", d))


def janus(config: Config, vision: Config, name: str) -> Tensors:
    del config
    return perceptron(vision, name, W, layers(vision, "depth", 2))


def perceptron(config: Config, name: str, inputs: Polynomial | int, depth: int) -> Tensors:
    """Maps of one width behind each other."""
    width = size(config, "projection_dim", 2048)
    return (
        *matrix(f"{name}.fc1", (width, inputs)),
        *(
            t
            for number in range(depth - 1)
            for t in matrix(f"{name}.hidden_layers.{number}", (width, width))
        ),
    )


def lfm3_vl(config: Config, vision: Config, name: str) -> Tensors:
    merged = size(vision, "spatial_merge_size", 2) ** 2 * W
    inner = as_polynomial(size(config, "projector_hidden_size", 4096))
    maps = (
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner)),
    )
    bias = flag(config, "projector_bias", True)
    return (
        *vector(f"{name}.layer_norm", W),
        *(t for t in maps if bias or not t.name.endswith(".bias")),
    )


def minicpm(config: Config, vision: Config, name: str) -> Tensors:
    """Four patches become one as often as the config says."""
    del vision
    times = few("merger_times", size(config, "merger_times", 1))
    outputs = [*[W] * (times - 1), d]
    return tuple(
        t
        for number, width in enumerate(outputs)
        for t in (
            *vector(f"{name}.mlp.{number}.pre_norm", 4 * W),
            *matrix(f"{name}.mlp.{number}.linear_1", (4 * W, 4 * W)),
            *matrix(f"{name}.mlp.{number}.linear_2", (width, 4 * W)),
        )
    )


def granite_docling(config: Config, vision: Config, name: str) -> Tensors:
    """What chooses between the two paths of the tower's connector, if anything does."""
    del vision
    if config.get("density_router_hidden_size") is None:
        return ()
    inner = size(config, "density_router_hidden_size")
    return (
        *matrix(f"{name}.att", (1, W)),
        *vector(f"{name}.norm", W),
        *matrix(f"{name}.fc1", (inner, W)),
        *matrix(f"{name}.fc2", (1, inner)),
    )


def minimax_m3(config: Config, vision: Config, name: str) -> Tensors:
    merged = size(vision, "spatial_merge_size", 2) ** 2 * d
    inner = as_polynomial(size(config, "projector_hidden_size", 6144))
    return (
        *matrix(f"{name}.linear_1", (inner, W)),
        *matrix(f"{name}.linear_2", (d, inner)),
        *matrix("patch_merge_mlp.linear_1", (inner, merged)),
        *matrix("patch_merge_mlp.linear_2", (d, inner)),
    )


def nemotron(config: Config, vision: Config, name: str) -> Tensors:
    """With a norm of the tower's outputs where the text predicts several tokens."""
    del vision
    if config.get("audio_config") is not None:
        raise UndeclaredClassError("config.json: audio_config", "an object", "null: no sounds")
    last = size(config, "vision_hidden_size", 1280)
    merged = pixels_merged(config, as_polynomial(last))
    inner = size(config, "projector_hidden_size", 4096)
    predicts = whole_number(sub_config(config, "text_config"), "num_nextn_predict_layers", 0)
    return (
        gain(f"{name}.0", merged),
        without_bias(f"{name}.1", inner, merged),
        without_bias(f"{name}.3", d, inner),
        *(vector("vision_final_layernorm", last) if predicts else ()),
    )


def video_llama_3(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision
    return (*matrix(f"{name}.readout.0", (d, W)), *matrix(f"{name}.readout.2", (d, d)))


def no_projector(config: Config, vision: Config, name: str) -> Tensors:
    """Where the tower has its merger inside."""
    del config, vision, name
    return ()


def idefics2(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    fields = sub_config(config, "perceiver_config")
    depth = layers(fields, "resampler_depth", 3)
    heads, width = size(fields, "resampler_n_heads", 16), size(fields, "resampler_head_dim", 96)
    keys = size(fields, "num_key_value_heads", 4) * width
    inner = as_polynomial(size(sub_config(config, "text_config"), "intermediate_size", 14336))
    sampler = f"{name}.perceiver_resampler"
    tensors = [
        without_bias(f"{name}.modality_projection.gate_proj", inner, W),
        without_bias(f"{name}.modality_projection.up_proj", inner, W),
        without_bias(f"{name}.modality_projection.down_proj", d, inner),
        once(f"{sampler}.latents", (size(fields, "resampler_n_latents", 64), d)),
        gain(f"{sampler}.norm", d),
    ]
    for i in range(depth):
        block = f"{sampler}.layers.{i}"
        norms = ("input_latents_norm", "input_context_norm", "post_attention_layernorm")
        tensors += [gain(f"{block}.{each}", d) for each in norms]
        tensors += [
            without_bias(f"{block}.self_attn.q_proj", heads * width, d),
            without_bias(f"{block}.self_attn.k_proj", keys, d),
            without_bias(f"{block}.self_attn.v_proj", keys, d),
            without_bias(f"{block}.self_attn.o_proj", d, heads * width),
            without_bias(f"{block}.mlp.gate_proj", 4 * d, d),
            without_bias(f"{block}.mlp.up_proj", 4 * d, d),
            without_bias(f"{block}.mlp.down_proj", d, 4 * d),
        ]
    return tuple(tensors)


def aya_vision(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "downsample_factor", 2) ** 2 * W
    text = size(sub_config(config, "text_config"), "hidden_size", 8192)
    inner = size(config, "alignment_intermediate_size", text)
    return (
        *vector(f"{name}.layernorm", merged),
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner // 2)),
    )


def ovis2(config: Config, vision: Config, name: str) -> Tensors:
    if not flag(config, "tie_word_embeddings", True):
        raise UndeclaredClassError("config.json: tie_word_embeddings", "false", "true")
    width = size(config, "hidden_size", 1536)
    return (without_bias(name, size(vision, "vocab_size", 16384), width),)


def got_ocr2(config: Config, vision: Config, name: str) -> Tensors:
    del config
    channels = size(vision, "output_channels", 256)
    return (
        without_bias(f"{name}.conv_upsampler1", 2 * channels, channels, 3, 3),
        without_bias(f"{name}.conv_upsampler2", d, 2 * channels, 3, 3),
        *matrix(f"{name}.multimodal_projector", (d, d)),
    )


def paddleocr(config: Config, vision: Config, name: str) -> Tensors:
    del config
    merged = size(vision, "spatial_merge_size", 2) ** 2 * W
    return (
        *vector(f"{name}.pre_norm", W),
        *matrix(f"{name}.linear_1", (merged, merged)),
        *matrix(f"{name}.linear_2", (d, merged)),
    )


def one_map(config: Config, vision: Config, name: str) -> Tensors:
    del config
    return matrix(name, (d, size(vision, "out_hidden_size", 3584)))


def aria(config: Config, vision: Config, name: str) -> Tensors:
    """Queries, one list for each number of patches, attend to the picture's."""
    del vision
    field = "projector_patch_to_query_dict"
    counts = [*sub_config(config, field, bare={"1": 128, "2": 256}).values()]
    rows = max(sizes({field: counts}, field, ()))
    cross, text = f"{name}.cross_attn", sub_config(config, "text_config")
    inner = size(text, "hidden_size", 4096)
    forward = f"{name}.feed_forward"
    return (
        once(f"{name}.query", (rows, W)),
        *(without_bias(f"{cross}.{n}_proj", W, W) for n in "qkv"),
        once(f"{cross}.multihead_attn.in_proj_weight", (3 * W, W)),
        once(f"{cross}.multihead_attn.in_proj_bias", (3 * W,)),
        *matrix(f"{cross}.multihead_attn.out_proj", (W, W)),
        *matrix(f"{cross}.linear", (W, W)),
        *vector(f"{cross}.layer_norm", W),
        *vector(f"{cross}.layer_norm_kv", W),
        *vector(f"{name}.layer_norm", W),
        without_bias(f"{forward}.linear_in", inner, W),
        without_bias(f"{forward}.linear_out", d, inner),
    )
