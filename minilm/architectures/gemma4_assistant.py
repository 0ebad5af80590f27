"""Gemma 4's assistants as transformers stores them: small decoders that draft what the model would write.

Each is Gemma 4's text of `gemma3n.py` without keys and values of its own: those of the model are read, whose
hidden states are projected in and out. The head may look at the tokens of the nearest centroids alone. Names,
shapes and defaults: huggingface/transformers `models/{gemma4_assistant,gemma4_unified_assistant}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilm.architectures.building_blocks import V, d, linear
from minilm.architectures.config_fields import flag, require, size, sub_config, whole_number
from minilm.architectures.gemma3n import layout as gemma4
from minilm.architectures.task_heads import class_ending
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, as_polynomial

_TEXTS = {
    "gemma4_assistant": ("gemma4_text", 1536),
    "gemma4_unified_assistant": ("gemma4_unified_text", 3840),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """The tensors of Gemma4 and Gemma4UnifiedAssistantForCausalLM for a config.json."""
    class_ending(config, ("ForCausalLM",))
    text_type, backbone = _TEXTS[config["model_type"]]
    text = sub_config(config, "text_config")
    num_layers = size(text, "num_hidden_layers", 30)
    shared = whole_number(text, "num_kv_shared_layers", 0) or num_layers
    require({"num_kv_shared_layers": shared}, "num_kv_shared_layers", num_layers)
    result = gemma4(
        {
            "hidden_size_per_layer_input": 0,
            **text,
            "model_type": text_type,
            "num_kv_shared_layers": num_layers,
            "tie_word_embeddings": flag(config, "tie_word_embeddings", True),
        }
    )
    width, part = (
        as_polynomial(size(config, "backbone_hidden_size", backbone)),
        components.PROJECTOR,
    )
    centroids, ordering = (), ()
    if flag(config, "use_ordered_embeddings", False):
        number = as_polynomial(size(config, "num_centroids", 2048))
        centroids = linear("masked_embedding.centroids", number, d, components.LM_HEAD, repeat=ONE)
        ordering = (
            Tensor("masked_embedding.token_ordering", (V,), components.LM_HEAD, Role.LOOKED_UP),
        )
    return replace(
        result,
        family=config["model_type"],
        tensors=(
            *linear("pre_projection", d, 2 * width, part, repeat=ONE),
            *result.tensors,
            *linear("post_projection", width, d, part, repeat=ONE),
            *centroids,
        ),
        buffers=(*result.buffers, *ordering),
    )
