"""Saving off the training thread: state is copied between two steps, and written while training continues."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minilm.architectures.adapter_map import AdapterMap
from minilm.checkpoint import replace_metadata, save_adapter
from minilm.parallel.process_group import world
from minilm.parallel.sharded import is_shared
from minilm.parallel.tensor_parts import read_parts, under, write_tensors
from minilm.runs import files as run_files
from minilm.training.resume_state import (
    Optimizers,
    Progress,
    remove_older,
    state_fields,
    state_tensors,
    write_folders_as_files,
    write_state,
)
from minilm.training.state_folder import StateFolders, write_record


class CheckpointWriter:
    """Writes the state of a run, and its weights, in the order that a crash at any instant allows.

    One save is being written at a time: the next waits for it. What went wrong in the thread is raised
    by the next call.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Optimizers,
        keep: int,
        *,
        weights_dtype: str = "float32",
        adapters: AdapterMap | None = None,
    ) -> None:
        self._model, self._optimizers, self._keep = model, optimizers, keep
        self._adapters = adapters
        self.weights_dtype: torch.dtype = getattr(torch, weights_dtype)
        self._copies: dict[str, Tensor] = {}
        self._folders: StateFolders | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="minilm-saver")
        self._writing: Future[None] | None = None

    def save(
        self,
        run_dir: Path,
        progress: Progress,
        settings: dict[str, Any],
        *,
        weights_metadata: Mapping[str, str] | None,
    ) -> None:
        """Copy everything as it is now, and begin to write it.

        With ``weights_metadata`` model.safetensors is written too, with that in its header. Of tensors that
        processes share each writes its parts, else the main process all.
        """
        self.wait()
        tensors = state_tensors(self._model, self._optimizers)
        progress_now = replace(progress, scaler=dict(progress.scaler))
        if any(is_shared(tensor) for tensor in tensors.values()):
            self._folders = self._folders or StateFolders()
            folder, begun = self._folders.begin(run_dir, progress.step, tensors)
            fields = state_fields(progress_now, settings)
            self._writing = self._thread.submit(
                self._write_folder, run_dir, folder, begun, fields, weights_metadata
            )
        elif world().is_main:
            copy_done = self._copy(tensors)
            self._writing = self._thread.submit(
                self._write,
                *(run_dir, self._copies, copy_done, progress_now, settings, weights_metadata),
            )

    def end(self, run_dir: Path) -> None:
        """Of a run that is at its end: what several processes wrote becomes what one process writes."""
        self.wait()
        if self._folders and world().is_main:
            write_folders_as_files(run_dir)

    def describe_weights(self, run_dir: Path, metadata: Mapping[str, str]) -> None:
        """Replace what the header of model.safetensors says."""
        self.wait()
        if world().is_main:
            replace_metadata(run_files.weights_path(run_dir), metadata)

    def wait(self) -> None:
        """Wait until the save that was begun is on the disk. Raises its OSError if it failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _copy(self, tensors: Mapping[str, Tensor]) -> torch.Event | None:
        """Copy into memory that is allocated once; from CUDA without waiting, until the event."""
        for name, tensor in tensors.items():
            if name not in self._copies or self._copies[name].shape != tensor.shape:
                self._copies[name] = torch.empty_like(
                    tensor, device="cpu", pin_memory=tensor.is_cuda
                )
            self._copies[name].copy_(tensor, non_blocking=tensor.is_cuda)
        if not any(tensor.is_cuda for tensor in tensors.values()):
            return None
        copy_done: torch.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copy_done.record()
        return copy_done

    def _write(
        self,
        run_dir: Path,
        tensors: dict[str, Tensor],
        copy_done: torch.Event | None,
        progress: Progress,
        settings: dict[str, Any],
        weights_metadata: Mapping[str, str] | None,
    ) -> None:
        if copy_done is not None:
            copy_done.synchronize()
        # The weights go first: a crash in between leaves a state that writes the same ones again.
        if weights_metadata is not None:
            self._write_weights(run_dir, tensors, weights_metadata)
        write_state(run_dir, tensors, progress, settings, keep=self._keep)

    def _write_folder(
        self,
        run_dir: Path,
        folder: Path,
        begun: Future[Any],
        fields: dict[str, Any],
        weights_metadata: Mapping[str, str] | None,
    ) -> None:
        assert self._folders is not None
        digests = self._folders.finish(begun, folder)
        if not world().is_main:
            return
        if weights_metadata is not None:
            self._write_weights(run_dir, read_parts(folder), weights_metadata)
        newest = write_record(folder, digests, fields)
        remove_older(run_dir, newest, self._keep)

    def _write_weights(
        self, run_dir: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> None:
        """model.safetensors, in the dtype that the run's weights are stored in; of an adapter, its file.

        From a state's tensors, one at a time.
        """
        if self._adapters is not None:
            weights = under("model.", tensors, torch.float32)
            save_adapter(run_files.weights_path(run_dir), weights, self._adapters, metadata)
        else:
            weights = under("model.", tensors, self.weights_dtype)
            write_tensors(run_dir / run_files.WEIGHTS, weights, metadata)
