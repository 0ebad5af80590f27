"""Random small configs of models that spell what they hear, and the classes that are declared of each."""

from __future__ import annotations

from functools import partial
from math import prod
from random import Random
from typing import Any

from tests.architectures import draws_gpt, draws_pictures, draws_speech, draws_vision
from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw, _seq2seq, _t5
from tests.architectures.draws_classes import encoder as encoder_sizes

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def conformer(random: Random, **more: Any) -> Config:
    """The sizes of a conformer over a spectrogram; ``more`` are drawn or left out."""
    groups = random.randint(1, 2)
    heads = groups * random.randint(1, 3)
    return {
        "hidden_size": 4 * heads * random.randint(1, 3),
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random,
            num_key_value_heads=groups,
            intermediate_size=random.randint(1, 60),
            attention_bias=_flag(random),
            conv_kernel_size=random.choice([1, 3, 5]),
            num_mel_bins=random.choice([32, 40]),
            **more,
        ),
    }


def parakeet(random: Random) -> Config:
    return conformer(
        random,
        convolution_bias=_flag(random),
        subsampling_factor=random.choice([2, 4, 8, 16]),
        subsampling_conv_channels=random.randint(1, 9),
        subsampling_conv_kernel_size=random.choice([1, 3, 5]),
    )


def _lasr(random: Random) -> Config:
    return conformer(
        random,
        convolution_bias=_flag(random),
        subsampling_conv_channels=random.randint(1, 9),
        subsampling_conv_kernel_size=random.choice([1, 3, 5]),
    )


def _granite(random: Random) -> Config:
    config = conformer(
        random, conv_expansion_factor=random.randint(1, 3), head_dim=2 * random.randint(1, 4)
    )
    if _flag(random):
        config |= {"max_position_embeddings": 9, "context_size": 4}
    return config


def _around(encoder: Draw, random: Random, **more: Any) -> Config:
    config = _maybe(random, vocab_size=random.randint(3, 40), **more)
    return config | {"encoder_config": encoder(random)}


def _granite_ctc(random: Random) -> Config:
    config = _around(_granite, random, tie_word_embeddings=_flag(random))
    config["encoder_config"] |= {"vocab_size": config.get("vocab_size", 16384)}
    return config


def _transducer(random: Random) -> Config:
    lengths = [0, 1, 2][: random.randint(1, 3)]
    sizes = {"decoder_hidden_size": 6, "num_decoder_layers": random.randint(1, 3)}
    return _around(parakeet, random, durations=lengths, **sizes)


DRAWS |= {
    "granite_speech5_ctc": (("GraniteSpeech5ForCTC",), _granite_ctc),
    "granite_speech5_encoder": (("GraniteSpeech5Encoder",), _granite),
    "lasr_ctc": (("LasrForCTC",), partial(_around, _lasr)),
    "lasr_encoder": (("LasrEncoder",), _lasr),
    "parakeet_ctc": (("ParakeetForCTC",), partial(_around, parakeet)),
    "parakeet_encoder": (("ParakeetEncoder",), parakeet),
    "parakeet_rnnt": (("ParakeetForRNNT",), _transducer),
    "parakeet_tdt": (("ParakeetForTDT",), _transducer),
}


def _decoder(random: Random, **more: Any) -> Config:
    """The sizes of a decoder that attends to a conformer."""
    groups = random.randint(1, 2)
    heads = groups * random.randint(1, 3)
    return {
        "hidden_size": 4 * heads * random.randint(1, 3),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(
            random,
            intermediate_size=random.randint(1, 60),
            attention_bias=_flag(random),
            head_dim=2 * random.randint(2, 4),
            max_position_embeddings=random.randint(4, 20),
            **more,
        ),
    }


def _canary(random: Random) -> Config:
    config = _around(parakeet, random, tie_word_embeddings=_flag(random))
    config["decoder_config"] = _decoder(random)
    if _flag(random):
        del config["decoder_config"]["num_key_value_heads"]
        config["decoder_config"] |= {"num_attention_heads": 16, "hidden_size": 16}
    if "vocab_size" in config:
        config["decoder_config"]["vocab_size"] = config["vocab_size"]
    return config


def _cohere(random: Random) -> Config:
    config = _around(parakeet, random, tie_word_embeddings=_flag(random))
    return config | _decoder(random)


def _moonshine(random: Random) -> Config:
    depth = random.randint(1, 3)
    encoder = _decoder(random, frame_ms=random.choice([2.0, 3.5]), sample_rate=8000)
    encoder |= {"num_hidden_layers": depth, "sliding_windows": [[4, 2]] * depth}
    config = _around(lambda _: encoder, random, tie_word_embeddings=_flag(random))
    config |= _decoder(random)
    if _flag(random):
        config["hidden_size"] = encoder["hidden_size"]
        config["num_attention_heads"] = encoder["num_attention_heads"]
        config["num_key_value_heads"] = 1
    return config


def _pop2piano(random: Random) -> Config:
    return _t5(random) | _maybe(random, composer_vocab_size=5, tie_word_embeddings=_flag(random))


ENCODER_DECODER = ("{}ForConditionalGeneration", "{}Model")
DRAWS |= {
    name: (tuple(each.format(start) for each in ENCODER_DECODER), draw)
    for name, start, draw in (
        ("canary", "Canary", _canary),
        ("cohere_asr", "CohereAsr", _cohere),
        ("moonshine_streaming", "MoonshineStreaming", _moonshine),
    )
}
DRAWS["pop2piano"] = (("Pop2PianoForConditionalGeneration",), _pop2piano)


