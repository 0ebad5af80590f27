"""The processes of a run, as torchrun starts them. A process alone is a world of one, and sends nothing.

Rank 0 writes and prints; the others compute. What depends on a clock or a signal is decided once, for all.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TextIO

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from minilm.errors import InputError

# Preparing a corpus or writing a run may take rank 0 longer than a step may take anybody.
PREPARATION_TIMEOUT = timedelta(days=2)
STEP_TIMEOUT = timedelta(minutes=10)
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """How many processes there are, and which of them this one is.

    ``store`` is what they share beside tensors, ``control`` a group on the CPU whatever the device.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    control: Any = None

    @property
    def is_parallel(self) -> bool:
        """Whether torchrun started this process, be it alone."""
        return self.store is not None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This process's of ``total`` rows: consecutive, as many as another's or one more or less."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, *values: int) -> tuple[int, ...]:
        """The largest of each over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return tuple(tensor.tolist())

    def wait(self) -> None:
        """Go on when every process is here; unlike a step, that may take long."""
        if self.size > 1:
            dist.monitored_barrier(self.control, PREPARATION_TIMEOUT)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The block runs in rank 0, then in the others: they find what it has prepared, or fail as it did."""
        if not self.is_main:
            self.wait()
        try:
            yield
        finally:
            if self.is_main:
                self.wait()

    def claims(self, what: str) -> bool:
        """Whether this process is the first to say so: what all would print is printed once."""
        return self.size == 1 or self.store.add(what, 1) == 1


_world = World()


def world() -> World:
    """The processes of this run."""
    return _world


@contextlib.contextmanager
def process_group() -> Iterator[World]:
    """Join the processes that torchrun has started, for the block; without torchrun a process is alone.

    Raises InputError where the environment says half of it.
    """
    global _world
    if _world.is_parallel or not started_by_torchrun():
        yield _world
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(iter(rendezvous("env://", timeout=STEP_TIMEOUT)))
    dist.init_process_group(store=store, rank=rank, world_size=size, timeout=STEP_TIMEOUT)
    _world = World(
        rank,
        size,
        PrefixStore("minilm", store),
        dist.new_group(backend="gloo", timeout=STEP_TIMEOUT),
    )
    if rank:
        sys.stdout = sys.stderr = _nowhere()
    try:
        yield _world
    except BaseException as error:
        if _world.claims("failure"):
            sys.stderr = sys.__stderr__  # what all fail of is said by the first
        else:
            sys.stderr = _nowhere()
        if _is_of_communication(error):
            raise _lost_process(_world, error) from None
        raise
    finally:
        _world = World()
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _is_of_communication(error: BaseException) -> bool:
    """Whether another process ended or did not answer: gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _lost_process(world: World, error: BaseException) -> InputError:
    reason = "did not answer" if "imed out" in str(error) else "ended"
    return InputError(
        f"process {world.rank} of {world.size}",
        f"another one {reason}",
        "all of them",
        "what it said stands above; the run is as last saved, and --resume continues it",
    )


def started_by_torchrun() -> bool:
    """Whether there may be other processes. Raises InputError where the environment is incomplete."""
    if "WORLD_SIZE" not in os.environ or (
        os.environ["WORLD_SIZE"] == "1" and "RANK" not in os.environ
    ):
        return False
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise InputError(
            "WORLD_SIZE",
            f"{os.environ['WORLD_SIZE']}, and no {missing[0]}",
            "all that torchrun sets",
            "start with torchrun --nproc-per-node N scripts/train.py, or unset it",
        )
    return True
