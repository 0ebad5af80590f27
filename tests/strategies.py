"""Random small models: every option of ModelConfig in every combination that is allowed."""

from __future__ import annotations

from hypothesis import strategies as st

from minilm.config import ModelConfig


@st.composite
def model_configs(draw: st.DrawFn) -> ModelConfig:
    """A valid configuration of at most some ten thousand parameters."""
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    explicit_head_dim = draw(st.booleans())
    norm = draw(st.sampled_from(["layernorm", "rmsnorm"]))
    head_dim = 2 * draw(st.integers(1, 4))
    layers = draw(st.integers(1, 4))
    return ModelConfig(
        vocab_size=draw(st.integers(1, 40)),
        context_length=draw(st.integers(1, 12)),
        num_layers=layers,
        shared_layers=draw(st.just(0) | st.integers(1, layers)),
        sharing=draw(st.sampled_from(["cycle", "group"])),
        d_model=draw(st.integers(1, 20)) if explicit_head_dim else heads * head_dim,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim if explicit_head_dim else None,
        d_feed_forward=draw(st.none() | st.integers(1, 40)),
        position=draw(st.sampled_from(["rope", "learned"])),
        norm=norm,
        norm_bias=draw(st.booleans()) if norm == "layernorm" else False,
        feed_forward=draw(st.sampled_from(["gelu", "gelu_tanh", "relu2", "swiglu", "geglu"])),
        qkv_bias=draw(st.booleans()),
        attention_output_bias=draw(st.booleans()),
        feed_forward_bias=draw(st.booleans()),
        parallel_residual=draw(st.booleans()),
        rotary_dim=2 * draw(st.integers(1, head_dim // 2)),
        rope_scaling=draw(st.sampled_from(["none", "linear", "llama3"])),
        qk_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        sliding_window=draw(st.integers(0, 8)),
        ngram=draw(st.integers(1, 3)),
        ngram_rows=draw(st.integers(1, 30)),
        convolution=draw(st.integers(0, 3)),
        initialization=draw(st.sampled_from(["normal", "xavier", "kaiming"])),
        output_initialization=draw(st.sampled_from(["scaled", "zero"])),
    )
