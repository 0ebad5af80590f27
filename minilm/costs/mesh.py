"""Mesh: how the ranks of a world share a model, and what each of its groups is connected by.

As torch's device mesh (replicate, shard, tensor), the last dimension over neighbouring ranks:

    ddp    (W, 1, 1)       each rank has the whole model (Li et al. 2020, arXiv:2006.15704)
    fsdp   (1, W, 1)       each has 1/W of it, gathers block by block (Zhao et al. 2023, arXiv:2304.11277)
    hsdp   (W/S, S, 1)     sharded in a server, replicated between servers
    tp     (1, W/t, t)     a block's matrices divided among t ranks (Shoeybi et al. 2019, arXiv:1909.08053)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from minilm.config import ModelConfig


@dataclass(frozen=True)
class Mesh:
    """``replicas`` x ``shards`` x ``tensor`` ranks, of which ``gpus_per_server`` stand in one server."""

    name: str
    replicas: int = 1
    shards: int = 1
    tensor: int = 1
    gpus_per_server: int = 8

    @property
    def world(self) -> int:
        """All ranks."""
        return self.replicas * self.shards * self.tensor

    @property
    def data_ranks(self) -> int:
        """How many ranks, or groups of tensor-parallel ranks, work on sequences of their own."""
        return self.replicas * self.shards

    def leaves_server(self, group: str) -> bool:
        """Whether a ``group`` of ranks (tensor, shards, replicas) spans more than one server."""
        ranks = {
            "tensor": self.tensor,
            "shards": self.tensor * self.shards,
            "replicas": self.world,
        }
        size = {"tensor": self.tensor, "shards": self.shards, "replicas": self.replicas}
        return size[group] > 1 and ranks[group] > self.gpus_per_server


def meshes(world: int, gpus_per_server: int = 8, tensor: int = 1) -> Iterator[Mesh]:
    """The layouts of ``world`` ranks: ddp; fsdp; hsdp on several whole servers; ``tensor`` > 1 with fsdp."""
    yield Mesh("ddp" if world > 1 else "one GPU", world, 1, 1, gpus_per_server)
    if world == 1:
        return
    yield Mesh("fsdp", 1, world, 1, gpus_per_server)
    servers, left = divmod(world, gpus_per_server)
    if servers > 1 and not left and gpus_per_server > 1:
        yield Mesh(
            f"hsdp {servers}x{gpus_per_server}", servers, gpus_per_server, 1, gpus_per_server
        )
    if tensor > 1:
        shards = world // tensor
        name = f"tp {tensor}" + (f" fsdp {shards}" if shards > 1 else "")
        yield Mesh(name, 1, shards, tensor, gpus_per_server)


def largest_tensor_parallel(config: ModelConfig, world: int, gpus_per_server: int) -> int:
    """The largest power of 2 that divides heads, feed-forward, world and the cards of a server."""
    common = math.gcd(config.num_kv_heads, config.d_feed_forward, world, gpus_per_server)
    return common & -common


def divides(config: ModelConfig, tensor: int) -> bool:
    """Whether the heads and the feed-forward can be divided among ``tensor`` ranks."""
    return config.num_kv_heads % tensor == 0 == config.d_feed_forward % tensor


def part_of(config: ModelConfig, tensor: int) -> ModelConfig:
    """The model that one of ``tensor`` ranks holds and computes: its heads, its part of the feed-forward.

    Norms, the biases of what is summed, embeddings and head are whole on each.
    """
    if tensor == 1:
        return config
    return replace(
        config,
        num_heads=config.num_heads // tensor,
        num_kv_heads=config.num_kv_heads // tensor,
        d_feed_forward=config.d_feed_forward // tensor,
    )
