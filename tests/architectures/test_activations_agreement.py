"""What one more layer saves for the backward pass, estimated, against autograd on transformers' models.

Its norms are written out, and keep the normalised rows beside their input and output: those are added.
"""

from __future__ import annotations

from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.costs.activation_estimate import FLOAT32, estimate
from minilm.ledger.layout import Role

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
import torch

from tests.architectures.test_transformers_agreement import IS_VERSION_4, Config, build

pytestmark = pytest.mark.skipif(IS_VERSION_4, reason="the declarations follow transformers 5")

TOKENS = 96
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 160,
    "moe_intermediate_size": 48,
    "vocab_size": 11,
    "max_position_embeddings": TOKENS,
    "pad_token_id": 0,
    "experts_implementation": "eager",
}
CONVOLVED: dict[str, Config] = {
    "lfm2": {"block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"num_dense_layers": 0, "num_experts": 4, "num_experts_per_tok": 2},
    "lfm3": {},
}
ATTENDING: dict[str, Config] = {
    "llama": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4},
}


@pytest.mark.parametrize("model_type", [*ATTENDING, *CONVOLVED])
def test_one_more_layer(model_type: str) -> None:
    configs = [_config(model_type, layers) for layers in (1, 2)]
    layouts = [layout_of(config) for config in configs]
    measured = [_saved(build(config, "cpu").train()) for config in configs]
    estimated = [estimate(layout, dtype="float32") for layout in layouts]
    one, two = (each.total(TOKENS) for each in estimated if each is not None)
    normalised = layouts[1].count(role=Role.SCALED) - layouts[0].count(role=Role.SCALED)
    expected = two - one + FLOAT32 * TOKENS * normalised
    assert expected == pytest.approx(measured[1] - measured[0], rel=0.1)
    checkpointed = [each.checkpointed(TOKENS) for each in estimated if each is not None]
    assert checkpointed[1] - checkpointed[0] == FLOAT32 * TOKENS * SIZES["hidden_size"]


def _config(model_type: str, layers: int) -> Config:
    config = {"model_type": model_type, "num_hidden_layers": layers, **SIZES}
    if model_type in CONVOLVED:
        return {**config, "layer_types": ["conv"] * layers, **CONVOLVED[model_type]}
    return config | ATTENDING[model_type]


def _saved(model: Any) -> int:
    """Bytes of the storages that autograd holds after a forward pass, but for parameters and buffers."""
    tokens = torch.zeros(1, TOKENS, dtype=torch.long)
    own = (*model.parameters(), *model.buffers(), tokens)
    uncounted = {tensor.untyped_storage().data_ptr() for tensor in own}
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in uncounted:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, labels=tokens, use_cache=False)
    return sum(storage.nbytes() for storage in held.values())
