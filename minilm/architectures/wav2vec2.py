"""wav2vec 2.0 and the encoders over speech that took its layers: HuBERT, WavLM, UniSpeech, Data2Vec.

Costs are those of a frame, a token of the encoder; what an adapter behind it costs is left out. Names, shapes
and defaults: huggingface/transformers `models/{wav2vec2,hubert,wavlm,unispeech,unispeech_sat,data2vec}`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.architectures.building_blocks import (
    Heads,
    L,
    d,
    equal_heads,
    h,
    k,
    linear,
    norm,
)
from minilm.architectures.config_fields import Config, flag, layers, size, sizes
from minilm.architectures.encoder_layers import encoder_layer
from minilm.architectures.speech_heads import (
    CLASSES,
    WITHOUT_PRETRAINING,
    adapter,
    with_speech_head,
)
from minilm.architectures.vision_tower import running_statistics
from minilm.architectures.waveform import (
    WIDTHS,
    feature_extractor,
    feature_projection,
    mask,
    positional_convolution,
    weight_normed,
)
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, ZERO, as_polynomial

LAYER = (
    "attention.q_proj attention.k_proj attention.v_proj attention.out_proj layer_norm "
    "feed_forward.intermediate_dense feed_forward.output_dense final_layer_norm"
)


@dataclass(frozen=True)
class _Variant:
    prefix: str
    classes: tuple[str, ...] = CLASSES
    has_adapter: bool = False  # that may stand behind the encoder
    layers_adapt: bool = True  # a stable layer may end in an adapter of its own
    always_masks: bool = False


_VARIANTS = {
    "data2vec-audio": _Variant(
        "data2vec_audio.", WITHOUT_PRETRAINING, has_adapter=True, layers_adapt=False
    ),
    "hubert": _Variant("hubert.", WITHOUT_PRETRAINING[:2]),
    "unispeech": _Variant("unispeech.", (*WITHOUT_PRETRAINING[:2], "ForPreTraining")),
    "unispeech-sat": _Variant("unispeech_sat.", always_masks=True),
    "wav2vec2": _Variant("wav2vec2.", has_adapter=True),
    "wavlm": _Variant("wavlm.", WITHOUT_PRETRAINING, has_adapter=True, layers_adapt=False),
}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    variant, heads = _VARIANTS[family], speech_heads(config)
    prefix, width = variant.prefix, heads.symbols["d"]
    is_data2vec = family == "data2vec-audio"
    has_norm = family != "hubert" or flag(config, "feat_proj_layer_norm", True)
    tensors = (
        *mask(config, prefix, always=variant.always_masks),
        *feature_extractor(config, prefix, norms="layer" if is_data2vec else ""),
        *feature_projection(sizes(config, "conv_dim", WIDTHS)[-1], prefix, has_norm=has_norm),
        *_positions(config, f"{prefix}encoder.pos_conv_embed"),
        *norm(f"{prefix}encoder.layer_norm", components.FINAL_NORM, bias=True, repeat=ONE),
        *_layers(config, f"{prefix}encoder.layers.{{i}}", variant),
        *(adapter(config, prefix, width) if variant.has_adapter else ()),
    )
    result = Layout(
        family,
        tensors,
        encoder_symbols(config, heads),
        buffers=_buffers(config, f"{prefix}encoder.pos_conv_embed"),
        attention=(replace(heads.attention(), cache=ZERO),),
    )
    return with_speech_head(result, config, prefix, variant.classes, adapts=variant.has_adapter)


def speech_heads(config: Config, width: int = 768, heads: int = 12) -> Heads:
    """As these encoders have them."""
    return equal_heads(config, (width, heads, None, None))


def encoder_symbols(
    config: Config, heads: Heads, depth: int = 12, inner: int = 3072
) -> dict[str, int]:
    """The letters' values."""
    return {
        "L": layers(config, "num_hidden_layers", depth),
        "f": size(config, "intermediate_size", inner),
        **heads.symbols,
    }


def _has_batch_norm(config: Config) -> bool:
    return config["model_type"] == "hubert" and flag(config, "conv_pos_batch_norm", False)


def _positions(config: Config, name: str) -> Tensors:
    if config["model_type"] == "data2vec-audio":  # several, without a norm
        depth = layers(config, "num_conv_pos_embeddings", 5)
        conv = positional_convolution(
            config, f"{name}.layers.{{i}}.conv", taps="conv_pos_kernel_size", default=19
        )
        return tuple(replace(t, repeat=as_polynomial(depth)) for t in conv)
    conv = positional_convolution(config, f"{name}.conv")
    if not _has_batch_norm(config):
        return weight_normed(conv)
    part = components.POSITIONAL_CONVOLUTION
    return (*conv, *norm(f"{name}.batch_norm", part, bias=True, repeat=ONE))


def _buffers(config: Config, name: str) -> Tensors:
    if not _has_batch_norm(config):
        return ()
    return running_statistics(f"{name}.batch_norm", d, components.POSITIONAL_CONVOLUTION)


def _layers(config: Config, block: str, variant: _Variant) -> Tensors:
    tensors = list(encoder_layer(block, LAYER))
    if config["model_type"] == "wavlm":
        tensors += _gated_positions(config, block)
    adapted = config.get("adapter_attn_dim") is not None
    if adapted and variant.layers_adapt and flag(config, "do_stable_layer_norm", False):
        part, name = components.ADAPTER, f"{block}.adapter_layer"
        inner = as_polynomial(size(config, "adapter_attn_dim"))
        tensors += norm(f"{name}.norm", part, bias=True)
        tensors += linear(f"{name}.linear_1", inner, d, part, bias=True)
        tensors += linear(f"{name}.linear_2", d, inner, part, bias=True)
    return tuple(tensors)


def _gated_positions(config: Config, block: str) -> Tensors:
    """Of relative positions: a table in the first layer, and in each a gate by head."""
    part, name = components.ATTENTION_GATE, f"{block}.attention"
    rows = as_polynomial(size(config, "num_buckets", 320))
    table, eight = f"{name}.rel_attn_embed.weight".format(i=0), as_polynomial(8)
    gate = f"{name}.gru_rel_pos_linear"
    return (
        Tensor(f"{name}.gru_rel_pos_const", (ONE, h, ONE, ONE), part, Role.SCALED, L),
        Tensor(f"{gate}.weight", (eight, k), part, Role.MULTIPLIED, L),
        Tensor(f"{gate}.bias", (eight,), part, Role.ADDED, L),
        Tensor(table, (rows, h), components.POSITION_EMBEDDING, Role.LOOKED_UP),
    )
