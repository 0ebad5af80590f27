"""Language models that see: a declared text model by its text_config, a tower, and a projector between.

LLaVA and its kin, PaliGemma, InternVL, Mistral 3, Idefics, Qwen-VL, GLM-V and others. Pictures are used
once, not once a token. Names, shapes and defaults: huggingface/transformers `models/TYPE`; its version 5
writes CLIP's and SigLIP's towers without `vision_model.`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from reprlib import repr as shortened
from typing import Any

from minilm.architectures import layout_of
from minilm.architectures.building_blocks import d
from minilm.architectures.config_fields import flag, layers, number, size, sub_config
from minilm.architectures.decoder import BLOCK
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.moe import LayerGroup, stacked_experts
from minilm.architectures.task_heads import (
    WITH_ENCODERS,
    UndeclaredClassError,
    class_name_of,
    undeclared_class,
)
from minilm.architectures.towers import TOWERS, Part, gain, projector, tower, without_bias
from minilm.architectures.vision_tower import W, matrix, once, vector
from minilm.errors import ConfigError
from minilm.ledger.layout import Layout, Tensor
from minilm.ledger.symbols import as_polynomial

Config = Mapping[str, Any]
Tensors = tuple[Tensor, ...]

_VIT_L = {  # of LLaVA where config.json has no vision_config
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
}
_SO400M = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


@dataclass(frozen=True)
class Model:
    """``text`` is the type of a text_config that says none, ``texts`` types that are others by another name.

    ``text_defaults`` are the fields that it then has, with which text_config there is; ``bare_text`` those
    of a config without one. The text's names are ``inside`` a prefix, head and all, or ``below`` one in
    the place of `model.`. ``vision`` is the tower's type and ``bare_vision`` its fields where config.json
    has no vision_config.
    """

    text: str
    vision: str
    projector: Callable[[Config, Config, str], Tensors]
    inside: str = ""
    below: str = "model."
    tower: str = "model.vision_tower"
    between: str = "model.multi_modal_projector"
    tied: bool = True
    texts: Mapping[str, str] = field(default_factory=dict)
    text_defaults: Mapping[str, Any] = field(default_factory=dict)
    bare_text: Mapping[str, Any] = field(default_factory=dict)
    bare_vision: Mapping[str, Any] = field(default_factory=dict)
    changes: Callable[[Layout, Config], Layout] | None = None  # of the text, under its own names
    second_tower: str = ""  # like the first
    head: str = ""  # in front of the head's name
    own_ties: bool = False  # as text_config alone says
    with_encoder: tuple[str, ...] = ()  # types of text with an encoder that it may have


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration for a config.json."""
    name, family = class_name_of(config), config["model_type"]
    if name and not name.endswith(WITH_ENCODERS):
        raise undeclared_class(config)
    model = _MODELS[family]
    text = text_layout(config, model)
    vision = _vision_config(config, model)
    kind = str(vision.get("model_type") or model.vision)
    if kind not in TOWERS:
        expected = f"one of {', '.join(TOWERS)}"
        raise UndeclaredClassError("config.json: vision_config", shortened(kind), expected)
    part = tower(vision, _tower_name(config, model, kind), model.vision)
    if model.second_tower:
        second = tower(vision, model.second_tower, model.vision)
        part = part._replace(tensors=(*part.tensors, *second.tensors))
    between = projector(model.projector(config, vision, model.between))
    return joined(text, family, part, Part(between, {}))


def joined(text: Layout, family: str, *parts: Part) -> Layout:
    """The text's layout with what is beside it."""
    return replace(
        text,
        family=family,
        tensors=(*text.tensors, *(tensor for part in parts for tensor in part.tensors)),
        buffers=(*text.buffers, *(tensor for part in parts for tensor in part.buffers)),
        symbols={**text.symbols, **{k: v for part in parts for k, v in part.symbols.items()}},
    )


