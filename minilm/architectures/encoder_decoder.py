"""A declared encoder over speech or pictures and a declared decoder of text that attends to it.

The encoder runs once a sound or picture. Decoders are of BERT's kin, BART's, or GPT-2; BERT's get
cross-attention like their own attention. Names, shapes and defaults: huggingface/transformers
`models/{speech,vision}_encoder_decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from reprlib import repr as shortened
from typing import NamedTuple

from minilm.architectures import layout_of
from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import L, d, norm
from minilm.architectures.config_fields import Config, depths, flag, require, size, sub_config
from minilm.architectures.gpt2 import BLOCK as GPT2_BLOCK
from minilm.architectures.gpt2 import transposed
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.seq2seq_kin import asked_by_token
from minilm.architectures.task_heads import (
    UndeclaredClassError,
    class_name_of,
    head,
    undeclared_class,
)
from minilm.architectures.vision_tower import Part, in_numbers
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import as_polynomial


class _Encoders(NamedTuple):
    """``modules`` declare them; ``encoder`` and ``decoder`` are the types of a config that says none."""

    modules: tuple[str, ...]
    encoder: str
    decoder: str
    what: str


_ENCODERS = {
    "speech-encoder-decoder": _Encoders(
        ("conformer", "sew", "wav2vec2"), "wav2vec2", "bert", "speech"
    ),
    "vision-encoder-decoder": _Encoders(("swin", "vit"), "vit", "bert", "pictures"),
}
_WITH_ADAPTER = ("data2vec-audio", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm")
_BERTS = ("bert", "camembert", "roberta", "xlm-roberta")
_BARTS = ("bart", "mbart", "pegasus", "trocr")


def layout(config: Config) -> Layout:
    """The tensors of {Speech,Vision}EncoderDecoderModel for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith("EncoderDecoderModel"):
        raise undeclared_class(config)
    kinds = _ENCODERS[config["model_type"]]
    heard = {"model_type": kinds.encoder, **sub_config(config, "encoder")}
    said = {"model_type": kinds.decoder, **sub_config(config, "decoder")}
    if config.get("decoder") is None:
        said["add_cross_attention"] = True
    entry = MODEL_TYPES.get(str(heard["model_type"]))
    if entry is None or entry.module not in kinds.modules:
        kind = shortened(heard["model_type"])
        expected = f"a declared encoder over {kinds.what}"
        raise UndeclaredClassError("config.json: encoder", kind, expected)
    encoder = layout_of({**heard, "architectures": None})
    decoder = _decoder(said)
    frames = Part(encoder.tensors, dict(encoder.symbols), encoder.buffers)
    own, kept = (_under("encoder.", as_encoder(each)) for each in in_numbers(frames)[::2])
    width, wanted = _width(heard, encoder), decoder.symbols["d"]
    require(said, "cross_attention_hidden_size", width)
    left = width
    if heard["model_type"] in _WITH_ADAPTER:
        left = size(heard, "output_hidden_size", width)
    between: Tensors = ()
    if left != wanted and said.get("cross_attention_hidden_size") is None:
        seen = as_polynomial(width)
        between = head("enc_to_dec_proj", d, inputs=seen, component=components.ENCODER)
    return replace(
        decoder,
        family=config["model_type"],
        tensors=(*_under("decoder.", decoder.tensors), *between, *own),
        buffers=(*_under("decoder.", decoder.buffers), *kept),
        ties=tuple((f"decoder.{a}", f"decoder.{b}") for a, b in decoder.ties),
        attention=(*decoder.attention, AttentionSpec(L, 2 * d, d, d)),
    )


def _width(config: Config, encoder: Layout) -> int:
    """What the encoder puts out: Swin's is twice as wide in each stage."""
    if MODEL_TYPES[config["model_type"]].module != "swin":
        return encoder.symbols["d"]
    stages = len(depths(config, "depths", (2, 2, 6, 2)))
    return size(config, "embed_dim", 96) << (stages - 1)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return tuple(replace(tensor, name=prefix + tensor.name) for tensor in tensors)


def _decoder(config: Config) -> Layout:
    kind = config.get("model_type")
    kinds = ("gpt2", *_BERTS, *_BARTS)
    if kind not in kinds:
        raise UndeclaredClassError(
            "config.json: decoder", shortened(kind), f"one of {', '.join(kinds)}"
        )
    fields = {**config, "architectures": ["ForCausalLM"], "add_cross_attention": False}
    text = layout_of(fields)
    if kind in _BARTS:
        return replace(text, tensors=tuple(map(asked_by_token, text.tensors)))
    if not flag(config, "add_cross_attention", False):
        return text
    crossing = _of_gpt2() if kind == "gpt2" else _like_attention(text.tensors)
    return replace(text, tensors=(*text.tensors, *crossing))


def _of_gpt2() -> Tensors:
    part, name = components.CROSS_ATTENTION, f"{GPT2_BLOCK}.crossattention"
    (keys, *bias) = transposed(f"{name}.c_attn", d, 2 * d, part)
    return (
        replace(keys, role=Role.ONCE),
        *bias,
        *transposed(f"{name}.q_attn", d, d, part),
        *transposed(f"{name}.c_proj", d, d, part),
        *norm(f"{GPT2_BLOCK}.ln_cross_attn", components.ATTENTION_NORM, bias=True),
    )


def _like_attention(tensors: Tensors) -> Iterator[Tensor]:
    for tensor in tensors:
        if ".attention." not in tensor.name:
            continue
        once = tensor.name.endswith(("key.weight", "value.weight"))
        yield replace(
            tensor,
            name=tensor.name.replace(".attention.", ".crossattention."),
            component=components.CROSS_ATTENTION,
            role=Role.ONCE if once else tensor.role,
        )
