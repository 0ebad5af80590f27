"""Tensors of which every process has a part: the whole of one, and a part of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

from minilm.parallel.process_group import world

if TYPE_CHECKING:  # a second of importing, where a process alone has no such tensor
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement


def is_shared(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor."""
    return hasattr(tensor, "placements")


def whole(tensor: Tensor) -> Tensor:
    """All of it, in every process; a plain tensor is itself. All processes call it together."""
    return tensor.full_tensor() if is_shared(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The part that this process has; of a plain tensor itself."""
    return tensor.to_local() if is_shared(tensor) else tensor


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy ``values``, which every process has whole, into it."""
    tensor.copy_(like(tensor, values))


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """``values``, which every process has whole, in parts as ``tensor`` and on its device."""
    values = values.to(tensor.device)
    if not is_shared(tensor) or values.ndim == 0:
        return values
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)


def part_like(tensor: Tensor, part: Tensor, mesh: DeviceMesh | None = None) -> Tensor:
    """A tensor of which ``part`` is what this process has of ``tensor``; the memory is that of ``part``.

    ``mesh``: the same processes on the device of ``part``, where that is another one.
    """
    if not is_shared(tensor):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part,
        mesh or tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def gathered(parts: Tensor, like: Tensor) -> Tensor:
    """(n, ...): the parts of n tensors that are shared as ``like`` is -> (n, ...), whole."""
    if not is_shared(like):
        return parts
    from torch.distributed.tensor import DTensor

    shape = torch.Size((len(parts), *like.shape))
    stride = (like.numel(), *like.stride())
    return DTensor.from_local(
        parts,
        like.device_mesh,
        _stacked(like.placements),
        run_check=False,
        shape=shape,
        stride=stride,
    ).full_tensor()


def own_part(tensors: Tensor, like: Tensor) -> Tensor:
    """The inverse of `gathered`."""
    if not is_shared(like):
        return tensors
    from torch.distributed.tensor import distribute_tensor

    placements = _stacked(like.placements)
    return distribute_tensor(tensors, like.device_mesh, placements, src_data_rank=None).to_local()


def _stacked(placements: Sequence[Placement]) -> list[Placement]:
    """Those of tensors that are stacked in a new first dimension."""
    from torch.distributed.tensor import Shard

    return [Shard(each.dim + 1) if isinstance(each, Shard) else each for each in placements]


def shared_out(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """``function`` of (n, ...), which works on each of the n alone, by all processes: each computes some."""
    processes = world()
    if processes.size == 1:
        return function(batch)
    each = -(-len(batch) // processes.size)
    own = batch[each * processes.rank : each * (processes.rank + 1)]
    result = batch.new_zeros(each, *batch.shape[1:])
    if len(own):
        result[: len(own)] = function(own)
    results = [torch.empty_like(result) for _ in range(processes.size)]
    dist.all_gather(results, result)
    return torch.cat(results)[: len(batch)]