def text_layout(config: Config, model: Model) -> Layout:
    """The language model, under the names that it has in the larger one."""
    given = config.get("text_config")
    fields = dict(sub_config(config, "text_config"))
    if given is None:
        # Earlier configs have the text's fields beside the vision_config.
        fields = {**model.bare_text, **config, "model_type": model.text}
    kind = fields.get("model_type") or model.text
    kind = model.texts.get(str(kind), kind)
    entry = MODEL_TYPES.get(str(kind))
    is_whole = entry is not None and entry.by_class and not entry.whole
    if entry is None or (is_whole and kind not in model.with_encoder):
        raise UndeclaredClassError("config.json: text_config", shortened(kind), "a declared type")
    fields = {**model.text_defaults, **fields, "model_type": kind}
    fields["architectures"] = None
    if not model.own_ties:
        fields["tie_word_embeddings"] = is_tied(config, model)
    text = layout_of(fields)
    if model.changes:
        text = model.changes(text, config)

    def moved(name: str) -> str:
        if model.inside:
            return model.inside + name
        is_body = name.startswith("model.")
        return name.replace("model.", model.below, 1) if is_body else model.head + name

    def renamed(tensors: Tensors) -> Tensors:
        return tuple(replace(tensor, name=moved(tensor.name)) for tensor in tensors)

    return replace(
        text,
        tensors=renamed(text.tensors),
        buffers=renamed(text.buffers),
        mtp=renamed(text.mtp),
        ignored=tuple(map(moved, text.ignored)),
        ties=tuple((_head_name(head, model), moved(table)) for head, table in text.ties),
        optional_prefix="",
    )


def _head_name(name: str, model: Model) -> str:
    return model.inside + name if model.inside else model.head + name


def is_tied(config: Config, model: Model) -> bool:
    """As the whole config says; before transformers 5, as its text_config does."""
    text = sub_config(config, "text_config")
    if config.get("tie_word_embeddings") is None and _is_version_4(config):
        return flag(text, "tie_word_embeddings", model.tied)
    return flag(config, "tie_word_embeddings", model.tied)


def _is_version_4(config: Config) -> bool:
    return str(config.get("transformers_version")).startswith("4.")


def _vision_config(config: Config, model: Model) -> Config:
    if config.get("vision_config") is None:
        return model.bare_vision
    return sub_config(config, "vision_config")


def _tower_name(config: Config, model: Model, kind: str) -> str:
    """Before transformers 5 CLIP's and SigLIP's towers were inside `vision_model`."""
    if _is_version_4(config) and kind in ("clip_vision_model", "siglip_vision_model"):
        return f"{model.tower}.vision_model"
    return model.tower


def _feature_layers(config: Config) -> int:
    """How many of the tower's layers the projector reads."""
    chosen = config.get("vision_feature_layer", -2)
    return len(chosen) if isinstance(chosen, (list, tuple)) and chosen else 1


