"""python scripts/experiments/peak_memory.py: peak bytes of live tensors, predicted and measured, by mode."""

import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from minilm.config import ModelConfig, TrainConfig  # noqa: E402
from minilm.config.lora import LoraConfig  # noqa: E402
from minilm.generation.decoder import make_decoder  # noqa: E402
from minilm.model.transformer import Transformer  # noqa: E402
from minilm.quantization.packing import Format, make_packing  # noqa: E402
from minilm.training.resume_state import Progress  # noqa: E402
from minilm.training.runtime import Runtime  # noqa: E402
from minilm.training.signals import StopRequest  # noqa: E402
from minilm.training.train_step import TrainStep  # noqa: E402
from minilm.transforms.freeze import freeze  # noqa: E402
from minilm.transforms.lora import apply  # noqa: E402
from minilm.transforms.quantize import round_layers  # noqa: E402


class PeakMemory(TorchDispatchMode):
    """Bytes of live tensors: each storage once, from the operation that makes it until it is freed."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.live = self.peak = 0
        self.debug = debug
        self.info: dict[int, Any] = {}
        self.at_peak: Any = None

    def hold(self, tensors: Any, note: str = "held") -> None:
        """Count ``tensors`` that are there already."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._sizes:
                continue
            self._sizes[key] = storage.nbytes()
            if self.debug:
                self.info[key] = (storage.nbytes(), note, tuple(tensor.shape), tensor.dtype)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._free, key)
        if self.live > self.peak:
            self.peak = self.live
            if self.debug:
                self.at_peak = dict(self.info)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
        self.info.pop(key, None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        self.hold(result, str(function))
        return result
