"""A tied head that is stored twice: the copy is found by its values, since nothing in the file says it.

Some exporters write the head again, llama.cpp's converter for GPT-2 for instance. Samples of large tables
are compared first, which mostly tells different ones apart, then everything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from minilm.architectures.task_heads import class_name_of
from minilm.formats.header import Header, StoredTensor
from minilm.inspection.names import is_buffer, is_embedding

_HEAD_MAPS = ("cls.predictions.transform.dense.weight", "lm_head.dense.weight")
_HEAD_BIAS = re.compile(r"(^|\.)(cls\.predictions|lm_head)\.bias\Z")
# Bytes of one piece, and the number of pieces of a sample.
PIECE, SAMPLE_PIECES = 2**17, 64

_TABLE = re.compile(r"(^|[._])(wte|embed\w*|word_embeddings|shared)\.weight\Z")
# Of types that are not declared: `_tied_weights_keys` in huggingface/transformers `models/TYPE`.
_TIES = {
    "luke": (
        ("entity_predictions.decoder.weight", "luke.entity_embeddings.entity_embeddings.weight"),
        ("lm_head.bias", "lm_head.decoder.bias"),
    ),
    "neomme": (
        ("lm_head.weight", "model.embed_tokens.word_embeddings.weight"),
        ("unembedding_projection.weight", "model.embed_tokens.embedding_projection.weight"),
    ),
    "t5gemma2": (
        ("model.decoder.embed_tokens.eoi_embedding", "model.encoder.embed_tokens.eoi_embedding"),
    ),
    "udop": (
        ("encoder.embed_patches.proj.weight", "patch_embed.proj.weight"),
        ("encoder.embed_patches.proj.bias", "patch_embed.proj.bias"),
        (
            "encoder.relative_bias.biases.0.relative_attention_bias.weight",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
    ),
}
# Parts of detectors that are one, by the beginnings of their names: that of the second is in the file.
_PARTS = {
    "dab-detr": (("model.decoder.bbox_embed.", "bbox_predictor."),),
    "pp_doclayout_v3": (
        ("model.decoder.bbox_embed.", "model.enc_bbox_head."),
        ("model.decoder.class_embed.", "model.enc_score_head."),
    ),
    **dict.fromkeys(
        ("d_fine", "deimv2", "rt_detr_v2"),
        (
            ("bbox_embed.", "model.decoder.bbox_embed."),
            ("class_embed.", "model.decoder.class_embed."),
        ),
    ),
}
_HEADS = ("entity_predictions.", "lm_head.", "unembedding_projection.")
_TWO_MODELS = "EncoderDecoderModel"  # transformers' pair of an encoder and a language model
_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_MAYBE_HEADED = (*_HEADED, "ForMaskedLM")
_HEAD = re.compile(r"(.*\.)?(lm_head|output|embed_out|output_layer|output_projection|head)\.weight")


def with_copied_head(header: Header, config: Mapping[str, Any]) -> Header:
    """The header with a head whose values are those of the token table among the tensors that it shares.

    One that is not stored is too. A ``config`` that says that they are not tied decides.
    """
    has_two = class_name_of(config).endswith(_TWO_MODELS)
    parts = [config.get("decoder")] if has_two else [config, config.get("text_config")]
    says = [part.get("tie_word_embeddings") for part in parts if isinstance(part, Mapping)]
    copies = () if False in says else copied_heads(header)[:1]
    is_tied = next((each for each in says if isinstance(each, bool)), None)
    if not copies and is_tied is not False:
        copies = _unstored_head(header, config, _HEADED if is_tied is None else _MAYBE_HEADED)
    copies = (*copies, *_ties_of_type(header, config))
    return replace(header, shared=(*header.shared, *copies)) if copies else header


def _ties_of_type(header: Header, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What else the type ties, where the file has the second of a pair and not the first.

    Heads are those of classes that have one.
    """
    names = {tensor.name for tensor in header.tensors}
    model = class_name_of(config)
    has_heads = not model or model.endswith(_MAYBE_HEADED)
    for name, original in _TIES.get(str(config.get("model_type")), ()):
        if original in names and name not in names and (has_heads or not name.startswith(_HEADS)):
            yield name, original
    for beginning, stored in _PARTS.get(str(config.get("model_type")), ()):
        copies = {
            name.replace(stored, beginning, 1): name for name in names if name.startswith(stored)
        }
        yield from sorted(pair for pair in copies.items() if pair[0] not in names)


