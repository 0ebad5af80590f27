"""How a tensor of another program is made of minilm's, and back: numpy alone, a tensor at a time.

Shapes: h heads, k head width, d model width, r k/2.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilm.architectures.conversion import Architecture, GgufGraph
from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.formats.tensor_io import Array
from minilm.ledger import components
from minilm.ledger.layout import Layout

# Matrices that some files have as one.
_FUSED = {
    components.ATTENTION_QUERY_KEY_VALUE: (
        components.ATTENTION_QUERY,
        components.ATTENTION_KEY,
        components.ATTENTION_VALUE,
    ),
    components.FEED_FORWARD_GATE_UP: (components.FEED_FORWARD_GATE, components.FEED_FORWARD_UP),
}


@dataclass(frozen=True)
class TensorMapping:
    """One tensor of a Hugging Face or GGUF file, and the tensors of minilm that it holds.

    Their rows follow each other, or alternate head by head (``by_head``), as in GPT-NeoX; ``transposed``
    is (in, out), as GPT-2's Conv1D keeps its matrices. With ``adjacent_heads``, so many heads, the two
    rows that RoPE rotates together are neighbours, as llama.cpp's Llama has them.
    """

    hf_name: str
    minilm_names: tuple[str, ...]
    transposed: bool = False
    by_head: bool = False
    adjacent_heads: int = 0

    def join(self, tensors: Sequence[Array], config: ModelConfig) -> Array:
        """The Hugging Face tensor of minilm's."""
        if self.by_head:
            shape = (config.num_heads, config.head_dim, *tensors[0].shape[1:])
            heads = np.stack([tensor.reshape(shape) for tensor in tensors], axis=1)  # h 3 k ...
            return heads.reshape(-1, *tensors[0].shape[1:])
        joined = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        if self.adjacent_heads:  # h 2 r ... -> h r 2 ...
            return _swap_rows(joined, (self.adjacent_heads, 2, -1))
        return np.transpose(joined) if self.transposed else joined

    def split(self, tensor: Array, rows: Sequence[int], config: ModelConfig) -> list[Array]:
        """minilm's tensors of the Hugging Face one; ``rows`` are those of each."""
        if self.by_head:
            shape = (config.num_heads, len(rows), config.head_dim, *tensor.shape[1:])
            heads = tensor.reshape(shape)  # h 3 k ...
            return [heads[:, i].reshape(-1, *tensor.shape[1:]) for i in range(len(rows))]
        joined = np.transpose(tensor) if self.transposed else tensor
        if self.adjacent_heads:  # h r 2 ... -> h 2 r ...
            joined = _swap_rows(joined, (self.adjacent_heads, -1, 2))
        return np.split(joined, np.cumsum(rows)[:-1].tolist())

    def shape(self, minilm_shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of the Hugging Face tensor, from the shapes of minilm's."""
        joined = (sum(shape[0] for shape in minilm_shapes), *minilm_shapes[0][1:])
        return joined[::-1] if self.transposed else joined


def tensor_mappings(architecture: Architecture, config: ModelConfig) -> list[TensorMapping]:
    """One mapping for each tensor of the architecture's file, in the order in which it declares them.

    Every tensor of minilm's is in one of them.
    """
    hf_layout = architecture.layout(architecture.config_json(config))
    mappings = match_tensors(hf_layout, config, architecture.fused_qkv)
    matched = sum(len(mapping.minilm_names) for mapping in mappings)
    assert matched == sum(1 for _ in minilm_layout(config).named_tensors())
    return mappings


def gguf_mappings(
    layout: Layout, graph: GgufGraph | None, config: ModelConfig
) -> list[TensorMapping]:
    """One mapping for each tensor of a GGUF file, whose Layout has GGUF's names.

    ``graph`` is None for an architecture that is only imported.
    """
    adjacent_rotary = graph is not None and graph.adjacent_rotary
    return match_tensors(layout, config, "joined", adjacent_rotary=adjacent_rotary)


def match_tensors(
    hf_layout: Layout, config: ModelConfig, fused_qkv: str, *, adjacent_rotary: bool = False
) -> list[TensorMapping]:
    """One mapping for each tensor of ``hf_layout``, in its order.

    Tensors are matched by their component and suffix, layer by layer: so no name is written twice.
    """
    rotated = {
        components.ATTENTION_QUERY: config.num_heads,
        components.ATTENTION_KEY: config.num_kv_heads,
    }
    # Query norm and key norm are one component, and in this order in both.
    unmatched: defaultdict[tuple[str, str], deque[str]] = defaultdict(deque)
    for tensor in minilm_layout(config).named_tensors():
        unmatched[tensor.component, _suffix(tensor.name)].append(tensor.name)
    transposed = {tensor.component for tensor in hf_layout.tensors if tensor.transposed}
    mappings = []
    for tensor in hf_layout.named_tensors():
        is_qkv = tensor.component == components.ATTENTION_QUERY_KEY_VALUE
        suffix = _suffix(tensor.name)
        mappings.append(
            TensorMapping(
                tensor.name,
                tuple(
                    unmatched[component, suffix].popleft()
                    for component in _FUSED.get(tensor.component, (tensor.component,))
                ),
                transposed=tensor.component in transposed and suffix == "weight",
                by_head=is_qkv and fused_qkv == "by_head",
                adjacent_heads=rotated.get(tensor.component, 0) if adjacent_rotary else 0,
            )
        )
    return mappings


def _swap_rows(values: Array, row_shape: tuple[int, int, int]) -> Array:
    """The rows seen as three dimensions, the second and the third swapped."""
    swapped: Array = values.reshape(*row_shape, *values.shape[1:]).swapaxes(1, 2)
    return swapped.reshape(values.shape)


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]