def _two_maps(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    tensors = (
        *matrix(f"{name}.linear_1", (d, _feature_layers(config) * W)),
        *matrix(f"{name}.linear_2", (d, d)),
    )
    bias = flag(config, "multimodal_projector_bias", True)
    return tuple(t for t in tensors if bias or not t.name.endswith(".bias"))


def _with_newline(config: Config, vision: Config, name: str) -> Tensors:
    return (once("image_newline", (d,)), *_two_maps(config, vision, name))


def _vipllava(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    chosen = config.get("vision_feature_layer", [-2, -5, -8, -11, 6])
    many = len(chosen) if isinstance(chosen, (list, tuple)) else 1
    return (
        *vector(f"{name}.projector_layernorm", many * W),
        *matrix(f"{name}.linear_1", (d, many * W)),
        *matrix(f"{name}.linear_2", (d, d)),
    )


def _paligemma(config: Config, vision: Config, name: str) -> Tensors:
    width = size(vision, "projection_dim", size(config, "projection_dim", 2048))
    return matrix(f"{name}.linear", (width, W))


def _cohere2_vision(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    inner = size(config, "alignment_intermediate_size", 36864)
    merged = size(config, "downsample_factor", 2) ** 2 * W
    return (
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner // 2)),
    )


def _internvl(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    ratio = number(config, "downsample_ratio", 0.5)
    if not 0.01 <= ratio <= 1:
        raise ConfigError("config.json: downsample_ratio", f"{ratio}", "from 0.01 to 1")
    merged = int(1 / ratio) ** 2 * W
    return (
        *vector(f"{name}.layer_norm", merged),
        *matrix(f"{name}.linear_1", (d, merged)),
        *matrix(f"{name}.linear_2", (d, d)),
    )


def _mistral3(config: Config, vision: Config, name: str) -> Tensors:
    merged = size(config, "spatial_merge_size", 2) ** 2 * W
    fields = {"multimodal_projector_bias": False, **config}
    fields.setdefault("vision_feature_layer", -1)
    return (
        gain(f"{name}.norm", W),
        without_bias(f"{name}.patch_merger.merging_layer", W, merged),
        *_two_maps(fields, vision, name),
    )


def _idefics3(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "scale_factor", 2) ** 2 * W
    return (without_bias(f"{name}.modality_projection.proj", d, merged),)


def _lfm2_vl(config: Config, vision: Config, name: str) -> Tensors:
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


def _deepseek_vl(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision
    return (*matrix(f"{name}.linear1", (d, W)), *matrix(f"{name}.linear2", (d, d)))


def _video_llama_3(config: Config, vision: Config, name: str) -> Tensors:
    del config, vision
    return (*matrix(f"{name}.readout.0", (d, W)), *matrix(f"{name}.readout.2", (d, d)))


def _none(config: Config, vision: Config, name: str) -> Tensors:
    """Where the tower has its merger inside."""
    del config, vision, name
    return ()


def _idefics2(config: Config, vision: Config, name: str) -> Tensors:
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


def _aya_vision(config: Config, vision: Config, name: str) -> Tensors:
    del vision
    merged = size(config, "downsample_factor", 2) ** 2 * W
    text = size(sub_config(config, "text_config"), "hidden_size", 8192)
    inner = size(config, "alignment_intermediate_size", text)
    return (
        *vector(f"{name}.layernorm", merged),
        *matrix(f"{name}.linear_1", (inner, merged)),
        *matrix(f"{name}.linear_2", (d, inner // 2)),
    )


def _ovis2(config: Config, vision: Config, name: str) -> Tensors:
    if not flag(config, "tie_word_embeddings", True):
        raise UndeclaredClassError("config.json: tie_word_embeddings", "false", "true")
    width = size(config, "hidden_size", 1536)
    return (without_bias(name, size(vision, "vocab_size", 16384), width),)


def _got_ocr2(config: Config, vision: Config, name: str) -> Tensors:
    del config
    channels = size(vision, "output_channels", 256)
    return (
        without_bias(f"{name}.conv_upsampler1", 2 * channels, channels, 3, 3),
        without_bias(f"{name}.conv_upsampler2", d, 2 * channels, 3, 3),
        *matrix(f"{name}.multimodal_projector", (d, d)),
    )


def _paddleocr(config: Config, vision: Config, name: str) -> Tensors:
    del config
    merged = size(vision, "spatial_merge_size", 2) ** 2 * W
    return (
        *vector(f"{name}.pre_norm", W),
        *matrix(f"{name}.linear_1", (merged, merged)),
        *matrix(f"{name}.linear_2", (d, merged)),
    )


def _one_map(config: Config, vision: Config, name: str) -> Tensors:
    del config
    return matrix(name, (d, size(vision, "out_hidden_size", 3584)))


def _aria(config: Config, vision: Config, name: str) -> Tensors:
    """Queries, one list for each number of patches, attend to the picture's."""
    del vision
    numbers = config.get("projector_patch_to_query_dict")
    counts = numbers.values() if isinstance(numbers, Mapping) and numbers else (128, 256)
    rows = max(
        size({"projector_patch_to_query_dict": n}, "projector_patch_to_query_dict") for n in counts
    )
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


def _stacked(text: Layout, config: Config) -> Layout:
    """The experts of all in one tensor; (in, out) in files from before transformers 5."""
    groups = {t.repeat: t.layers for t in text.tensors if "{e}" in t.name}
    kept = tuple(t for t in text.tensors if "{e}" not in t.name)
    name, turned = f"{BLOCK}.mlp.experts.", _is_version_4(config)
    both = (f"{name}gate_up_proj", f"{name}down_proj")
    stacked = (
        tensor
        for repeat, at in groups.items()
        for tensor in stacked_experts(*both, LayerGroup(repeat, at), transposed=turned)
    )
    return replace(text, tensors=(*kept, *stacked))


_FIRST_NAMES: dict[str, Any] = {  # as LLaVA's first files have them
    "inside": "language_model.",
    "tower": "vision_tower",
    "between": "multi_modal_projector",
}
_LLAVA = Model(
    "llama", "clip_vision_model", _two_maps, tied=False, bare_vision=_VIT_L, **_FIRST_NAMES
)
_IDEFICS3 = Model(
    "llama",
    "idefics3_vision",
    _idefics3,
    below="model.text_model.",
    tower="model.vision_model",
    between="model.connector",
    tied=False,
)
_QWEN2_VL_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
_QWEN2_VL = Model(
    "qwen2_vl_text",
    "qwen2_vl_vision",
    _none,
    tower="visual",
    tied=False,
    texts={"qwen2_vl_text": "qwen2", "qwen2_vl": "qwen2"},
    text_defaults=_QWEN2_VL_TEXT,
)
_QWEN3_VL = Model(
    "qwen3_vl_text",
    "qwen3_vl_vision",
    _none,
    below="model.language_model.",
    tower="model.visual",
    tied=False,
    texts={"qwen3_vl_text": "qwen3", "qwen3_vl": "qwen3"},
    text_defaults={"num_key_value_heads": 32, "max_position_embeddings": 128000},
)
_GLM4V = replace(
    _QWEN3_VL,
    text="glm4v_text",
    vision="glm4v_vision",
    texts={"glm4v_text": "glm4", "glm4v": "glm4"},
    text_defaults={
        "head_dim": None,
        "max_position_embeddings": 32768,
        "attention_bias": True,
    },
)
_BELOW = "model.language_model."
_GLM_OCR_TEXT = {
    "vocab_size": 59392,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": None,
    "attention_bias": False,
    "max_position_embeddings": 131072,
}
_GOT_OCR2 = Model(
    "qwen2",
    "got_ocr2_vision",
    _got_ocr2,
    bare_text={
        "vocab_size": 151860,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    **_FIRST_NAMES,
)
_MODELS = {
    "aria": replace(
        _LLAVA, text="aria_text", vision="idefics3_vision", projector=_aria, bare_vision={}
    ),
    "aya_vision": Model(
        "cohere2",
        "siglip_vision_model",
        _aya_vision,
        bare_vision=_SO400M,
        **_FIRST_NAMES,
    ),
    "exaone4_5": replace(
        _QWEN3_VL, text="exaone4", vision="exaone4_5_vision", texts={}, text_defaults={}
    ),
    "glm4v_moe": replace(
        _GLM4V,
        text="glm4v_moe_text",
        vision="glm4v_moe_vision",
        texts={"glm4v_moe_text": "glm4_moe", "glm4v_moe": "glm4_moe"},
        text_defaults={
            "attention_bias": True,
            "head_dim": None,
            "vocab_size": 151424,
            "max_position_embeddings": 65536,
        },
    ),
    "glm_ocr": replace(
        _GLM4V,
        text="glm_ocr_text",
        vision="glm_ocr_vision",
        texts={"glm_ocr_text": "glm4"},
        text_defaults=_GLM_OCR_TEXT,
    ),
    "got_ocr2": _GOT_OCR2,
    "pp_chart2table": replace(_GOT_OCR2, vision="pp_chart2table_vision"),
    "hyperclovax_vision_v2": Model(
        "hyperclovax",
        "qwen2_5_vl_vision",
        _one_map,
        below=_BELOW,
        tower="model.vision_model",
        between="model.vision_projector",
        head=_BELOW,
    ),
    "ovis2": Model(
        "qwen2", "ovis2_vision", _ovis2, below=_BELOW, between="model.visual_embeddings_table"
    ),
    "paddleocr_vl": Model(
        "paddleocr_vl_text",
        "paddleocr_vl_vision",
        _paddleocr,
        tower="visual.vision_model",
        between="mlp_AR",
        texts={"paddleocr_vl_text": "ernie4_5", "paddleocr_vl": "ernie4_5"},
        text_defaults={
            "vocab_size": 103424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
        },
    ),
    "qwen3_5": replace(
        _QWEN3_VL, text="qwen3_5_text", vision="qwen3_5_vision", texts={}, text_defaults={}
    ),
    "qwen3_5_moe": replace(
        _QWEN3_VL, text="qwen3_5_moe_text", vision="qwen3_5_moe_vision", texts={}, text_defaults={}
    ),
    "qwen3_vl_moe": replace(
        _QWEN3_VL,
        text="qwen3_vl_moe_text",
        vision="qwen3_vl_moe_vision",
        texts={"qwen3_vl_moe_text": "qwen3_moe", "qwen3_vl_moe": "qwen3_moe"},
        text_defaults={
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "head_dim": None,
            "max_position_embeddings": 128000,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 4,
            "num_experts": 60,
        },
        changes=_stacked,
    ),
    "video_llava": replace(
        _LLAVA,
        tower="image_tower",
        second_tower="video_tower",
        bare_vision={**_VIT_L, "image_size": 224},
    ),
    "cohere2_vision": Model(
        "cohere2",
        "siglip_vision_model",
        _cohere2_vision,
        below=_BELOW,
        bare_vision={"hidden_size": 1152, "image_size": 512, "num_hidden_layers": 27},
    ),
    "deepseek_vl": Model(
        "llama",
        "siglip_vision_model",
        _deepseek_vl,
        below=_BELOW,
        tower="model.vision_model",
        between="model.aligner",
    ),
    "glm46v": _GLM4V,
    "glmga": _GLM4V,
    "glm4v": _GLM4V,
    "idefics2": replace(_IDEFICS3, text="mistral", vision="idefics2_vision", projector=_idefics2),
    "idefics3": _IDEFICS3,
    "internvl": Model("qwen2", "internvl_vision", _internvl, **_FIRST_NAMES),
    "lfm2_vl": Model("lfm2", "siglip2_vision_model", _lfm2_vl, below=_BELOW),
    "lighton_ocr": Model(
        "qwen3",
        "pixtral",
        _mistral3,
        below=_BELOW,
        tower="model.vision_encoder",
        between="model.vision_projection",
        bare_text={
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "max_position_embeddings": 40960,
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
        },
        bare_vision={"patch_size": 14},
    ),
    "llava": _LLAVA,
    "llava_next": replace(_LLAVA, projector=_with_newline),
    "llava_next_video": replace(_LLAVA, projector=_with_newline),
    "llava_onevision": replace(
        _LLAVA,
        text="qwen2",
        vision="siglip_vision_model",
        projector=_with_newline,
        bare_vision=_SO400M,
    ),
    "mistral3": Model(
        "mistral",
        "pixtral",
        _mistral3,
        bare_text={
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "max_position_embeddings": 131072,
            "num_hidden_layers": 40,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        bare_vision={"patch_size": 14},
        **_FIRST_NAMES,
    ),
    "paligemma": Model(
        "gemma",
        "siglip_vision_model",
        _paligemma,
        bare_text={
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_attention_heads": 8,
            "num_hidden_layers": 18,
            "num_key_value_heads": 1,
            "vocab_size": 257152,
        },
        bare_vision={
            "hidden_size": 1152,
            "intermediate_size": 4096,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "projection_dim": 2048,
            "vision_use_head": False,
        },
        **_FIRST_NAMES,
    ),
    "qwen2_5_vl": replace(
        _QWEN2_VL,
        text="qwen2_5_vl_text",
        vision="qwen2_5_vl_vision",
        texts={"qwen2_5_vl_text": "qwen2", "qwen2_5_vl": "qwen2"},
    ),
    "qwen2_vl": _QWEN2_VL,
    "qwen3_vl": _QWEN3_VL,
    "smolvlm": replace(_IDEFICS3, vision="smolvlm_vision"),
    "video_llama_3": Model(
        "qwen2",
        "video_llama_3_vision",
        _video_llama_3,
        below=_BELOW,
        tower="model.vision_model",
        between="model.projector",
        tied=False,
    ),
    "vipllava": replace(_LLAVA, projector=_vipllava),
}