def _unstored_head(
    header: Header, config: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """(head, token table) where config.json names a class with a head, and the file has one such table alone.

    The head's name is that which transformers gives it, as far as the table's name tells.
    """
    name = class_name_of(config)
    has_two = name.endswith(_TWO_MODELS)
    if not has_two and not name.endswith(classes):
        return ()
    sizes = set(_vocabulary_sizes(config))
    tables = [
        tensor.name
        for tensor in header.tensors
        if len(tensor.shape) == 2
        and tensor.shape[0] in sizes
        and not is_buffer(tensor.name, tensor.shape)
        and tensor.name.startswith("decoder." if has_two else "")
    ]
    if len(tables) != 1 or not _TABLE.search(tables[0]):
        return ()
    # BERT's and RoBERTa's heads, which have a dense map, have a bias under two names.
    bias = next((tensor.name for tensor in header.tensors if _HEAD_BIAS.search(tensor.name)), "")
    if bias and any(tensor.name.endswith(_HEAD_MAPS) for tensor in header.tensors):
        head = f"{bias.removesuffix('bias')}decoder."
        return (f"{head}weight", tables[0]), (f"{head}bias", bias)
    outer = tables[0].rpartition(".model.embed_tokens.")[0]
    return ((f"{outer}.lm_head.weight" if outer else "lm_head.weight", tables[0]),)


def _vocabulary_sizes(config: Mapping[str, Any], depth: int = 3) -> Iterator[int]:
    """Each `vocab_size` of a config and of its parts."""
    if isinstance(config.get("vocab_size"), int):
        yield config["vocab_size"]
    if depth:
        for part in config.values():
            if isinstance(part, Mapping):
                yield from _vocabulary_sizes(part, depth - 1)


def copied_heads(header: Header) -> tuple[tuple[str, str], ...]:
    """Pairs (head, first token table of the same values) that are stored twice, not shared."""
    shared = {name for name, _ in header.shared}
    heads, tables = [], []
    for tensor in header.tensors:
        if tensor.offset is None or tensor.name in shared:
            continue
        if _HEAD.fullmatch(tensor.name):
            heads.append(tensor)
        elif is_embedding(tensor.name, tensor.shape):
            tables.append(tensor)
    keys: Mapping[str, Hashable] = {t.name: _kind(t) for t in (*heads, *tables)}
    heads, tables = _with_common_keys(heads, tables, keys)
    if sum(tensor.nbytes for tensor in (*heads, *tables)) > header.data_bytes:
        return ()  # views that overlap: reading them all is not bounded by the file's size
    for sample in (True, False):
        keys = _digests((*heads, *tables), sample=sample)
        heads, tables = _with_common_keys(heads, tables, keys)
    table_of_key: dict[Hashable, str] = {}
    for table in tables:
        table_of_key.setdefault(keys[table.name], table.name)
    return tuple((head.name, table_of_key[keys[head.name]]) for head in heads)


def stored_apart(header: Header, ties: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those of ``ties`` both of which are stored, of one shape and dtype, with other values: by a sample."""
    stored = {tensor.name: tensor for tensor in header.tensors if tensor.offset is not None}
    apart = []
    for pair in ties:
        copy, table = (stored.get(name) for name in pair)
        if copy is None or table is None or _kind(copy) != _kind(table):
            continue
        digests = _digests((copy, table), sample=True)
        if digests[copy.name] != digests[table.name]:
            apart.append(pair)
    return tuple(apart)


def _kind(tensor: StoredTensor) -> Hashable:
    return tensor.shape, tensor.dtype, tensor.nbytes


def _with_common_keys(
    heads: list[StoredTensor], tables: list[StoredTensor], keys: Mapping[str, Hashable]
) -> tuple[list[StoredTensor], list[StoredTensor]]:
    """The heads with the key of a table, and the tables with that of a head; a key may be absent."""
    common = {keys[t.name] for t in heads if t.name in keys}
    common &= {keys[t.name] for t in tables if t.name in keys}
    return (
        [head for head in heads if keys.get(head.name) in common],
        [table for table in tables if keys.get(table.name) in common],
    )


def _digests(tensors: Iterable[StoredTensor], *, sample: bool) -> dict[str, Hashable]:
    """A key of the values of each, or of a sample; none for one value everywhere (zeros that stand for none).

    A sample of one value has a key: the values between may be others.
    """
    digests: dict[str, Hashable] = {}
    for file, stored in groupby(tensors, key=lambda tensor: tensor.file):
        assert file is not None  # a tensor with an offset has one
        with file.open("rb", buffering=0) as stream:
            for tensor in stored:
                digest, has_values = hashlib.sha256(repr(_kind(tensor)).encode()), sample
                assert tensor.offset is not None
                for start, count in _pieces(tensor.nbytes, sample=sample):
                    stream.seek(tensor.offset + start)
                    piece = stream.read(count)
                    digest.update(piece)
                    has_values = has_values or piece.count(piece[:1]) < len(piece)
                if has_values:
                    digests[tensor.name] = digest.digest()
    return digests


def _pieces(nbytes: int, *, sample: bool) -> Iterator[tuple[int, int]]:
    """(start, bytes) of everything, or of a sample: as many pieces as it may have, evenly spaced."""
    number = -(-nbytes // PIECE)
    if not sample or number <= SAMPLE_PIECES:
        yield from ((start, min(PIECE, nbytes - start)) for start in range(0, nbytes, PIECE))
        return
    for index in range(SAMPLE_PIECES):
        yield index * (nbytes - PIECE) // (SAMPLE_PIECES - 1), PIECE
