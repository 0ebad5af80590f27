"""`train --preset list`: each preset with its exact count, its shape and how it is trained."""

from __future__ import annotations

from minilm.config.presets import PRESETS
from minilm.units import counted


def list_presets() -> None:
    """Print every preset."""
    from minilm.architectures.minilm import layout

    for name, preset in PRESETS.items():
        model, train = preset.model_config(), preset.train_config()
        rates = f"AdamW {train.learning_rate:g}"
        if train.optimizer == "muon":
            rates = f"Muon {train.muon_learning_rate:g}, {rates}"
        sequences = train.batch_size * train.gradient_accumulation
        print(f"{name:<12} {layout(model).count():>14,}  {preset.summary}")
        print(
            f"{'':14}{counted(model.num_layers, 'layer')}, width {model.d_model:,}, "
            f"{counted(model.num_heads, 'head')}, "
            f"{preset.tokenizer} vocabulary {model.vocab_size:,}"
        )
        print(
            f"{'':14}{rates}; {train.max_steps:,} steps of {sequences} x "
            f"{model.context_length:,} tokens"
        )
