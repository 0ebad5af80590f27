"""Tensors of which every process has a part: the whole of one, and a part of one.

Matrices that are needed whole: `WholeMatrices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

from minilm.parallel.process_group import world

if TYPE_CHECKING:  # a second of importing, where a process alone has no such tensor
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


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
    local(tensor).copy_(values[_block(tensor)])


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


class WholeMatrices:
    """A function of whole matrices, of which each process has a block: each computes it of some of them.

    The matrices are in stacks of one shape, (n, r, c) each. A process is sent the blocks of its own matrices
    by those that have one copy together, and sends each process that one's block of the results. Every
    process makes one together with all others, and calls it together with them.
    """

    def __init__(self, stacks: Iterable[Sequence[Tensor]]) -> None:
        stacks = list(stacks)
        self._shapes = [tuple(stack[0].shape) for stack in stacks]
        counts = [len(stack) for stack in stacks]
        size = world().size
        # Of all matrices, one after the other, each process computes as many as another or one more or less.
        bounds = [sum(counts) * rank // size for rank in range(size + 1)]
        self._shares = [
            [
                slice(
                    *(min(max(bound - sum(counts[:k]), 0), n) for bound in bounds[rank : rank + 2])
                )
                for k, n in enumerate(counts)
            ]
            for rank in range(size)
        ]
        own = _processes_of_copy(stacks[0][0]), [_block(stack[0]) for stack in stacks]
        self._holders: list[tuple[tuple[int, ...], list[tuple[EllipsisType | slice, ...]]]] = [
            own
        ] * size
        if size > 1:
            dist.all_gather_object(self._holders, own, group=world().control)

    def apply(
        self, function: Callable[[list[Tensor]], list[Tensor]], parts: Sequence[Tensor]
    ) -> list[Tensor]:
        """``function`` takes stacks and returns such. Blocks of this process, (n, ...) each -> of results."""
        rank, size = world().rank, world().size
        if size == 1:
            return function(list(parts))
        copy = self._holders[rank][0]
        counts = [share.stop - share.start for share in self._shares[rank]]
        whole = [parts[k].new_empty(n, *self._shapes[k]) for k, n in enumerate(counts)]
        _exchange(
            [
                [part[share] for part, share in zip(parts, self._shares[to], strict=True)]
                if rank in self._holders[to][0]
                else []
                for to in range(size)
            ],
            [
                [stack[block] for stack, block in zip(whole, self._holders[of][1], strict=True)]
                if of in copy
                else []
                for of in range(size)
            ],
        )
        computed = function(whole)
        results = [torch.empty_like(part) for part in parts]
        _exchange(
            [
                [stack[block] for stack, block in zip(computed, blocks, strict=True)]
                for _, blocks in self._holders
            ],
            [
                [result[share] for result, share in zip(results, shares, strict=True)]
                for shares in self._shares
            ],
        )
        return results


def _exchange(sent: Sequence[Sequence[Tensor]], received: Sequence[Sequence[Tensor]]) -> None:
    """Send process i the tensors ``sent[i]``, and fill ``received[i]`` with what it sends."""
    flat = torch.cat([tensor.flatten() for tensors in sent for tensor in tensors])
    out, own = (
        [sum(tensor.numel() for tensor in tensors) for tensors in each] for each in (received, sent)
    )
    output = flat.new_empty(sum(out))
    dist.all_to_all_single(output, flat, output_split_sizes=out, input_split_sizes=own)
    tensors = [tensor for each in received for tensor in each]
    parts = torch.split(output, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _processes_of_copy(tensor: Tensor) -> tuple[int, ...]:
    """The ranks that have all of it together, this process among them."""
    if not is_shared(tensor):
        return (world().rank,)
    mesh, place = tensor.device_mesh, tensor.device_mesh.get_coordinate()
    assert place is not None
    index = [
        at if placement.is_replicate() else slice(None)
        for placement, at in zip(tensor.placements, place, strict=True)
    ]
    return tuple(mesh.mesh[tuple(index)].flatten().tolist())


def _block(tensor: Tensor) -> tuple[EllipsisType | slice, ...]:
    """Which rows, columns, ... of it this process has."""
    if not is_shared(tensor):
        return (...,)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return ..., *(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
