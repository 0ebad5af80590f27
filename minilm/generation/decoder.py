"""What generation runs a model with: the fast decoder, or the model's own forward pass where that is needed.

Both compute the same logits. The fast one reads bare weights, so a model that was modified from outside (an
adapter, a hook) runs through its modules.
"""

from __future__ import annotations

import functools
import logging
from typing import Protocol

import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.generation.fast_decoder import Choices, FastDecoder
from minilm.generation.unmodified import ModifiedModelError
from minilm.model.attention import without_plans
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from minilm.transforms.lora import LoRALinear
from minilm.transforms.quantize import QuantizedLinear

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """Tokens (b, t) after those of a cache, which are added to it -> logits (b, V) of the next token."""

    model: Transformer
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    compiled: bool

    @property
    def choices(self) -> Choices:
        """As measured."""

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor: ...

    def all_logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(b, t, V): the logits after each of the tokens."""

    def new_cache(self, sequences: int, max_length: int) -> KVCache:
        """An empty cache for that many sequences of at most ``max_length`` tokens."""


class ModelDecoder:
    """The model's own forward pass, whatever its modules are."""

    compiled = False
    choices: Choices = {"products": {}, "attention": {}}  # noqa: RUF012  none is ever made

    def __init__(self, model: Transformer) -> None:
        self.model, self.config = model, model.config
        # Of a quantized model the integers say nothing about the dtype of keys and values.
        first = next(each for each in model.parameters() if each.is_floating_point())
        self.device, self.dtype = first.device, first.dtype

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        return self.all_logits(tokens, cache)[:, -1]  # b t V -> b V

    def all_logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(b, t, V): the logits after each of the tokens."""
        with without_plans(self.device):
            logits: Tensor = self.model(tokens, cache)
        return logits

    def new_cache(self, sequences: int, max_length: int) -> KVCache:
        """An empty cache for that many sequences of at most ``max_length`` tokens."""
        return KVCache(
            self.config,
            sequences,
            max_length=max_length,
            device=self.device,
            dtype=self.dtype,
        )


def make_decoder(model: Transformer, *, compiled: bool = False, tune: bool = False) -> Decoder:
    """The fast decoder, or the model's own forward pass, uncompiled, if it was modified.

    With a note, unless a transform modified it. ``tune`` is as in `FastDecoder`.
    """
    try:
        return FastDecoder(model, compiled=compiled, tune=tune)
    except ModifiedModelError as error:
        # An adapter runs through the modules, and so do packed weights on a GPU.
        if not any(type(module) in (QuantizedLinear, LoRALinear) for module in model.modules()):
            _note(str(error))
        return ModelDecoder(model)


@functools.cache  # once for each reason: a model may be sampled many times
def _note(reason: str) -> None:
    logger.warning("generating through the model's modules, which is slower: %s", reason)
