"""A rank's memory: by hand for a two-layer model, and as it must change with ranks and batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minilm.architectures.minilm import layout
from minilm.config import ModelConfig
from minilm.config.presets import preset
from minilm.costs.memory import hidden_matrices
from minilm.costs.mesh import Mesh, divides, largest_tensor_parallel, meshes, part_of
from minilm.costs.rank_memory import RankMemory, RankStep, rank_memory
from minilm.costs.training_step import TrainingStep

# Two layers without biases: a block has 4*8*8 + 2*8*16 + 2*8 = 528 parameters, table and head 10*8 each and
# the final norm 8: 1,224 in all.
CONFIG = ModelConfig(
    vocab_size=10,
    context_length=6,
    num_layers=2,
    d_model=8,
    num_heads=2,
    d_feed_forward=16,
    norm="rmsnorm",
    qkv_bias=False,
    attention_output_bias=False,
    feed_forward_bias=False,
)
BLOCK, TABLE, NORM = 528, 80, 8
ALL = 2 * BLOCK + 2 * TABLE + NORM
TENSORS = 2 * 8 + 3


def memory(mesh: Mesh, config: ModelConfig = CONFIG, **options: Any) -> RankMemory:
    part = part_of(config, mesh.tensor)
    given = {"batch": 1, "context": 4, "dtype": "float32"} | options
    return rank_memory(mesh, layout(part), part, **given)


def test_one_rank_is_one_process() -> None:
    assert layout(CONFIG).count() == ALL
    for dtype, checkpointing in (("float32", False), ("bfloat16", True)):
        step = TrainingStep(
            CONFIG, layout(CONFIG), dtype=dtype, checkpointing=checkpointing, device="cuda"
        )
        rank = memory(Mesh("one GPU"), dtype=dtype, checkpointing=checkpointing, batch=3)
        assert rank.total == step.memory(3, 4).peak


def test_data_parallel_has_everything_and_all_gradients_throughout() -> None:
    for world in (2, 4):
        rank = memory(Mesh("ddp", world))
        assert rank.weights == rank.gradients == 4 * ALL
        assert rank.optimizer == 8 * ALL + 4 * TENSORS
        assert (rank.gathered, rank.reduced) == (0, 0)


@pytest.mark.parametrize("world", [2, 4])
def test_sharded_by_hand(world: int) -> None:
    # All rows, 8, 10 and 16, are divided by 2; of 10 rows 4 ranks have 3, 3, 3 and 1.
    rows = {2: 5, 4: 3}[world]
    own = 2 * BLOCK // world + 2 * rows * 8 + 8 // world
    rank = memory(Mesh("fsdp", 1, world), batch=6, context=6)
    assert (rank.weights, rank.gradients) == (4 * own, 0)
    assert rank.optimizer == 8 * own + 4 * TENSORS
    # At the last block, where most is saved: both blocks, which are one unit and there twice while it is
    # gathered, all else, and the gradients of head and norm.
    assert rank.moment == "block"
    assert rank.gathered == 4 * (ALL + 2 * BLOCK)
    assert rank.reduced == 4 * (TABLE + NORM)
    single = TrainingStep(CONFIG, layout(CONFIG), device="cuda").moments(6, 6)
    assert rank.activations == max(each.temporary for each in single if each.name == "block")
    # Between micro-steps gradients stay whole, whatever the number of ranks.
    accumulating = memory(Mesh("fsdp", 1, world), accumulating=True, batch=6, context=6)
    assert (accumulating.gradients, accumulating.reduced) == (4 * ALL, 0)
    assert accumulating.total - rank.total == 4 * ALL - 4 * (TABLE + NORM)


def test_the_last_micro_step_reduces_what_was_accumulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilm.costs.rank_memory.UNIT_BYTES", 4 * BLOCK)
    step = RankStep(Mesh("fsdp", 1, 2), layout(CONFIG), CONFIG, dtype="float32", accumulating=True)
    outside = 2 * TABLE + NORM
    states = {
        rank.moment: (rank.gathered, rank.gradients, rank.reduced)
        for rank in map(step._at, step._moments(1, 4))
    }
    # The first block goes backward last: the other one is being reduced, and half of its gradients stay.
    assert states["block"] == (4 * ALL, 4 * (outside + BLOCK + BLOCK // 2), 4 * BLOCK)
    assert states["embedding"] == (4 * outside, 4 * BLOCK, 4 * (outside + 2 * BLOCK))
    assert states["optimizer"] == (0, 4 * ALL // 2, 0)
    # In 16 bits there are also the gradients that are to be added to those that were accumulated.
    monkeypatch.setattr("minilm.costs.rank_memory.UNIT_BYTES", 4 * 2 * BLOCK)
    step = replace(step, dtype="bfloat16")
    (last,) = [rank for rank in map(step._at, step._moments(1, 4)) if rank.moment == "block"][1:]
    assert (last.gradients, last.reduced) == (4 * ALL, 2 * BLOCK)


def test_data_parallel_accumulates_beside_its_buckets() -> None:
    mesh = Mesh("ddp", 2)
    many = memory(mesh, accumulating=True, batch=6, context=6)
    assert (many.moment, many.gradients) == ("loss", 2 * 4 * ALL)
    step = RankStep(mesh, layout(CONFIG), CONFIG, dtype="float32", accumulating=True)
    blocks = [step._at(each).gradients for each in step._moments(6, 6) if each.name == "block"]
    assert blocks[0] == 2 * 4 * ALL - 4 * (
        TABLE + NORM
    )  # those of head and norm are in the buckets
    config = replace(CONFIG, vocab_size=1000)
    table, everything = 1000 * 8, ALL + 2 * 990 * 8
    at_head = memory(mesh, config, accumulating=True, batch=1, context=1)
    alone = memory(mesh, config, batch=1, context=1)
    assert at_head.moment == alone.moment == "head"
    assert at_head.gradients == 2 * alone.gradients == 8 * everything
    assert at_head.activations == alone.activations > 4 * table


def test_few_tokens_peak_where_the_gradients_of_the_blocks_are_reduced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh("fsdp", 1, 2)
    rank = memory(mesh, batch=1, context=1)
    assert rank.moment == "embedding"
    assert rank.reduced == 4 * (TABLE + NORM) + (4 + 4) * 2 * BLOCK
    # With many tokens it is at the last block, with none of a block behind.
    assert memory(mesh, batch=6, context=6).gradients == 0
    # With blocks that are gathered alone: at the first one, with the gradients of the other behind.
    monkeypatch.setattr("minilm.costs.rank_memory.UNIT_BYTES", 4 * BLOCK)
    rank = memory(mesh, batch=1, context=1)
    assert rank.moment == "block"
    assert rank.gathered == 4 * ALL
    assert rank.gradients == 4 * BLOCK // 2
    assert rank.reduced == 4 * (TABLE + NORM) + 4 * BLOCK


def test_a_large_vocabulary_peaks_where_its_gradient_is_made() -> None:
    config = replace(CONFIG, vocab_size=1000)
    table, tables = 1000 * 8, 2 * 1000 * 8 + NORM
    replicated = memory(Mesh("ddp", 2), config, batch=1, context=1)
    assert replicated.moment == "head"
    single = TrainingStep(config, layout(config), device="cuda").moments(1, 1)
    (head,) = [each.temporary for each in single if each.name == "head"]
    assert replicated.activations == head + 4 * table
    sharded = memory(Mesh("fsdp", 1, 2), config, batch=1, context=1)
    assert sharded.moment == "embedding"
    # Nothing is gathered any more; whole gradients in a row, those that are reduced, the head's own still.
    assert (sharded.gathered, sharded.reduced) == (0, (4 + 4) * tables + 4 * table)
    table_is_all = memory(
        Mesh("ddp", 2), replace(config, tied_embeddings=True), batch=1, context=1, accumulating=True
    )
    assert table_is_all.moment == "embedding"
    assert table_is_all.activations > 4 * 3 * table
    # A tied table's two gradients and their sum, beside what was accumulated; of the rank the blocks' alone.
    tied = replace(config, tied_embeddings=True)
    alone = memory(Mesh("fsdp", 1, 2), tied, batch=1, context=1)
    assert (alone.gathered, alone.reduced) == (
        4 * (table + NORM),
        4 * (3 * table + NORM + 2 * BLOCK),
    )
    several = memory(Mesh("fsdp", 1, 2), tied, batch=1, context=1, accumulating=True)
    assert several.reduced - alone.reduced == 4 * table
    assert alone.gradients == several.gradients == 4 * BLOCK


def test_hybrid_is_sharded_within_its_group_alone() -> None:
    sharded, hybrid = memory(Mesh("fsdp", 1, 4)), memory(Mesh("hsdp", 8, 4))
    assert sharded == hybrid


def test_a_tensor_parallel_rank_has_its_part_of_the_blocks() -> None:
    rank = memory(Mesh("tp", tensor=2))
    # Each matrix of the blocks is halved, norms and tables are not.
    part = ALL - 2 * (BLOCK - 16) // 2
    assert rank.weights == 4 * part
    # fully_shard of one rank copies what it would gather, once.
    config = part_of(CONFIG, 2)
    step = RankStep(Mesh("tp", tensor=2), layout(config), config, dtype="float32")
    assert [step._at(moment).gathered for moment in step._moments(6, 6)] == [
        *(2 * [4 * (2 * TABLE + NORM)]),
        *(2 * [4 * part]),
        4 * (2 * TABLE + NORM),
        0,
    ]
    whole = memory(Mesh("one GPU"), batch=6, context=6)
    assert memory(Mesh("tp", tensor=2), batch=6, context=6).activations < whole.activations


def test_how_many_blocks_are_gathered_goes_by_the_whole_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minilm.costs.rank_memory.UNIT_BYTES", 4 * BLOCK + 4 * 16)
    part = part_of(CONFIG, 2)
    assert RankStep(Mesh("tp", tensor=2), layout(part), part).unit_blocks == 1


def test_a_sharded_model_in_16_bits_saves_no_copies_of_its_matrices() -> None:
    step = RankStep(Mesh("fsdp", 1, 2), layout(CONFIG), CONFIG)
    copies = 2 * sum(map(layout(CONFIG).value, hidden_matrices(layout(CONFIG))))
    alone = TrainingStep(CONFIG, layout(CONFIG), dtype="bfloat16", device="cuda")
    assert alone.saved(1, 4).total() - step._step.saved(1, 4).total() == copies


def test_muon_has_one_momentum_of_the_matrices() -> None:
    matrices = 2 * (BLOCK - 16)
    mesh = Mesh("fsdp", 1, 2)
    adamw, muon = memory(mesh), memory(mesh, optimizer="muon")
    assert adamw.optimizer - muon.optimizer == 4 * (matrices // 2 + 2 * 6)


def test_muon_shares_the_matrices_out_by_number() -> None:
    # Of 8 squares of 64 elements and 4 matrices of 128, the second of two ranks computes 2 and 4.
    computed, everything = 4 * (2 * 64 + 4 * 128), 4 * (8 * 64 + 4 * 128)

    def at_optimizer(mesh: Mesh) -> int:
        step = RankStep(mesh, layout(CONFIG), CONFIG, optimizer="muon", dtype="float32")
        return step._at(step._moments(1, 4)[-1]).activations

    assert at_optimizer(Mesh("fsdp", 1, 2)) == 3 * everything // 2 + 3 * computed
    assert at_optimizer(Mesh("ddp", 2)) == 3 * everything + 4 * computed
    assert at_optimizer(Mesh("fsdp", 1, 4)) < at_optimizer(Mesh("fsdp", 1, 2))


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b"])
def test_more_ranks_need_less_and_more_tokens_need_more(name: str) -> None:
    config = preset(name)
    declared = layout(config)

    def total(mesh: Mesh, batch: int, *, checkpointing: bool = False) -> int:
        step = RankStep(mesh, declared, config, checkpointing=checkpointing)
        return step.memory(batch, 1024).total

    sharded = [total(Mesh("fsdp", 1, world), 2) for world in (2, 4, 8, 64, 1024)]
    assert sharded == sorted(sharded, reverse=True)
    assert total(Mesh("ddp", 2), 2) > sharded[0]
    by_batch = [total(Mesh("fsdp", 1, 8), batch) for batch in (1, 2, 3, 8, 64)]
    assert by_batch == sorted(set(by_batch))
    assert total(Mesh("fsdp", 1, 8), 8, checkpointing=True) < by_batch[3]


def test_another_architecture_is_an_estimate_of_the_same_states() -> None:
    config = preset("gpt2")
    mesh = Mesh("fsdp", 1, 8)
    own, estimated = (
        rank_memory(mesh, layout(config), each, batch=4, context=1024) for each in (config, None)
    )
    assert (own.weights, own.optimizer) == (estimated.weights, estimated.optimizer)
    assert estimated.moment == "backward"
    assert 0.5 < estimated.total / own.total < 1.5


def test_layouts_of_a_world() -> None:
    def names(world: int, tensor: int = 1) -> list[str]:
        all_meshes = list(meshes(world, 8, tensor))
        assert {mesh.world for mesh in all_meshes} == {world}
        return [mesh.name for mesh in all_meshes]

    assert names(1) == ["one GPU"]
    assert names(8, 4) == ["ddp", "fsdp", "tp 4 fsdp 2"]
    assert names(12) == ["ddp", "fsdp"]
    assert names(64, 8) == ["ddp", "fsdp", "hsdp 8x8", "tp 8 fsdp 8"]
    hybrid = Mesh("hsdp", 8, 8)
    assert not hybrid.leaves_server("shards")
    assert hybrid.leaves_server("replicas")
    assert not hybrid.leaves_server("tensor")
    assert Mesh("fsdp", 1, 64).leaves_server("shards")


def test_how_many_tensor_parallel_ranks() -> None:
    assert largest_tensor_parallel(preset("llama-3-70b"), 64, 8) == 8
    assert largest_tensor_parallel(preset("gpt2"), 64, 8) == 4  # 12 heads
    assert largest_tensor_parallel(preset("gpt2-xl"), 64, 8) == 1  # 25 heads
    assert largest_tensor_parallel(preset("llama-3-8b"), 2, 8) == 2
    assert divides(preset("gpt2"), 6)
    assert not divides(preset("gpt2"), 8)
    assert not divides(replace(CONFIG, d_feed_forward=15), 2)
