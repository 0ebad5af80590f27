"""A declared encoder over speech and a declared decoder of text, of BERT's kin or BART's, that attends to it.

The encoder runs once a sound. BERT's decoders get cross-attention like their own attention. Names, shapes and
defaults: huggingface/transformers `models/speech_encoder_decoder`.
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures import layout_of
from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import L, d
from minilm.architectures.config_fields import Config, flag, size, sub_config
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
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensors
from minilm.ledger.symbols import as_polynomial

_ENCODERS = ("conformer", "sew", "wav2vec2")  # modules
_WITH_ADAPTER = ("data2vec-audio", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm")
_BERTS = ("bert", "camembert", "roberta", "xlm-roberta")
_BARTS = ("bart", "mbart", "pegasus")


def layout(config: Config) -> Layout:
    """The tensors of SpeechEncoderDecoderModel for a config.json."""
    name = class_name_of(config)
    if name and not name.endswith("EncoderDecoderModel"):
        raise undeclared_class(config)
    heard = {"model_type": "wav2vec2", **sub_config(config, "encoder")}
    said = dict(sub_config(config, "decoder")) or {
        "model_type": "bert",
        "add_cross_attention": True,
    }
    entry = MODEL_TYPES.get(str(heard["model_type"]))
    if entry is None or entry.module not in _ENCODERS:
        kind = shortened(heard["model_type"])
        raise UndeclaredClassError("config.json: encoder", kind, "a declared encoder over speech")
    encoder = layout_of({**heard, "architectures": None})
    decoder = _decoder(said)
    frames = Part(encoder.tensors, dict(encoder.symbols), encoder.buffers)
    own, kept = (_under("encoder.", as_encoder(each)) for each in in_numbers(frames)[::2])
    width, wanted = encoder.symbols["d"], decoder.symbols["d"]
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


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return tuple(replace(tensor, name=prefix + tensor.name) for tensor in tensors)


def _decoder(config: Config) -> Layout:
    kind = config.get("model_type")
    if kind not in (*_BERTS, *_BARTS):
        raise UndeclaredClassError(
            "config.json: decoder", shortened(kind), f"one of {', '.join((*_BERTS, *_BARTS))}"
        )
    fields = {**config, "architectures": ["ForCausalLM"], "add_cross_attention": False}
    text = layout_of(fields)
    if kind in _BARTS:
        return replace(text, tensors=tuple(map(asked_by_token, text.tensors)))
    if not flag(config, "add_cross_attention", False):
        return text
    crossing = []
    for tensor in text.tensors:
        if ".attention." not in tensor.name:
            continue
        once = tensor.name.endswith(("key.weight", "value.weight"))
        crossing.append(
            replace(
                tensor,
                name=tensor.name.replace(".attention.", ".crossattention."),
                component=components.CROSS_ATTENTION,
                role=Role.ONCE if once else tensor.role,
            )
        )
    return replace(text, tensors=(*text.tensors, *crossing))
