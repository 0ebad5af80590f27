"""Random small configs of further models that see or hear, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import DRAWS as TEXT_DRAWS
from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import (
    TEXT,
    Config,
    Draw,
    _modernbert,
    _seq2seq,
    _t5,
    _types,
    _ultrabert,
    encoder,
)
from tests.architectures.draws_decoders import DRAWS as DECODER_DRAWS
from tests.architectures.draws_recurrent import DRAWS as RECURRENT_DRAWS
from tests.architectures.draws_vision import (
    WHOLE,
    _audio,
    _clip_vision,
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


def _omni2(random: Random) -> Config:
    config = _omni(random, _qwen_vl, _whisper_audio)
    config["text_config"] |= _maybe(random, use_sliding_window=_flag(random), max_window_layers=1)
    return config


def _omni3(random: Random) -> Config:
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


def _conformer(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "hidden_dim": 4 * heads,
        "num_heads": heads,
        "num_layers": random.randint(1, 3),
        "context_size": 9,
        **_maybe(
            random,
            input_dim=7,
            feedforward_mult=2,
            dim_head=6,
            output_dim=5,
            max_pos_emb=11,
            conv_kernel_size=3,
            conv_expansion_factor=3,
        ),
    }


def _granite_speech(random: Random) -> Config:
    asking = encoder(random, cross_attention_frequency=random.randint(1, 3))
    for name in ("id2label", "tie_word_embeddings"):
        asking.pop(name, None)
    asking["encoder_hidden_size"] = 12
    own = text(random) | {"model_type": "granite"}
    own |= _maybe(random, tie_word_embeddings=_flag(random))
    config: Config = {"text_config": own, "encoder_config": _conformer(random)}
    config |= {"projector_config": asking, "has_lora_adapter": False}
    config |= _maybe(random, window_size=8, tie_word_embeddings=_flag(random))
    return config | _maybe(random, downsample_rate=2)


def _kosmos_text(random: Random) -> Config:
    heads = random.randint(1, 3)
    return {
        "embed_dim": 4 * heads,
        "attention_heads": heads,
        "layers": random.randint(1, 3),
        **_maybe(
            random,
            vocab_size=random.randint(3, 90),
            ffn_dim=random.randint(1, 60),
            max_position_embeddings=9,
            tie_word_embeddings=_flag(random),
        ),
    }


def _kosmos(tower: Draw) -> Draw:
    def draw(random: Random) -> Config:
        config: Config = {"text_config": _kosmos_text(random), "vision_config": tower(random)}
        more = _maybe(random, latent_query_num=3, tie_word_embeddings=_flag(random))
        return config | more

    return draw


def _patches(random: Random, head: str, inner: str, rows: str) -> Config:
    heads = random.randint(1, 3)
    sizes = {head: 6, inner: random.randint(1, 40), rows: 7, "patch_embed_hidden_size": 5}
    return {
        "hidden_size": 4 * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(random, **sizes),
    }


def _kosmos_patches(random: Random) -> Config:
    return _patches(random, "head_dim", "intermediate_size", "max_num_patches")


def _pix2struct(random: Random) -> Config:
    heads = random.randint(1, 3)
    own = {"hidden_size": 4 * heads, "num_heads": heads, "num_layers": random.randint(1, 3)}
    own |= {"d_kv": 4}
    own |= _maybe(random, d_ff=9, vocab_size=31, relative_attention_num_buckets=4)
    config: Config = {"text_config": own}
    config["vision_config"] = _patches(random, "d_kv", "d_ff", "seq_len")
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _gemma4_text(model_type: str, random: Random) -> Config:
    config = DECODER_DRAWS[model_type](random)
    config.pop("tie_word_embeddings", None)
    return config


def _gemma4_unified(random: Random) -> Config:
    config: Config = {"text_config": _gemma4_text("gemma4_unified_text", random)}
    vision_config = _maybe(
        random,
        patch_size=2,
        pooling_kernel_size=2,
        mm_embed_dim=random.randint(1, 9),
        mm_posemb_size=5,
        output_proj_dims=7,
    )
    return config | _maybe(random, vision_config=vision_config, audio_config={"audio_embed_dim": 6})


def _diffusion_gemma(random: Random) -> Config:
    own = _gemma4_text("gemma4_text", random)
    own |= {"num_experts": random.randint(2, 4), "top_k_experts": 2}
    own["moe_intermediate_size"] = random.randint(1, 9)
    for name in (
        *("num_kv_shared_layers", "hidden_size_per_layer_input", "vocab_size_per_layer_input"),
        *("attention_k_eq_v", "use_double_wide_mlp", "enable_moe_block"),
    ):
        own.pop(name, None)
    tower = vision(random, position_embedding_size=9, head_dim=6, standardize=_flag(random))
    for name in ("image_size", "num_channels"):
        tower.pop(name, None)
    tower["num_key_value_heads"] = tower["num_attention_heads"]
    config: Config = {"text_config": own, "vision_config": tower}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _t5gemma2(random: Random) -> Config:
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size", "head_dim")
    decoder = text(random, attention_bias=_flag(random)) | {"head_dim": 6}
    own = text(random, attention_bias=_flag(random)) | {name: decoder[name] for name in names}
    for each in (own, decoder):
        each["pad_token_id"] = 0
    encoder_config = {"text_config": own, "vision_config": _siglip_vision(random)}
    config: Config = {"decoder": decoder, "encoder": encoder_config}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _udop(random: Random) -> Config:
    config = _t5(random)
    for name in ("tie_word_embeddings", "is_decoder"):
        config.pop(name, None)
    kinds = [{"type": "1d", "relative_attention_num_buckets": 32}, {"type": "vertical"}]
    config |= _maybe(random, patch_size=3, num_channels=2, max_2d_position_embeddings=7)
    return config | _maybe(random, relative_bias_args=kinds[: random.randint(1, 2)])


def _granite4_vision(random: Random) -> Config:
    config = _joint("", _clip_vision)(random)
    config["vision_config"] |= {"hidden_size": 64, "num_attention_heads": 2}
    asking = _maybe(random, num_hidden_layers=2, intermediate_size=9, cross_attention_frequency=2)
    config |= _maybe(random, qformer_config=asking)
    config["downsample_rate"] = random.choice(["1/2", "4/8"])
    return config | {"deepstack_layer_map": [[0, 0], [1, 1]][: random.randint(0, 2)]}


def _vqgan(random: Random) -> Config:
    times = [random.randint(1, 2) for _ in range(random.randint(1, 3))]
    return {
        "base_channels": 32,
        "channel_multiplier": times,
        **_maybe(
            random,
            num_res_blocks=random.randint(1, 2),
            embed_dim=6,
            num_embeddings=9,
            in_channels=2,
            latent_channels=5,
        ),
    }


def _janus_vision(random: Random) -> Config:
    config = vision(random, attention_bias=_flag(random), use_qk_norm=_flag(random), mlp_ratio=2.5)
    config.pop("intermediate_size", None)
    return config | _maybe(random, depth=random.randint(1, 3), projection_dim=7)


def _janus(random: Random) -> Config:
    config = _joint("llama", _janus_vision)(random)
    more = _maybe(
        random,
        double_latent=_flag(random),
        projection_dim=5,
        num_hidden_layers=3,
        image_token_embed_dim=4,
        out_channels=2,
    )
    return config | {"vq_config": _vqgan(random) | more}


def _chameleon(random: Random) -> Config:
    config = text(random, attention_bias=_flag(random), mlp_bias=_flag(random))
    config |= _maybe(random, tie_word_embeddings=_flag(random), swin_norm=_flag(random))
    pictures = _vqgan(random) | _maybe(random, double_latent=_flag(random))
    pictures |= _maybe(random, resolution=64, attn_resolutions=[32, 64], attn_type="none")
    return config | {"vq_config": pictures, "vocabulary_map": {}}


def _luke(random: Random) -> Config:
    config = _types(random)
    config.pop("id2label", None)
    more = {"entity_emb_size": random.choice([5, config["hidden_size"]]), "entity_vocab_size": 13}
    return config | _maybe(random, use_entity_aware_attention=_flag(random), **more)


def _muse_vision(random: Random) -> Config:
    config = vision(random, patch_temporal=1, pos_emb_height=3)
    for name in ("image_size", "num_channels"):
        config.pop(name, None)
    return config


def _muse_glimmer(random: Random) -> Config:
    sizes = {"out_hidden_size": (7,), "projector_hidden_size": (5,)}
    draw = _joint("", _muse_vision, **sizes)
    return _in_text(draw, attention_bias=(True, False), head_dim=(6,), sliding_window=(3,))(random)


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
declare("qwen2_5_omni_thinker", "Qwen2_5OmniThinker", _omni2)
declare("qwen3_asr", "Qwen3ASR", _whole_ties(_hears("qwen3", _convolved)))
declare("qwen3_omni_moe_thinker", "Qwen3OmniMoeThinker", _omni3)
declare("voxtral_realtime", "VoxtralRealtime", _voxtral_realtime)
declare("deepseek_ocr2", "DeepseekOcr2", _deepseek_ocr2)
declare("florence2", "Florence2", _florence2)
declare("modernvbert", "ModernVBert", _seeing_encoder(_modernbert), MASKED)
declare("ultravbert", "UltraVBert", _seeing_encoder(_ultrabert), MASKED)
declare("unlimited_ocr", "UnlimitedOcr", _unlimited_ocr)
declare("granite_speech", "GraniteSpeech", _granite_speech)
declare("granite_speech_plus", "GraniteSpeechPlus", _granite_speech)
declare("kosmos-2", "Kosmos2", _kosmos(vision))
declare("kosmos-2.5", "Kosmos2_5", _kosmos(_kosmos_patches))
declare("pix2struct", "Pix2Struct", _pix2struct)
declare("diffusion_gemma", "DiffusionGemma", _diffusion_gemma, ("{}ForBlockDiffusion",))
declare("gemma4_unified", "Gemma4Unified", _gemma4_unified)
declare("granite4_vision", "Granite4Vision", _granite4_vision)
declare("t5gemma2", "T5Gemma2", _t5gemma2)
declare("udop", "Udop", _udop)
declare("chameleon", "Chameleon", _chameleon)
declare("janus", "Janus", _janus)
declare("ibert", "IBert", _types, TEXT)
declare("luke", "Luke", _luke, MASKED)
declare("muse_glimmer", "MuseGlimmer", _muse_glimmer)
declare("nemotron_h_omni", "NemotronH_Omni", _nemotron, ("{}_Reasoning_V3",))
