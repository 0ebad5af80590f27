"""Peak bytes of live tensors, measured: every storage from the operation that makes it until it is freed.

What a kernel allocates for itself and does not return is not seen, nor what the allocator adds.
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, TrainConfig
from minilm.config.lora import LoraConfig
from minilm.costs.generation_memory import generation_memory
from minilm.costs.trained import Trained
from minilm.costs.training_step import TrainingStep
from minilm.data.dataset import Dataset
from minilm.generation.decoder import make_decoder
from minilm.ledger.layout_changes import with_frozen
from minilm.model.transformer import Transformer
from minilm.quantization.packing import Format
from minilm.quantization.packings import make_packing
from minilm.text.tokenizers import ByteTokenizer
from minilm.training.data_source import DataSource
from minilm.training.resume_state import Progress
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import Runtime
from minilm.training.signals import StopRequest
from minilm.training.train_step import TrainStep
from minilm.transforms.freeze import freeze
from minilm.transforms.lora import apply
from minilm.transforms.quantize import round_layers


class PeakMemory(TorchDispatchMode):
    """``live`` bytes of tensors now and at their ``peak``, each storage counted once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def hold(self, tensors: Any) -> None:
        """Count the tensors in ``tensors`` that are not counted yet."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
                continue
            storage = tensor.untyped_storage()
            address = storage._cdata
            if address not in self._sizes:
                self._sizes[address] = storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, address)
        self.peak = max(self.peak, self.live)

    def _free(self, address: int) -> None:
        self.live -= self._sizes.pop(address)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.hold(result)
        return result


@dataclass(frozen=True)
class Mode:
    """A way to train. ``freeze`` are words of `FREEZABLE`; an adapter may be on a ``packing`` base."""

    optimizer: str = "adamw"
    dtype: str = "float32"
    checkpointing: bool = False
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    packing: Format | None = None

    def predicted(self, config: ModelConfig, batch: int, context: int) -> int:
        """Bytes at the peak of a step, by the formula."""
        whole = layout(config)
        frozen = with_frozen(whole, self.freeze).tensors if self.freeze else ()
        trained = Trained(
            frozenset(tensor.component for tensor in frozen if tensor.frozen),
            self.lora,
            self.packing or "",
        )
        step = TrainingStep(
            config,
            whole,
            optimizer=self.optimizer,
            dtype=self.dtype,
            checkpointing=self.checkpointing,
            trained=trained,
        )
        return step.memory(batch, context).peak

    def measured(self, config: ModelConfig, batch: int, context: int) -> int:
        """Bytes at the peak of the second step of training on random tokens, on the CPU."""
        config = replace(config, context_length=context)
        model = self._model(config)
        settings = TrainConfig(
            optimizer=self.optimizer,  # type: ignore[arg-type]
            batch_size=batch,
            learning_rate=1e-3,
        )
        runtime = Runtime(
            torch.device("cpu"),
            getattr(torch, self.dtype),
            compile=False,
            activation_checkpointing=self.checkpointing,
        )
        runtime.prepare(model)
        tokens = np.random.default_rng(0).integers(0, config.vocab_size, 4 * context)
        data = Dataset(
            tokens.astype(np.uint16),
            tokens[:0].astype(np.uint16),
            ByteTokenizer(),
            source="",
            bytes=0,
            sha256="",
            train_bytes=0,
            val_bytes=0,
            documents=1,
        )
        source = DataSource("", (), Path())
        step = TrainStep(
            RunSpec(Path(), model, settings, data, source, runtime), Progress(), StopRequest()
        )
        memory = PeakMemory()
        with warnings.catch_warnings():
            # Of torch, each time that it writes an RMSNorm of 16 bits out.
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
            step.run()  # AdamW makes its state
            memory.hold((list(model.parameters()), list(model.buffers())))
            memory.hold([list(each.values()) for o in step.optimizers for each in o.state.values()])
            with memory:
                step.run()
        return memory.peak

    def _model(self, config: ModelConfig) -> Transformer:
        model = Transformer(config)
        if self.packing:
            round_layers(model, make_packing(self.packing))
        if self.lora:
            apply(model, self.lora)
        if self.freeze:
            freeze(model, self.freeze)
        return model.train()


@torch.inference_mode()
def measured_generation(config: ModelConfig, batch: int, context: int, precision: str) -> int:
    """Bytes at the peak of reading prompts that leave room for a token, and of that token."""
    model = Transformer(config).eval().requires_grad_(False)
    if precision in ("int8", "int4"):
        round_layers(model, make_packing(precision))  # type: ignore[arg-type]
    if precision == "bfloat16":
        model.bfloat16()
    memory = PeakMemory()
    memory.hold((list(model.parameters()), list(model.buffers())))
    tokens = torch.zeros(batch, context - 1, dtype=torch.long)
    with memory:
        decoder = make_decoder(model)
        cache = decoder.new_cache(batch, context)
        decoder(tokens, cache)
        decoder(tokens[:, :1], cache)
    return memory.peak


def predicted_generation(config: ModelConfig, batch: int, context: int, precision: str) -> int:
    """The same by the formula."""
    memory = generation_memory(
        config, layout(config), batch=batch, context=context, precision=precision
    )
    return memory.peak
