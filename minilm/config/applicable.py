"""Which settings of a model or run have an effect, given the others: a report lists no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Settings = Mapping[str, Any]


def applicable_settings(groups: Mapping[str, Settings]) -> dict[str, dict[str, Any]]:
    """The groups "model" and "training" of a run's config.json without what has no effect.

    A setting that is None is not in use. What the tables below do not name always applies.
    """
    tables = {"model": _MODEL, "training": _TRAINING}
    return {
        group: {
            name: value
            for name, value in settings.items()
            if value is not None and tables.get(group, {}).get(name, _always)(settings)
        }
        for group, settings in groups.items()
    }


def without_expert_fields(fields: Settings) -> dict[str, Any]:
    """The fields of a foreign config.json or GGUF file that have an effect where no layer has experts."""
    return {name: value for name, value in fields.items() if not _OF_EXPERTS.search(name)}


# As transformers' configurations and llama.cpp's metadata name them.
_OF_EXPERTS = re.compile(r"expert|router|topk|^n_group$|moe_intermediate|routed_scaling")


def _always(settings: Settings) -> bool:
    return True


def _rope(settings: Settings) -> bool:
    return bool(settings.get("position", "rope") == "rope")


def _scaled_rope(settings: Settings) -> bool:
    return _rope(settings) and settings.get("rope_scaling", "none") != "none"


def _llama3_rope(settings: Settings) -> bool:
    return _rope(settings) and settings.get("rope_scaling") == "llama3"


def _shared(settings: Settings) -> bool:
    return settings.get("shared_layers") not in (None, 0, settings.get("num_layers"))


def _muon(settings: Settings) -> bool:
    return bool(settings.get("optimizer", "muon") == "muon")


def _decay(settings: Settings) -> bool:
    return bool(settings.get("schedule", "linear") != "constant")


def _growth(settings: Settings) -> bool:
    return bool(settings.get("initial_batch_size") or settings.get("initial_context_length"))


_MODEL: dict[str, Callable[[Settings], bool]] = {
    "shared_layers": _shared,
    "sharing": _shared,
    "rope_theta": _rope,
    "rotary_dim": _rope,
    "rope_scaling": _rope,
    "rope_factor": _scaled_rope,
    "rope_low_factor": _llama3_rope,
    "rope_high_factor": _llama3_rope,
    "rope_original_context": _llama3_rope,
    "norm_bias": lambda settings: settings.get("norm") != "rmsnorm",
    "ngram_rows": lambda settings: settings.get("ngram", 1) > 1,
    "init_std": lambda settings: settings.get("initialization", "normal") == "normal",
}
_TRAINING: dict[str, Callable[[Settings], bool]] = {
    "muon_learning_rate": _muon,
    "muon_momentum": _muon,
    "momentum_warmup_steps": _muon,
    "final_lr_fraction": _decay,
    "final_learning_rate": _decay,  # its name in older runs
    "decay_fraction": lambda settings: settings.get("schedule") == "wsd",
    "growth_fraction": _growth,
    # It is refused where the tokenizer is not BPE.
    "bpe_dropout": lambda settings: bool(settings.get("bpe_dropout")),
}
