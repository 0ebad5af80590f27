"""Random small configs of vision transformers and of towers, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, _t5, encoder, labels

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def vision(random: Random, **more: Any) -> Config:
    """The sizes of a vision transformer; ``more`` are drawn or left out."""
    heads = random.randint(1, 3)
    patch = random.randint(1, 4)
    return {
        "hidden_size": heads * 4 * random.randint(1, 3),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "patch_size": patch,
        "image_size": patch * random.randint(1, 4),
        **_maybe(
            random,
            intermediate_size=random.randint(1, 60),
            num_channels=random.randint(1, 4),
            **more,
        ),
    }


def outputs(random: Random, count: int) -> Config:
    """The maps that a backbone gives out, by name or by number."""
    chosen = [i for i in range(count + 1) if _flag(random)] or [count]
    names = ["stem", *(f"stage{i + 1}" for i in range(count))]
    return random.choice(
        [
            {},
            {"out_features": [names[i] for i in chosen]},
            {"out_indices": [i - count - 1 for i in chosen]},
        ]
    )


def _vit(random: Random) -> Config:
    return vision(random, qkv_bias=_flag(random), pooler_output_size=5) | labels(random)


def _beit(random: Random) -> Config:
    config = labels(random) | vision(
        random,
        use_mask_token=_flag(random),
        use_absolute_position_embeddings=_flag(random),
        use_relative_position_bias=_flag(random),
        use_shared_relative_position_bias=_flag(random),
        layer_scale_init_value=random.choice([0.0, 0.1]),
        use_mean_pooling=_flag(random),
    )
    if config["num_hidden_layers"] == 3 and _flag(random):
        return config | {"add_fpn": True, "out_indices": [0, 1, 2, 3]}
    return config


def _dinov2(random: Random) -> Config:
    config = labels(random) | vision(
        random, qkv_bias=_flag(random), mlp_ratio=random.randint(1, 4), use_swiglu_ffn=_flag(random)
    )
    config.pop("intermediate_size", None)
    return config


def _dinov2_masked(random: Random) -> Config:
    return _dinov2(random) | _maybe(random, use_mask_token=_flag(random))


def _dinov2_with_registers(random: Random) -> Config:
    return _dinov2(random) | _maybe(random, num_register_tokens=random.randint(1, 5))


def _dinov3(random: Random) -> Config:
    names = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp")
    return vision(random, num_register_tokens=3, **{name: _flag(random) for name in names})


def text_tower(random: Random) -> Config:
    """The sizes of the tower over text."""
    heads = random.randint(1, 3)
    return {
        "hidden_size": heads * 4,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            intermediate_size=random.randint(1, 60),
            max_position_embeddings=random.randint(4, 20),
        ),
    }


def _clip(random: Random) -> Config:
    return {
        "text_config": text_tower(random),
        "vision_config": vision(random),
        **labels(random),
        **_maybe(random, projection_dim=7),
    }


def _siglip_vision(random: Random) -> Config:
    return vision(random, vision_use_head=_flag(random))


def _siglip(random: Random) -> Config:
    text = text_tower(random)
    text["projection_size"] = random.randint(1, 9)
    return {"text_config": text, "vision_config": _siglip_vision(random), **labels(random)}


def _siglip2_vision(random: Random) -> Config:
    config = _siglip_vision(random) | _maybe(random, num_patches=9)
    del config["image_size"]
    return config


def _siglip2(random: Random) -> Config:
    return _siglip(random) | {"vision_config": _siglip2_vision(random)}


def declare(model_type: str, start: str, classes: tuple[str, ...], draw: Draw) -> None:
    """Add a type to DRAWS."""
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


IMAGES = ("{}Model", "{}ForImageClassification")
BACKBONE = "{}Backbone"
PROJECTED = ("{}Model", "{}ModelWithProjection")
declare("beit", "Beit", (*IMAGES, BACKBONE), _beit)
declare("clip", "CLIP", IMAGES, _clip)
declare("clip_text_model", "CLIPText", PROJECTED, text_tower)
declare("clip_vision_model", "CLIPVision", PROJECTED, vision)
declare("data2vec-vision", "Data2VecVision", IMAGES, _beit)
declare("deit", "DeiT", (*IMAGES, "{}ForImageClassificationWithTeacher"), _vit)
declare("dinov2", "Dinov2", (*IMAGES, BACKBONE), _dinov2_masked)
declare("dinov2_with_registers", "Dinov2WithRegisters", (*IMAGES, BACKBONE), _dinov2_with_registers)
declare("dinov3_vit", "DINOv3ViT", (IMAGES[0], BACKBONE), _dinov3)
declare("ijepa", "IJepa", IMAGES, _vit)
declare("siglip", "Siglip", IMAGES, _siglip)
declare("siglip2", "Siglip2", IMAGES, _siglip2)
declare("siglip2_vision_model", "Siglip2Vision", IMAGES[:1], _siglip2_vision)
declare("siglip_text_model", "SiglipText", IMAGES[:1], text_tower)
declare("siglip_vision_model", "SiglipVision", IMAGES[:1], _siglip_vision)
declare("vit", "ViT", IMAGES, _vit)


def text(random: Random, **more: Any) -> Config:
    """The fields of a text_config of Llama's kin."""
    kv_heads = random.randint(1, 2)
    heads = kv_heads * random.randint(1, 3)
    return {
        "hidden_size": heads * 4,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": random.randint(1, 3),
        "vocab_size": random.randint(3, 90),
        "pad_token_id": None,
        **_maybe(random, intermediate_size=random.randint(2, 60), **more),
    }


