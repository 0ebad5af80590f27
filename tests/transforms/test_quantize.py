"""Quantized layers: what they compute is what their codes stand for, and the rest of the model stays."""

from __future__ import annotations

import copy

import pytest
import torch

import minilm
from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.config.presets import PRESETS
from minilm.costs.generation_memory import KERNEL_ROWS
from minilm.errors import InputError
from minilm.generation.unmodified import ModifiedModelError, check_unmodified
from minilm.model.transformer import Transformer
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.nf4_packing import Nf4Packing
from minilm.quantization.packing import Packing, quantized_matrices
from minilm.transforms.activations import input_hessians, linear_layers
from minilm.transforms.quantize import (
    QuantizedLinear,
    dequantized_layer,
    has_kernel,
    quantize_layers,
    round_layers,
)

CONFIG = ModelConfig(
    vocab_size=48, context_length=16, num_layers=2, d_model=64, num_heads=4, tied_embeddings=True
)
PACKINGS = [IntegerPacking(8), IntegerPacking(4, 32), IntegerPacking(4, 64), Nf4Packing()]
CPU = torch.device("cpu")

packings = pytest.mark.parametrize("packing", PACKINGS, ids=lambda p: f"{p.format}-{p.group_size}")


def model(**fields: object) -> Transformer:
    made = Transformer(CONFIG if not fields else ModelConfig(**{**vars(CONFIG), **fields}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return made.eval().requires_grad_(False)


def tokens(rows: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 48, (rows, 16), generator=torch.Generator().manual_seed(seed))


@packings
def test_it_computes_what_its_codes_stand_for(packing: Packing) -> None:
    """Against a float model that has the dequantized matrices as its weights."""
    quantized, reference = model(), model()
    rounded = round_layers(quantized, packing)
    for name, layer in linear_layers(reference).items():
        layer.weight.copy_(torch.from_numpy(packing.values(rounded[name])))
        own = quantized.get_submodule(name)
        assert isinstance(own, QuantizedLinear)
        assert torch.equal(own.dequantized(), layer.weight)
    expected = reference(tokens())
    assert torch.allclose(quantized(tokens()), expected, atol=1e-5)
    # Not within the rounding alone: the layers are really quantized.
    assert not torch.allclose(quantized(tokens()), model()(tokens()), atol=1e-5)


@packings
def test_a_product_is_that_of_the_float_layer_to_the_bit(packing: Packing) -> None:
    """In bfloat16 too: an adapter's loss is the same whether its base is loaded packed or in float."""
    quantized = model()
    round_layers(quantized, packing)
    layer = quantized.get_submodule("blocks.0.feed_forward.up")
    assert isinstance(layer, QuantizedLinear)
    assert layer.bias is not None
    reference = dequantized_layer(layer)
    reference.bias = torch.nn.Parameter(layer.bias.detach().clone())
    layer.bias.requires_grad_(True)
    x = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        product, expected = layer(x), reference(x)
    assert torch.equal(product, expected)
    for y in (product, expected):
        y.float().square().sum().backward()
    assert torch.allclose(layer.bias.grad, reference.bias.grad, rtol=2**-7)


@packings
@pytest.mark.parametrize("rows", [1, 2, KERNEL_ROWS, KERNEL_ROWS + 1])
def test_few_rows_agree_with_many(packing: Packing, rows: int) -> None:
    """The kernels take the inputs in bfloat16, whose numbers have 8 bits."""
    quantized = model()
    round_layers(quantized, packing)
    layer = quantized.get_submodule("blocks.0.feed_forward.up")
    assert isinstance(layer, QuantizedLinear)
    x = torch.randn(rows, 1, 64, generator=torch.Generator().manual_seed(2))
    exact = torch.nn.functional.linear(x, layer.dequantized(), layer.bias)
    with torch.inference_mode():
        y = layer(x)
    assert (y.shape, y.dtype) == (exact.shape, exact.dtype)
    assert (y - exact).abs().max() <= 2**-7 * exact.abs().max()
    if rows > KERNEL_ROWS:
        assert torch.allclose(y, exact, atol=1e-5)
    with torch.no_grad():  # as an evaluation computes it, whose last window may be as short
        assert torch.allclose(layer(x), exact, atol=1e-5)


@packings
def test_gradients_reach_the_inputs_and_no_float_matrix_is_kept(packing: Packing) -> None:
    quantized = model()
    round_layers(quantized, packing)
    layer = quantized.get_submodule("blocks.0.feed_forward.up")
    assert isinstance(layer, QuantizedLinear)
    x = torch.randn(1, 3, 64, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x)
    assert sum(kept) < layer.out_features * layer.in_features
    y.square().sum().backward()
    again = x.detach().requires_grad_()
    torch.nn.functional.linear(again, layer.dequantized(), layer.bias).square().sum().backward()
    assert x.grad is not None
    assert again.grad is not None
    assert torch.allclose(x.grad, again.grad, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()


@packings
def test_embeddings_head_norms_and_biases_are_left_alone(packing: Packing) -> None:
    before, quantized = model(), model()
    round_layers(quantized, packing)
    left = dict(quantized.named_parameters())
    assert left.keys() == {
        name
        for name, _ in before.named_parameters()
        if name.removesuffix(".weight") not in linear_layers(before)
    }
    for name, parameter in before.named_parameters():
        if name in left:
            assert torch.equal(left[name], parameter)
    assert quantized.lm_head.weight is quantized.embedding.token.weight


@packings
def test_a_quantized_module_is_counted_as_the_model_that_it_is(packing: Packing) -> None:
    quantized = model()
    total = minilm.inspect(quantized).parameters.total
    round_layers(quantized, packing)
    report = minilm.inspect(quantized)
    assert report.verified
    assert report.parameters.total == total
    assert report.parameters.buffers == 0
    dtypes = {row.dtype for row in report.tensors}
    assert dtypes == {"float32", packing.format}


@pytest.mark.parametrize("name", ["nano", "nano-fast", "small", "gpt2", "llama-3-8b"])
def test_the_formula_names_the_layers_that_are_quantized(name: str) -> None:
    """Gated and plain feed-forwards, n-grams and convolutions, tied and untied heads."""
    config = PRESETS[name].model_config()
    with torch.device("meta"):
        layers = linear_layers(Transformer(config))
    by_formula = quantized_matrices(layout(config))
    assert by_formula == {f"{n}.weight": tuple(x.weight.shape) for n, x in layers.items()}


def test_the_fast_decoder_never_bypasses_a_quantized_layer() -> None:
    quantized = model()
    round_layers(quantized, IntegerPacking(8))
    with pytest.raises(ModifiedModelError, match="QuantizedLinear"):
        check_unmodified(quantized)


def test_on_the_meta_device_there_are_shapes_alone() -> None:
    with torch.device("meta"):
        shapes = Transformer(CONFIG)
        layers = quantize_layers(shapes, IntegerPacking(4, 32))
    assert {tuple(each.codes.shape) for each in layers.values()} == {(64, 32), (256, 32), (64, 128)}
    assert all(each.codes.is_meta for each in layers.values())


def test_weights_that_are_not_finite_are_refused_before_anything_changes() -> None:
    broken = model()
    broken.blocks[1].attention.key.weight[0, 0] = float("nan")  # type: ignore[union-attr, operator, index]
    with pytest.raises(InputError, match=r"blocks.1.attention.key.weight: values that are not fin"):
        round_layers(broken, IntegerPacking(8))
    assert len(linear_layers(broken)) == 12


def test_the_hessian_of_batches_is_that_of_all() -> None:
    block = model().blocks[0]
    x = torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(0))
    sums = []
    for batches in ([x], x.split(3)):
        with input_hessians(block) as hessians, torch.no_grad():
            for batch in batches:
                block(batch, None)
        sums.append(hessians)
    assert sums[0].keys() == linear_layers(block).keys()
    for name, hessian in sums[0].items():
        assert torch.allclose(hessian, sums[1][name], rtol=1e-4, atol=1e-3)
    assert not block._modules["attention"].query._forward_pre_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_calibration_keeps_the_outputs_better_than_rounding_to_nearest(position: str) -> None:
    original = model(position=position)
    expected = original(tokens(8, seed=5))
    losses = []
    for windows in (None, tokens(64, seed=6)):
        quantized = copy.deepcopy(original)
        round_layers(quantized, IntegerPacking(4, 32), windows)
        losses.append(float((quantized(tokens(8, seed=5)) - expected).square().sum()))
    assert losses[1] < losses[0]


def test_what_has_a_kernel() -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch has no kernels for packed weights on this processor")
    assert has_kernel("int8", (7, 32), CPU)
    assert not has_kernel("int8", (32, 20), CPU)  # a segmentation fault of torch 2.13
    assert has_kernel("int4", (32, 32), CPU)
    assert not has_kernel("int4", (7, 32), CPU)
    assert not has_kernel("nf4", (32, 64), CPU)
    assert not has_kernel("int8", (32, 32), torch.device("cuda"))
