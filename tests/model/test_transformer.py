"""The architecture: pinned names, causality, the options, and the initial weights."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.model.attention import fused_attention
from minilm.model.explicit_attention import explicit_attention
from minilm.model.layers import LMHead
from minilm.model.ngrams import ngram_rows
from minilm.model.rope import frequencies, rotate, rotation
from minilm.model.transformer import Transformer, next_token_loss
from tests.strategies import model_configs

SMALL = {"vocab_size": 11, "context_length": 10, "num_layers": 2, "d_model": 12, "num_heads": 2}

# A file format: a change here is a change of the version.
NAMES = [
    "embedding.token.weight",
    "embedding.position.weight",
    "embedding.ngram.weight",
    "blocks.0.convolution.weight",
    "blocks.0.attention_norm.weight",
    "blocks.0.attention_norm.bias",
    "blocks.0.attention.query.weight",
    "blocks.0.attention.query.bias",
    "blocks.0.attention.key.weight",
    "blocks.0.attention.key.bias",
    "blocks.0.attention.value.weight",
    "blocks.0.attention.value.bias",
    "blocks.0.attention.query_norm.weight",
    "blocks.0.attention.query_norm.bias",
    "blocks.0.attention.key_norm.weight",
    "blocks.0.attention.key_norm.bias",
    "blocks.0.attention.output.weight",
    "blocks.0.attention.output.bias",
    "blocks.0.feed_forward_norm.weight",
    "blocks.0.feed_forward_norm.bias",
    "blocks.0.feed_forward.gate.weight",
    "blocks.0.feed_forward.gate.bias",
    "blocks.0.feed_forward.up.weight",
    "blocks.0.feed_forward.up.bias",
    "blocks.0.feed_forward.down.weight",
    "blocks.0.feed_forward.down.bias",
    "final_norm.weight",
    "final_norm.bias",
    "lm_head.weight",
]


def build(**fields: object) -> Transformer:
    return Transformer(ModelConfig(**{**SMALL, **fields})).eval()


def tokens(rows: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(5))


def test_parameter_names_are_pinned() -> None:
    model = build(
        num_layers=1,
        position="learned",
        feed_forward="swiglu",
        qk_norm=True,
        ngram=3,
        convolution=2,
    )
    assert [name for name, _ in model.named_parameters()] == NAMES


@pytest.mark.parametrize("vocab_size", [11, 64, 130])
def test_a_head_padded_for_the_product_gives_the_same_logits_and_gradients(vocab_size: int) -> None:
    head = LMHead(12, vocab_size)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets = torch.arange(10) % vocab_size
    results = []
    for forward in (head.forward, head.padded):
        logits = forward(x)
        assert logits.shape == (2, 5, vocab_size)
        loss = F.cross_entropy(logits.flatten(0, 1), targets)
        results.append((logits, *torch.autograd.grad(loss, (head.weight, x))))
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(plain, padded)
    assert head.weight.shape == (vocab_size, 12)


def test_a_tied_head_is_one_parameter() -> None:
    model = build(tied_embeddings=True)
    assert model.lm_head.weight is model.embedding.token.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


@settings(max_examples=40, deadline=None)
@given(config=model_configs())
def test_no_token_sees_a_later_one(config: ModelConfig) -> None:
    model = Transformer(config).eval()
    with torch.no_grad():  # what starts at zero would hide what it looks at
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    length = config.context_length
    before = torch.arange(length)[None] % config.vocab_size
    after = before.clone()
    after[0, -1] = (after[0, -1] + 1) % config.vocab_size
    with torch.no_grad():
        assert torch.equal(model(before)[:, : length - 1], model(after)[:, : length - 1])


def test_a_sliding_window_hides_what_is_further_back() -> None:
    # One layer, so that nothing travels further than one window.
    model = build(num_layers=1, sliding_window=3)
    first, second = tokens(1), tokens(1)
    second[0, 4] = (first[0, 4] + 1) % 11
    with torch.no_grad():
        same = (model(first) == model(second)).all(dim=-1)[0].tolist()
    assert same == [True] * 4 + [False] * 3 + [True] * 3


@pytest.mark.parametrize("window", [0, 1, 3, 10, 99])
def test_explicit_attention_is_the_fused_one(window: int) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 4, generator=g, dtype=torch.float64) for _ in range(3))
    explicit = explicit_attention(q, k, v, window=window, dropout=0.0)
    torch.testing.assert_close(explicit, fused_attention(q, k, v, window=window, dropout=0.0))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(4)).masked_fill(
        ~torch.tensor([[0 <= i - j < (window or 99) for j in range(10)] for i in range(10)]),
        float("-inf"),
    )
    torch.testing.assert_close(explicit, scores.softmax(-1) @ v)


def test_training_and_evaluation_take_the_same_value() -> None:
    model = build()
    with torch.no_grad():
        fused = model(tokens())
    torch.testing.assert_close(model(tokens()), fused)


def test_grouped_heads_are_full_heads_repeated() -> None:
    grouped = build(d_model=16, num_heads=4, num_kv_heads=2)
    full = build(d_model=16, num_heads=4)
    weights = dict(grouped.named_parameters())
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            weight = weights[name]
            if ".key." in name or ".value." in name:
                heads = weight.view(2, 4, *weight.shape[1:])
                weight = heads.repeat_interleave(2, dim=0).reshape(parameter.shape)
            parameter.copy_(weight)
        torch.testing.assert_close(full(tokens()), grouped(tokens()))


def test_rope_rotates_pairs_by_position() -> None:
    cosine, sine = rotation(6, ModelConfig(d_model=16, num_heads=2), torch.device("cpu"))
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    rotated = rotate(x, cosine, sine)
    torch.testing.assert_close(rotated[..., 0, :], x[..., 0, :])
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
    # Pair i of position p is a complex number times exp(i * p * theta^(-2i/k)).
    pairs = torch.complex(x[..., :4], x[..., 4:])
    angles = torch.arange(6)[:, None] * 10000.0 ** (-torch.arange(4) / 4)
    expected = pairs * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotated, torch.cat((expected.real, expected.imag), dim=-1))


def test_partial_rope_rotates_the_first_part_of_a_head() -> None:
    config = ModelConfig(d_model=24, num_heads=2, rotary_dim=8)
    x = torch.randn(1, 1, 6, 12, generator=torch.Generator().manual_seed(0))
    rotated = rotate(x, *rotation(6, config, torch.device("cpu")))
    assert torch.equal(rotated[..., 8:], x[..., 8:])
    whole = ModelConfig(d_model=16, num_heads=2)
    alone = rotate(x[..., :8], *rotation(6, whole, torch.device("cpu")))
    assert torch.equal(rotated[..., :8], alone)


def test_scaled_frequencies_are_slower_where_they_should_be() -> None:
    config = ModelConfig(d_model=256, num_heads=2, rope_factor=8.0, rope_original_context=256)
    cpu = torch.device("cpu")
    plain, linear, llama3 = (
        frequencies(dataclasses.replace(config, rope_scaling=scaling), cpu)
        for scaling in ("none", "linear", "llama3")
    )
    torch.testing.assert_close(linear, plain / 8)
    turns = 256 * plain / (2 * math.pi)  # in the context of the first training
    assert torch.equal(llama3[turns > 4], plain[turns > 4])
    torch.testing.assert_close(llama3[turns < 1], plain[turns < 1] / 8)
    between = (llama3 / plain)[(turns >= 1) & (turns <= 4)]
    assert len(between) > 3
    assert ((between > 1 / 8) & (between < 1)).all()
    assert (llama3.diff() < 0).all()


def test_a_parallel_residual_adds_both_to_the_same_input() -> None:
    block = build(parallel_residual=True, position="learned").blocks[0]
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    attended = block.attention(block.attention_norm(x), None)
    expected = x + attended + block.feed_forward(block.feed_forward_norm(x))
    torch.testing.assert_close(block(x, None), expected)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu2", "swiglu", "geglu"])
def test_feed_forward_is_its_formula(activation: str) -> None:
    layer = build(feed_forward=activation).blocks[0].feed_forward
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    up = layer.up(x)
    expected = {
        "gelu": lambda: F.gelu(up),
        "gelu_tanh": lambda: F.gelu(up, approximate="tanh"),
        "relu2": lambda: up.clamp(min=0) ** 2,
        "swiglu": lambda: layer.gate(x) * layer.gate(x).sigmoid() * up,
        "geglu": lambda: F.gelu(layer.gate(x)) * up,
    }[activation]()
    torch.testing.assert_close(layer(x), layer.down(expected))


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_convolution_is_its_formula(length: int) -> None:
    layer = build(convolution=3).blocks[0].convolution
    x = torch.randn(2, length, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), x)  # nothing is added at first
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(1))
    expected = x.clone()
    for t in range(length):
        for j in range(min(3, t)):
            expected[:, t] += layer.weight[j] * x[:, t - 1 - j]
    torch.testing.assert_close(layer(x), expected)


def test_ngram_tables_add_a_row_for_each_length() -> None:
    plain, model = build(), build(ngram=3, ngram_rows=7)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(model(tokens()), plain(tokens()))  # the tables start at zero
    with torch.no_grad():
        model.embedding.ngram.weight.normal_(generator=torch.Generator().manual_seed(1))
    assert model.embedding.ngram.weight.shape == (2 * 7, 12)
    expected = plain.embedding(tokens())
    for rows in ngram_rows(tokens(), 3, 7).unbind(dim=2):
        expected = expected + model.embedding.ngram.weight[rows]
    torch.testing.assert_close(model.embedding(tokens()), expected)


def test_embeddings_have_a_scale_of_their_own() -> None:
    config = ModelConfig(vocab_size=4096, d_model=64, embedding_std=0.7, position="learned")
    model = Transformer(config)
    assert model.embedding.token.weight.std().item() == pytest.approx(0.7, rel=0.02)
    assert model.embedding.position.weight.std().item() == pytest.approx(0.7, rel=0.02)
    assert model.blocks[0].attention.query.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_acts_in_training_only() -> None:
    model = build(dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    torch.manual_seed(0)
    first = model(tokens())
    assert not torch.equal(first, model(tokens()))
    torch.manual_seed(0)
    assert torch.equal(first, model(tokens()))


@pytest.mark.parametrize(
    ("scheme", "std"),
    [("normal", 0.02), ("xavier", math.sqrt(2 / (256 + 1024))), ("kaiming", math.sqrt(2 / 256))],
)
def test_initial_scale_is_that_of_its_paper(scheme: str, std: float) -> None:
    config = ModelConfig(vocab_size=64, d_model=256, num_layers=8, initialization=scheme)
    block = Transformer(config).blocks[0]
    assert block.feed_forward.up.weight.std().item() == pytest.approx(std, rel=0.02)
    fan = {"normal": 0.02, "xavier": math.sqrt(2 / 512), "kaiming": math.sqrt(2 / 256)}[scheme]
    output = block.attention.output.weight.std().item()
    assert output == pytest.approx(fan / math.sqrt(2 * 8), rel=0.02)
    assert block.attention.query.bias.abs().max() == 0
    assert torch.equal(block.attention_norm.weight, torch.ones(256))


def test_zero_outputs_start_from_uniform_predictions() -> None:
    model = build(output_initialization="zero")
    assert model(tokens()).abs().max() == 0
    loss = next_token_loss(model, tokens(), tokens())
    assert loss.item() == pytest.approx(math.log(11))


def test_one_seed_gives_the_same_bytes() -> None:
    config = ModelConfig(**SMALL)
    first, second, other = (
        Transformer(config, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_loss_leaves_out_padding() -> None:
    model, targets = build(), tokens()
    padded = targets.clone()
    padded[1] = -100
    torch.testing.assert_close(
        next_token_loss(model, tokens(), padded),
        F.cross_entropy(model(tokens())[0], targets[0]),
    )


def test_more_tokens_than_the_context_is_a_bug_not_a_result() -> None:
    with pytest.raises(AssertionError, match="11 tokens exceed the context of 10"):
        build()(tokens(1, 11))
