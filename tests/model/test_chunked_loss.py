"""The loss by chunks: value and gradient of the whole, ignored targets left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.model import chunked_loss
from minilm.model.chunked_loss import IGNORED
from minilm.model.layers import LMHead
from minilm.model.transformer import Transformer, next_token_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_loss_of_all_at_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "LOGITS_PER_CHUNK", 4 * 61)  # 4 rows
    generator = torch.Generator().manual_seed(0)
    head = LMHead(24, 61).requires_grad_(False)
    head.weight.copy_(torch.randn(61, 24, generator=generator))
    x = torch.randn(15, 24, generator=generator)
    targets = torch.randint(0, 61, (15,), generator=generator)
    targets[2:8] = IGNORED
    results = []
    for whole in (True, False):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            if whole:
                loss = F.cross_entropy(head(own).float(), targets, ignore_index=IGNORED)
            else:
                loss = chunked_loss.chunked_loss(head, own, targets)
        (3 * loss).backward()
        results.append((loss.detach(), own.grad))
    bound = 1e-6 if dtype == torch.float32 else 2e-2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=bound, rtol=bound)
    assert not results[1][1][2:8].any()


def test_a_trained_head_keeps_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    own = chunked_loss.chunked_loss
    monkeypatch.setattr(chunked_loss, "LOGITS_PER_CHUNK", 64)
    monkeypatch.setattr(
        "minilm.model.transformer.chunked_loss", lambda *args: calls.append(1) or own(*args)
    )
    model = Transformer(ModelConfig(num_layers=1, d_model=16, num_heads=2))
    tokens = torch.arange(20).view(2, 10)
    whole = next_token_loss(model, tokens, tokens)
    whole.backward()
    assert model.lm_head.weight.grad is not None
    assert not calls
    gradient = model.blocks[0].feed_forward.up.weight.grad.clone()
    model.zero_grad()
    model.lm_head.requires_grad_(False)
    chunked = next_token_loss(model, tokens, tokens)
    chunked.backward()
    assert calls == [1]
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(model.blocks[0].feed_forward.up.weight.grad, gradient)
    with torch.no_grad():
        torch.testing.assert_close(
            next_token_loss(model.requires_grad_(True), tokens, tokens), whole
        )
    assert calls == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ignored", [slice(0, 0), slice(2, 8)])
def test_the_loss_of_logits_brings_its_gradient(
    dtype: torch.dtype, ignored: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "CACHED_LOGITS", 4 * 61)  # 4 rows
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(15, 61, generator=generator).to(dtype)
    targets = torch.randint(0, 61, (15,), generator=generator)
    targets[ignored] = IGNORED
    results = []
    for whole in (True, False):
        own = logits.clone().requires_grad_()
        if whole:
            loss = F.cross_entropy(own.float(), targets, ignore_index=IGNORED)
        else:
            loss = chunked_loss.loss_of_logits(own, targets)
        (3 * loss).backward()
        results.append((loss.detach(), own.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-6)
    bound = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=bound)


def test_small_gradients_are_kept_in_float16_until_the_loss_is_scaled() -> None:
    """Of many tokens a gradient is small: the scale of the loss lifts it into the range of float16."""
    generator, rows = torch.Generator().manual_seed(0), 50_000
    logits = (4 * torch.randn(8, rows, generator=generator)).half()
    targets = torch.randint(0, rows, (8,), generator=generator)
    zeros = []
    for loss_of in (
        lambda x: F.cross_entropy(x.float(), targets),
        lambda x: chunked_loss.loss_of_logits(x, targets),
    ):
        own = logits.clone().requires_grad_()
        (65_536 * loss_of(own)).backward()
        zeros.append(float((own.grad == 0).float().mean()))
    assert zeros[1] < zeros[0] + 0.05


def test_a_loss_of_nothing_is_not_a_number() -> None:
    logits = torch.zeros(3, 5, requires_grad=True)
    assert chunked_loss.loss_of_logits(logits, torch.full((3,), IGNORED)).isnan()


def test_a_second_derivative_is_refused() -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=16, num_heads=2))
    tokens = torch.arange(20).view(2, 10)
    weights = list(model.parameters())
    logits = model(tokens).flatten(0, 1)
    loss = F.cross_entropy(logits, tokens.flatten())
    with pytest.raises(RuntimeError, match="explicit attention has no second derivative"):
        torch.autograd.grad(loss, weights, create_graph=True)
    loss = next_token_loss(model, tokens, tokens)
    with pytest.raises(RuntimeError, match="the loss has no second derivative"):
        torch.autograd.grad(loss, weights, create_graph=True)