def _joint(model: str, tower: Draw, **more: Any) -> Draw:
    """A larger model of a text and a tower; ``more`` are fields drawn or left out."""

    def draw(random: Random) -> Config:
        own = text(random)
        if model:
            own["model_type"] = model
        chosen = {name: random.choice(values) for name, values in more.items()}
        config = {"text_config": own, "vision_config": tower(random)}
        return config | _maybe(random, tie_word_embeddings=_flag(random), **chosen)

    return draw


def _pixtral(random: Random) -> Config:
    return {"model_type": "pixtral", **vision(random)}


def _internvl(random: Random) -> Config:
    config = vision(
        random,
        attention_bias=_flag(random),
        use_mask_token=_flag(random),
        use_absolute_position_embeddings=_flag(random),
        use_qk_norm=_flag(random),
        use_mean_pooling=_flag(random),
        norm_type=random.choice(["layer_norm", "rms_norm"]),
    )
    for name in ("image_size", "patch_size"):
        config[name] = [config[name]] * 2
    return config


def _video_llama_3(random: Random) -> Config:
    config = vision(random)
    del config["image_size"]
    return config


def _qwen2_vl(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "embed_dim": 4 * heads,
        "num_heads": heads,
        "depth": random.randint(1, 3),
        "hidden_size": 12,
        **_maybe(random, mlp_ratio=2, patch_size=3, spatial_merge_size=3, temporal_patch_size=1),
    }


def _qwen_vl(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_size": 4 * heads,
        "num_heads": heads,
        "depth": random.randint(1, 3),
        "out_hidden_size": 12,
        **_maybe(
            random,
            intermediate_size=random.randint(1, 50),
            patch_size=3,
            spatial_merge_size=3,
            temporal_patch_size=1,
            in_channels=2,
        ),
    }


def _qwen3_vl(random: Random) -> Config:
    return _qwen_vl(random) | _maybe(
        random, num_position_embeddings=16, deepstack_visual_indexes=[0, 2][: random.randint(0, 2)]
    )


def _glm4v(random: Random) -> Config:
    return _qwen_vl(random) | _maybe(random, image_size=15, attention_bias=_flag(random))


