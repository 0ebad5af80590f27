"""What makes a waveform of a talker's codes: Qwen2.5-Omni's token2wav and Qwen3-Omni's code2wav.

The first is a diffusion transformer, which hears the speaker through an ECAPA-TDNN and puts out a
spectrogram, and BigVGAN; the second a transformer and convolutions. Names, shapes and defaults:
huggingface/transformers `models/{qwen2_5_omni,qwen3_omni_moe}`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import L as LAYERS
from minilm.architectures.building_blocks import (
    d,
    gated_feed_forward,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import (
    Config,
    few,
    flag,
    layers,
    listed,
    quotient,
    size,
    sizes,
    sub_config,
)
from minilm.architectures.vision_tower import Part, in_numbers, matrix, once, used_once, vector
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial


def token2wav(config: Config, name: str = "") -> Part:
    """Both models below ``name``, for a token2wav_config."""
    spectrogram = _diffusion(sub_config(config, "dit_config"), f"{name}code2wav_dit_model")
    wave = _bigvgan(sub_config(config, "bigvgan_config"), f"{name}code2wav_bigvgan_model")
    return used_once(Part((*spectrogram, *wave)), components.VOCODER)


def code2wav(config: Config, name: str) -> Part:
    """All of it below ``name``, for a code2wav_config."""
    width = size(config, "hidden_size", 1024)
    rows = size(config, "codebook_size", 2048) * size(config, "num_quantizers", 16)
    tensors: list[Tensor] = [
        once(f"{name}.code_embedding.weight", (rows, width)),
        *_transformer(config, f"{name}.pre_transformer"),
    ]
    for i, ratio in enumerate(sizes(config, "upsampling_ratios", (2, 2))):
        tensors += _widened(f"{name}.upsample.{i}.0.conv", width, width, ratio)
        tensors += _convnext(f"{name}.upsample.{i}.1", width)
    rates, wide = sizes(config, "upsample_rates", (8, 5, 4, 3)), size(config, "decoder_dim", 1536)
    tensors += matrix(f"{name}.decoder.0.conv", (wide, width, 7))
    for i, rate in enumerate(rates):
        block, inputs = f"{name}.decoder.{i + 1}.block", wide
        wide = quotient(wide, 2, "decoder_dim", "upsample_rates")
        tensors += _snake(f"{block}.0", inputs)
        tensors += _widened(f"{block}.1.conv", inputs, wide, 2 * rate)
        for unit in (f"{block}.{j}" for j in (2, 3, 4)):
            tensors += _snake(f"{unit}.act1", wide)
            tensors += matrix(f"{unit}.conv1.conv", (wide, wide, 7))
            tensors += _snake(f"{unit}.act2", wide)
            tensors += matrix(f"{unit}.conv2.conv", (wide, wide, 1))
    tensors += _snake(f"{name}.decoder.{len(rates) + 1}", wide)
    tensors += matrix(f"{name}.decoder.{len(rates) + 2}.conv", (1, wide, 7))
    return used_once(Part(tuple(tensors)), components.VOCODER)


def _transformer(config: Config, name: str) -> Tensors:
    """Llama's layers, whose outputs are scaled."""
    block, part = f"{name}.layers.{{i}}", components.VOCODER
    heads = read_heads(config, defaults=(1024, 16, 16, None), rounds=True)
    bias = flag(config, "attention_bias", False)
    tensors = (
        *norm(f"{block}.input_layernorm", part),
        *separate_attention(f"{block}.self_attn", heads, qkv_bias=bias, output_bias=bias),
        *norm(f"{block}.post_attention_layernorm", part),
        *gated_feed_forward(f"{block}.mlp"),
        once(f"{block}.self_attn_layer_scale.scale", (d,), repeat=LAYERS),
        once(f"{block}.mlp_layer_scale.scale", (d,), repeat=LAYERS),
        *norm(f"{name}.norm", part, repeat=ONE),
    )
    symbols = {
        **heads.symbols,
        "L": layers(config, "num_hidden_layers", 8),
        "f": size(config, "intermediate_size", 3072),
    }
    return in_numbers(Part(tensors, symbols)).tensors


def _convnext(name: str, width: int) -> Tensors:
    return (
        *matrix(f"{name}.dwconv.conv", (width, 1, 7)),
        *vector(f"{name}.norm", width),
        *matrix(f"{name}.pwconv1", (4 * width, width)),
        *matrix(f"{name}.pwconv2", (width, 4 * width)),
        once(f"{name}.gamma", (width,)),
    )


def _snake(name: str, width: int, repeat: Polynomial = ONE) -> Tensors:
    """What bends a channel, by how much and how often."""
    return tuple(once(f"{name}.{each}", (width,), repeat=repeat) for each in ("alpha", "beta"))


def _widened(name: str, inputs: int, outputs: int, taps: int) -> Tensors:
    """A transposed convolution, which torch stores as (inputs, outputs, taps)."""
    return (
        once(f"{name}.weight", (inputs, outputs, taps)),
        once(f"{name}.bias", (outputs,), Role.ADDED),
    )


