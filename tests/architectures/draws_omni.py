"""Random small configs of models that speak: Qwen2.5-Omni, Qwen3-Omni, and their parts."""

from __future__ import annotations

from random import Random

from tests.architectures.draws import _flag, _maybe
from tests.architectures.draws_classes import Config, Draw
from tests.architectures.draws_joint import omni2, omni3
from tests.architectures.draws_vision import _experts, text

# model_type: the classes, and a draw.
DRAWS: dict[str, tuple[tuple[str, ...], Draw]] = {}


def _talker2(random: Random) -> Config:
    config = text(random, embedding_size=random.randint(1, 20))
    config["head_dim"] = random.choice([2, 6])
    return config | _maybe(random, use_sliding_window=_flag(random), max_window_layers=1)


def _spectrogram(random: Random) -> Config:
    channels = [random.randint(4, 9) for _ in range(random.randint(2, 5))]
    taps = [random.choice([1, 3, 5]) for _ in channels]
    return {
        "num_hidden_layers": random.randint(1, 3),
        "enc_channels": channels,
        "enc_kernel_sizes": taps,
        "enc_dilations": [1] * len(taps),
        **_maybe(
            random,
            hidden_size=random.randint(1, 20),
            num_attention_heads=random.randint(1, 3),
            head_dim=2 * random.randint(1, 3),
            ff_mult=random.randint(1, 3),
            emb_dim=random.randint(1, 9),
            num_embeds=random.randint(1, 50),
            mel_dim=random.randint(1, 9),
            enc_emb_dim=random.randint(1, 9),
            enc_dim=random.randint(1, 9),
            enc_attention_channels=random.randint(1, 9),
            enc_res2net_scale=random.randint(1, 4),
            enc_se_channels=random.randint(1, 9),
        ),
    }


def _bigvgan(random: Random) -> Config:
    rates = [random.randint(1, 5) for _ in range(random.randint(1, 3))]
    kernels = [random.choice([3, 5]) for _ in range(random.randint(1, 3))]
    drawn = {
        "resblock_kernel_sizes": kernels,
        "resblock_dilation_sizes": [[1, 3, 5]] * random.randint(1, 3),
        "upsample_rates": rates,
        "upsample_kernel_sizes": [2 * rate for rate in rates],
    }
    config = drawn if _flag(random) else {}
    return config | _maybe(random, mel_dim=5, upsample_initial_channel=random.randint(64, 90))


def _token2wav(random: Random) -> Config:
    return {"dit_config": _spectrogram(random), "bigvgan_config": _bigvgan(random)}


def _qwen2_5_omni(random: Random) -> Config:
    return {
        "thinker_config": omni2(random),
        "talker_config": _talker2(random),
        "token2wav_config": _token2wav(random),
        **_maybe(random, enable_audio_output=_flag(random)),
    }


def _talker3(random: Random) -> Config:
    own = text(random, attention_bias=_flag(random), mlp_only_layers=[0])
    experts = random.choice(["num_experts", "num_local_experts"])
    own |= {experts: random.randint(1, 4), "shared_expert_intermediate_size": 7}
    own |= _experts(random) | _maybe(random, head_dim=6)
    predictor = text(random, attention_bias=_flag(random), num_code_groups=random.randint(1, 5))
    predictor |= _maybe(random, head_dim=6)
    config: Config = {"text_config": own, "code_predictor_config": predictor}
    return config | {"spatial_merge_size": 2} | _maybe(random, thinker_hidden_size=9)


def _code2wav(random: Random) -> Config:
    groups = random.randint(1, 2)
    heads = groups * random.randint(1, 3)
    rates = {
        "upsample_rates": [random.randint(1, 5) for _ in range(random.randint(1, 3))],
        "upsampling_ratios": [random.randint(1, 5) for _ in range(random.randint(1, 3))],
    }
    return {
        "hidden_size": 4 * heads,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "num_hidden_layers": random.randint(1, 3),
        **(rates if _flag(random) else {}),
        **_maybe(
            random,
            head_dim=6,
            codebook_size=random.randint(1, 9),
            num_quantizers=random.randint(1, 5),
            attention_bias=_flag(random),
            intermediate_size=random.randint(1, 50),
            decoder_dim=random.randint(16, 50),
        ),
    }


def _qwen3_omni(random: Random) -> Config:
    return {
        "thinker_config": omni3(random),
        "talker_config": _talker3(random),
        "code2wav_config": _code2wav(random),
        **_maybe(random, enable_audio_output=_flag(random)),
    }


_WHOLE = "ForConditionalGeneration"
DRAWS["qwen2_5_omni"] = (f"Qwen2_5Omni{_WHOLE}",), _qwen2_5_omni
DRAWS["qwen2_5_omni_talker"] = (f"Qwen2_5OmniTalker{_WHOLE}",), _talker2
DRAWS["qwen2_5_omni_token2wav"] = ("Qwen2_5OmniToken2WavModel",), _token2wav
DRAWS["qwen3_omni_moe"] = (f"Qwen3OmniMoe{_WHOLE}",), _qwen3_omni
