"""ColPali and its kin: an image-text model without its head, and a short vector of each of its tokens.

Names, shapes and defaults: huggingface/transformers `models/{colpali,colqwen2,colmodernvbert}`.
"""

from __future__ import annotations

from dataclasses import replace
from reprlib import repr as shortened

from minilm.architectures import layout_of_class
from minilm.architectures.building_blocks import d, linear
from minilm.architectures.config_fields import Config, size, sub_config
from minilm.architectures.task_heads import UndeclaredClassError, class_ending, without_cache
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensors
from minilm.ledger.symbols import ONE, as_polynomial

# Their models, and what these have for the `model.` that such a model's own names begin with.
_MODELS = {
    "colmodernvbert": ("modernvbert", ""),
    "colpali": ("paligemma", "model."),
    "colqwen2": ("qwen2_vl", "language_model."),
}


def layout(config: Config) -> Layout:
    """The tensors of a type's ForRetrieval for a config.json."""
    class_ending(config, ("ForRetrieval",))
    inner = sub_config(config, "vlm_config")
    kind, body_name = _MODELS[config["model_type"]]
    if (inner.get("model_type") or kind) != kind:
        raise UndeclaredClassError("config.json: vlm_config", shortened(inner["model_type"]), kind)
    version = {"transformers_version": config.get("transformers_version")}
    body = layout_of_class({**version, **inner, "model_type": kind, "architectures": ["Model"]})
    assert body is not None

    def inside(name: str) -> str:
        below = name.removeprefix("model.")
        return f"vlm.{name}" if below == name else f"vlm.{body_name}{below}"

    def renamed(tensors: Tensors) -> Tensors:
        return tuple(replace(tensor, name=inside(tensor.name)) for tensor in tensors)

    vectors = as_polynomial(size(config, "embedding_dim", 128))
    part = components.PROJECTOR
    return replace(
        without_cache(body),
        family=config["model_type"],
        tensors=(
            *renamed(body.tensors),
            *linear("embedding_proj_layer", vectors, d, part, bias=True, repeat=ONE),
        ),
        buffers=renamed(body.buffers),
        ties=tuple((inside(copy), inside(table)) for copy, table in body.ties),
        ignored=tuple(map(inside, body.ignored)),
    )