def _diffusion(config: Config, name: str) -> Tensors:
    block, width = f"{name}.transformer_blocks.{{i}}", size(config, "hidden_size", 1024)
    bands, speaker = size(config, "mel_dim", 80), size(config, "enc_dim", 128)
    codes = size(config, "emb_dim", 512)
    heard = bands + speaker + codes + size(config, "enc_emb_dim", 192)
    heads = size(config, "num_attention_heads", 16) * size(config, "head_dim", 64)
    depth = as_polynomial(layers(config, "num_hidden_layers", 22))
    inner = width * size(config, "ff_mult", 2)
    steps = f"{name}.time_embed.time_mlp"
    return (
        *matrix(f"{steps}.0", (width, 256)),
        *matrix(f"{steps}.2", (width, width)),
        once(
            f"{name}.text_embed.codec_embed.weight", (size(config, "num_embeds", 8193) + 1, codes)
        ),
        *matrix(f"{name}.input_embed.proj", (width, heard)),
        *_speaker(config, f"{name}.input_embed.spk_encoder", bands, speaker),
        *matrix(f"{block}.attn_norm.linear", (6 * width, width), depth),
        *(t for n in "qkv" for t in matrix(f"{block}.attn.to_{n}", (heads, width), depth)),
        *matrix(f"{block}.attn.to_out.0", (width, heads), depth),
        *matrix(f"{block}.ff.ff.0", (inner, width), depth),
        *matrix(f"{block}.ff.ff.3", (width, inner), depth),
        *matrix(f"{name}.norm_out.linear", (2 * width, width)),
        *matrix(f"{name}.proj_out", (bands, width)),
    )


def _speaker(config: Config, name: str, bands: int, outputs: int) -> Tensors:
    """ECAPA-TDNN: convolutions over time, some of a part of the channels each, and attentive pooling."""
    widths = sizes(config, "enc_channels", (256, 256, 256, 256, 768))
    taps = sizes(config, "enc_kernel_sizes", (5, 3, 3, 3, 1))
    if len(taps) != len(widths):
        raise ConfigError("config.json: enc_kernel_sizes", f"{len(taps)}", f"{len(widths)} sizes")
    parts, squeezed = size(config, "enc_res2net_scale", 2), size(config, "enc_se_channels", 64)
    attended, last = size(config, "enc_attention_channels", 64), widths[-1]
    tensors = [*matrix(f"{name}.blocks.0.conv", (widths[0], bands, taps[0]))]
    for i in range(1, len(widths) - 1):
        block, wide = f"{name}.blocks.{i}", widths[i]
        each = quotient(wide, parts, "enc_channels", "enc_res2net_scale")
        some = f"{block}.res2net_block.blocks.{{i}}.conv"
        tensors += matrix(f"{block}.tdnn1.conv", (wide, widths[i - 1], 1))
        tensors += matrix(some, (each, each, taps[i]), as_polynomial(parts - 1))
        tensors += matrix(f"{block}.tdnn2.conv", (wide, wide, 1))
        tensors += matrix(f"{block}.se_block.conv1", (squeezed, wide, 1))
        tensors += matrix(f"{block}.se_block.conv2", (wide, squeezed, 1))
    return (
        *tensors,
        *matrix(f"{name}.mfa.conv", (last, last, taps[-1])),
        *matrix(f"{name}.asp.tdnn.conv", (attended, 3 * last, 1)),
        *matrix(f"{name}.asp.conv", (last, attended, 1)),
        *matrix(f"{name}.fc", (outputs, 2 * last, 1)),
    )


def _bigvgan(config: Config, name: str) -> Tensors:
    """Each stage halves the channels, and sums blocks of convolutions of several kernels."""
    rates = sizes(config, "upsample_rates", (5, 3, 2, 2, 2, 2))
    taps = sizes(config, "upsample_kernel_sizes", (11, 7, 4, 4, 4, 4))
    if len(taps) != len(rates):
        got = f"{len(taps)} sizes"
        raise ConfigError("config.json: upsample_kernel_sizes", got, f"{len(rates)} sizes")
    kernels = sizes(config, "resblock_kernel_sizes", (3, 7, 11))
    dilations = listed(config, "resblock_dilation_sizes", ((1, 3, 5),) * 3)
    few("resblock_kernel_sizes", len(kernels))
    kernels = kernels[: len(dilations)]
    wide = size(config, "upsample_initial_channel", 1536)
    tensors = [*matrix(f"{name}.conv_pre", (wide, size(config, "mel_dim", 80), 7))]
    for i, tap in enumerate(taps):
        inputs = wide
        wide = quotient(wide, 2, "upsample_initial_channel", "upsample_rates")
        tensors += _widened(f"{name}.ups.{i}.0", inputs, wide, tap)
        for j, kernel in enumerate(kernels):
            block = f"{name}.resblocks.{i * len(kernels) + j}"
            for both in ("convs1", "convs2"):
                tensors += matrix(f"{block}.{both}.{{i}}", (wide, wide, kernel), as_polynomial(3))
            tensors += _snake(f"{block}.activations.{{i}}.act", wide, as_polynomial(6))
    return (
        *tensors,
        *_snake(f"{name}.activation_post.act", wide),
        once(f"{name}.conv_post.weight", (1, wide, 7)),
    )
