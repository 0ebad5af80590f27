"""The memory of a rank that `minilm plan` predicts, against live tensors of real processes."""

from __future__ import annotations

from importlib import import_module

import pytest

from minilm.costs.mesh import Mesh

rank_memory = import_module("scripts.experiments.rank_memory")
Case = rank_memory.Case

FSDP, HYBRID = Mesh("fsdp", 1, 2), Mesh("hsdp 2x2", 2, 2, gpus_per_server=2)
TENSOR, BOTH = Mesh("tp 2", tensor=2), Mesh("tp 2 fsdp 2", 1, 2, 2)
CASES = {
    2: (
        Case(Mesh("ddp", 2), "gated", "float32", 1, 2),
        Case(FSDP, "wide", "bfloat16", 1, 2),
        Case(FSDP, "table", "float32", 1, 1),
        Case(TENSOR, "plain", "float32", 1, 1),
        Case(TENSOR, "plain", "bfloat16", 8, 2, checkpointing=True),
        Case(FSDP, "wide", "float32", 1, 1, optimizer="muon"),
    ),
    4: (
        Case(HYBRID, "plain", "bfloat16", 8, 3),
        Case(HYBRID, "gated", "float32", 1, 1),
        Case(BOTH, "wide", "bfloat16", 8, 1),
    ),
}


@pytest.mark.distributed
@pytest.mark.parametrize("world", CASES)
def test_the_predicted_memory_is_within_a_tenth_of_what_is_measured(world: int) -> None:
    for case, peak in zip(CASES[world], rank_memory.measure(CASES[world]), strict=True):
        assert case.predicted() == pytest.approx(peak, rel=0.1), case
