"""Bytes on the links, by hand for 2 and 4 ranks, and what the computation hides of them."""

from __future__ import annotations

from typing import Any

import pytest

from minilm.costs.communication import (
    Links,
    Transfer,
    ring_all_gather,
    ring_all_reduce,
    step_time,
    transfers,
)
from minilm.costs.mesh import Mesh

LINKS = Links(server=100.0, network=10.0)


def sent(mesh: Mesh, **options: Any) -> dict[tuple[str, str], int]:
    given = {"parameters": 1200, "outside": 0, "layers": 2, "columns": 4, "width": 2}
    given |= {"activation_elements": 32, "checkpointing": False} | options
    return {(each.operation, each.when): each.nbytes for each in transfers(mesh, **given)}


@pytest.mark.parametrize(("ranks", "gathered", "reduced"), [(1, 0, 0), (2, 60, 120), (4, 90, 180)])
def test_rings(ranks: int, gathered: int, reduced: int) -> None:
    assert ring_all_gather(120, ranks) == gathered
    assert ring_all_reduce(120, ranks) == reduced


def test_data_parallel_reduces_float32_gradients_once() -> None:
    assert sent(Mesh("ddp", 2)) == {("all-reduce of gradients", "last backward"): 4800}
    assert sent(Mesh("ddp", 4)) == {("all-reduce of gradients", "last backward"): 7200}
    assert sent(Mesh("one GPU")) == {}


def test_sharded_gathers_twice_and_scatters_once() -> None:
    for world, part in ((2, 1 / 2), (4, 3 / 4)):
        assert sent(Mesh("fsdp", 1, world)) == {
            ("all-gather of weights", "forward"): 2400 * part,
            ("all-gather of weights", "backward"): 2400 * part,
            ("reduce-scatter of gradients", "last backward"): 4800 * part,
        }
    # What is outside the blocks is gathered once, in float32.
    assert sent(Mesh("fsdp", 1, 2), outside=200) == {
        ("all-gather of weights", "forward"): (2 * 1000 + 4 * 200) / 2,
        ("all-gather of weights", "backward"): 2 * 1000 / 2,
        ("reduce-scatter of gradients", "last backward"): 4800 / 2,
    }
    # In one dtype it is one and a half times what data parallel sends (ZeRO, section 7).
    in_float32 = sum(sent(Mesh("fsdp", 1, 4), width=4).values())
    assert in_float32 == 1.5 * sum(sent(Mesh("ddp", 4)).values())


def test_hybrid_reduces_its_part_between_the_groups() -> None:
    hybrid = sent(Mesh("hsdp", 2, 4))
    assert hybrid.pop(("all-reduce of gradients", "last backward")) == 1200
    assert hybrid == sent(Mesh("fsdp", 1, 4))


def test_tensor_parallel_reduces_activations_in_every_layer() -> None:
    # Forward two all-reduces a layer of 32 elements of 2 bytes: (2 * 1/2) * 2 * 2 * 64 bytes. Backward one
    # for each of 4 matrices, of 4 bytes.
    operation = "all-reduce of activations"
    assert sent(Mesh("tp", tensor=2)) == {
        (operation, "forward"): 256,
        (operation, "backward"): 1024,
    }
    recomputed = sent(Mesh("tp", tensor=2), checkpointing=True)
    assert recomputed == {(operation, "forward"): 256, (operation, "backward"): 1280}


def transfer(nbytes: int, when: str, **options: Any) -> Transfer:
    given = {"over_network": False} | options
    return Transfer(operation="", nbytes=nbytes, when=when, **given)


def test_what_the_computation_hides() -> None:
    # A forward pass of 1 s, a backward pass of 2 s; 100 bytes a second.
    def exposed(*sent: Transfer, micro_steps: int = 1, checkpointing: bool = False) -> float:
        time = step_time(
            list(sent), LINKS, forward=1.0, checkpointing=checkpointing, micro_steps=micro_steps
        )
        assert time.computing == micro_steps * (4.0 if checkpointing else 3.0)
        assert time.seconds == time.computing + time.exposed
        return time.exposed

    assert exposed() == 0
    assert exposed(transfer(100, "forward"), transfer(200, "backward")) == 0
    assert exposed(transfer(150, "forward"), transfer(230, "backward")) == pytest.approx(0.8)
    assert exposed(transfer(150, "forward"), micro_steps=3) == pytest.approx(1.5)
    assert exposed(transfer(250, "backward"), checkpointing=True) == 0
    # What is sent once is behind the last micro-step's backward pass, beside what that sends itself.
    assert exposed(transfer(250, "last backward"), micro_steps=4) == pytest.approx(0.5)
    both = (transfer(150, "backward"), transfer(150, "last backward"))
    assert exposed(*both, micro_steps=2) == pytest.approx(1.0)
    # Nothing hides what the next product waits for; between servers the rate is another.
    assert exposed(transfer(50, "forward", hidden=False), micro_steps=2) == pytest.approx(1.0)
    assert exposed(transfer(50, "forward", over_network=True)) == pytest.approx(4.0)


def test_how_much_is_sent_in_a_step() -> None:
    both = (transfer(100, "forward"), transfer(30, "last backward"))
    time = step_time(both, LINKS, forward=1.0, checkpointing=False, micro_steps=4)
    assert (time.traffic, time.sending) == (430, pytest.approx(4.3))
