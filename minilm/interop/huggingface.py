"""A model as a Hugging Face folder, and such a folder as a run: streamed, a tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minilm import files
from minilm.config import TrainConfig
from minilm.formats import tensor_io
from minilm.formats.header import StoredTensor
from minilm.formats.json_file import read_object
from minilm.interop.architectures import fitting
from minilm.interop.model_source import Source, shapes_of
from minilm.runs import files as run_files
from minilm.text.tokenizers import GENERATION_CONFIG, ByteTokenizer, Tokenizer, load_tokenizer

TOKENIZER_CONFIG = "tokenizer_config.json"
KEPT = (GENERATION_CONFIG, TOKENIZER_CONFIG, "special_tokens_map.json")


def export(source: Source, folder: Path) -> str:
    """Write config.json, weights, tokenizer files and generation_config.json; return the class that opens it.

    Raises ConfigError where no stock architecture has this configuration, OSError as a file gives it.
    """
    config = source.config
    architecture = fitting(config)
    fields = architecture.config(config)
    tokenizer = load_tokenizer(source.folder / run_files.TOKENIZER, config.vocab_size)
    kept = _settings(source.folder)
    ends: dict[str, Any] = {
        "bos_token_id": tokenizer.end_of_text,
        "eos_token_id": tokenizer.end_of_text,
    }
    generation = ends | {"do_sample": True, "temperature": 0.8}
    if GENERATION_CONFIG in kept:
        generation = kept[GENERATION_CONFIG]
        ends = {name: generation.get(name) for name in ends}
    pieces = architecture.pieces(config)
    dtypes = {source.dtype(piece.ours[0]) for piece in pieces}
    if len(dtypes) == 1:
        fields["torch_dtype"] = fields["dtype"] = dtypes.pop()
    shapes = shapes_of(config)
    plan = {
        StoredTensor(
            piece.theirs,
            source.dtype(piece.ours[0]),
            piece.shape([shapes[name] for name in piece.ours]),
        ): lambda piece=piece: piece.join(
            [source.read(name) for name in source.alike(piece.ours)], config
        )
        for piece in pieces
    }
    tensor_io.write(folder / run_files.WEIGHTS, plan, {"format": "pt"})
    files.write_json(folder / run_files.CONFIG, fields | ends)
    tokenizer.save(folder / run_files.TOKENIZER)
    settings = {TOKENIZER_CONFIG: _tokenizer_config(tokenizer, config.context_length)} | kept
    for name, content in (settings | {GENERATION_CONFIG: generation}).items():
        files.write_json(folder / name, content)
    return architecture.class_name


def import_run(source: Source, folder: Path) -> None:
    """Write a run: our config.json, weights by our names in the dtype they came in, tokenizer.json.

    What says which tokens begin and end a text is kept beside it.
    """
    tokenizer = load_tokenizer(source.folder / run_files.TOKENIZER, source.config.vocab_size)
    settings = _settings(source.folder)
    if not source.is_run and GENERATION_CONFIG not in settings:
        fields = read_object(source.folder / run_files.CONFIG)
        found = {
            n: fields[n] for n in ("bos_token_id", "eos_token_id") if fields.get(n) is not None
        }
        settings |= {GENERATION_CONFIG: found} if found else {}
    plan = {
        StoredTensor(name, source.dtype(name), shape): lambda name=name: source.read(name)
        for name, shape in source.shapes.items()
    }
    metadata = {"converted_from": source.folder.name}
    tensor_io.write(folder / run_files.WEIGHTS, plan, metadata)
    tokenizer.save(folder / run_files.TOKENIZER)
    for name, content in settings.items():
        files.write_json(folder / name, content)
    run_files.write_config(folder, source.config, TrainConfig())


def _settings(folder: Path) -> dict[str, dict[str, Any]]:
    """The files beside a tokenizer.json that go with it, as far as they are there."""
    return {name: read_object(folder / name) for name in KEPT if (folder / name).is_file()}


def _tokenizer_config(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    # Of bytes the end of a text is the zero byte, whose name in the vocabulary is a letter that texts may
    # have: as a special token it would be found in them.
    if tokenizer.end_of_text is not None and not isinstance(tokenizer, ByteTokenizer):
        token = _token(tokenizer, tokenizer.end_of_text)
        config |= {"bos_token": token, "eos_token": token}
    return config


def _token(tokenizer: Tokenizer, number: int) -> str:
    content = json.loads(tokenizer.to_json())
    added = {token["id"]: token["content"] for token in content.get("added_tokens", [])}
    return str(added[number])
