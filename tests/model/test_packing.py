"""Several documents in a row: each is computed as if it were alone."""

from __future__ import annotations

import pytest
import torch

from minilm.config import ModelConfig
from minilm.model.attention import fused_attention
from minilm.model.explicit_attention import explicit_attention
from minilm.model.transformer import Transformer, next_token_loss

SHAPE = {"vocab_size": 50, "context_length": 16, "num_layers": 2, "d_model": 32, "num_heads": 4}
VARIANTS = {
    "rope": {},
    "learned": {"position": "learned"},
    "partial rope, grouped": {"rotary_dim": 4, "num_kv_heads": 2, "qk_norm": True},
    "window": {"sliding_window": 3},
    "n-grams": {"ngram": 3, "ngram_rows": 64},
    "convolution": {"convolution": 3},
    "shared": {"num_layers": 4, "shared_layers": 2},
}
LENGTHS = (6, 7)  # of the documents A and B; three places are empty
POSITIONS = torch.tensor([[*range(6), *range(7), 0, 0, 0]])


def build(fields: dict) -> Transformer:
    model = Transformer(ModelConfig(**SHAPE | fields), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # zeros at the start would hide a leak
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def tokens(seed: int, length: int) -> torch.Tensor:
    return torch.randint(1, 50, (1, length), generator=torch.Generator().manual_seed(seed))


def packed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, second, torch.zeros(1, 3, dtype=torch.long)], dim=1)


@pytest.mark.parametrize("grad", [True, False], ids=["explicit", "fused"])
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_a_document_sees_no_other(fields: dict, grad: bool) -> None:
    model = build(fields)
    first, other, second = tokens(3, 6), tokens(4, 6), tokens(5, 7)
    with torch.set_grad_enabled(grad):
        rows = [packed(document, second) for document in (first, other)]
        one, two = (model(row, document_positions=POSITIONS) for row in rows)
        alone = model(second)
        of_first = model(first)
    assert torch.equal(one[:, 6:13], two[:, 6:13])
    assert not torch.allclose(one[:, :6], two[:, :6], atol=1e-2), "the first is another"
    torch.testing.assert_close(one[:, 6:13], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one[:, :6], of_first, atol=1e-5, rtol=1e-5)
    unmasked = model(rows[0])
    assert not torch.allclose(unmasked[:, 6:13], alone, atol=1e-3), "positions make a difference"


def test_the_gradient_is_that_of_the_documents_alone() -> None:
    model, targets = build({}), packed(tokens(6, 6), tokens(7, 7))
    targets[:, 13:] = -100
    row = packed(tokens(3, 6), tokens(5, 7))
    next_token_loss(model, row, targets, POSITIONS).backward()
    joint = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for start, end in ((0, 6), (6, 13)):
        loss = next_token_loss(model, row[:, start:end], targets[:, start:end])
        (loss * (end - start) / 13).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, joint[name], atol=1e-6, rtol=1e-4, msg=name)


def test_both_ways_to_attend_are_one() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 9, 8, generator=generator) for _ in range(3))
    place = torch.arange(9)
    visible = (place[:, None] >= place) & (torch.rand(2, 1, 9, 9, generator=generator) < 0.5)
    visible |= torch.eye(9, dtype=torch.bool)
    explicit, fused = (
        attend(query, key, value, window=0, dropout=0.0, visible=visible)
        for attend in (explicit_attention, fused_attention)
    )
    torch.testing.assert_close(explicit, fused, atol=1e-6, rtol=1e-5)
