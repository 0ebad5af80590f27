"""Parakeet, LASR and Granite Speech 5: a conformer alone, or with a head that spells what it hears.

CTC has a map of each frame; transducers (RNNT, TDT) an LSTM over what was spelled so far, whose costs are
left out. Names, shapes and defaults: huggingface/transformers `models/{parakeet,lasr,granite_speech5}`.
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures.building_blocks import V, d, linear
from minilm.architectures.config_fields import Config, flag, size, sub_config
from minilm.architectures.encoder_layers import lookup
from minilm.architectures.fast_conformer import (
    GRANITE,
    LASR,
    PARAKEET,
    conformer_heads,
    fast_conformer,
)
from minilm.architectures.task_heads import class_ending, head
from minilm.architectures.waveform import convolution
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, ZERO, as_polynomial, symbol

p = symbol("p")

_KINDS = {"parakeet": PARAKEET, "lasr": LASR, "granite_speech5": GRANITE}
_VOCABULARIES = {"parakeet_ctc": 1025, "lasr_ctc": 512, "granite_speech5_ctc": 16384}


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    stem, _, ending = family.rpartition("_")
    kind = _KINDS[stem]
    is_alone = ending == "encoder"
    class_ending(config, ("Encoder" if is_alone else f"For{ending.upper()}",))
    fields = config if is_alone else sub_config(config, "encoder_config")
    part = fast_conformer(fields, kind, "" if is_alone else "encoder.")
    heard = replace(conformer_heads(fields, kind).attention(), cache=ZERO)
    encoder = Layout(
        family,
        part.tensors,
        part.symbols,
        buffers=part.buffers,
        attention=() if kind.is_granite else (heard,),
    )
    if is_alone:
        return encoder
    if ending == "ctc":
        return _with_ctc(encoder, config, fields)
    return _with_transducer(encoder, config)


def _with_ctc(encoder: Layout, config: Config, fields: Config) -> Layout:
    letters = size(config, "vocab_size", _VOCABULARIES[encoder.family])
    symbols, part = {**encoder.symbols, "V": letters}, components.LM_HEAD
    if encoder.family != "granite_speech5_ctc":
        tensors = (*encoder.tensors, *convolution("ctc_head", (V, d, 1), part))
        return replace(encoder, tensors=tensors, symbols=symbols)
    own = size(fields, "vocab_size", 16384)
    if own != letters:
        raise ConfigError("config.json: vocab_size", f"{letters}", f"encoder_config's {own}")
    if flag(config, "tie_word_embeddings", True):
        ties = tuple((f"ctc_head.{n}", f"encoder.out.{n}") for n in ("weight", "bias"))
        return replace(encoder, ties=ties)
    tensors = (*encoder.tensors, *head("ctc_head", V, component=part))
    return replace(encoder, tensors=tensors, symbols=symbols)


def _with_transducer(encoder: Layout, config: Config) -> Layout:
    """With a network that predicts the next letter, and a head over its sum with a frame."""
    part, depth = components.TRANSDUCER, size(config, "num_decoder_layers", 2)
    many = as_polynomial(depth)
    durations = config.get("durations", (0, 1, 2, 3, 4)) if encoder.family == "parakeet_tdt" else ()
    if not isinstance(durations, (list, tuple)):
        raise ConfigError("config.json: durations", shortened(durations), "a list of frames")
    lstm = "decoder.lstm"
    tensors = (
        *encoder.tensors,
        *linear("encoder_projector", p, d, part, bias=True, repeat=ONE),
        lookup("decoder.embedding", V, components.TOKEN_EMBEDDING, p),
        *(
            Tensor(f"{lstm}.weight_{n}_l{{i}}", (4 * p, p), part, Role.ONCE, many)
            for n in ("ih", "hh")
        ),
        *(
            Tensor(f"{lstm}.bias_{n}_l{{i}}", (4 * p,), part, Role.ADDED, many)
            for n in ("ih", "hh")
        ),
        *head("decoder.decoder_projector", p, inputs=p, component=part),
        *head("joint.head", V + len(durations), inputs=p, component=components.LM_HEAD),
    )
    symbols = {
        **encoder.symbols,
        "V": size(config, "vocab_size", 8193),
        "p": size(config, "decoder_hidden_size", 640),
    }
    return replace(encoder, tensors=tensors, symbols=symbols)
