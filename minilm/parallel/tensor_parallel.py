"""Each matrix of the blocks shared out by several processes, which all compute the same rows of a batch.

Shoeybi et al. 2019 (Megatron-LM, arXiv:1909.08053), through torch's parallelize_module: queries, keys, values
and what goes up by heads and hidden units, what comes back by its inputs, summed over the processes.
Embeddings, norms and head are whole in each.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from minilm.model.transformer import Block, Transformer

_COLUMNS = ("query", "key", "value", "gate", "up")
_ROWS = ("output", "down")


def parallelize(model: Transformer, mesh: DeviceMesh) -> None:
    """Share the matrices of ``model`` out over the one dimension of ``mesh``, in place."""
    # It warns that norms of gradients are reduced over one dimension of a mesh after the other.
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.attention.num_heads //= mesh.size()
        block.attention.num_kv_heads //= mesh.size()
        for part in (block.attention, block.feed_forward):
            styles: dict[str, ParallelStyle] = {}
            for name, module in part.named_children():
                if name in _COLUMNS:
                    styles[name] = ColwiseParallel()
                elif name in _ROWS:
                    styles[name] = RowwiseParallel()
                else:  # a norm of queries or keys, of this process's heads: b h t k
                    _replicate(module, mesh, Shard(1))
            parallelize_module(part, mesh, styles)
        _replicate(block.attention_norm, mesh, Replicate())
        _replicate(block.feed_forward_norm, mesh, Replicate())
    for module in model.embedding.children():
        _replicate(module, mesh, Replicate())
    if model.config.tied_embeddings:
        model.lm_head.weight = model.embedding.token.weight
    _replicate(model.final_norm, mesh, Replicate())
    _replicate(model.lm_head, mesh, Replicate())


def _replicate(module: nn.Module, mesh: DeviceMesh, inputs: Placement) -> None:
    """Whole in each process, as a DTensor: gradients from parts of the ``inputs`` are summed."""

    def prepared(module: nn.Module, args: Any, mesh: DeviceMesh) -> Any:
        return DTensor.from_local(args[0], mesh, [inputs], run_check=False), *args[1:]

    def local(module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
        return output.to_local()

    distribute_module(module, mesh, input_fn=prepared, output_fn=local)
