"""Query, key and value as one product: where it is, what it gives, and who still sees each alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minilm.config import ModelConfig
from minilm.model.attention import Attention
from minilm.model.rope import rotation

CONFIG = ModelConfig(
    vocab_size=65,
    context_length=16,
    num_layers=1,
    d_model=24,
    num_heads=6,
    num_kv_heads=2,
)


@pytest.fixture(params=[True, False])
def attention(request: pytest.FixtureRequest) -> Attention:
    """With and without biases."""
    made = Attention(replace(CONFIG, qkv_bias=request.param))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return made


def gradients(attention: Attention, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(1))
    angles = rotation(16, CONFIG, x.device)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        out = attention(x, angles)
    out.float().square().sum().backward()
    found = {name: p.grad.clone() for name, p in attention.named_parameters() if p.grad is not None}
    attention.zero_grad()
    return out.detach().float(), found


def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The outputs of each product of a linear map from now on."""
    widths: list[int] = []
    linear = torch.nn.functional.linear

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        widths.append(weight.shape[0])
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    return widths


def test_in_bfloat16_on_a_cpu_three_products_are_one(
    attention: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = products(monkeypatch)
    together = gradients(attention, torch.bfloat16)
    assert widths == [24 + 8 + 8, 24]
    widths.clear()
    monkeypatch.setattr("minilm.model.attention._is_faster_as_one", lambda x: False)
    apart = gradients(attention, torch.bfloat16)
    assert widths == [24, 8, 8, 24]
    torch.testing.assert_close(together[0], apart[0], rtol=0.02, atol=0.02)
    for name, gradient in apart[1].items():
        scale = float(gradient.abs().max())
        assert (together[1][name] - gradient).abs().max() <= 0.03 * scale, name


def test_in_float32_they_are_three(attention: Attention, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = products(monkeypatch)
    gradients(attention, torch.float32)
    assert widths == [24, 8, 8, 24]


def test_a_hook_on_one_of_them_is_called(
    attention: Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    attention.key.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    widths = products(monkeypatch)
    gradients(attention, torch.bfloat16)
    assert seen == [torch.Size([2, 16, 8])]
    assert widths == [24, 8, 8, 24]
