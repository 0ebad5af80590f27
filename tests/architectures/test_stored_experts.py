"""Experts that a file holds stacked, as transformers computes them, though it writes them one by one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of, layout_of_class
from minilm.inspection.stored_experts import with_stacked_experts
from minilm.ledger.layout import Layout
from tests.architectures.record import CLASSES, DRAWS, drawn, drawn_class

_STACKED = re.compile(r".*\.experts\.\w+_proj")


def declared(model_type: str, class_name: str) -> tuple[dict[str, Any], Layout]:
    config = drawn_class(model_type, class_name) if class_name else drawn(model_type)
    layout = layout_of_class(config) if class_name else layout_of(config)
    assert layout is not None
    return config, layout


ONE_BY_ONE = [
    (model_type, class_name)
    for model_type, class_name in (*((name, "") for name in DRAWS), *CLASSES)
    if any(".experts.{e}." in t.name for t in declared(model_type, class_name)[1].tensors)
]


def written(folder: Path, config: dict[str, Any], layout: Layout) -> Path:
    every = (*layout.named_tensors(), *layout.named_tensors(layout.buffers))
    tensors = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in every}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("model_type", "class_name"), ONE_BY_ONE)
def test_stacked_experts_are_verified(model_type: str, class_name: str, tmp_path: Path) -> None:
    config, layout = declared(model_type, class_name)
    stacked = with_stacked_experts(layout)
    assert (stacked.count(), stacked.count(active=True)) == (
        layout.count(),
        layout.count(active=True),
    )
    report = minilm.inspect(written(tmp_path, config, stacked))
    assert report.verified, report.mismatches
    assert report.parameters.total == layout.count()


@pytest.mark.parametrize(("model_type", "class_name"), ONE_BY_ONE)
def test_they_are_as_transformers_holds_them(model_type: str, class_name: str) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    from tests.architectures.test_classes_agreement import build_class
    from tests.architectures.test_transformers_agreement import IS_VERSION_4, build

    if IS_VERSION_4:
        pytest.skip("transformers 4 holds them one by one")
    config, layout = declared(model_type, class_name)
    model = build_class(class_name, config) if class_name else build(config)
    theirs = {n: tuple(p.shape) for n, p in model.named_parameters() if _STACKED.fullmatch(n)}
    ours = {
        t.name: t.shape
        for t in with_stacked_experts(layout).named_tensors()
        if _STACKED.fullmatch(t.name)
    }
    # Some have another name for the block in memory.
    assert sorted(theirs.values()) == sorted(ours.values())


LONGCAT = {
    "model_type": "longcat_flash",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_layers": 2,
    "ffn_hidden_size": 48,
    "expert_ffn_hidden_size": 16,
    "num_attention_heads": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
    "n_routed_experts": 4,
    "zero_expert_num": 2,
    "moe_topk": 2,
}
IDLE_GATES = 2 * 2 * 2 * 16 * 32  # layers, experts, gate and up, their matrix


@pytest.mark.parametrize("stacks", [False, True])
def test_the_file_says_whether_idle_experts_have_gates(stacks: bool, tmp_path: Path) -> None:
    published, own = {"transformers_version": "4.56.0"}, {"transformers_version": "5.23.0"}
    totals = []
    for fields in (published, own):
        layout = layout_of(LONGCAT | fields)
        layout = with_stacked_experts(layout) if stacks else layout
        totals.append(layout.count())
        for other in ({}, published, own, {"auto_map": {}}):
            report = minilm.inspect(written(tmp_path, LONGCAT | other, layout))
            assert report.verified, report.mismatches
            assert report.parameters.total == layout.count()
    assert totals[1] - totals[0] == IDLE_GATES


def test_a_config_for_its_own_code_has_no_idle_gates(tmp_path: Path) -> None:
    counts, notes = [], []
    for fields in (
        {},
        {"auto_map": {"AutoConfig": "configuration_longcat_flash.LongcatFlashConfig"}},
    ):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(LONGCAT | fields))
        report = minilm.inspect(path)
        counts.append(report.parameters.total)
        notes.append(any("gates of the experts that do nothing" in note for note in report.notes))
    assert counts[0] - counts[1] == IDLE_GATES
    assert notes == [True, False]