def _so400m(random: Random) -> Config:
    return {"model_type": "siglip_vision_model", **_siglip_vision(random)}


def _clip_vision(random: Random) -> Config:
    return {"model_type": "clip_vision_model", **vision(random)}


WHOLE = ("{}ForConditionalGeneration",)
_BIAS = {"multimodal_projector_bias": (True, False)}
_LAYERS = {"vision_feature_layer": (-1, -2, [-1, -2])}
declare("llava", "Llava", WHOLE, _joint("llama", _clip_vision, **_BIAS, **_LAYERS))
declare("llava_next", "LlavaNext", WHOLE, _joint("mistral", _clip_vision, **_BIAS))
declare("llava_next_video", "LlavaNextVideo", WHOLE, _joint("", _clip_vision, **_BIAS))
declare("llava_onevision", "LlavaOnevision", WHOLE, _joint("qwen2", _so400m, **_BIAS))
declare("vipllava", "VipLlava", WHOLE, _joint("", vision))
declare("paligemma", "PaliGemma", WHOLE, _joint("gemma", _so400m))
_COHERE = {"downsample_factor": (1, 3), "alignment_intermediate_size": (6, 8)}
declare("cohere2_vision", "Cohere2Vision", WHOLE, _joint("cohere2", _so400m, **_COHERE))
declare("internvl", "InternVL", WHOLE, _joint("qwen2", _internvl, downsample_ratio=(0.5, 0.25)))
declare(
    "mistral3", "Mistral3", WHOLE, _joint("mistral", _pixtral, spatial_merge_size=(1, 3), **_BIAS)
)
declare("lighton_ocr", "LightOnOcr", WHOLE, _joint("qwen3", _pixtral, spatial_merge_size=(1, 3)))
declare("idefics2", "Idefics2", WHOLE, _joint("mistral", vision))
declare("idefics3", "Idefics3", WHOLE, _joint("llama", vision, scale_factor=(1, 3)))
declare("smolvlm", "SmolVLM", WHOLE, _joint("llama", vision, scale_factor=(1, 3)))
_LFM = {
    "projector_bias": (True, False),
    "projector_use_layernorm": (True, False),
    "projector_hidden_size": (5,),
}
declare("lfm2_vl", "Lfm2Vl", WHOLE, _joint("lfm2", _siglip2_vision, **_LFM))
declare("deepseek_vl", "DeepseekVL", WHOLE, _joint("llama", _siglip_vision))
declare("video_llama_3", "VideoLlama3", WHOLE, _joint("qwen2", _video_llama_3))
declare("qwen2_vl", "Qwen2VL", WHOLE, _joint("", _qwen2_vl))
declare("qwen2_5_vl", "Qwen2_5_VL", WHOLE, _joint("", _qwen_vl))
declare("qwen3_vl", "Qwen3VL", WHOLE, _joint("", _qwen3_vl))
declare("glm4v", "Glm4v", WHOLE, _joint("", _glm4v))
declare("glm46v", "Glm46V", WHOLE, _joint("", _glm4v))


def _ovis2(random: Random) -> Config:
    return vision(
        random, qkv_bias=_flag(random), mlp_bias=_flag(random), hidden_stride=2, vocab_size=16
    )


def _sam(random: Random) -> Config:
    config = vision(
        random,
        output_channels=6,
        use_abs_pos=_flag(random),
        use_rel_pos=_flag(random),
        qkv_bias=_flag(random),
        window_size=3,
        global_attn_indexes=[0, 2],
        mlp_dim=random.randint(1, 40),
    )
    config.pop("intermediate_size", None)
    return config


def _exaone4_5(random: Random) -> Config:
    config = _qwen_vl(random) | {"num_heads": 2, "hidden_size": 8, "num_key_value_heads": 1}
    return config | _maybe(random, hidden_size=random.randint(8, 11))


def _glm_ocr(random: Random) -> Config:
    return _qwen_vl(random) | _maybe(random, attention_bias=_flag(random))


