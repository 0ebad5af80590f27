"""The loss of a model whose gradients, or all of whose tensors, several processes share.

ddp: every process has the model, gradients are averaged (Li et al. 2020, arXiv:2006.15704). fsdp: every
process has a part of each tensor, gathered where it is used (Zhao et al. 2023, arXiv:2304.11277; torch's
fully_shard). hsdp: parts within a machine, copies across machines.

Where products are in bfloat16, the matrices of the blocks are gathered so: autocast rounds them to the same
values. All else, master weights and gradients that are reduced are float32.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from minilm.costs.rank_memory import UNIT_BYTES
from minilm.errors import ConfigError
from minilm.model.layers import CausalConvolution
from minilm.model.transformer import Transformer
from minilm.parallel.process_group import World, world
from minilm.parallel.sharded import whole
from minilm.parallel.tensor_checks import check, check_training
from minilm.parallel.tensor_parallel import parallelize

Loss = Callable[..., Tensor]


class SharedLoss(nn.Module):
    """``loss`` of the model and a batch, as the module that DDP or FSDP takes: its hooks see every pass."""

    def __init__(self, model: Transformer, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Tensor) -> Tensor:
        """The loss of this process's rows."""
        return self.loss(self.model, *batch)


class DataParallel:
    """A model over the processes of a ``world``: its `loss`, whose gradients are the mean over all."""

    def __init__(
        self,
        model: Transformer,
        loss: Loss,
        layout: str,
        world: World,
        gathered: torch.dtype = torch.float32,
    ) -> None:
        """``gathered``: the dtype that sharded matrices of the blocks are gathered in."""
        self._module: nn.Module = SharedLoss(model, loss)
        self._model, self._skeleton = model, model
        # Of forward passes in training, without those in which they gather.
        self.seconds = self._gathering = 0.0
        device = next(model.parameters()).device.type
        if world.tensor > 1:
            check(model.config, world.tensor, world)
            check_training(model, world.tensor)
        elif layout == "ddp":
            self._module = DistributedDataParallel(self._module, gradient_as_bucket_view=True)
            return
        self._skeleton = without_values(model)
        mesh = device_mesh(layout, world, device)
        if world.tensor > 1:
            parallelize(model, mesh["tensor"])
            mesh = mesh["process"] if layout == "fsdp" else mesh["machine", "process"]
        policy = MixedPrecisionPolicy()
        if gathered != torch.float32:
            policy = MixedPrecisionPolicy(
                param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            fully_shard(_elementwise(model), mesh=mesh, reshard_after_forward=False)
        for unit in _units(model):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        fully_shard(self._module, mesh=mesh)
        for module in self._module.modules():
            if isinstance(module, FSDPModule):
                module.register_forward_pre_hook(self._before_gathering, prepend=True)
                module.register_forward_pre_hook(self._after_gathering)

    def loss(self, model: nn.Module, *batch: Tensor) -> Tensor:
        """The loss of this process's rows."""
        began, self._gathering = time.perf_counter(), 0.0
        loss: Tensor = self._module(*batch)
        if torch.is_grad_enabled():
            self.seconds += time.perf_counter() - began - self._gathering
        if not torch.is_grad_enabled():
            for module in self._module.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # else what is gathered waits for a backward pass
        return loss

    def _before_gathering(self, *_: object) -> None:
        self._gathering -= time.perf_counter()

    def _after_gathering(self, *_: object) -> None:
        self._gathering += time.perf_counter()

    def micro_batch(self, is_last: bool) -> AbstractContextManager[None]:
        """What a pass is within: the last one of a step alone shares the gradients of all."""
        if isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(is_last)
            return contextlib.nullcontext()
        assert isinstance(self._module, DistributedDataParallel)
        return contextlib.nullcontext() if is_last else self._module.no_sync()

    @torch.no_grad()
    def whole_model(self) -> Transformer:
        """The model with all of its tensors, in the main process, on the CPU where they are sharded."""
        if self._skeleton is self._model:
            return self._model
        values: dict[str, Tensor] = {}
        for name, parameter in self._model.named_parameters():
            value = whole(parameter.detach())
            if world().is_main:
                values[name] = value.cpu()
        if not world().is_main:
            return self._skeleton
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            if name not in values:  # tied
                (first,) = (n for n, p in self._model.named_parameters() if p is parameter)
                values[name] = values[first]
        self._skeleton.load_state_dict(values, strict=False, assign=True)
        return self._skeleton


def _units(model: Transformer) -> list[list[nn.Module]]:
    """Consecutive blocks that are gathered together: as many as UNIT_BYTES of float32 hold, or one.

    Few messages are faster than many; of a large model a block is one anyway. A block that several layers
    run is one too.
    """
    blocks = list(model.blocks)
    size = sum(parameter.nbytes for parameter in blocks[0].parameters())
    count = max(1, UNIT_BYTES // size) if len(blocks) == model.config.num_layers else 1
    return [blocks[start : start + count] for start in range(0, len(blocks), count)]


def _elementwise(model: Transformer) -> list[nn.Module]:
    """What scales, shifts or convolves the residual stream, which is in float32."""
    kinds = (nn.LayerNorm, nn.RMSNorm, CausalConvolution)
    return [module for module in model.modules() if isinstance(module, kinds)]


def without_values(model: Transformer) -> Transformer:
    """A copy whose parameters have shapes alone; buffers are those of the model."""
    parameters = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, {**parameters, **{id(b): b for b in model.buffers()}})


def device_mesh(layout: str, world: World, device: str) -> DeviceMesh:
    """One dimension, or for hsdp two: machines, and processes of each.

    With tensor parallelism three: those two, of groups of processes, and those of a group. Under ddp each
    group is a machine of its own, and under fsdp all are one. Raises ConfigError where the machines have
    different numbers of processes.
    """
    if layout != "hsdp" and world.tensor == 1:
        return init_device_mesh(device, (world.size,))
    per_machine = {"ddp": world.tensor, "fsdp": world.size}.get(layout) or int(
        os.environ.get("LOCAL_WORLD_SIZE", world.size)
    )
    if world.size % per_machine or per_machine % world.tensor:
        raise ConfigError(
            "parallel",
            f"{layout} with {per_machine} of {world.size} processes here",
            "the same number on each machine",
        )
    shape, names = [world.size // per_machine, per_machine // world.tensor], ["machine", "process"]
    if world.tensor > 1:
        shape, names = [*shape, world.tensor], [*names, "tensor"]
    return init_device_mesh(device, tuple(shape), mesh_dim_names=tuple(names))
