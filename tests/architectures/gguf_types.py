"""Every model_type whose GGUF files are held against its declaration, and how llama.cpp converts it."""

from __future__ import annotations

from tests.architectures import (
    gguf_dense,
    gguf_diffusion,
    gguf_encoders,
    gguf_experts,
    gguf_latent,
    gguf_layered,
    gguf_linear,
    gguf_shared_experts,
    gguf_state_space,
)

# The model_type, or where several conversions have the same, what tells them apart.
CONVERSIONS = (
    gguf_dense.CONVERSIONS
    | gguf_diffusion.CONVERSIONS
    | gguf_experts.CONVERSIONS
    | gguf_shared_experts.CONVERSIONS
    | gguf_latent.CONVERSIONS
    | gguf_layered.CONVERSIONS
    | gguf_linear.CONVERSIONS
    | gguf_state_space.CONVERSIONS
    | gguf_encoders.CONVERSIONS
)
