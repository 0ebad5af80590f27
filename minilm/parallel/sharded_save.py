"""torch.distributed.checkpoint over all processes: each writes its parts of tensors, and reads those it has.

HuggingFaceStorageWriter and Reader: safetensors. They are given tensors only, since anything else would be
pickled; the default FileSystemReader, which unpickles ``.metadata``, is not used. minilm writes the files:
torch copies each twice in memory first, which takes longer than the writing where new pages are dear.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.device_mesh import DeviceMesh
from torch.futures import Future as TorchFuture

from minilm import files
from minilm.parallel.process_group import world
from minilm.parallel.sharded import is_shared, local, part_like
from minilm.parallel.tensor_parts import OFFSET, OFFSETS, write_tensors
from minilm.runs.base_run import weights_sha256


class ShardedSave:
    """Saves of tensors of the same names and shapes, one after the other, beside the training.

    Every process calls each method together with all others.
    """

    def __init__(self) -> None:
        self._copies = _Copies()

    def begin(self, folder: Path, tensors: Mapping[str, Tensor]) -> Future[Any]:
        """Copy the tensors as they are now, and begin to write them to ``folder``; done when all have.

        A tensor that is not shared is the same in every process that gives it; rank 0 gives all.
        """
        begun = async_save(
            dict(tensors),
            storage_writer=_PartsWriter(str(folder), save_distributed=True),
            process_group=world().saving,
            async_stager=self._copies,
        )
        assert isinstance(begun, Future)
        return begun


def finish(begun: Future[Any], folder: Path) -> dict[str, str]:
    """Wait for a save, and return the SHA-256 of every file by its name.

    Raises the error of a process that failed, in all of them.
    """
    with _errors_of_all(folder):
        begun.result()
    path = folder / _file_name()
    own = {path.name: weights_sha256(path)} if path.exists() else {}
    gathered: list[Any] = [None] * world().size
    dist.all_gather_object(gathered, own, group=world().saving)
    return {name: digest for each in gathered for name, digest in each.items()}


def fill_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read each tensor's values from ``folder``, of a shared one those of this process's part, in place.

    What is stored is checked by then (`tensor_parts.read_parts`).
    """
    parts = {name: tensor for name, tensor in tensors.items() if local(tensor).numel()}
    with _errors_of_all(folder):
        load(
            parts,
            storage_reader=HuggingFaceStorageReader(str(folder)),
            process_group=world().control,
        )


@contextlib.contextmanager
def _errors_of_all(folder: Path) -> Iterator[None]:
    """What a process failed of is raised in each, by itself: an OSError is about ``folder``."""
    try:
        yield
    except CheckpointException as error:
        failures = [failure for failure, _ in error.failures.values()]
        of_disk = next((each for each in failures if isinstance(each, OSError)), None)
        raise (files.error_about(folder, of_disk) if of_disk else failures[0]) from None


class _PartsWriter(HuggingFaceStorageWriter):
    """The writer of one process: all its parts in one file, each straight from its tensor's memory."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> TorchFuture[list[WriteResult]]:
        """Write them, with where each begins in its tensor, as torch's reader and `read_parts` expect."""
        parts, offsets, results = {}, {}, []
        for item in plan.items:
            name, part = item.index.fqn, planner.resolve_data(item)
            assert item.tensor_data is not None
            assert isinstance(part, Tensor)
            parts[name] = part
            offsets[name] = {OFFSET: list(item.tensor_data.chunk.offsets)}
            results.append(WriteResult(item.index, part.nbytes, storage_data=None))
        if parts:
            write_tensors(Path(self.path, _file_name()), parts, {OFFSETS: json.dumps(offsets)})
        done: TorchFuture[list[WriteResult]] = TorchFuture()
        done.set_result(results)
        return done


def _file_name() -> str:
    """Of the file of this process: torch's name for the only one of a shard."""
    return f"shard-{world().rank + 1:05d}-model-00001-of-00001.safetensors"


class _Copies(AsyncStager):
    """Copies on the CPU of what this process has of each tensor, in memory that is allocated once.

    torch's own stagers fail where a process has no row of a tensor (torch 2.13); here it is left out.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Tensor] = {}
        self._meshes: dict[DeviceMesh, DeviceMesh] = {}

    @property
    def should_synchronize_after_execute(self) -> bool:
        """A copy is whole when `stage` returns."""
        return False

    def synchronize_staging(self) -> None:
        """Nothing is to be waited for."""

    @torch.no_grad()
    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The same tensors as they are now, which nothing changes."""
        copies = {}
        for name, tensor in state_dict.items():
            part = local(tensor)
            if not part.numel():
                continue
            if name not in self._parts:
                self._parts[name] = torch.empty_like(part, device="cpu", pin_memory=part.is_cuda)
            self._parts[name].copy_(part)
            copies[name] = self._like(tensor, self._parts[name])
        return copies

    def _like(self, tensor: Tensor, part: Tensor) -> Tensor:
        if not is_shared(tensor):
            return part
        return part_like(tensor, part, self._on_cpu(tensor.device_mesh))

    def _on_cpu(self, mesh: DeviceMesh) -> DeviceMesh:
        """The same processes; a DTensor of a mesh of GPUs has its part on one."""
        if mesh.device_type == "cpu":
            return mesh
        if mesh not in self._meshes:
            self._meshes[mesh] = DeviceMesh("cpu", mesh.mesh, mesh_dim_names=mesh.mesh_dim_names)
        return self._meshes[mesh]

    def close(self) -> None:
        """Nothing is held that has to be given back."""
