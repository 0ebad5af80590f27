"""Activations that torch saves for the backward pass of minilm's model, against the prediction.

One forward pass and loss under autograd's hook on saved tensors, which sees every tensor on every
device; on CUDA the allocator is read besides.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.costs.activations import activations
from minilm.costs.memory import training_bytes
from minilm.costs.trained import Trained
from minilm.errors import InputError
from minilm.model.transformer import Transformer, next_token_loss
from minilm.quantization.packings import make_packing
from minilm.transforms.lora import apply
from minilm.transforms.quantize import quantize_layers

# What a report may allocate on a CPU for its check: weights, gradients and activations.
MEASURABLE_BYTES = 2**30


@dataclass(frozen=True)
class ActivationMeasurement:
    """Bytes of activations, predicted and measured.

    ``saved`` is the size of the storages that autograd holds. On CUDA ``allocated`` is what the
    allocator holds more after the forward pass than before, and ``peak`` the most at any moment of
    forward and backward.
    """

    device: str
    dtype: str
    batch: int
    context: int
    predicted: int
    saved: int
    allocated: int | None = None
    peak: int | None = None

    @property
    def relative_error(self) -> float:
        """Error of the prediction, over what autograd holds."""
        return (self.predicted - self.saved) / self.saved


def check_activations(
    config: ModelConfig,
    *,
    batch: int = 1,
    context: int | None = None,
    dtype: str = "float32",
    device: str | None = None,
    trained: Trained | None = None,
) -> ActivationMeasurement | None:
    """Build the model, on CUDA where there is one, and measure it; None if it is too large for that."""
    context = context or config.context_length
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    trained = trained or Trained()
    saved = activations(
        config, batch=batch, context=context, dtype=dtype, device=device, trained=trained
    )
    needed = saved.total() + training_bytes(layout(config).count())["weights"] * 2
    limit = MEASURABLE_BYTES if device == "cpu" else torch.cuda.mem_get_info()[0] // 2
    if needed > limit:
        return None
    # What is saved does not depend on the values: zeros need no initialization.
    with torch.device("meta"):
        model = _changed(Transformer(config), trained)
    _fill_with_zeros(model, device)
    return measure_activations(model, batch=batch, context=context, dtype=dtype, trained=trained)


def _changed(model: Transformer, trained: Trained) -> Transformer:
    """A ``model`` without values, packed, frozen and with adapters, as it is trained."""
    if trained.packing:
        quantize_layers(model, make_packing(trained.packing))
    if trained.lora is not None:
        return apply(model, trained.lora)
    changed = trained.of(layout(model.config))
    parameters = dict(model.named_parameters())
    for tensor in changed.named_tensors([each for each in changed.tensors if each.frozen]):
        parameters[tensor.name].requires_grad_(False)
    return model


def _fill_with_zeros(model: Transformer, device: str) -> None:
    """For a ``model`` without values; a tied tensor stays one.

    `to_empty` imports sympy, which takes half a second.
    """
    zeros: dict[int, Tensor] = {}
    tensors = model.state_dict(keep_vars=True)
    for tensor in tensors.values():
        if id(tensor) not in zeros:
            own = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
            is_parameter = isinstance(tensor, nn.Parameter)
            zeros[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if is_parameter else own
    model.load_state_dict({name: zeros[id(t)] for name, t in tensors.items()}, assign=True)


def measure_activations(
    model: Transformer,
    *,
    batch: int,
    context: int,
    dtype: str = "float32",
    trained: Trained | None = None,
) -> ActivationMeasurement:
    """Run ``model`` once in training mode on its device; its weights, gradients and mode are unchanged.

    ``trained`` says what of it is trained, for the prediction, where that is not everything.
    Raises InputError for more tokens than the model's context length.
    """
    config = model.config
    if context > config.context_length:
        raise InputError("context", f"{context}", f"at most the model's {config.context_length}")
    device = next(model.parameters()).device
    tokens = torch.zeros(batch, context, dtype=torch.long, device=device)
    was_training = model.training
    devices = [device] if device.type == "cuda" else []
    try:
        # Dropout draws random numbers: the caller's generator must not advance.
        with torch.random.fork_rng(devices=devices):
            saved, allocated, peak = _run(model.train(), tokens, dtype)
    finally:
        model.train(was_training)
    first: Any = model.blocks[0]
    predicted = activations(
        config,
        batch=batch,
        context=context,
        dtype=dtype,
        device=device.type,
        trained=trained,
        explicit_up_to=first.attention.longest_explicit,
    ).total()
    return ActivationMeasurement(
        device=device.type,
        dtype=dtype,
        batch=batch,
        context=context,
        predicted=predicted,
        saved=saved,
        allocated=allocated,
        peak=peak,
    )


def _run(
    model: Transformer, tokens: torch.Tensor, dtype: str
) -> tuple[int, int | None, int | None]:
    device = tokens.device
    targets = tokens.clone()
    uncounted = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*model.parameters(), *model.buffers(), tokens, targets)
    }
    # Held until the end: the address of a freed storage can be used again.
    saved_storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in uncounted:
            saved_storages[storage.data_ptr()] = storage
        return tensor.detach()  # an output that its own graph holds would never be freed

    precision: AbstractContextManager[object] = (
        nullcontext()
        if dtype == "float32"
        else torch.autocast(device.type, dtype=getattr(torch, dtype))
    )
    before = _allocated(device, precision)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.enable_grad(), hooks, precision:  # a caller may have turned gradients off
        loss = next_token_loss(model, tokens, targets)
    saved = sum(storage.nbytes() for storage in saved_storages.values())
    if before is None:
        return saved, None, None
    saved_storages.clear()  # the backward pass frees as it goes
    after = torch.cuda.memory_allocated(device)
    torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return saved, after - before, torch.cuda.max_memory_allocated(device) - before


def _allocated(device: torch.device, precision: AbstractContextManager[object]) -> int | None:
    if device.type != "cuda":
        return None
    # cuBLAS allocates its workspace at the first product of each thread, and the backward pass has its own.
    x = torch.ones(8, 8, device=device, requires_grad=True)
    with torch.enable_grad(), precision:
        total = (x @ x).sum()
    torch.autograd.grad(total, x)
    del x, total
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
