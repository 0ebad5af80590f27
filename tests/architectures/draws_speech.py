"""Random small configs of encoders over speech, and the classes that are declared of each."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, labels
from tests.architectures.draws_vision import text_tower, vision

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}

SPEECH = ("{}Model", "{}ForCTC", "{}ForSequenceClassification")
FRAMES = (*SPEECH, "{}ForAudioFrameClassification", "{}ForXVector")


def declare(model_type: str, start: str, classes: tuple[str, ...], draw: Draw) -> None:
    DRAWS[model_type] = tuple(each.format(start) for each in classes), draw


def _speech(random: Random, **more: Any) -> Config:
    """The sizes that all of these have; ``more`` are drawn or left out."""
    heads = random.randint(1, 3)
    return {
        "hidden_size": 4 * heads * random.randint(1, 3),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        "vocab_size": random.randint(3, 40),
        **labels(random),
        **_maybe(
            random,
            intermediate_size=random.randint(1, 60),
            mask_time_prob=random.choice([0.0, 0.1]),
            mask_feature_prob=random.choice([0.0, 0.1]),
            use_weighted_layer_sum=_flag(random),
            classifier_proj_size=random.randint(1, 9),
            **more,
        ),
    }


def waveform(random: Random, **more: Any) -> Config:
    """With convolutions over samples and positions by a convolution."""
    depth = random.randint(1, 4)
    config = _speech(
        random,
        feat_extract_norm=random.choice(["group", "layer"]),
        conv_bias=_flag(random),
        num_conv_pos_embeddings=random.randint(1, 9),
        **more,
    )
    config["num_conv_pos_embedding_groups"] = random.choice([1, 2, 4])
    if _flag(random):
        config |= {
            f"conv_{name}": [random.randint(1, 9) for _ in range(depth)]
            for name in ("dim", "kernel", "stride")
        }
    return config


def _speakers(random: Random) -> Config:
    depth = random.randint(1, 4)
    fields: Config = {"xvector_output_dim": 6} if _flag(random) else {}
    if _flag(random):
        for name in ("dim", "kernel", "dilation"):
            fields[f"tdnn_{name}"] = [random.randint(1, 5) for _ in range(depth)]
    return fields


def _codes(random: Random, **more: Any) -> Config:
    groups = random.randint(1, 3)
    fields = {
        "num_codevector_groups": groups,
        "num_codevectors_per_group": 5,
        "codevector_dim": groups * random.randint(1, 5),
        "proj_codevector_dim": 7,
    }
    return (fields if _flag(random) else {}) | _maybe(random, **more)


def adapter(random: Random) -> Config:
    """Its sizes; `test_speech.py` has it in the classes that do not refuse it."""
    return _maybe(
        random,
        output_hidden_size=random.randint(1, 9),
        num_adapter_layers=random.randint(1, 3),
        adapter_kernel_size=random.randint(1, 3),
    )


def _wav2vec2(random: Random) -> Config:
    config = waveform(random, do_stable_layer_norm=_flag(random), adapter_attn_dim=5)
    return config | _speakers(random) | _codes(random) | adapter(random)


def _hubert(random: Random) -> Config:
    return waveform(
        random,
        do_stable_layer_norm=_flag(random),
        adapter_attn_dim=5,
        feat_proj_layer_norm=_flag(random),
        conv_pos_batch_norm=_flag(random),
    )


def _wavlm(random: Random) -> Config:
    config = waveform(random, do_stable_layer_norm=_flag(random), num_buckets=6)
    return config | _speakers(random) | adapter(random)


def _unispeech(random: Random) -> Config:
    config = waveform(random, do_stable_layer_norm=_flag(random), adapter_attn_dim=5)
    return config | _speakers(random) | _codes(random, num_ctc_classes=9, num_clusters=11)


def _data2vec(random: Random) -> Config:
    config = waveform(random, conv_pos_kernel_size=random.randint(1, 5))
    return config | _speakers(random) | adapter(random)


def _sew(random: Random) -> Config:
    config = waveform(random, squeeze_factor=random.randint(1, 3))
    if _flag(random):
        config |= {"conv_dim": [3, config["hidden_size"]], "conv_kernel": [2, 1]}
        config["conv_stride"] = [2, 1]
    return config


def _sew_d(random: Random) -> Config:
    return _sew(random) | _maybe(
        random,
        relative_attention=_flag(random),
        share_att_key=_flag(random),
        position_buckets=random.choice([-1, 5]),
        pos_att_type=random.choice([["c2p"], ["p2c", "c2p"], []]),
        norm_rel_ebd=random.choice(["none", "layer_norm"]),
        max_position_embeddings=7,
    )


def _conformer(random: Random) -> Config:
    config = waveform(
        random,
        position_embeddings_type=random.choice([None, "relative", "rotary"]),
        conv_depthwise_kernel_size=random.choice([1, 3, 5]),
    )
    return config | _speakers(random) | _codes(random) | adapter(random)


def _wav2vec2_bert(random: Random) -> Config:
    config = _speech(
        random,
        position_embeddings_type=random.choice([None, "relative", "rotary", "relative_key"]),
        conv_depthwise_kernel_size=random.choice([1, 3, 5]),
        feature_projection_input_dim=9,
        left_max_position_embeddings=random.randint(0, 4),
        right_max_position_embeddings=random.randint(0, 4),
    )
    wide = {"output_hidden_size": config["num_attention_heads"] * random.randint(1, 4)}
    return config | _speakers(random) | adapter(random) | wide


declare("data2vec-audio", "Data2VecAudio", FRAMES, _data2vec)
declare("hubert", "Hubert", SPEECH, _hubert)
declare("sew", "SEW", SPEECH, _sew)
declare("sew-d", "SEWD", SPEECH, _sew_d)
declare("unispeech", "UniSpeech", (*SPEECH, "{}ForPreTraining"), _unispeech)
declare("unispeech-sat", "UniSpeechSat", (*FRAMES, "{}ForPreTraining"), _unispeech)
declare("wav2vec2", "Wav2Vec2", (*FRAMES, "{}ForPreTraining"), _wav2vec2)
declare("wav2vec2-bert", "Wav2Vec2Bert", FRAMES, _wav2vec2_bert)
declare("wav2vec2-conformer", "Wav2Vec2Conformer", (*FRAMES, "{}ForPreTraining"), _conformer)
declare("wavlm", "WavLM", FRAMES, _wavlm)


def _spectrogram(random: Random) -> Config:
    patch = random.randint(1, 4)
    config = vision(random, qkv_bias=_flag(random)) | labels(random) | {"patch_size": patch}
    config.pop("num_channels", None)
    return config | _maybe(
        random,
        frequency_stride=random.randint(1, 3),
        time_stride=random.randint(1, 3),
        max_length=patch + random.randint(0, 9),
        num_mel_bins=patch + random.randint(0, 9),
    )


def _clap_text(random: Random) -> Config:
    return text_tower(random) | _maybe(random, type_vocab_size=2, projection_dim=5)


def _clap_audio(random: Random) -> Config:
    depth = random.randint(1, 3)
    stages: Config = {"depths": [random.randint(1, 2) for _ in range(depth)]}
    stages |= {"num_attention_heads": [random.randint(1, 2) * 2**i for i in range(depth)]}
    return stages | _maybe(
        random,
        patch_embeds_hidden_size=8,
        hidden_size=random.randint(1, 9),
        projection_dim=5,
        window_size=random.randint(1, 4),
        num_mel_bins=random.choice([16, 32]),
        patch_size=random.choice([2, 4, [4, 4]]),
        patch_embed_input_channels=2,
        enable_fusion=_flag(random),
        fusion_type=random.choice([None, "channel_map", "aff_2d"]),
        enable_patch_layer_norm=_flag(random),
        aff_block_r=random.choice([2, 4]),
        qkv_bias=_flag(random),
        mlp_ratio=random.choice([1.5, 2.0]),
    )


def _clap(random: Random) -> Config:
    parts = {"text_config": _clap_text(random), "audio_config": _clap_audio(random)}
    return _maybe(random, projection_dim=6) | parts


declare(
    "audio-spectrogram-transformer", "AST", ("{}Model", "{}ForAudioClassification"), _spectrogram
)
declare("clap", "Clap", ("{}Model",), _clap)
declare("clap_audio_model", "ClapAudio", ("{}Model", "{}ModelWithProjection"), _clap_audio)
declare("clap_text_model", "ClapText", ("{}Model", "{}ModelWithProjection"), _clap_text)


def _speecht5(random: Random) -> Config:
    config = waveform(random)
    heads = config.pop("num_attention_heads")
    config["encoder_layers"] = config.pop("num_hidden_layers")
    for name in ("intermediate_size", "use_weighted_layer_sum", "classifier_proj_size"):
        config.pop(name, None)
    return config | {
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "decoder_layers": random.randint(1, 3),
        **_maybe(
            random,
            encoder_ffn_dim=random.randint(1, 40),
            decoder_ffn_dim=random.randint(1, 40),
            num_mel_bins=random.randint(1, 9),
            speech_decoder_prenet_layers=random.randint(1, 3),
            speech_decoder_prenet_units=random.randint(1, 9),
            speaker_embedding_dim=5,
            speech_decoder_postnet_layers=random.randint(1, 4),
            speech_decoder_postnet_units=random.randint(1, 9),
            speech_decoder_postnet_kernel=3,
            reduction_factor=random.randint(1, 3),
            encoder_max_relative_position=7,
            tie_word_embeddings=_flag(random),
        ),
    }


def _hifigan(random: Random) -> Config:
    depth, kinds = random.randint(1, 3), random.randint(1, 3)
    fields: Config = {"upsample_rates": [2] * depth, "upsample_kernel_sizes": [4] * depth}
    blocks: Config = {
        "resblock_kernel_sizes": [3, 5, 7][:kinds],
        "resblock_dilation_sizes": [[1, 3][: random.randint(1, 2)] for _ in range(kinds)],
    }
    drawn = (each if _flag(random) else {} for each in (fields, blocks))
    parts: Config = {name: value for each in drawn for name, value in each.items()}
    return parts | _maybe(random, model_in_dim=6, upsample_initial_channel=16)


SPEECHT5 = ("{}Model", "{}ForSpeechToText", "{}ForTextToSpeech", "{}ForSpeechToSpeech")
declare("speecht5", "SpeechT5", SPEECHT5, _speecht5)
declare("speecht5_hifigan", "SpeechT5", ("{}HifiGan",), _hifigan)
