"""LayoutLMv3: BERT's layers over a page's words, where they stand on it, and patches of its picture.

Names, shapes and defaults: huggingface/transformers `models/layoutlmv3`.
"""

from __future__ import annotations

from minilm.architectures.building_blocks import T, V, d, equal_heads, h, norm
from minilm.architectures.config_fields import Config, flag, layers, quotient, size, whole_number
from minilm.architectures.encoder_layers import BERT_LAYER, encoder_layer, lookup
from minilm.architectures.task_heads import (
    C,
    class_ending,
    head,
    is_body,
    number_of_classes,
    without_cache,
    without_prefix,
)
from minilm.architectures.vision_tower import matrix, once, vector
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensors
from minilm.ledger.symbols import ONE, as_polynomial

_PREFIX = "layoutlmv3."
_TEXT, _TOKENS, _ANSWERS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
_FEW = 10  # classes of tokens that one matrix tells apart


def layout(config: Config) -> Layout:
    """The tensors of a class of LayoutLMv3, by default its body alone, for a config.json."""
    ending = class_ending(config, ("Model", _TEXT, _TOKENS, _ANSWERS))
    heads = equal_heads(config, (768, 12, None, None))
    context = size(config, "max_position_embeddings", 512)
    symbols = {
        "V": size(config, "vocab_size", 50265),
        "T": context,
        "L": layers(config, "num_hidden_layers", 12),
        "f": size(config, "intermediate_size", 3072),
        **heads.symbols,
    }
    body = (
        *(_words(config) if flag(config, "text_embed", True) else ()),
        *(_picture(config) if flag(config, "visual_embed", True) else ()),
        *encoder_layer(f"{_PREFIX}encoder.layer.{{i}}", BERT_LAYER),
        *_relative_positions(config),
    )
    if is_body(ending):
        body = without_prefix(body, _PREFIX)
    else:
        symbols["C"] = number_of_classes(config)
        body = (*body, *_classifier(ending, symbols["C"]))
    result = Layout(
        config["model_type"],
        body,
        symbols,
        attention=(heads.attention(),),
        context_length=context,
    )
    return without_cache(result)


def _words(config: Config) -> Tensors:
    """The tables of words, and of the edges, heights and widths of their boxes."""
    prefix, part = f"{_PREFIX}embeddings", components.POSITION_EMBEDDING
    rows = size(config, "max_2d_position_embeddings", 1024)
    boxes = [(letter, size(config, "coordinate_size", 128)) for letter in "xy"]
    boxes += [(letter, size(config, "shape_size", 128)) for letter in "hw"]
    return (
        lookup(f"{prefix}.word_embeddings", V, components.TOKEN_EMBEDDING),
        lookup(f"{prefix}.token_type_embeddings", whole_number(config, "type_vocab_size", 2)),
        *norm(f"{prefix}.LayerNorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        lookup(f"{prefix}.position_embeddings", T, part),
        *(
            lookup(f"{prefix}.{letter}_position_embeddings", rows, part, as_polynomial(width))
            for letter, width in boxes
        ),
    )


def _picture(config: Config) -> Tensors:
    """Patches of the page, which stand behind its words, and norms of both."""
    patch = size(config, "patch_size", 16)
    side = quotient(size(config, "input_size", 224), patch, "input_size", "patch_size")
    pixels = (size(config, "num_channels", 3), patch, patch)
    return (
        *matrix(f"{_PREFIX}patch_embed.proj", (d, *pixels)),
        once(f"{_PREFIX}cls_token", (1, 1, d)),
        once(f"{_PREFIX}pos_embed", (1, side**2 + 1, d)),
        *norm(f"{_PREFIX}LayerNorm", components.EMBEDDING_NORM, bias=True, repeat=ONE),
        *vector(f"{_PREFIX}norm", d),
    )


def _relative_positions(config: Config) -> Tensors:
    """What attention adds for two words' distance in the text, and on the page."""
    part, tables = components.POSITION_EMBEDDING, []
    if flag(config, "has_relative_attention_bias", True):
        tables.append(("", size(config, "rel_pos_bins", 32)))
    if flag(config, "has_spatial_attention_bias", True):
        bins = size(config, "rel_2d_pos_bins", 64)
        tables += [("x_", bins), ("y_", bins)]
    return tuple(
        once(
            f"{_PREFIX}encoder.rel_pos_{axis}bias.weight", (h, bins), Role.LOOKED_UP, component=part
        )
        for axis, bins in tables
    )


def _classifier(ending: str, classes: int) -> Tensors:
    role = Role.ONCE if ending == _TEXT else Role.MULTIPLIED
    if ending == _TOKENS and classes < _FEW:
        return head("classifier", C, role=role)
    name = "qa_outputs" if ending == _ANSWERS else "classifier"
    return (*head(f"{name}.dense", d, role=role), *head(f"{name}.out_proj", C, role=role))
