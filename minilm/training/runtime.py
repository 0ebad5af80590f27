"""Where and how the arithmetic runs: device, autocast dtype, compilation. Resolved once, from 'auto'."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig, TrainConfig, from_dict
from minilm.costs.flops import flops_per_token
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError
from minilm.model.attention import KERNELS, kernel_first, without_plans
from minilm.model.device import choose_device, choose_dtype
from minilm.model.dropout import Dropout
from minilm.model.transformer import Transformer
from minilm.parallel.dropout import RowsOfDropout
from minilm.parallel.process_group import world
from minilm.training.compiled_dropout import fault_of_compiled_dropout
from minilm.training.cuda_choices import FROM_FLOPS, measured_kernel, micro_batches_at_once
from minilm.training.measured_step import longest_explicit_length, measured, measuring_pays
from minilm.training.muon import Muon
from minilm.training.optimizer_base import Optimizer
from minilm.training.signals import StopRequest
from minilm.training.text_size import step_tokens

logger = logging.getLogger(__name__)

Loss = Callable[..., Tensor]  # of a model, and of what a batch has

# A run of fewer FLOPs ends before compilation has paid for itself. On a CPU that takes 30 to 55 s and then
# saves a fifth to a third of the time; both are for 4 layers, and every layer is compiled for itself. CUDA's
# is an estimate: a minute won back at some 1e14 FLOP/s. On MPS torch's compiler is a prototype.
COMPILE_FROM_SECONDS = 240.0  # of a run that its own max_seconds will end
COMPILE_FROM_FLOPS = {"cpu": 3e13, "cuda": 1e16, "mps": math.inf}
COMPILED_LAYERS = 4


@dataclass(frozen=True)
class Runtime:
    """Where and how a run computes. ``notes``, a line each, say why a choice is not the preferred one.

    ``tuned``: what was measured, as `measured` and `_on_cuda` have it. ``longest_explicit`` follows from it
    (`Attention`).
    """

    device: torch.device
    dtype: torch.dtype
    compile: bool
    activation_checkpointing: bool = False
    deterministic: bool = False
    compile_required: bool = False
    graphs: bool = True
    notes: tuple[str, ...] = ()
    tuned: Mapping[str, str] = field(default_factory=dict)
    longest_explicit: int | None = None

    @property
    def dtype_name(self) -> str:
        """float32, bfloat16 or float16."""
        return str(self.dtype).removeprefix("torch.")

    def attention(self, *, is_staged: bool) -> AbstractContextManager[None]:
        """What decides by which kernel it is computed. ``is_staged``: rows get longer in the run."""
        if is_staged:
            return without_plans(self.device)
        kernel = self.tuned.get("attention", "")
        if self.device.type == "cuda" and kernel in KERNELS:
            return kernel_first(kernel)
        return nullcontext()

    @property
    def micro_batches_at_once(self) -> int:
        """How many are one pass; on CUDA it may be several."""
        number = self.tuned.get("micro_batches_at_once", "")
        is_number = re.fullmatch("[1-9][0-9]{0,5}", number, re.ASCII)  # of a file, maybe
        return int(number) if is_number and self.device.type == "cuda" else 1

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in ``dtype``; weights and sums stay float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def cuda_graph(self) -> bool:
        """Whether steps are captured: not where Python reads gradients (float16) or a generator."""
        return (
            self.device.type == "cuda"
            and not world().is_parallel
            and self.graphs
            and self.dtype != torch.float16
            and not self.activation_checkpointing
        )

    @property
    def muon_dtype(self) -> torch.dtype:
        """What Muon orthogonalises in: bfloat16 is enough, where the device multiplies it fast."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32

    def prepare(self, model: Transformer) -> None:
        """Set the global flags of the process, and checkpoint activations if that is asked for."""
        if self.device.type == "cuda":
            # Products that stay in float32 take TF32 units: 10 bits of mantissa, several times the rate.
            torch.set_float32_matmul_precision("high")
        for block in model.blocks:
            block.attention.longest_explicit = self.longest_explicit  # type: ignore[union-attr]
        if self.deterministic:
            _be_deterministic()
        if self.activation_checkpointing:
            # Several processes drop again within a context, which torch's compiler does not take.
            context: dict[str, Any] = {}
            drops = any(isinstance(part, Dropout) and part.probability for part in model.modules())
            if drops and world().is_parallel:
                context["context_fn"] = RowsOfDropout.recomputation
            for block in model.blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False, **context)

    def compiled(self, loss: Loss, stop: StopRequest, dropout: float = 0.0) -> Loss:
        """``loss``, compiled if that was chosen. What fails to compile runs eagerly, with a note.

        Masks of that ``dropout`` are looked at first on CUDA: wrong ones are left to eager, with a note.
        Raises Interrupted where a signal came meanwhile: a terminal sends it to compilers too, which then
        fail.
        """
        if not self.compile:
            return loss
        if dropout and self.device.type == "cuda":
            self._check_dropout(dropout)
        compiled_loss, compiles = torch.compile(loss, dynamic=False), True

        def compiled_or_eager(model: nn.Module, *batch: Tensor) -> Tensor:
            nonlocal compiles
            if compiles:
                # Each batch shape is compiled for itself: code for several shapes may sum in another order,
                # and a resumed run meets them in another order.
                try:
                    with stop.interrupting_step():
                        return compiled_loss(model, *batch)
                except torch._dynamo.exc.TorchDynamoException as error:
                    stop.raise_if_set()
                    self._note_failure(error)
                    compiles = False
            return loss(model, *batch)

        return compiled_or_eager

    def compile_updates(self, optimizers: Sequence[Optimizer], stop: StopRequest) -> None:
        """Compile Muon's iteration on CUDA, before the first step, if compilation was chosen.

        On a CPU it is products, of which a compiler saves nothing.
        """
        for optimizer in optimizers:
            if self.compile and self.device.type == "cuda" and isinstance(optimizer, Muon):
                try:
                    optimizer.compile(partial(torch.compile, dynamic=False))
                except torch._dynamo.exc.TorchDynamoException as error:
                    if stop.signum is None:  # after a signal there is no step
                        self._note_failure(error)
                    optimizer.compile(lambda iteration: iteration)

    def _note_failure(self, error: Exception) -> None:
        """Raises ConfigError where compilation is required."""
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        if self.compile_required:
            message = f"on, and it fails here ({reason})"
            raise ConfigError("compile", message, "auto or off") from None
        logger.warning(f"not compiling: {reason}")

    def _check_dropout(self, probability: float) -> None:
        try:
            fault = fault_of_compiled_dropout(self.device, probability)
        except torch._dynamo.exc.TorchDynamoException:
            return  # so will the loss, which says it
        if fault is not None:
            from torch._inductor import config  # seconds

            config.fallback_random = True
            logger.warning(f"the random numbers of dropout are not compiled: {fault}")


