"""nanoGPT's `ckpt.pt` as a model to convert, read without unpickling it.

Names and `model_args`: karpathy/nanoGPT `model.py` and `train.py`: GPT-2's tensors as torch's Linear
stores them, biases or none, a tied head, GELU. `meta.pkl` has the table of a character model.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from minilm import formats
from minilm.architectures.conversion import ALL_BIASES, architecture_for
from minilm.architectures.tensor_map import tensor_mappings
from minilm.config import ModelConfig
from minilm.errors import FormatError, InputError
from minilm.formats.checks import check_same_tensors
from minilm.formats.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from minilm.interop.model_source import ModelSource, declared_shapes
from minilm.runs import files as run_files
from minilm.text.tokenizers import CharTokenizer, Tokenizer

ARGUMENTS = "model_args"
META = "meta.pkl"
_SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "context_length",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "d_model",
}


def open_nanogpt(path: Path) -> ModelSource:
    """Read the header of a checkpoint, and its tokenizer: tokenizer.json or meta.pkl beside it.

    Raises FormatError for a file that nanoGPT did not write, InputError without a tokenizer.
    """
    header = formats.read(path)
    config = _config(path, _model_arguments(path))
    architecture = architecture_for({"model_type": "gpt2"})
    stored_config = replace(config, **ALL_BIASES, norm_bias=True)  # GPT-2 has them always
    shapes = declared_shapes(config)
    mappings = [
        replace(mapping, transposed=False)
        for mapping in tensor_mappings(architecture, stored_config)
        if shapes.keys() >= set(mapping.minilm_names)
    ]
    layout = architecture.layout(architecture.config_json(stored_config))
    ignored = {name.format(i=i) for name in layout.ignored for i in range(config.num_layers)}
    ignored |= {tied for tied, _ in layout.ties}
    stored = {tensor.name: tensor for tensor in header.tensors if tensor.name not in ignored}
    expected = {
        mapping.hf_name: mapping.shape([shapes[name] for name in mapping.minilm_names])
        for mapping in mappings
    }
    check_same_tensors(path, {name: tensor.shape for name, tensor in stored.items()}, expected)
    origins = {
        name: (mapping, number)
        for mapping in mappings
        for number, name in enumerate(mapping.minilm_names)
    }
    return ModelSource(
        path.parent, config, stored, origins, is_run=False, own_tokenizer=_tokenizer(path)
    )


def _model_arguments(path: Path) -> dict[str, Any]:
    """What the model was made with, out of the file that `formats.read` has checked."""
    content = None
    if zipfile.is_zipfile(path):  # else written by torch before 1.6, which nanoGPT does not run on
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    with archive.open(name) as entry:
                        content = read_pickle(path, entry.read(MAX_PICKLE_BYTES + 1))
                    break
    arguments = content.get(ARGUMENTS) if isinstance(content, dict) else None
    if not isinstance(arguments, dict):
        raise FormatError(path, f"no {ARGUMENTS}", "a checkpoint of nanoGPT")
    return arguments


def _config(path: Path, arguments: dict[str, Any]) -> ModelConfig:
    """Raises FormatError for arguments that are none of nanoGPT's, ConfigError for sizes that cannot be."""
    missing = [name for name in (*_SIZES, "bias") if name not in arguments]
    if missing:
        raise FormatError(path, f"{ARGUMENTS} without {missing[0]}", "a checkpoint of nanoGPT")
    bias = arguments["bias"]
    return ModelConfig(
        **{field: arguments[name] for name, field in _SIZES.items()},
        position="learned",
        tied_embeddings=True,
        norm_bias=bias,
        qkv_bias=bias,
        attention_output_bias=bias,
        feed_forward_bias=bias,
        dropout=arguments.get("dropout", 0.0),
    )


def _tokenizer(path: Path) -> Tokenizer | None:
    """The characters of meta.pkl; None where there is a tokenizer.json."""
    if (path.parent / run_files.TOKENIZER).is_file():
        return None
    meta = path.parent / META
    if not meta.is_file():
        raise InputError(
            path.parent,
            f"neither {run_files.TOKENIZER} nor {META}",
            "one of them beside the checkpoint",
            f"GPT-2's {run_files.TOKENIZER}, or the {META} that a character model was trained with",
        )
    with meta.open("rb") as stream:
        content = read_pickle(meta, stream.read(MAX_PICKLE_BYTES + 1))
    table = content.get("itos") if isinstance(content, dict) else None
    characters = [table.get(i) for i in range(len(table))] if isinstance(table, dict) else []
    are_characters = all(
        isinstance(each, str) and len(each) == 1 and not "\ud800" <= each <= "\udfff"
        for each in characters
    )
    if not characters or not are_characters or len(set(characters)) < len(characters):
        raise FormatError(meta, "no table of characters in itos", f"nanoGPT's {META}")
    return CharTokenizer([str(each) for each in characters])
