"""The loss by chunks: value and gradient of the whole, ignored targets left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minilm.config import ModelConfig, loss_chunks
from minilm.config.lora import LoraConfig
from minilm.model import chunked_loss
from minilm.model.chunked_loss import IGNORED
from minilm.model.transformer import Transformer, next_token_loss
from minilm.transforms.lora import apply

FLOATS = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "trained"),
    [
        *((each, trained) for each in FLOATS for trained in ("both", "input", "matrix")),
        (torch.float16, "input"),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_it_is_the_loss_of_all_at_once(
    dtype: torch.dtype, padding: int, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", 4 * 61)  # 4 rows
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(61, 24, generator=generator)
    x = torch.randn(15, 24, generator=generator)
    targets = torch.randint(0, 61, (15,), generator=generator)
    targets[2:8] = IGNORED
    results = []
    for whole in (True, False):
        own = x.clone().requires_grad_(trained != "matrix")
        matrix = weight.clone().requires_grad_(trained != "input")
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            if whole:
                logits = F.linear(own, matrix)
                loss = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)
            else:
                loss = chunked_loss._ChunkedLoss.apply(own, matrix, targets, padding)
        (3 * loss).backward()
        gradients = [each.grad for each in (own, matrix) if each.requires_grad]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        results.append((loss.detach(), *gradients))
        assert own.grad is None or not own.grad[2:8].any()
    bound = 1e-6 if dtype == torch.float32 else 2e-2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=bound, rtol=bound)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each loss that was computed in chunks, which are small."""
    calls: list[int] = []
    own = chunked_loss.chunked_loss
    monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", 1000)
    monkeypatch.setattr(
        "minilm.model.transformer.chunked_loss", lambda *args: calls.append(1) or own(*args)
    )
    return calls


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_many_logits_are_not_kept(
    tied: bool, frozen: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Transformer(ModelConfig(num_layers=1, d_model=16, num_heads=2, tied_embeddings=tied))
    model.lm_head.requires_grad_(not frozen)
    tokens = torch.arange(20).view(2, 10)
    results = []
    for limit in (2**30, 1000):
        monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", limit)
        loss = next_token_loss(model, tokens, tokens)
        loss.backward()
        results.append({name: p.grad for name, p in model.named_parameters()} | {"loss": loss})
        model.zero_grad()
    assert calls == [1]
    assert (results[1]["embedding.token.weight"] is None) == (tied and frozen)
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(next_token_loss(model, tokens, tokens), results[0]["loss"])
    assert calls == [1, 1]


def test_a_trained_head_is_not_in_chunks_in_float16(calls: list[int]) -> None:
    """Its gradient is a sum over tokens, of which most may have one target: more than 65,504."""
    model = Transformer(ModelConfig(vocab_size=65, num_layers=1, d_model=16, num_heads=2))
    tokens = torch.zeros(600, 128, dtype=torch.int64)
    with torch.autocast("cpu", torch.float16):
        loss = next_token_loss(model, tokens, tokens)
    loss.backward()
    assert model.lm_head.weight.grad.isfinite().all()
    assert not calls
    model.lm_head.requires_grad_(False)
    with torch.autocast("cpu", torch.float16):
        next_token_loss(model, tokens, tokens).backward()
    assert calls == [1]
    assert model.blocks[0].feed_forward.up.weight.grad.isfinite().all()


def test_a_model_that_is_watched_is_called(calls: list[int]) -> None:
    model, seen = Transformer(ModelConfig(num_layers=1, d_model=16, num_heads=2)), []
    tokens = torch.arange(20).view(2, 10)
    handle = model.register_forward_hook(lambda *_: seen.append("hook"))
    next_token_loss(model, tokens, tokens)
    handle.remove()
    own = model.forward
    model.forward = lambda *inputs: seen.append("forward") or own(*inputs)
    next_token_loss(model, tokens, tokens)
    assert seen == ["hook", "forward"]
    assert not calls


def test_a_head_that_is_more_than_its_matrix_is_called(calls: list[int]) -> None:
    config = ModelConfig(num_layers=1, d_model=16, num_heads=2)
    tokens = torch.arange(20).view(2, 10)
    adapted = apply(Transformer(config), LoraConfig(2, targets=("lm_head",)))
    next_token_loss(adapted, tokens, tokens).backward()
    assert adapted.lm_head.lora_B.weight.grad is not None
    hooked, seen = Transformer(config), []
    hooked.lm_head.register_forward_hook(lambda *_: seen.append(1))
    next_token_loss(hooked, tokens, tokens).backward()
    assert seen == [1]
    with nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1)):
        next_token_loss(Transformer(config), tokens, tokens)
    assert len(seen) > 1
    assert not calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ignored", [slice(0, 0), slice(2, 8)])
def test_the_loss_of_logits_brings_its_gradient(
    dtype: torch.dtype, ignored: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_chunks, "CACHED_LOGITS", 4 * 61)  # 4 rows
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


def test_a_second_derivative_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", 1000)
    loss = next_token_loss(model, tokens, tokens)
    with pytest.raises(RuntimeError, match="the loss has no second derivative"):
        torch.autograd.grad(loss, weights, create_graph=True)
