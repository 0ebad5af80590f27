"""A model as a Hugging Face folder, and such a folder as a run: streamed, a tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minilm import files
from minilm.architectures.conversion import Architecture, exportable
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, tensor_mappings
from minilm.config import ModelConfig
from minilm.config.presets import find_preset
from minilm.errors import ConfigError, FormatError, TokenizerError
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.huggingface import GENERATION_CONFIG
from minilm.formats.json_file import read_object
from minilm.formats.tensor_io import Array
from minilm.formats.text_file import read_text
from minilm.interop.chat_end import with_chat_end
from minilm.interop.gguf_tokenizer import is_qwen2
from minilm.interop.model_source import USUAL_HEAD, ModelSource, head_name
from minilm.quantization.nf4_packing import Nf4Packing
from minilm.quantization.packing import Packing, Rounded, quantized_matrices
from minilm.quantization.sparse_packing import SparsePacking, count_nonzero
from minilm.runs import files as run_files
from minilm.runs.files import CHAT_TEMPLATE, COMPANIONS, TOKENIZER_CONFIG
from minilm.text.tokenizers import Tokenizer

TOKENIZER_SETTINGS = tuple(name for name in COMPANIONS if name != CHAT_TEMPLATE)
# Nothing says how an imported model was trained: fine-tuning follows GPT-2's recipe, at the rate of GPT-3
# with 1.3 billion parameters (Brown et al. 2020, table 2.1), of which it takes what other programs do.
IMPORTED_LEARNING_RATE = 2e-4
SPARSE_OPTION = "--layout compressed-tensors"
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export(
    source: ModelSource, folder: Path, packing: Packing | SparsePacking | None = None
) -> str:
    """Write config.json, weights, tokenizer files and generation_config.json; return the class that opens it.

    ``packing``: how the matrices of a quantized run are stored, if not as they are there, or those of a
    float run with zeros. Raises ConfigError where no stock architecture has this configuration, InputError
    for a matrix that ``packing`` cannot store, OSError as a file gives it.
    """
    tokenizer = source.tokenizer()
    architecture, source = _as_stored(source, tokenizer, packing)
    config = source.config
    fields = architecture.config_json(config)
    settings = _tokenizer_settings(source.folder)
    ends: dict[str, Any] = dict.fromkeys(_ENDS, tokenizer.end_of_text)
    generation = ends | {"do_sample": True, "temperature": 0.8}
    if GENERATION_CONFIG in settings:
        generation = settings[GENERATION_CONFIG]
    generation = with_chat_end(generation, source.folder, tokenizer)
    ends = {name: generation.get(name) for name in ends}
    mappings = tensor_mappings(architecture, config)
    dtypes = {source.dtype(mapping.minilm_names[0]) for mapping in mappings}
    if len(dtypes) == 1:
        fields["torch_dtype"] = fields["dtype"] = dtypes.pop()
    packing = packing or source.packing
    if isinstance(packing, Nf4Packing):  # blocks of rounded scales do not join
        packing = Nf4Packing()
    # Modules may be named otherwise than their tensors: GPT-NeoX's embed_out is lm_head.
    heads = {head_name(architecture.layout(fields)): None, USUAL_HEAD: None}
    ignored = [name.removesuffix(".weight") for name in heads]
    plan, metadata = _planned(source, mappings, packing)
    if isinstance(packing, SparsePacking):
        fields["quantization_config"] = packing.config(ignored, _sparsity(source))
    elif packing is not None:
        fields["quantization_config"] = packing.config(ignored)
    tensor_io.write(folder / run_files.WEIGHTS, plan, metadata)
    files.write_json(folder / run_files.CONFIG, fields | ends)
    files.write_bytes(folder / run_files.TOKENIZER, tokenizer.to_shared_json().encode())
    _copy_chat_template(source.folder, folder)
    defaults = {TOKENIZER_CONFIG: _tokenizer_config(tokenizer, config.context_length)}
    for name, content in (defaults | settings | {GENERATION_CONFIG: generation}).items():
        files.write_json(folder / name, content)
    return architecture.class_name


def sparse_bytes(source: ModelSource, packing: SparsePacking) -> int:
    """How many bytes the weights take that `export` writes. Raises what that does."""
    architecture, source = _as_stored(source, source.tokenizer(), packing)
    plan, metadata = _planned(source, tensor_mappings(architecture, source.config), packing)
    return tensor_io.file_bytes(list(plan), metadata)


def _as_stored(
    source: ModelSource, tokenizer: Tokenizer, packing: Packing | SparsePacking | None
) -> tuple[Architecture, ModelSource]:
    """The architecture of the folder, and the model with the tensors that it has there."""
    packed = "quantization" if packing or source.packing else ""
    if isinstance(packing, SparsePacking):
        packed = SPARSE_OPTION
    architecture = find_kept(source.config, tokenizer, packed=packed)
    return architecture, source.stored_as(architecture.stored_config(source.config))


def _planned(
    source: ModelSource,
    mappings: Sequence[TensorMapping],
    packing: Packing | SparsePacking | None,
) -> tuple[dict[StoredTensor, Callable[[], Array]], dict[str, str]]:
    """Every tensor of the file, and its metadata."""
    matrices = quantized_matrices(minilm_layout(source.config))
    plan: dict[StoredTensor, Callable[[], Array]] = {}
    packed: dict[str, tuple[int, ...]] = {}
    for mapping in mappings:
        names = mapping.minilm_names
        shape = mapping.shape([source.shapes[name] for name in names])
        if isinstance(packing, SparsePacking) and names[0] in matrices:
            plan |= _sparse(source, mapping, shape, packing)
        elif isinstance(packing, Packing) and names[0] in source.quantized:
            plan |= _packed(source, mapping, shape, packing)
            packed[mapping.hf_name] = shape
        else:
            tensor = StoredTensor(mapping.hf_name, source.dtype(names[0]), shape)
            plan[tensor] = partial(_joined, source, mapping)
    metadata = {"format": "pt"}
    if isinstance(packing, Packing):
        others = [mapping.hf_name for mapping in mappings if mapping.hf_name not in packed]
        metadata |= packing.metadata(packed, others)
    return plan, metadata


def _joined(source: ModelSource, mapping: TensorMapping) -> Array:
    return mapping.join(source.read_joined(mapping.minilm_names), source.config)


def _sparse(
    source: ModelSource, mapping: TensorMapping, shape: tuple[int, ...], packing: SparsePacking
) -> dict[StoredTensor, Callable[[], Array]]:
    """What is stored for a matrix with zeros. It is read once for their number, and once for each part."""
    dtype, name = source.dtype(mapping.minilm_names[0]), mapping.hf_name
    nonzero = count_nonzero(_joined(source, mapping))

    def part(of: str) -> Array:
        return packing.pack(name, _joined(source, mapping))[of]

    tensors = packing.tensors(name, shape, dtype, nonzero)
    return {tensor: partial(part, tensor.name) for tensor in tensors}


def _sparsity(source: ModelSource) -> float:
    """The share of zeros in the matrices of the layers."""
    names = quantized_matrices(minilm_layout(source.config))
    nonzero = sum(count_nonzero(source.read(name)) for name in names)
    return 1 - nonzero / sum(math.prod(source.shapes[name]) for name in names)


def _packed(
    source: ModelSource, mapping: TensorMapping, shape: tuple[int, ...], packing: Packing
) -> dict[StoredTensor, Callable[[], Array]]:
    """What is stored for a quantized matrix.

    Those that become one are joined by their codes and scales, both of which have their rows.
    """
    packing.check({mapping.hf_name: shape})

    def part(name: str) -> Array:
        matrices = [source.read_rounded(each) for each in mapping.minilm_names]
        joined = Rounded(
            mapping.join([matrix.codes for matrix in matrices], source.config),
            mapping.join([matrix.scales for matrix in matrices], source.config),
        )
        return packing.pack(mapping.hf_name, joined)[name]

    return {
        tensor: partial(part, tensor.name) for tensor in packing.tensors(mapping.hf_name, shape)
    }


def find_kept(config: ModelConfig, tokenizer: Tokenizer, *, packed: str = "") -> Architecture:
    """The first that can represent ``config`` and in which transformers keeps the tokenizer.

    ``packed``: and whose matrices are (out, in), as quantized and sparse ones are; what asks for it.

    For Qwen2, transformers 5 builds its own pre-tokenizer whatever tokenizer.json says
    (`MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`).
    """
    architectures = exportable(config)
    if packed:
        architectures = [each for each in architectures if not _is_transposed(each, config)]
    if not architectures:
        raise ConfigError(
            packed,
            "matrices that transformers keeps (in, out), where no quantized layer reads them",
            "an architecture of linear layers",
            "`minilm convert --to minilm` dequantizes, and --to gguf quantizes for llama.cpp",
        )
    for architecture in architectures:
        if architecture.model_type != "qwen2" or is_qwen2(json.loads(tokenizer.to_json())):
            return architecture
    raise TokenizerError(
        run_files.TOKENIZER,
        f"a {tokenizer.kind} tokenizer",
        "Qwen2's own, which transformers puts in its place for Qwen2ForCausalLM",
        "with model.sliding_window 0 another class has this shape",
    )


def _is_transposed(architecture: Architecture, config: ModelConfig) -> bool:
    layout = architecture.layout(architecture.config_json(architecture.stored_config(config)))
    return any(tensor.transposed for tensor in layout.tensors)


def import_run(source: ModelSource, folder: Path) -> None:
    """Write a run: config.json, weights by minilm's names in the dtype they came in, tokenizer.json.

    The files that say which tokens begin and end a text are copied beside it.
    """
    tokenizer = source.tokenizer()
    settings = _tokenizer_settings(source.folder)
    config = source.folder / run_files.CONFIG
    if not source.is_run and GENERATION_CONFIG not in settings and config.is_file():
        fields = read_object(config)
        # Small models are often made with GPT-2's config.json, whose 50256 is none of their tokens.
        ends = {name: fields[name] for name in _ENDS if _are_tokens(fields.get(name), tokenizer)}
        settings |= {GENERATION_CONFIG: ends} if ends else {}
    generation = with_chat_end(settings.get(GENERATION_CONFIG, {}), source.folder, tokenizer)
    settings |= {GENERATION_CONFIG: generation} if generation else {}
    plan = {
        StoredTensor(name, source.dtype(name), shape): lambda name=name: source.read(name)
        for name, shape in source.shapes.items()
    }
    metadata = {"converted_from": source.folder.name}
    tensor_io.write(folder / run_files.WEIGHTS, plan, metadata)
    tokenizer.save(folder / run_files.TOKENIZER)
    _copy_chat_template(source.folder, folder)
    for name, content in settings.items():
        files.write_json(folder / name, content)
    recipe = find_preset("gpt2").train_config(learning_rate=IMPORTED_LEARNING_RATE)
    run_files.write_record(folder, run_files.RunRecord(source.config, recipe))


def _are_tokens(ids: Any, tokenizer: Tokenizer) -> bool:
    """Whether ``ids`` of a config.json, one or several, are all in the vocabulary."""
    numbers = ids if isinstance(ids, list) else [ids]
    return all(type(each) is int and 0 <= each < tokenizer.vocab_size for each in numbers)


def _tokenizer_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """The files beside a tokenizer.json that go with it, as far as they are there."""
    return {
        name: _read_settings(folder / name)
        for name in TOKENIZER_SETTINGS
        if (folder / name).is_file()
    }


def _read_settings(path: Path) -> dict[str, Any]:
    """A JSON object that can be written again. Raises FormatError for others."""
    fields = read_object(path)
    try:
        json.dumps(fields, allow_nan=False)
    except ValueError:
        raise FormatError(path, "NaN or an infinity", "finite numbers") from None
    return fields


def _tokenizer_config(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        # A decoder continues its prompt, so padding goes before it; it takes no token types, which
        # transformers 4 adds unless told otherwise.
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_of_text is not None:
        import tokenizers

        backend = tokenizers.Tokenizer.from_str(tokenizer.to_shared_json())
        # None where a file gives the number to none.
        token = backend.id_to_token(tokenizer.end_of_text)
        if token is not None:
            config |= {"bos_token": token, "eos_token": token, "pad_token": token}
    return config


def _copy_chat_template(source: Path, folder: Path) -> None:
    if (source / CHAT_TEMPLATE).is_file():
        files.write_bytes(folder / CHAT_TEMPLATE, read_text(source / CHAT_TEMPLATE).encode())
