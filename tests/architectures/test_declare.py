"""The tool that drafts a declaration finds how each shape follows the fields."""

from __future__ import annotations

import runpy

import pytest

from tests.conftest import ROOT

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

DECLARE = runpy.run_path(str(ROOT / "scripts" / "tools" / "declare.py"))


def test_a_draft_has_symbolic_shapes_layers_flags_and_ties() -> None:
    text = DECLARE["draft"]("glm4_moe", {"first_k_dense_replace": 1})
    for line in (
        '*linear("model.layers.{i}.self_attn.q_proj", h*k, d, components.ATTENTION_QUERY)',
        '*linear("model.layers.{i}.mlp.gate_proj", f, d, components.FEED_FORWARD_GATE),  # layers [0]',
        'Tensor("model.layers.{i}.mlp.experts.{e}.down_proj.weight", (d, m,)',
        '*norm("model.norm", components.FINAL_NORM)',
        "# use_qk_norm=True: adds model.layers.{i}.self_attn.k_norm.weight",
        "# buffer: model.layers.1.mlp.gate.e_score_correction_bias",
    ):
        assert line in text
    assert "# tied: lm_head.weight" in DECLARE["draft"]("vaultgemma", {})


def test_sums_and_products_of_two_fields_are_found() -> None:
    text = DECLARE["draft"]("youtu", {})
    assert '"model.layers.{i}.self_attn.kv_a_proj_with_mqa", c + r, d' in text
    assert '"model.layers.{i}.self_attn.kv_b_proj", h*n + h*v, c' in text
