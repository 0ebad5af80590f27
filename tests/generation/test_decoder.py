"""A modified model is never bypassed: fast decoding refuses it, and generation runs its modules."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from minilm.config import ModelConfig
from minilm.generation.decoder import ModelDecoder, _note, make_decoder
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import generate
from minilm.generation.unmodified import ModifiedModelError
from minilm.model.attention import Attention
from minilm.model.layers import Linear
from minilm.model.transformer import Transformer
from minilm.text.tokenizers import CharTokenizer
from minilm.training.runtime import Runtime
from tests.interop.shapes import TINY, random_model
from tests.model.architectures import ARCHITECTURES


class LoRA(nn.Module):
    """A linear layer and a product of two small matrices beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)
        for weight in (self.down.weight, self.up.weight):
            nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.up(self.down(x))
        return y


class Negated(Linear):
    """A subclass with the same parameters that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Packed(torch.Tensor):
    """A tensor subclass, as quantized weights are: the module around it keeps its type."""


class Inverted(Transformer):
    """A subclass of the model."""

    def forward(self, tokens: Tensor, cache: Any = None) -> Tensor:
        return -super().forward(tokens, cache)


def put_lora(model: Any) -> None:
    attention = model.blocks[1].attention
    attention.value = LoRA(attention.value)


def put_lora_on_the_head(model: Any) -> None:
    model.lm_head = LoRA(model.lm_head)


def put_subclass(model: Any) -> None:
    model.blocks[0].feed_forward.down.__class__ = Negated


def hook(model: Any) -> None:
    model.blocks[0].attention.register_forward_hook(lambda module, inputs, output: -output)


def hook_inputs(model: Any) -> None:
    model.final_norm.register_forward_pre_hook(lambda module, inputs: (-inputs[0],))


def parametrize_weight(model: Any) -> None:
    parametrize.register_parametrization(model.blocks[0].attention.query, "weight", Doubled())


def replace_forward(model: Any) -> None:
    block = model.blocks[1]
    original = block.forward
    block.forward = lambda *inputs: -original(*inputs)


def replace_forward_of_the_model(model: Any) -> None:
    model.forward = lambda *inputs: -Transformer.forward(model, *inputs)


def replace_activation(model: Any) -> None:
    model.blocks[0].feed_forward.activation = "relu2"


def change_epsilon(model: Any) -> None:
    model.final_norm.eps = 0.5


def drop_a_bias(model: Any) -> None:
    model.blocks[0].attention.query.bias = None


def add_a_module(model: Any) -> None:
    model.blocks[0].adapter = nn.Linear(32, 32)


def remove_a_block(model: Any) -> None:
    del model.blocks[1]


def wrap_weight(model: Any) -> None:
    linear = model.blocks[0].attention.output
    linear.weight = nn.Parameter(linear.weight.as_subclass(Packed), requires_grad=False)


def add_an_array(model: Any) -> None:
    model.blocks[0].note = np.zeros(3)


def become_a_subclass(model: Any) -> None:
    model.__class__ = Inverted


MODIFICATIONS: dict[Callable[[Any], None], str] = {
    put_lora: "blocks.1.attention.value: LoRA, expected Linear",
    put_lora_on_the_head: "lm_head: LoRA, expected LMHead",
    put_subclass: "blocks.0.feed_forward.down: Negated, expected Linear",
    hook: "blocks.0.attention: a forward hook, expected none",
    hook_inputs: "final_norm: a forward hook, expected none",
    parametrize_weight: "blocks.0.attention.query: ParametrizedLinear, expected Linear",
    replace_forward: "blocks.1.forward: set on the module, to a function, expected the class's own",
    replace_forward_of_the_model: "forward: set on the module, to a function, expected the class's own",
    replace_activation: "blocks.0.feed_forward.activation: 'relu2', expected 'gelu'",
    change_epsilon: "final_norm.eps: 0.5, expected 1e-05",
    drop_a_bias: "blocks.0.attention.query.bias: shape None, expected (32,)",
    add_a_module: "blocks.0.adapter: Linear, expected no module",
    remove_a_block: "blocks.1: no module, expected Block",
    wrap_weight: "blocks.0.attention.output.weight: Packed, expected Parameter",
    add_an_array: "blocks.0.note: set on the module, to a ndarray, expected no such attribute",
    become_a_subclass: "model: Inverted, expected Transformer, no subclass of it",
}

# What no forward pass reads.
UNUSED = (add_a_module, wrap_weight, add_an_array)

# One character a token and no token that ends a text: greedy tokens can be read back from the text.
TOKENIZER = CharTokenizer([chr(0x4E00 + number) for number in range(256)])
PROMPT = "".join(chr(0x4E00 + number) for number in (7, 1, 100, 31, 250))


NEW_TOKENS = TINY["context_length"] - len(PROMPT) + 1


def build(**fields: Any) -> Transformer:
    return random_model(ModelConfig(**TINY | fields))


@torch.no_grad()
def greedy(model: Transformer) -> str:
    """The tokens that follow PROMPT, each from a pass over the whole text."""
    tokens = TOKENIZER.encode_prompt(PROMPT)
    for _ in range(NEW_TOKENS):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return TOKENIZER.decode(tokens)[len(PROMPT) :]


def generated(model: Transformer) -> str:
    return generate(model, TOKENIZER, PROMPT, max_new_tokens=NEW_TOKENS, temperature=0)


@pytest.mark.parametrize(
    ("modify", "message"), MODIFICATIONS.items(), ids=[each.__name__ for each in MODIFICATIONS]
)
def test_a_modified_model_runs_through_its_modules(
    modify: Callable[[Any], None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = build()
    assert generated(model) == greedy(model)
    tokens = torch.arange(32)[None]
    unmodified = model(tokens)
    modify(model)
    assert torch.equal(model(tokens), unmodified) == (modify in UNUSED)
    with pytest.raises(ModifiedModelError) as error:
        FastDecoder(model)
    assert str(error.value).startswith(message)
    assert " at 0x" not in str(error.value)
    _note.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(make_decoder(model), ModelDecoder)
        assert generated(model) == greedy(model)
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "generating through the model's modules, which is slower"
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_a_config_builds_is_decoded_fast(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(ModelConfig(**ARCHITECTURES[name]))
    assert isinstance(make_decoder(model), FastDecoder)
    assert isinstance(make_decoder(model.to(torch.bfloat16)), FastDecoder)
    assert isinstance(make_decoder(model.train()), FastDecoder)  # no dropout
    assert not caplog.records


def hook_all() -> RemovableHandle:
    return register_module_forward_hook(
        lambda module, inputs, output: -output if isinstance(module, nn.Linear) else None
    )


def hook_all_inputs() -> RemovableHandle:
    return register_module_forward_pre_hook(
        lambda module, inputs: (-inputs[0],) if isinstance(module, nn.Linear) else None
    )


@pytest.mark.parametrize("register", [hook_all, hook_all_inputs])
def test_a_hook_on_all_modules_is_not_bypassed(register: Callable[[], RemovableHandle]) -> None:
    model = build()
    unmodified, decoder = generated(model), FastDecoder(model)
    handle = register()
    try:
        with pytest.raises(ModifiedModelError, match="model: a forward hook on all modules"):
            FastDecoder(model)
        with pytest.raises(ModifiedModelError, match="added since this decoder was made"):
            decoder(torch.tensor([[1]]), decoder.new_cache(1, 2))
        assert generated(model) == greedy(model) != unmodified
    finally:
        handle.remove()
    assert generated(model) == unmodified


@pytest.mark.parametrize("modify", [hook, hook_inputs])
def test_a_hook_on_a_model_that_has_a_decoder_is_not_bypassed(
    modify: Callable[[Any], None],
) -> None:
    model = build()
    decoder = FastDecoder(model)
    modify(model)
    with pytest.raises(ModifiedModelError, match="added since this decoder was made"):
        decoder(torch.tensor([[1]]), decoder.new_cache(1, 2))


@pytest.mark.parametrize(
    ("patched", "method", "message"),
    [
        (nn.Linear, "forward", "query: Linear.forward replaced"),
        (Attention, "forward", "blocks.0.attention: Attention.forward replaced"),
        (Transformer, "forward", "model: Transformer.forward replaced"),
        (nn.Module, "__call__", "model: Transformer.__call__ replaced"),
    ],
)
def test_a_class_with_a_replaced_method_is_not_bypassed(
    monkeypatch: pytest.MonkeyPatch, patched: type, method: str, message: str
) -> None:
    model = build()
    unmodified, original = generated(model), getattr(patched, method)

    @functools.wraps(original)
    def negated(self: nn.Module, *inputs: Any) -> Any:
        output = original(self, *inputs)
        return -output if isinstance(self, (nn.Linear, Attention, Transformer)) else output

    monkeypatch.setattr(patched, method, negated)
    with pytest.raises(ModifiedModelError, match=f"{message}, expected the class's own"):
        FastDecoder(model)
    assert generated(model) == greedy(model) != unmodified


def test_a_window_that_contradicts_the_config_is_a_bug_not_a_result() -> None:
    model: Any = build()
    model.blocks[0].attention.window = 2
    with pytest.raises(ModifiedModelError, match=r"blocks\.0\.attention\.window: 2, expected 0"):
        FastDecoder(model)
    with pytest.raises(AssertionError, match="the cache is for another sliding window"):
        generated(model)


def test_dropout_in_training_mode_is_refused() -> None:
    model = build(dropout=0.1)
    FastDecoder(model)
    with pytest.raises(ModifiedModelError, match="training mode with dropout"):
        FastDecoder(model.train())


def test_several_dtypes_are_refused() -> None:
    model = build()
    model.final_norm.double()
    with pytest.raises(ModifiedModelError, match="several dtypes or devices"):
        FastDecoder(model)


def test_a_model_trained_with_activation_checkpointing_can_be_sampled() -> None:
    model = build()
    unmodified = generated(model)
    runtime = Runtime(torch.device("cpu"), torch.float32, False, activation_checkpointing=True)
    runtime.prepare(model)
    assert isinstance(make_decoder(model), ModelDecoder)
    assert generated(model) == unmodified


def test_a_modified_model_is_not_compiled() -> None:
    model = build()
    put_lora(model)
    assert not make_decoder(model, compiled=True).compiled