def resolve_for_run(
    config: TrainConfig,
    model: ModelConfig,
    dataset: Dataset,
    tuned: Mapping[str, str] | None = None,
) -> Runtime:
    """As `resolve`, for all steps of a run that trains ``model`` on ``dataset``.

    ``tuned``: how the run computed so far; None: measured, where that is asked for and pays. Several
    processes, which have to agree, measure nothing.
    """
    length = dataset.row_length(model.context_length)
    flops = flops_per_token(layout(model), context=length)["training_per_token"]
    total = flops * step_tokens(config, model, dataset) * config.max_steps
    runtime = resolve(config, total, layers=model.num_layers)
    asked = config.tune == "auto" and not world().is_parallel
    if runtime.device.type == "cuda":
        if tuned is None:
            tuned = _on_cuda(config, model, length, runtime, total) if asked else {}
        return replace(runtime, tuned=tuned)
    if runtime.device.type != "cpu":
        return runtime
    dtype = runtime.dtype
    if tuned is None:
        pays = asked and measuring_pays(total, total / flops, model.num_layers)
        tuned = measured(config, model, length, dtype) if pays else {}
        dtype = choose_dtype(tuned.get("dtype", runtime.dtype_name), runtime.device)
    longest = longest_explicit_length(tuned, length, dtype) if tuned else None
    return replace(runtime, dtype=dtype, tuned=tuned, longest_explicit=longest)


def _on_cuda(
    config: TrainConfig, model: ModelConfig, length: int, runtime: Runtime, flops: float
) -> dict[str, str]:
    """How many ``micro_batches_at_once``, and by which kernel ``attention`` where measuring that pays."""
    memory = torch.cuda.mem_get_info(runtime.device)
    at_once = micro_batches_at_once(config, model, length, runtime.dtype_name, *memory)
    tuned = {"micro_batches_at_once": str(at_once)}
    if flops >= FROM_FLOPS:
        if config.deterministic:  # which has kernels of its own
            _be_deterministic()
        rows = at_once * config.batch_size
        kernel = measured_kernel(model, rows, length, runtime.dtype, runtime.device)
        tuned["attention"] = kernel
    return tuned


def _be_deterministic() -> None:
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS asks for it, before its first call
    torch.use_deterministic_algorithms(True)


def resolve_for_use(tool: str, device: str, dtype: str = "auto") -> Runtime:
    """As `resolve`, for a model that is not trained: nothing is compiled. Errors name the ``tool``."""
    settings = {"device": device, "dtype": dtype, "compile": "off"}
    return resolve(from_dict(TrainConfig, settings, tool), 0.0)


def resolve(config: TrainConfig, flops: float, layers: int = COMPILED_LAYERS) -> Runtime:
    """Choose for this machine and a run of so many FLOPs in so many layers.

    Raises ConfigError for a device or compiler that is asked for and absent.
    """
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    seconds = config.max_seconds if config.max_seconds is not None else math.inf
    # What compiling takes, in runs of 4 layers.
    times = max(1.0, layers / COMPILED_LAYERS)
    compiled, notes = _compile(config.compile, device, flops / times, seconds / times)
    return Runtime(
        device,
        dtype,
        compiled,
        activation_checkpointing=config.activation_checkpointing,
        deterministic=config.deterministic,
        compile_required=config.compile == "on",
        graphs=config.cuda_graphs,
        notes=notes,
    )


def _compile(
    setting: str, device: torch.device, flops: float, seconds: float
) -> tuple[bool, tuple[str, ...]]:
    if setting == "off":
        return False, ()
    if setting == "auto" and (
        flops < COMPILE_FROM_FLOPS[device.type] or seconds < COMPILE_FROM_SECONDS
    ):
        return False, ()
    if device.type == "cpu" and not has_cpp_compiler():
        if setting == "on":
            raise ConfigError("compile", "on, without a C++ compiler", "g++ or clang++ on the PATH")
        return False, ("not compiling: no C++ compiler on the PATH",)
    return True, ()


def has_cpp_compiler() -> bool:
    """Whether torch.compile finds what it needs on a CPU."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in (named, "g++", "clang++", "c++") if name)
