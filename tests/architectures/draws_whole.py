"""Random small configs of models in files of their own that see, hear or fill in words, and their classes."""

from __future__ import annotations

from random import Random

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import (
    TEXT,
    Config,
    Draw,
    _t5,
    _types,
    encoder,
)
from tests.architectures.draws_decoders import DRAWS as DECODER_DRAWS
from tests.architectures.draws_joint import DRAWS as JOINT_DRAWS
from tests.architectures.draws_joint import MASKED, _in_text
from tests.architectures.draws_vision import DRAWS as VISION_DRAWS
from tests.architectures.draws_vision import (
    WHOLE,
    _clip_vision,
    _joint,
    _siglip_vision,
    text,
    vision,
)

DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def declare(model_type: str, start: str, draw: Draw, classes: tuple[str, ...] = WHOLE) -> None:
    """Add a type to DRAWS."""
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


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


def _layoutlmv3(random: Random) -> Config:
    more = vision(random, has_relative_attention_bias=_flag(random), rel_pos_bins=5)
    del more["hidden_size"], more["num_attention_heads"], more["num_hidden_layers"]
    more["input_size"] = more.pop("image_size")
    more |= _maybe(random, id2label={str(i): f"L{i}" for i in range(random.choice([3, 9, 10]))})
    return (
        _types(random)
        | more
        | _maybe(
            random,
            has_spatial_attention_bias=_flag(random),
            rel_2d_pos_bins=6,
            text_embed=_flag(random),
            visual_embed=_flag(random),
            max_2d_position_embeddings=9,
            coordinate_size=3,
            shape_size=2,
        )
    )


def _muse_vision(random: Random) -> Config:
    config = vision(random, patch_temporal=1, pos_emb_height=3)
    for name in ("image_size", "num_channels"):
        config.pop(name, None)
    return config


def _muse_glimmer(random: Random) -> Config:
    sizes = {"out_hidden_size": (7,), "projector_hidden_size": (5,)}
    draw = _joint("", _muse_vision, **sizes)
    return _in_text(draw, attention_bias=(True, False), head_dim=(6,), sliding_window=(3,))(random)


def _step3p7(random: Random) -> Config:
    own = text(random) | {"head_dim": 2 * random.randint(1, 3)}
    own.pop("pad_token_id")
    count, modules = own["num_hidden_layers"], random.randint(0, 2)
    kinds = random.choices(("sliding_attention", "full_attention"), k=count + modules)
    heads = own["num_key_value_heads"] * random.randint(1, 3)
    if random.random() < 0.3:
        own["layer_types"], own["mtp_layer_types"] = kinds[:count], kinds[count:]
        own |= {"num_sliding_attention_heads": heads}
    else:
        own["layer_types"] = kinds
        own |= _maybe(random, attention_other_setting={"num_attention_heads": heads})
    if random.random() < 0.5:
        own["num_attention_groups"] = own.pop("num_key_value_heads")
    sparse = [i for i in range(count) if _flag(random)]
    listed = ",".join(map(str, sparse)) if _flag(random) else sparse
    names = ("sparse", "dense")
    named = {"mlp_layer_types": random.choices(names, k=count)}
    own |= random.choice([{}, {"moe_layers_enum": listed}, named])
    own |= {"num_nextn_predict_layers": modules, "moe_top_k": 1, "moe_num_experts": 3}
    own |= _maybe(
        random,
        attention_bias=_flag(random),
        mlp_bias=_flag(random),
        moe_intermediate_size=5,
        share_expert_dim=7,
        sliding_window=3,
        tie_word_embeddings=_flag(random),
    )
    tower = vision(random, mlp_ratio=1.6)
    if _flag(random):
        for name, old in (("width", "hidden_size"), ("heads", "num_attention_heads")):
            tower[name] = tower.pop(old)
    config: Config = {"text_config": own, "vision_config": tower}
    return config | _maybe(random, projector_bias=_flag(random), tie_word_embeddings=_flag(random))


def _retriever(model_type: str) -> Draw:
    inner = (VISION_DRAWS | JOINT_DRAWS)[model_type][1]

    def draw(random: Random) -> Config:
        config = {"vlm_config": inner(random) | {"model_type": model_type}}
        return config | _maybe(random, embedding_dim=5)

    return draw


declare("granite_speech", "GraniteSpeech", _granite_speech)
declare("granite_speech_plus", "GraniteSpeechPlus", _granite_speech)
declare("kosmos-2", "Kosmos2", _kosmos(vision))
declare("kosmos-2.5", "Kosmos2_5", _kosmos(_kosmos_patches))
declare("pix2struct", "Pix2Struct", _pix2struct)
declare("diffusion_gemma", "DiffusionGemma", _diffusion_gemma, ("{}ForBlockDiffusion",))
declare("gemma4_unified", "Gemma4Unified", _gemma4_unified)
declare("granite4_vision", "Granite4Vision", _granite4_vision)
declare("step3p7", "Step3p7", _step3p7)
declare("t5gemma2", "T5Gemma2", _t5gemma2, (*WHOLE, "{}Model"))
declare("udop", "Udop", _udop)
_RETRIEVES = ("{}ForRetrieval",)
declare("colmodernvbert", "ColModernVBert", _retriever("modernvbert"), _RETRIEVES)
declare("colpali", "ColPali", _retriever("paligemma"), _RETRIEVES)
declare("colqwen2", "ColQwen2", _retriever("qwen2_vl"), _RETRIEVES)
declare("chameleon", "Chameleon", _chameleon)
declare("janus", "Janus", _janus)
declare("ibert", "IBert", _types, TEXT)
declare("layoutlmv3", "LayoutLMv3", _layoutlmv3, (TEXT[1], *TEXT[2:]))
declare("luke", "Luke", _luke, MASKED)
declare("muse_glimmer", "MuseGlimmer", _muse_glimmer)
