"""What minilm needs for its own models: the peaks of training_step.py and generation_memory.py."""

from __future__ import annotations

from collections.abc import Iterator

from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.costs.generation_memory import PRECISIONS, GenerationMemory, generation_memory
from minilm.costs.memory_need import Need, cache_need
from minilm.costs.trained import Trained
from minilm.costs.training_step import TrainingStep
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import ADAPTER_TARGETS

# What minilm trains: full training, and LoRA under autocast on a base held in these.
OWN_TRAINING = ("adamw_float32", "muon_float32", "adamw_autocast", "muon_autocast")
OWN_LORA_BASES = ("float32", "int8", "nf4")
MATRICES = tuple(word for word in ADAPTER_TARGETS if word != "lm_head")


def own_needs(
    config: ModelConfig,
    layout: Layout,
    rank: int,
    cache_dtype: str | None,
    device: str,
    trained: Trained,
) -> Iterator[Need]:
    """What minilm does with its own models: generation, LoRA and training, or what the run ``trained``."""
    if trained.lora is None:
        for precision in (trained.packing,) if trained.packing else PRECISIONS:
            yield _generation(config, layout, precision, cache_dtype, device)
    changes: dict[str, Trained] = {}
    if trained.everything or (trained.packing and trained.lora is None):
        key_width = config.num_kv_heads * config.head_dim
        targets = tuple(word for word in MATRICES if word != "gate" or config.gated)
        lora = LoraConfig(
            min(rank, config.d_model, config.d_feed_forward, key_width), targets=targets
        )
        bases = (trained.packing,) if trained.packing else OWN_LORA_BASES
        changes = {f"lora_{base}": Trained(lora=lora, packing=_packing(base)) for base in bases}
    elif trained.lora is not None:
        changes = {f"lora_{trained.packing or 'float32'}": trained}
    for name, change in changes.items():
        for checkpointing in (False, True):
            yield _training(config, layout, name, "bfloat16", checkpointing, device, change)
    if trained.lora is None and not trained.packing:
        for checkpointing in (False, True):
            for variant in OWN_TRAINING:
                dtype = "bfloat16" if variant.endswith("_autocast") else "float32"
                yield _training(config, layout, variant, dtype, checkpointing, device, trained)


def _packing(base: str) -> str:
    return "" if base == "float32" else base


def _generation(
    config: ModelConfig, layout: Layout, precision: str, cache_dtype: str | None, device: str
) -> Need:
    def memory(context: int, batch: int) -> GenerationMemory:
        return generation_memory(config, layout, batch=batch, context=context, precision=precision)

    own_dtype = "bfloat16" if precision == "bfloat16" else "float32"
    cached = cache_dtype or own_dtype
    return Need(
        use="inference",
        precision=precision,
        checkpointing=False,
        cards=1,
        weights=memory(1, 1).weights,
        cache=cache_need(layout, cached),
        activations=lambda context, batch: memory(context, batch).temporary,
        cache_dtype=cached,
        device=device,
        own=True,
    )


def _training(
    config: ModelConfig,
    layout: Layout,
    variant: str,
    dtype: str,
    checkpointing: bool,
    device: str,
    trained: Trained,
) -> Need:
    """``states`` are the optimizer's; ``activations`` what a step adds at its peak, gradients included."""
    step = TrainingStep(
        config,
        layout,
        optimizer="muon" if variant.startswith("muon") else "adamw",
        dtype=dtype,
        checkpointing=checkpointing,
        device=device,
        trained=trained,
    )

    def activations(context: int, batch: int) -> int:
        memory = step.memory(batch, context)
        return memory.gradients + memory.temporary

    return Need(
        use="LoRA" if trained.lora else "training",
        precision=variant,
        checkpointing=checkpointing,
        cards=1,
        weights=step.weights,
        states=step.optimizer_bytes,
        activations=activations,
        lora_rank=trained.lora.rank if trained.lora else 0,
        device=device,
        own=True,
    )
