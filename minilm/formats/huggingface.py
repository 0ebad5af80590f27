"""Sharded checkpoints by their index, and which weights a folder holds."""

from __future__ import annotations

from pathlib import Path


def shards_of(folder: Path) -> Path | None:
    """The file that stands for a folder's weights; None where it holds none."""
    weights = folder / "model.safetensors"
    return weights if weights.is_file() else None
