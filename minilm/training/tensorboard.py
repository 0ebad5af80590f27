"""The metrics for TensorBoard too, through torch's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minilm.errors import MissingExtraError
from minilm.runs import files as run_files

# Where TensorBoard shows each field of metrics.jsonl; the others stand on its axes.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_bits_per_byte": "bits_per_byte/validation",
    "lr": "schedule/learning_rate",
    "grad_norm": "gradient/norm",
    "tokens_per_second": "speed/tokens_per_second",
}


class TensorBoard:
    """Event files in the run's folder; those after ``from_step`` of an earlier process are hidden."""

    def __init__(self, run_dir: Path, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard", "--train.tensorboard") from None
        folder = str(run_dir / run_files.TENSORBOARD)
        self._writer: Any = SummaryWriter(folder, purge_step=from_step + 1)

    def write(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        for name, tag in TAGS.items():
            if name in line:
                self._writer.add_scalar(tag, line[name], line["step"])

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()
