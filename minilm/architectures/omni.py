"""Qwen2.5-Omni and Qwen3-Omni: a thinker, which reads and writes, a talker, and a vocoder.

`video_models.py` declares the thinker and `vocoders.py` what makes a waveform. The talker is a decoder over
codes of sound; Qwen3's has experts, and a smaller decoder that adds the finer codes. FLOPs and KV cache are
those of a token of the thinker's; all of the talker counts as active, as encoders do. Names, shapes and
defaults: huggingface/transformers `models/{qwen2_5_omni,qwen3_omni_moe}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from minilm.architectures import layout_of
from minilm.architectures.building_blocks import d, f, linear, s
from minilm.architectures.config_fields import Config, flag, layers, size, sub_config
from minilm.architectures.decoder import MLP
from minilm.architectures.joint_text import joined
from minilm.architectures.moe import LayerGroup, shared_expert
from minilm.architectures.task_heads import class_ending, class_name_of, undeclared_class
from minilm.architectures.vision_tower import Part, in_numbers, matrix, used_once
from minilm.architectures.vocoders import code2wav, token2wav
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor, Tensors
from minilm.ledger.symbols import ONE, as_polynomial


@dataclass(frozen=True)
class _Omni:
    """``classes`` are the names of the whole, ``vocoder`` what that is called."""

    classes: tuple[str, ...]
    talker: Callable[[Config], Part]
    vocoder: str
    makes_sound: Callable[[Config, str], Part]


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration, and of their parts, for a config.json."""
    family = config["model_type"]
    if family == "qwen2_5_omni_talker":
        class_ending(config, ("TalkerForConditionalGeneration",))
        return _talker2(config)
    if family == "qwen2_5_omni_token2wav":
        class_ending(config, ("Token2WavModel",))
        return Layout(family, token2wav(config).tensors, {})
    omni, name = _OMNIS[family], class_name_of(config)
    if name and name not in omni.classes:
        raise undeclared_class(config)
    version = config.get("transformers_version")
    fields = {"transformers_version": version, **sub_config(config, "thinker_config")}
    thinker = layout_of({**fields, "model_type": f"{family}_thinker", "architectures": None})
    inside = replace(
        thinker,
        tensors=_below("thinker.", thinker.tensors),
        ties=tuple((f"thinker.{head}", f"thinker.{table}") for head, table in thinker.ties),
    )
    if not flag(config, "enable_audio_output", True):
        return joined(inside, family)
    talker = used_once(omni.talker(sub_config(config, "talker_config")), components.TALKER)
    vocoder = omni.makes_sound(sub_config(config, f"{omni.vocoder}_config"), omni.vocoder)
    return joined(inside, family, Part(_below("talker.", talker.tensors)), vocoder)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return tuple(replace(tensor, name=prefix + tensor.name) for tensor in tensors)


_TALKER2 = {
    "vocab_size": 8448,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "sliding_window": 32768,
}


def _talker2(config: Config) -> Layout:
    """Qwen2's layers; codes have the thinker's width, and are mapped to the talker's with its outputs."""
    width = as_polynomial(size(config, "embedding_size", 3584))
    fields = {**_TALKER2, **config, "model_type": "qwen2", "tie_word_embeddings": False}
    text = layout_of({**fields, "architectures": None})
    table, *others = text.tensors
    between = linear(
        "thinker_to_talker_proj",
        d,
        width,
        components.EMBEDDING_PROJECTION,
        bias=True,
        repeat=ONE,
    )
    return replace(
        text,
        family="qwen2_5_omni_talker",
        tensors=(
            replace(table, shape=(table.shape[0], width)),
            *between,
            *(replace(t, name=t.name.replace("lm_head.", "codec_head.")) for t in others),
        ),
    )


def _whole_talker2(config: Config) -> Part:
    talker = _talker2(config)
    return in_numbers(Part(talker.tensors, talker.symbols))


_TALKER3 = {
    "vocab_size": 3072,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 384,
}
_PREDICTOR = {
    "vocab_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 5,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def _talker3(config: Config) -> Part:
    """Qwen3's layers, all with experts and a shared one, two maps of the thinker's width, and a predictor."""
    own = {**_TALKER3, **sub_config(config, "text_config")}
    # Whatever the fields of dense layers say.
    sparse = {"mlp_only_layers": [], "decoder_sparse_step": 1}
    fields = {**own, **sparse, "model_type": "qwen3_moe", "tie_word_embeddings": False}
    text = layout_of({**fields, "architectures": None})
    width, symbols = (
        size(config, "thinker_hidden_size", 2048),
        {
            **text.symbols,
            "f": size(own, "intermediate_size"),
            "s": size(own, "shared_expert_intermediate_size"),
        },
    )
    new = {"model.embed_tokens.": "model.codec_embedding.", "lm_head.": "codec_head."}
    tensors = [
        *_renamed(text.tensors, new),
        *shared_expert(f"{MLP}.shared_expert", LayerGroup(), width=s),
        *linear(f"{MLP}.shared_expert_gate", ONE, d, components.SHARED_EXPERT_GATE),
    ]
    for kind in ("text", "hidden"):
        tensors += matrix(f"{kind}_projection.linear_fc1", (f, width))
        tensors += matrix(f"{kind}_projection.linear_fc2", (d, f))
    predictor = _predictor(sub_config(config, "code_predictor_config"))
    talker = in_numbers(Part(tuple(tensors), symbols))
    return Part((*talker.tensors, *_below("code_predictor.", predictor.tensors)))


def _predictor(config: Config) -> Part:
    """Qwen3 dense, with a table and a head for each code but the first."""
    fields = {**_PREDICTOR, **config, "model_type": "qwen3", "tie_word_embeddings": False}
    text = layout_of({**fields, "architectures": None})
    groups = as_polynomial(layers(config, "num_code_groups", 32) - 1)
    new = {"model.embed_tokens.": "model.codec_embedding.{i}.", "lm_head.": "lm_head.{i}."}
    tensors = _renamed(text.tensors, new)
    ends = (tensors[0].name, tensors[-1].name)
    many = tuple(replace(t, repeat=groups) if t.name in ends else t for t in tensors)
    return in_numbers(Part(many, text.symbols))


def _renamed(tensors: Tensors, names: dict[str, str]) -> Tensors:
    def renamed(tensor: Tensor) -> Tensor:
        old = next((each for each in names if tensor.name.startswith(each)), "")
        name = names[old] + tensor.name.removeprefix(old) if old else tensor.name
        return replace(tensor, name=name)

    return tuple(map(renamed, tensors))


_OMNIS = {
    "qwen2_5_omni": _Omni(
        ("Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniModel"),
        _whole_talker2,
        "token2wav",
        lambda config, name: token2wav(config, f"{name}."),
    ),
    "qwen3_omni_moe": _Omni(
        ("Qwen3OmniMoeForConditionalGeneration",), _talker3, "code2wav", code2wav
    ),
}
