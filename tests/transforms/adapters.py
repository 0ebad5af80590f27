"""Runs that are adapters, with nothing in them at zero."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from minilm.architectures.adapter_map import adapter_map
from minilm.checkpoint import load, save_adapter
from minilm.config.lora import LoraConfig
from minilm.model.transformer import Transformer
from minilm.runs import base_run
from minilm.runs import files as run_files
from minilm.transforms import adapter_files, lora

ALL = ("query", "key", "value", "output", "up", "down", "lm_head")


def trained(model: Transformer, seed: int = 1) -> Transformer:
    """Every parameter that is trained is moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def make_adapter_run(base: Path, folder: Path, config: LoraConfig) -> Transformer:
    """Write an adapter of ``base`` to ``folder``; return its model."""
    model = trained(lora.apply(load(base).model, config))
    adapters = adapter_map(model.config, config)
    (folder / run_files.ADAPTER).mkdir(parents=True)
    path = folder / run_files.ADAPTER
    adapter_files.write_config(path, config, adapters, str(base))
    save_adapter(path / run_files.ADAPTER_WEIGHTS, dict(model.named_parameters()), adapters, {})
    shutil.copy(base / run_files.TOKENIZER, folder)
    record = run_files.read_record(base / run_files.CONFIG)
    transforms = (*record.transforms, base_run.transform(config))
    record = replace(record, transforms=transforms, base=base_run.reference(base))
    run_files.write_record(folder, record)
    return model.requires_grad_(False)
