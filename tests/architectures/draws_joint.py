"""Random small configs of further models that see or hear, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import DRAWS as TEXT_DRAWS
from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import (
    Config,
    Draw,
    _modernbert,
    _seq2seq,
    _ultrabert,
)
from tests.architectures.draws_recurrent import DRAWS as RECURRENT_DRAWS
from tests.architectures.draws_vision import (
    WHOLE,
    _audio,
    _experts,
    _hears,
    _joint,
    _qwen3_vl,
    _qwen_vl,
    _sam,
    _siglip_vision,
    _whisper_audio,
    text,
    vision,
)

MASKED = ("{}ForMaskedLM",)
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def declare(model_type: str, start: str, draw: Draw, classes: tuple[str, ...] = WHOLE) -> None:
    """Add a type to DRAWS."""
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


def _in_text(draw: Draw, **more: tuple[Any, ...]) -> Draw:
    """As ``draw``, with further fields of the text_config drawn or left out."""

    def with_more(random: Random) -> Config:
        config = draw(random)
        chosen = {name: random.choice(values) for name, values in more.items()}
        config["text_config"] |= _maybe(random, **chosen)
        return config

    return with_more


def _deepseek_vl_hybrid(random: Random) -> Config:
    config = _joint("llama", _siglip_vision)(random)
    return config | {"high_res_vision_config": _sam(random)}


def _granite_docling(random: Random) -> Config:
    scale = 2 * random.randint(1, 2)
    config = _joint("", vision)(random)
    tower = config["vision_config"]
    tower["image_size"] = tower["patch_size"] * scale * random.randint(1, 3)
    tower |= {"scale_factor": scale, "out_hidden_size": config["text_config"]["hidden_size"]}
    tower |= _maybe(random, deepstack_visual_indexes=[0, 1][: random.randint(0, 2)])
    if _flag(random):
        return config | _maybe(random, density_router_hidden_size=random.randint(1, 9))
    return config | {"vision_config": tower | {"use_fine_route": _flag(random)}}


def _lfm3_vision(random: Random) -> Config:
    config = vision(random, conv_kernel_size=5, temporal_patch_size=1, spatial_merge_size=3)
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = random.choice([1, heads])
    del config["image_size"]
    if "num_channels" in config:
        config["in_channels"] = config.pop("num_channels")
    kinds = ("conv", "full_attention")
    listed = [random.choice(kinds) for _ in range(config["num_hidden_layers"])]
    return config | _maybe(random, layer_types=listed)


def _minicpm_vision(random: Random) -> Config:
    side = random.randint(1, 3)
    return vision(random, window_kernel_size=[side, side])


def _hunyuan_vision(random: Random) -> Config:
    config = vision(random, spatial_merge_size=3)
    side = config.pop("image_size")
    return config | _maybe(random, max_image_size=side)


def _hunyuan_vl(random: Random) -> Config:
    draw = _joint("", _hunyuan_vision)
    tied = (True, False)
    config = _in_text(draw, attention_bias=tied, tie_word_embeddings=tied)(random)
    config["text_config"]["head_dim"] = random.choice([4, 6])  # transformers does not build without
    if random.random() < 0.3:  # as published: the text's fields beside the tower's
        config |= config.pop("text_config")
        config.pop("tie_word_embeddings", None)
    return config


def _minimax_m3_vision(random: Random) -> Config:
    return vision(random, temporal_patch_size=1, spatial_merge_size=3)


def _minimax_m3(random: Random) -> Config:
    config = _joint("", _minimax_m3_vision, projector_hidden_size=(5,))(random)
    own = config["text_config"]
    own |= {"num_local_experts": random.randint(1, 3), "num_experts_per_tok": 1}
    depth = own["num_hidden_layers"]
    kinds = ("minimax_m3_sparse", "full_attention")
    own |= _maybe(
        random,
        tie_word_embeddings=_flag(random),
        layer_types=[random.choice(kinds) for _ in range(depth)],
        mlp_layer_types=[random.choice(("dense", "sparse")) for _ in range(depth)],
        dense_intermediate_size=random.randint(2, 40),
        shared_intermediate_size=random.randint(2, 40),
        index_head_dim=6,
    )
    return config


def _omni(random: Random, tower: Draw, hearing: Draw) -> Config:
    config = _joint("", tower)(random)
    return config | {"audio_config": hearing(random) | _maybe(random, output_dim=6)}


def omni2(random: Random) -> Config:
    config = _omni(random, _qwen_vl, _whisper_audio)
    config["text_config"] |= _maybe(random, use_sliding_window=_flag(random), max_window_layers=1)
    return config


def omni3(random: Random) -> Config:
    config = _omni(random, _qwen3_vl, _convolved)
    config["text_config"] |= {"num_experts": random.randint(1, 4), **_experts(random)}
    config["text_config"] |= _maybe(random, attention_bias=_flag(random), mlp_only_layers=[0])
    return config


def _convolved(random: Random) -> Config:
    config = _whisper_audio(random)
    config.pop("max_source_positions", None)
    return config | _maybe(random, downsample_hidden_size=random.randint(1, 9))


def _mistral4(random: Random) -> Config:
    config = TEXT_DRAWS["deepseek_v3"](random)
    config["n_group"] = config["topk_group"] = 1
    for name in ("num_nextn_predict_layers", "tie_word_embeddings"):
        config.pop(name, None)
    return config | _maybe(random, tie_word_embeddings=_flag(random)) | {"pad_token_id": None}


def _whole_ties(draw: Draw) -> Draw:
    """As `_hears`, where the whole config and not its text_config says whether the head is tied."""

    def moved(random: Random) -> Config:
        config = draw(random)
        config["text_config"].pop("tie_word_embeddings", None)
        return config | _maybe(random, tie_word_embeddings=_flag(random))

    return moved


def _voxtral_realtime(random: Random) -> Config:
    config = _whole_ties(_hears("", _audio, downsample_factor=(1, 3)))(random)
    audio = config["audio_config"]
    audio.pop("max_source_positions", None)
    audio |= _maybe(random, head_dim=6)
    return config


def _sam_below(random: Random) -> Config:
    return _sam(random) | _maybe(random, downsample_channels=[3, 5])


def _mixture(random: Random) -> Config:
    """The text of DeepSeek-OCR and after."""
    config = text(random)
    kinds = [random.choice(("dense", "sparse")) for _ in range(config["num_hidden_layers"])]
    config |= {"mlp_layer_types": kinds, "num_experts_per_tok": 1}
    return config | _maybe(
        random,
        n_routed_experts=random.randint(1, 4),
        n_shared_experts=random.randint(1, 3),
        moe_intermediate_size=random.randint(1, 20),
        attention_bias=_flag(random),
        mlp_bias=_flag(random),
    )


def _deepseek_ocr2(random: Random) -> Config:
    tower = {"sam_config": _sam_below(random), "encoder_config": text(random)}
    config = {"text_config": _mixture(random), "vision_config": tower}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _unlimited_ocr(random: Random) -> Config:
    config = _deepseek_ocr2(random)
    encoder = vision(random)
    config["vision_config"]["encoder_config"] = encoder
    if _flag(random):
        del config["text_config"]["mlp_layer_types"]
    return config


def _davit(random: Random) -> Config:
    widths = [4 * random.randint(1, 3) for _ in range(4)]
    return {
        "embed_dim": widths,
        "num_heads": [1] * 4,
        "num_groups": [1] * 4,
        **_maybe(
            random,
            depths=[random.randint(1, 2) for _ in range(4)],
            patch_size=[3, 1, 3, 1],
            patch_prenorm=[_flag(random) for _ in range(4)],
            in_channels=2,
            mlp_ratio=2.5,
            qkv_bias=_flag(random),
            max_position_embeddings=7,
            max_temporal_embeddings=9,
            projection_dim=12,
        ),
    }


def _florence2(random: Random) -> Config:
    config = {"text_config": _seq2seq(random), "vision_config": _davit(random)}
    config["text_config"].pop("id2label", None)
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _seeing_encoder(draw: Draw) -> Draw:
    def joint(random: Random) -> Config:
        own = draw(random)
        for name in ("id2label", "tie_word_embeddings"):
            own.pop(name, None)
        config = {"text_config": own, "vision_config": _siglip_vision(random)}
        return config | _maybe(random, tie_word_embeddings=_flag(random), pixel_shuffle_factor=2)

    return joint


def _nemotron(random: Random) -> Config:
    own = RECURRENT_DRAWS["nemotron_h"](random)
    own.pop("tie_word_embeddings", None)
    own |= _maybe(random, num_nextn_predict_layers=random.randint(0, 1))
    frames = random.choice([2, 3])
    tower = vision(random, mlp_ratio=2.5, qkv_bias=_flag(random), summary_idxs=[0], num_registers=2)
    for name in ("image_size", "intermediate_size"):
        tower.pop(name, None)
    tower |= {"video_temporal_patch_size": frames} | _maybe(random, max_img_size=12)
    config: Config = {"text_config": own | {"model_type": "nemotron_h"}, "vision_config": tower}
    config |= {"video_temporal_patch_size": frames, "vision_hidden_size": tower["hidden_size"]}
    return config | _maybe(random, projector_hidden_size=5, downsample_ratio=0.25)


_BIAS = (True, False)
_LFM = {"projector_bias": _BIAS, "projector_hidden_size": (5,)}
_MINICPM = _joint("qwen3_5_text", _minicpm_vision, merger_times=(1, 3))
declare("deepseek_vl_hybrid", "DeepseekVLHybrid", _deepseek_vl_hybrid)
declare("granite_docling", "GraniteDocling", _granite_docling)
declare("hunyuan_vl", "HunYuanVL", _hunyuan_vl)
declare("lfm3_vl", "Lfm3Vl", _joint("lfm3", _lfm3_vision, **_LFM))
declare("minicpm_ocr", "MiniCPMOcr", _MINICPM)
declare("minicpmv4_6", "MiniCPMV4_6", _MINICPM)
declare("minicpmv4_7", "MiniCPMV4_7", _MINICPM)
declare(
    "minimax_m3_vl",
    "MiniMaxM3Sparse",
    _minimax_m3,
)
declare("mistral4", "Mistral4", _mistral4, ("{}ForCausalLM",))
declare(
    "moss_transcribe_diarize",
    "MossTranscribeDiarize",
    _whole_ties(_hears("qwen3", _audio, projector_bias=_BIAS, audio_merge_size=(1, 3))),
)
declare("qwen2_5_omni_thinker", "Qwen2_5OmniThinker", omni2)
declare("qwen3_asr", "Qwen3ASR", _whole_ties(_hears("qwen3", _convolved)))
declare("qwen3_omni_moe_thinker", "Qwen3OmniMoeThinker", omni3)
declare("voxtral_realtime", "VoxtralRealtime", _voxtral_realtime)
declare("deepseek_ocr2", "DeepseekOcr2", _deepseek_ocr2)
declare("florence2", "Florence2", _florence2)
declare("modernvbert", "ModernVBert", _seeing_encoder(_modernbert), MASKED)
declare("ultravbert", "UltraVBert", _seeing_encoder(_ultrabert), MASKED)
declare("unlimited_ocr", "UnlimitedOcr", _unlimited_ocr)
declare("nemotron_h_omni", "NemotronH_Omni", _nemotron, ("{}_Reasoning_V3",))