def _experts(random: Random) -> Config:
    return {
        "num_experts_per_tok": 1,
        **_maybe(random, moe_intermediate_size=random.randint(1, 20)),
    }


def _tied(draw: Draw) -> Draw:
    """As ``draw``, but for types whose head transformers ties whatever their field says."""
    return lambda random: draw(random) | {"tie_word_embeddings": True}


def _joint_experts(tower: Draw, experts: str) -> Draw:
    plain = _joint("", tower)

    def draw(random: Random) -> Config:
        config = plain(random)
        config["text_config"] |= {experts: random.randint(1, 4), **_experts(random)}
        return config

    return draw


def _aria(random: Random) -> Config:
    config = _joint_experts(vision, "moe_num_experts")(random)
    config["text_config"]["moe_topk"] = 1
    queries = {"4": random.randint(1, 9), "9": random.randint(1, 9)}
    return config | {"projector_patch_to_query_dict": queries}


declare("aria", "Aria", WHOLE, _aria)
declare("aya_vision", "AyaVision", WHOLE, _joint("cohere2", _so400m, downsample_factor=(1, 3)))
declare("exaone4_5", "Exaone4_5_", WHOLE, _joint("exaone4", _exaone4_5))
declare("glm4v_moe", "Glm4vMoe", WHOLE, _joint_experts(_glm4v, "n_routed_experts"))
declare("glm_ocr", "GlmOcr", WHOLE, _joint("", _glm_ocr))
declare("got_ocr2", "GotOcr2", WHOLE, _joint("qwen2", _sam))
declare("hyperclovax_vision_v2", "HyperCLOVAXVisionV2", WHOLE, _joint("hyperclovax", _qwen_vl))
declare("ovis2", "Ovis2", WHOLE, _tied(_joint("qwen2", _ovis2, hidden_size=(5, 6))))
declare("paddleocr_vl", "PaddleOCRVL", WHOLE, _tied(_joint("", vision)))
declare("qwen3_5", "Qwen3_5", WHOLE, _joint("", _qwen_vl))
declare("qwen3_5_moe", "Qwen3_5Moe", WHOLE, _joint_experts(_qwen_vl, "num_experts"))
declare("qwen3_vl_moe", "Qwen3VLMoe", WHOLE, _joint_experts(_qwen3_vl, "num_experts"))
declare("video_llava", "VideoLlava", WHOLE, _joint("", _clip_vision, **_BIAS))


def _audio(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_size": 4 * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random,
            intermediate_size=random.randint(1, 50),
            num_mel_bins=random.randint(1, 9),
            max_source_positions=9,
        ),
    }


def _whisper_audio(random: Random) -> Config:
    names = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
        "intermediate_size": "encoder_ffn_dim",
    }
    return {names.get(name, name): value for name, value in _audio(random).items()}


def _hears(model: str, tower: Draw, **more: Any) -> Draw:
    plain = _joint(model, tower)

    def draw(random: Random) -> Config:
        config = plain(random)
        config["audio_config"] = config.pop("vision_config")
        config.pop("tie_word_embeddings", None)
        config["text_config"] |= _maybe(random, tie_word_embeddings=_flag(random))
        return config | _maybe(random, **{k: random.choice(v) for k, v in more.items()})

    return draw


def _glmasr(random: Random) -> Config:
    config = _hears("llama", _audio)(random)
    config["text_config"].pop("tie_word_embeddings", None)
    audio = config["audio_config"]
    audio.pop("max_source_positions", None)
    audio["num_key_value_heads"] = random.choice([None, 1, audio["num_attention_heads"]])
    audio["intermediate_size"] = 4 * audio["hidden_size"]
    config |= _maybe(random, tie_word_embeddings=_flag(random))
    audio |= _maybe(random, head_dim=2 * random.randint(1, 4))
    if _flag(random):
        audio["hidden_size"] += 1  # no multiple of the heads
    return config


