"""A target by what declares it: minilm's own configuration, or a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilm.architectures import foreign_fields, is_whole, layout_of_class
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.model_types import MODEL_TYPES, REMOTE_TYPES
from minilm.architectures.task_heads import class_name_of
from minilm.config import ModelConfig, to_dict
from minilm.errors import ConfigError, naming_file
from minilm.formats.json_file import read_object
from minilm.inspection.stored_experts import has_idle_gates
from minilm.inspection.target import UNKNOWN, Target
from minilm.ledger.components import ENCODER, LM_HEAD, TALKER, VOCODER
from minilm.ledger.layout_changes import with_adapters, with_frozen
from minilm.runs import files as run_files
from minilm.runs.base_run import lora_of
from minilm.safe_text import short_repr

# How config.json names width, depth and vocabulary: one of these is in every published one.
_SIZES = (
    *("vocab_size", "hidden_size", "d_model", "n_embd", "dim", "embed_dim"),
    *("num_hidden_layers", "num_layers", "n_layers", "n_layer", "decoder_layers"),
    *("hidden_sizes", "embed_dims", "depth_multiplier"),
    *("width_coefficient", "width_multiplier", "class_expand"),
    *("patch_embeds_hidden_size", "upsample_initial_channel"),
)

_FIRST_LETTERS = 3
# Types whose classes are another's, or have a name of their own.
_OF_OTHER_NAMES = (
    *("audio-spectrogram-transformer", "internlm3", "iquestcoder", "kimi_k2", "pp_chart2table"),
    "shieldgemma2",
)
# Types whose published files have the code that transformers' classes were made from.
_TAKEN_OVER = (
    "afmoe aria axk1 axk2 bailing_hybrid dbrx deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 doge dots1 "
    "ernie4_5 ernie4_5_moe eurobert exaone_moe falcon florence2 hunyuan_v1_dense hunyuan_v1_moe hyperclovax "
    "jamba jetmoe kimi_k25 kimi_linear laguna longcat_flash mimo_v2_flash minicpm3 minimax_m2 mpt nemotron_h "
    "nomic_bert paddleocr_vl phi phi3 phimoe sarvam_mla sarvam_moe solar_open xlstm youtu"
)


def open_config(name: str, path: Path, *, beside_weights: bool = False) -> Target:
    """What a config.json declares, of minilm or of any other. Raises InputError.

    ``beside_weights``: one that gives no size declares nothing then. The defaults of an architecture say less
    of a file than the file.
    """
    config = read_object(path)
    if config.get("family") == run_files.FAMILY:
        target = replace(
            minilm_target(name, run_files.read_config(path)),
            folder=path.parent,
            quantization=run_files.read_quantization(path),
        )
        if config.get("base") and target.layout is not None:
            lora = lora_of(path.parent, run_files.read_record(path))
            layout = with_adapters(target.layout, lora.targets, lora.rank, dora=lora.dora)
            target = replace(target, layout=layout, lora=lora)
        elif not target.quantization:
            with naming_file(path):
                target = _with_frozen(target, config)
        training = config.get("train")
        if not isinstance(training, dict):
            return target
        return replace(target, hyperparameters={**target.hyperparameters, "training": training})
    with naming_file(path):
        target = hugging_face_target(name, config, beside_weights=beside_weights)
    return replace(target, folder=path.parent)


def _with_frozen(target: Target, config: Mapping[str, Any]) -> Target:
    """``target`` with what its run was told to freeze. Raises ConfigError for other names."""
    options = config.get("began_with")
    words = options.get("freeze") if isinstance(options, dict) else None
    if not words or target.layout is None:
        return target
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError("began_with.freeze", short_repr(words), "a list of names")
    layout = with_frozen(target.layout, words)
    total, trained = layout.count(), layout.trainable()
    note = (
        f"trainable: {trained:,} of {total:,} parameters ({trained / total:.3%}) = "
        f"{layout.trainable_formula().symbolic}; frozen: {', '.join(words)}"
    )
    return replace(target, layout=layout, notes=(*target.notes, note))


def _gives_a_size(config: Mapping[str, Any]) -> bool:
    """Whether some field is a size: its own, a part's, or one of a part's parts."""
    parts = [value for value in config.values() if isinstance(value, Mapping)]
    inner = (v for part in parts for v in part.values() if isinstance(v, Mapping))
    return any(size in fields for fields in (config, *parts, *inner) for size in _SIZES)


def hugging_face_target(
    name: str, config: Mapping[str, Any], *, beside_weights: bool = False
) -> Target:
    """What a Hugging Face config.json declares. Raises ConfigError for a field that is wrong."""
    # The components of diffusers have a class in its place.
    model_type = config.get("model_type") or config.get("_class_name")
    if not isinstance(model_type, str):
        model_type = UNKNOWN
    fields = {k: v for k, v in config.items() if isinstance(v, (bool, int, float, str))}
    entry = MODEL_TYPES.get(model_type)
    undeclared = ""
    if entry and beside_weights and not _gives_a_size(config):
        entry, undeclared = None, "config.json gives no sizes"
    named = {**config, "model_type": model_type}
    if entry and beside_weights and (foreign := foreign_fields(named)):
        entry, undeclared = None, f"config.json has {', '.join(foreign)}, of another model"
    other_code = _class_of_other_code(config, model_type) if entry else ""
    try:
        layout = layout_of_class(config) if entry else None
    except ConfigError as error:
        if not other_code or not beside_weights:
            raise
        entry, layout, undeclared = None, None, f"no formula for other code: {error}"
    notes: tuple[str, ...] = ()
    alone = entry and (entry.causal_only or entry.text_of) and not is_whole(entry, config)
    if alone and not class_name_of(config):
        notes = ("counted as a language model alone: config.json names no class",)
    elif entry and layout and entry.by_class and not class_name_of(config):
        has_head = layout.ties or layout.count(components=(LM_HEAD,))
        what = "with its language model's head" if has_head else "as the body alone"
        notes = (f"counted {what}: config.json names no class",)
    if layout and not beside_weights and has_idle_gates(layout):
        text = "counted with gates of the experts that do nothing, which transformers 5 adds"
        notes = (*notes, text)
    if layout and not beside_weights and "transformers_version" not in config:
        notes = (*notes, *_version_note(config, layout.count()))
    encoder = layout.count(components=(ENCODER,)) if layout else 0
    if encoder:
        text = f"FLOPs are a token's in the decoder; the encoder, {encoder:,} parameters, runs once"
        notes = (*notes, text)
    entries = max((kind.fixed for kind in layout.attention), default=0) if layout else 0
    if entries and not encoder:
        text = f"KV cache and FLOPs are with one picture: {entries:,} entries for cross-attention"
        notes = (*notes, text)
    speaking = layout.count(components=(TALKER, VOCODER)) if layout else 0
    if layout and speaking and layout.has_tokens:
        text = f"the talker and vocoder, {speaking:,} parameters, make sound of its tokens"
        notes = (*notes, f"FLOPs and KV cache are the thinker's; {text}")
    if layout and other_code:
        text = f"{short_repr(other_code)} is code of its own repository, which is not read"
        notes = (*notes, f"{text} and may differ: counted as transformers' {model_type}")
    target = Target(
        name,
        model_type,
        layout,
        hugging_face=config,
        hyperparameters={"model": fields},
        notes=notes,
        undeclared=undeclared,
    )
    if target.quantization_config and not beside_weights:
        target = replace(target, notes=(*notes, _quantized_note(target.quantization_config)))
    return target


def _class_of_other_code(config: Mapping[str, Any], model_type: str) -> str:
    """The class of config.json that remote code makes, where it is not that of its model_type; else empty.

    Such code has a class in `auto_map`, under whatever name. Without an `auto_map` a name is another where
    not even its first letters are those of the type.
    """
    named = class_name_of(config)
    if model_type in (*REMOTE_TYPES, *_OF_OTHER_NAMES):
        return ""
    remote = config.get("auto_map")
    if not isinstance(remote, Mapping):
        first = [_letters(each)[:_FIRST_LETTERS] for each in (named, model_type)]
        short = min(map(len, first))
        return "" if first[0][:short] == first[1][:short] else named
    models = [
        str(path).rpartition(".")[2]
        for auto, path in remote.items()
        if auto.startswith("AutoModel")
    ]
    if model_type in _TAKEN_OVER.split() and (not models or not named or named in models):
        models = []
    is_of_type = not models and _letters(named).startswith(_letters(model_type))
    return "" if is_of_type else named or next(iter(models), "")


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _version_note(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """That it has another ``count`` by transformers 4's defaults, where no version is said."""
    older = layout_of_class({**config, "transformers_version": "4."})
    if older is None or older.count() == count:
        return ()
    text = "counted as transformers 5 reads a config.json without transformers_version"
    return (f"{text}; one that version 4 wrote has {older.count():,} parameters",)


def _quantized_note(config: Mapping[str, Any]) -> str:
    method = config.get("quant_method")
    named = f" ({short_repr(method)})" if isinstance(method, str) else ""
    return f"its files are quantized{named}; memory is told of all weights in one dtype"


def minilm_target(name: str, config: ModelConfig) -> Target:
    """What minilm's own configuration declares."""
    return Target(
        name,
        run_files.FAMILY,
        minilm_layout(config),
        config,
        hyperparameters={"model": to_dict(config)},
    )
