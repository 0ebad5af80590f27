"""The fast decoder with quantized layers: what the model's own modules compute with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minilm.config import ModelConfig
from minilm.generation.decoder import ModelDecoder, make_decoder
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.unmodified import ModifiedModelError
from minilm.model.transformer import Transformer
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.packing import Packing
from minilm.transforms.quantize import dequantized_layer, round_layers
from tests.interop.shapes import random_model

SHAPE: dict[str, Any] = {"vocab_size": 48, "context_length": 32, "d_model": 64, "num_heads": 4}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gpt2": {"position": "learned", "feed_forward": "gelu_tanh", "tied_embeddings": True},
    "llama": {"num_kv_heads": 2, "feed_forward": "swiglu", "norm": "rmsnorm", "qkv_bias": False},
    "parallel": {"parallel_residual": True, "qk_norm": True, "sliding_window": 5},
    "shared": {"num_layers": 4, "shared_layers": 2, "ngram": 2, "ngram_rows": 64, "convolution": 2},
}
packings = pytest.mark.parametrize(
    "packing", [IntegerPacking(8), IntegerPacking(4, 32)], ids=["int8", "int4"]
)
shapes = pytest.mark.parametrize("shape", SHAPES)


def packed_model(shape: str, packing: Packing) -> Transformer:
    model = random_model(ModelConfig(**(SHAPE | {"num_layers": 2} | SHAPES[shape])))
    model.eval().requires_grad_(False)
    round_layers(model, packing)
    return model


@torch.inference_mode()
def logits(decoder: FastDecoder | ModelDecoder) -> torch.Tensor:
    """(b, t, V), of a prompt, then token by token."""
    tokens = torch.randint(0, 48, (2, 20), generator=torch.Generator().manual_seed(0))
    cache = decoder.new_cache(2, 32)
    steps = [tokens[:, :9], *torch.split(tokens[:, 9:], 1, dim=1)]
    return torch.stack([decoder(step, cache) for step in steps], dim=1)


@packings
@shapes
def test_it_computes_what_the_modules_do(shape: str, packing: Packing) -> None:
    model = packed_model(shape, packing)
    decoder = make_decoder(model, tune=True)
    assert isinstance(decoder, FastDecoder)
    by_modules, fast = logits(ModelDecoder(model)), logits(decoder)
    # The kernels round their inputs to bfloat16: what differs by a bit before may by more after.
    assert (fast - by_modules).abs().max() <= 2**-6 * by_modules.abs().max()
    layer = model.get_submodule("blocks.1.attention.value")
    layer.codes.zero_()  # type: ignore[operator]
    changed = logits(FastDecoder(model))
    assert (changed - fast).abs().max() > 2**-5 * by_modules.abs().max()


@packings
@shapes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_16_bits_it_is_near(shape: str, packing: Packing, dtype: torch.dtype) -> None:
    """The other weights in 16 bits, layers with biases among them."""
    expected = logits(ModelDecoder(packed_model(shape, packing)))
    decoder = make_decoder(packed_model(shape, packing).to(dtype), tune=True)
    fast = logits(decoder)
    assert fast.dtype == dtype
    assert (fast.float() - expected).norm() <= 0.05 * expected.norm()


@packings
def test_some_layers_may_be_float(packing: Packing) -> None:
    """As where a format has no kernel for a shape."""
    model = packed_model("llama", packing)
    attention = model.blocks[0].attention
    attention.key = dequantized_layer(attention.key)  # type: ignore[arg-type, union-attr]
    by_modules = logits(ModelDecoder(model))
    fast = logits(FastDecoder(model))
    assert (fast - by_modules).abs().max() <= 2**-6 * by_modules.abs().max()


def test_layers_of_a_block_may_be_packed_differently() -> None:
    model, other = (packed_model("llama", IntegerPacking(4, size)) for size in (32, 64))
    model.blocks[0].attention.key = other.blocks[0].attention.key
    by_modules, fast = logits(ModelDecoder(model)), logits(FastDecoder(model))
    assert (fast - by_modules).abs().max() <= 2**-6 * by_modules.abs().max()


def test_a_quantized_layer_that_was_modified_is_refused() -> None:
    model = packed_model("plain", IntegerPacking(8))
    up = model.get_submodule("blocks.0.feed_forward.up")
    handle = up.register_forward_hook(lambda *_: None)
    with pytest.raises(ModifiedModelError, match=r"blocks\.0\.feed_forward\.up.*hook"):
        FastDecoder(model)
    handle.remove()
    decoder = FastDecoder(model)
    up.forward = lambda x: x
    with pytest.raises(ModifiedModelError, match=r"feed_forward\.up\.forward"):
        FastDecoder(model)
    del up.forward
    up.out_features = 3  # type: ignore[assignment]
    with pytest.raises(ModifiedModelError, match="out_features"):
        FastDecoder(model)
    up.register_forward_hook(lambda *_: None)
    with pytest.raises(ModifiedModelError, match="hook"), torch.inference_mode():
        decoder(torch.zeros(1, 1, dtype=torch.long), decoder.new_cache(1, 8))


def test_it_is_not_compiled() -> None:
    decoder = make_decoder(packed_model("plain", IntegerPacking(8)), compiled=True)
    assert isinstance(decoder, ModelDecoder)