def _voxtral(random: Random) -> Config:
    config = _hears("llama", _audio)(random)
    config["audio_config"]["intermediate_size"] = 4 * config["audio_config"]["hidden_size"]
    return config


def _opt(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "model_type": "opt",
        "hidden_size": 4 * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "ffn_dim": random.randint(1, 50),
        "vocab_size": random.randint(3, 60),
        "pad_token_id": 0,
        "word_embed_proj_dim": 4 * heads,
        **_maybe(random, tie_word_embeddings=_flag(random)),
    }


def _blip2(random: Random) -> Config:
    text_config = {"model_type": "t5", **_t5(random)} if _flag(random) else _opt(random)
    tower = vision(random, qkv_bias=_flag(random))
    tower.pop("num_channels", None)
    asking = encoder(random, cross_attention_frequency=random.randint(1, 3), encoder_hidden_size=7)
    for name in ("id2label", "tie_word_embeddings"):
        asking.pop(name, None)
    config = {"text_config": text_config, "vision_config": tower, "qformer_config": asking}
    return config | _maybe(random, num_query_tokens=5)


def _blip2_reading(random: Random) -> Config:
    config = _blip2(random)
    config["qformer_config"] |= _maybe(random, use_qformer_text_input=_flag(random))
    return config


def _mllama(random: Random) -> Config:
    tower = vision(
        random,
        num_global_layers=random.randint(1, 3),
        max_num_tiles=2,
        vision_output_dim=7,
    )
    tower["attention_heads"] = tower.pop("num_attention_heads")
    tower["supported_aspect_ratios"] = [[1, 1], [1, 2], [2, 1]]
    tower["intermediate_layers_indices"] = [0]
    own = text(random) | {"pad_token_id": 0}
    own |= _maybe(random, cross_attention_layers=[0])
    return {"text_config": own, "vision_config": tower}


def _flamingo(random: Random) -> Config:
    config = _hears("qwen2", _audio, projector_bias=(True, False))(random)
    config["audio_config"]["model_type"] = "audioflamingo3_encoder"
    return config


def _blip(random: Random) -> Config:
    tower = vision(random)
    tower.pop("num_channels", None)
    config: Config = {"text_config": text_tower(random), "vision_config": tower}
    config["text_config"] |= _maybe(random, tie_word_embeddings=_flag(random))
    config |= _maybe(random, tie_word_embeddings=_flag(random))
    config["text_config"] |= _maybe(random, is_decoder=_flag(random))
    return config | _maybe(random, image_text_hidden_size=7)


def _compass(random: Random) -> Config:
    config = _joint("", _qwen3_vl)(random)
    rotary = {"rope_type": "default", "rope_theta": 10000.0}
    config["text_config"]["rope_parameters"] = {
        f"{kind}_attention": rotary for kind in ("full", "sliding")
    }
    return config


declare("audioflamingo3", "AudioFlamingo3", WHOLE, _flamingo)
declare("blip", "Blip", (*WHOLE, "{}ForQuestionAnswering", "{}ForImageTextRetrieval"), _blip)
declare("cohere_compass", "CohereCompass", WHOLE, _compass)
declare("blip-2", "Blip2", WHOLE, _blip2_reading)
declare("glmasr", "GlmAsr", WHOLE, _glmasr)
declare("glmga", "Glm46V", WHOLE, _joint("", _glm4v))
declare("instructblip", "InstructBlip", WHOLE, _blip2)
declare("instructblipvideo", "InstructBlipVideo", WHOLE, _blip2)
declare("mllama", "Mllama", WHOLE, _mllama)
declare("musicflamingo", "MusicFlamingo", WHOLE, _flamingo)
declare("pp_chart2table", "GotOcr2", WHOLE, _joint("qwen2", _sam))
declare("qwen2_audio", "Qwen2Audio", WHOLE, _hears("qwen2", _whisper_audio))
declare("voxtral", "Voxtral", WHOLE, _voxtral)
