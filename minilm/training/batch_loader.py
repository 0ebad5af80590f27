"""Batches as tensors where the model is."""

from __future__ import annotations

import torch
from torch import Tensor

from minilm.config import TrainConfig
from minilm.data.batches import Batch
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError
from minilm.text.tokenizers import BPETokenizer


class BatchLoader:
    """Training batches of a dataset, read from the memory map and copied to a device.

    On CUDA they go through pinned memory without waiting: the step that uses one is queued behind it.
    """

    def __init__(self, data: Dataset, config: TrainConfig, device: torch.device) -> None:
        self._data, self._config, self._device = data, config, device
        self._merges = None
        if config.bpe_dropout:
            if not isinstance(data.tokenizer, BPETokenizer):
                raise ConfigError(
                    "bpe_dropout",
                    f"{config.bpe_dropout} with a {data.tokenizer.kind} tokenizer",
                    "0, or --tokenizer bpe, which has merges to undo",
                )
            self._merges = data.tokenizer.merges()

    def arrays(self, step: int, micro_step: int, rows: int, length: int) -> Batch:
        """The batch of that pass of the step after ``step`` finished ones, in memory."""
        return self._data.training_batch(
            self._config,
            step=step,
            micro_step=micro_step,
            rows=rows,
            length=length,
            merges=self._merges,
        )

    def tensors(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the loss takes, on the device.

        Inputs and targets, (rows, length) each, and positions where documents share a row.
        """
        return tuple(self.to_device(torch.from_numpy(array)) for array in batch.arrays)

    def to_device(self, tensor: Tensor) -> Tensor:
        """One that is in memory."""
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)
