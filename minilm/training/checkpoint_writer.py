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
from minilm.checkpoint import save_adapter, write_tensors
from minilm.parallel.process_group import world
from minilm.parallel.sharded import whole
from minilm.runs import files as run_files
from minilm.training.resume_state import Optimizers, Progress, state_tensors, write_state


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

        With ``weights_metadata`` model.safetensors is written too, with that in its header.
        """
        self.wait()
        copy_done = self._copy()
        if not world().is_main:
            return
        progress_now = replace(progress, scaler=dict(progress.scaler))
        self._writing = self._thread.submit(
            self._write, run_dir, self._copies, copy_done, progress_now, settings, weights_metadata
        )

    def write_weights(
        self, run_dir: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> None:
        """model.safetensors, in the dtype that the run's weights are stored in; of an adapter, its file."""
        weights = {name: whole(tensor.detach()) for name, tensor in weights.items()}
        if not world().is_main:
            return
        if self._adapters is not None:
            save_adapter(run_files.weights_path(run_dir), weights, self._adapters, metadata)
            return
        stored = {name: tensor.detach().to(self.weights_dtype) for name, tensor in weights.items()}
        write_tensors(run_dir / run_files.WEIGHTS, stored, metadata)

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

    def _copy(self) -> torch.Event | None:
        """Copy into memory that is allocated once; from CUDA without waiting, until the event.

        What the processes share is gathered, and the main one copies it.
        """
        tensors = state_tensors(self._model, self._optimizers)
        for name, part in tensors.items():
            tensor = whole(part)
            if not world().is_main:
                continue
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
            prefix = "model."
            weights = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            self.write_weights(run_dir, weights, weights_metadata)
        write_state(run_dir, tensors, progress, settings, keep=self._keep)