def _dia_part(random: Random, **more: Any) -> Config:
    groups = random.randint(1, 2)
    return {
        "hidden_size": random.randint(3, 20),
        "num_attention_heads": groups * random.randint(1, 2),
        "num_key_value_heads": groups,
        "num_hidden_layers": random.randint(1, 3),
        **_maybe(random, head_dim=4, intermediate_size=random.randint(1, 30), **more),
    }


def _dia(random: Random) -> Config:
    cross = {"cross_head_dim": 6, "cross_hidden_size": random.randint(3, 9)}
    config: Config = {
        "encoder_config": _dia_part(random, vocab_size=9),
        "decoder_config": _dia_part(random, vocab_size=random.randint(5, 40), **cross),
    }
    if _flag(random):
        groups = {"cross_num_attention_heads": 4, "cross_num_key_value_heads": 2}
        config["decoder_config"] |= groups
    if _flag(random):
        config |= {"delay_pattern": [0, 1, 2]}
        config["decoder_config"] |= {"num_channels": 3}
    return config


DRAWS["dia"] = (("DiaForConditionalGeneration", "DiaModel"), _dia)


def _text(random: Random, **more: Any) -> Config:
    return {
        "num_attention_heads": 2,
        "num_key_value_heads": random.randint(1, 2),
        "num_hidden_layers": random.randint(1, 2),
        **_maybe(random, vocab_size=random.randint(9, 40), intermediate_size=9, **more),
    }


def _fun_asr(random: Random) -> Config:
    heads, width = random.randint(1, 2), 8 * random.randint(1, 3)
    audio = {
        "hidden_size": 4 * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": random.randint(1, 5),
        **_maybe(
            random,
            num_mel_bins=random.choice([4, 6]),
            num_stacked_frames=random.choice([1, 2]),
            num_timestamp_prediction_layers=random.randint(1, 6),
            fsmn_kernel_size=3,
            intermediate_size=random.randint(1, 9),
        ),
    }
    adaptor = {"hidden_size": width, "num_attention_heads": 2, "intermediate_size": width // 4}
    adaptor |= _maybe(random, num_hidden_layers=random.randint(1, 3), projector_hidden_size=7)
    text = _text(random, head_dim=6) | {"model_type": "qwen3", "hidden_size": width}
    config = {"audio_config": audio, "adaptor_config": adaptor, "text_config": text}
    return config | _maybe(random, tie_word_embeddings=_flag(random))


def _vibevoice(random: Random) -> Config:
    config: Config = {"text_config": _text(random) | {"model_type": "qwen2", "hidden_size": 8}}
    for kind in ("acoustic", "semantic"):
        ratios = [random.randint(1, 3) for _ in range(random.randint(1, 3))]
        config[f"{kind}_tokenizer_encoder_config"] = {
            "num_filters": random.randint(1, 4),
            "downsampling_ratios": ratios,
            "depths": [random.randint(1, 3) for _ in range(len(ratios) + 1)],
            **_maybe(random, hidden_size=5, kernel_size=3, channels=2, ffn_expansion=2),
        }
    hop = prod(config["acoustic_tokenizer_encoder_config"]["downsampling_ratios"])
    return config | {"acoustic_tokenizer_chunk_size": 6 * hop}


DRAWS["fun_asr_nano"] = (("FunAsrNanoForConditionalGeneration",), _fun_asr)
DRAWS["vibevoice_asr"] = (("VibeVoiceAsrForConditionalGeneration",), _vibevoice)


_HEARD = ("hubert", "sew", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm")


def _speech_encoder_decoder(random: Random) -> Config:
    heard, said = random.choice(_HEARD), random.choice(["bert", "roberta", "bart", "mbart"])
    encoder = draws_speech.DRAWS[heard][1](random) | {"model_type": heard}
    return _encoder_decoder(random, encoder, said, encoder["hidden_size"])


def _encoder_decoder(random: Random, encoder: Config, said: str, width: int) -> Config:
    if said == "gpt2":
        decoder = draws_gpt.DRAWS["gpt2"](random) | {"add_cross_attention": True}
    elif said.startswith(("bert", "roberta")):
        decoder = encoder_sizes(random) | {"add_cross_attention": True, "is_decoder": True}
    else:
        decoder = _seq2seq(random)
    decoder |= {"model_type": said, "pad_token_id": 0}
    decoder.pop("id2label", None)
    if said != "gpt2" and _flag(random):
        decoder["cross_attention_hidden_size"] = width
    return {"encoder": encoder, "decoder": decoder}


_SEEN = ("beit", "deit", "dinov2", "donut-swin", "swin", "swinv2", "vit")


def _vision_encoder_decoder(random: Random) -> Config:
    seen, said = random.choice(_SEEN), random.choice(["bert", "gpt2", "mbart", "roberta", "trocr"])
    draws = draws_vision.DRAWS | draws_pictures.DRAWS
    encoder = draws[seen][1](random) | {"model_type": seen}
    encoder.pop("id2label", None)
    width = encoder.get("hidden_size") or encoder["embed_dim"] * 2 ** (len(encoder["depths"]) - 1)
    return _encoder_decoder(random, encoder, said, width)


DRAWS["speech-encoder-decoder"] = (("SpeechEncoderDecoderModel",), _speech_encoder_decoder)
DRAWS["vision-encoder-decoder"] = (("VisionEncoderDecoderModel",), _vision_encoder_decoder)
