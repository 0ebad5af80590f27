"""The activation formulas by hand and by their papers; against torch: inspection/test_measured.py."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sympy

from minilm.architectures import gpt2
from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.config.presets import PRESETS
from minilm.costs.activation_estimate import estimate, estimated_activation_bytes
from minilm.costs.activations import activations
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import symbol

PLAIN = ModelConfig(vocab_size=50, context_length=64, num_layers=3, d_model=32, num_heads=4)


def test_a_plain_block_by_hand() -> None:
    saved = activations(PLAIN, batch=2, context=16)
    tokens, d, heads = 2 * 16, 32, 4
    statistics = 2 * 2 * tokens  # two norms
    # Two norms' inputs and outputs, queries, keys, values and attention's output; 4d twice.
    elements = tokens * d * (4 + 4 + 8) + statistics + 2 * heads * 16 * 16
    assert saved.block() == 4 * elements
    # Cosines and sines; the last norm; the log-softmax, and the number of targets.
    outside = 16 * 8 + (2 * tokens * d + 2 * tokens) + tokens * 50 + 1
    assert saved.total() == 3 * 4 * elements + 4 * outside
    assert saved.between_blocks() == 4 * (outside + 3 * tokens * d)
    assert saved.checkpointed() == saved.between_blocks() + 4 * (elements - tokens * d)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("context", [16, 600])
def test_the_printed_formula_and_the_components_have_the_same_value(
    dtype: str, context: int
) -> None:
    config = PRESETS["gpt2"].model_config(qk_norm=True, num_kv_heads=4, sliding_window=8)
    saved = activations(config, batch=2, context=context, dtype=dtype)
    printed = activations(config, batch=2, context=context, dtype=dtype).to_dict()
    formula, symbols = printed["formula"], printed["symbols"]
    values = {letter: sympy.Integer(value) for letter, value in symbols.items()}
    assert set(re.findall("[A-Za-z]", formula)) == symbols.keys()
    assert (symbols["B"], symbols["T"]) == (2, context)
    assert sympy.sympify(formula.replace("^", "**"), locals=values) == saved.total()
    assert sum(saved.by_component().values()) == saved.total()


def test_only_cpu_results_are_exact() -> None:
    shape = {"batch": 1, "context": 16}
    assert activations(PLAIN, **shape).to_dict()["basis"] == "exact"
    assert activations(PLAIN, **shape, device="cuda").to_dict()["basis"] == "estimate"


def test_checkpointing_keeps_one_block_and_all_inputs() -> None:
    config = PRESETS["gpt2"].model_config(dropout=0.0)
    saved = activations(config, batch=1, context=1024)
    whole, rest = saved.block(), saved.total() - 12 * saved.block()
    assert saved.checkpointed() == rest + whole + 11 * 4 * 1024 * 768
    assert saved.checkpointed() < saved.total()


def test_the_estimate_of_gpt2_is_the_34_sbh_of_its_paper() -> None:
    # Korthikanti et al. 2022, with dropout, without the scores that a fused kernel does not keep; the
    # paper's masks on scores are in those.
    per_token = estimate(gpt2.layout({}), dropout=True)
    assert per_token is not None
    assert per_token.blocks == 12 * 34 * 768
    # The dropped embedding's mask, the last norm's and the head's input, the log-softmax.
    assert per_token.outside == 768 + 2 * 768 + 2 * 768 + 4 * 50257


def test_the_estimate_of_grouped_heads_and_a_gate() -> None:
    per_token = estimate(layout(PRESETS["llama-3-8b"].model_config()))
    assert per_token is not None
    d, keys, f = 4096, 8 * 128, 14336
    # Norms' inputs and outputs, queries and output; keys and values; gate twice, up, down's input.
    assert per_token.blocks == 32 * 2 * (4 * d + 2 * d + 2 * keys + 4 * f)
    assert per_token.total(10) == 10 * (per_token.blocks + per_token.outside)
    assert per_token.checkpointed(10) == 10 * (
        per_token.outside + per_token.blocks // 32 + 31 * 2 * d
    )


@pytest.mark.parametrize("preset", ["nano", "small", "llama-3-8b"])
def test_the_estimate_is_close_to_the_exact_count(preset: str) -> None:
    config = PRESETS[preset].model_config()
    # As on a GPU: RMSNorm in one kernel.
    exact = activations(config, batch=1, context=512, device="cuda").total()
    rough = estimated_activation_bytes(layout(config), batch=1, context=512, dtype="float32")
    assert rough is not None
    assert rough["saved"] == pytest.approx(exact, rel=0.15)


def test_experts_add_copies_of_their_tokens() -> None:
    d, m, experts = symbol("d"), symbol("m"), symbol("E")

    def matrix(name: str, component: str) -> Tensor:
        return Tensor(name, (d, m), component, Role.MULTIPLIED, experts=experts, routed=True)

    tensors = (
        Tensor("router", (experts, d), "router", Role.MULTIPLIED),
        matrix("gate.{e}", "experts gate"),
        matrix("up.{e}", "experts up"),
        matrix("down.{e}", "experts down"),
    )
    dense = layout(replace(PLAIN, feed_forward="swiglu"))
    symbols = {**dense.symbols, "E": 8, "e": 2, "m": 6}
    plain, mixed = (
        estimate(Layout("experts", dense.tensors + added, symbols, attention=dense.attention))
        for added in ((), tensors)
    )
    assert plain is not None
    assert mixed is not None
    # Two experts' gate twice, up and down's input; the scores; two copies in and two out.
    assert mixed.blocks - plain.blocks == 2 * (4 * 2 * 6) + 4 * 8 + 2 * (4 * 32)


def test_no_attention_no_estimate() -> None:
    assert estimate(Layout("bare", (), {"d": 8})) is None
    assert estimated_activation_bytes(Layout("bare", (), {}), batch=1, context=1) is None
