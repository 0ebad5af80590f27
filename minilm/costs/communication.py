"""What one rank sends in a training step, over which links, and whether the computation hides it.

Each collective is counted as its ring algorithm sends it (Patarasuk and Yuan 2009, "Bandwidth optimal
all-reduce algorithms for clusters of workstations"; nccl-tests' bus bandwidth is of the same counts). Of n
bytes each of W ranks sends

    all-gather, reduce-scatter    (W - 1) / W * n
    all-reduce                2 * (W - 1) / W * n      both, one after the other

and takes that at the rate of the slowest link of the ring, at its peak: a lower bound. What is sent:

    ddp      once a step, the gradients in float32, all-reduced behind the last backward pass
             (Li et al. 2020, arXiv:2006.15704, section 3.2.3)
    sharded  for each micro-step the weights of the blocks twice, in the dtype of the products, gathered
             behind the forward and the backward pass, and what is outside the blocks once, in float32; once a
             step the gradients in float32, scattered behind the last backward pass: 1.5 times ddp where all
             have one dtype (Rajbhandari et al. 2020, arXiv:1910.02054, section 7; Zhao et al. 2023,
             arXiv:2304.11277)
    hsdp     as sharded within a group, and once a step the rank's gradients, all-reduced between the groups
             (Zhao et al. 2023, section 3.2.2)
    tensor   in each layer two all-reduces of the tokens' activations forward, which nothing hides (Shoeybi et
             al. 2019, arXiv:1909.08053, section 3); recomputing does them again. Backward the gradient of the
             input of each matrix that is divided by columns is summed for itself, in float32: four or five
             in minilm, where Megatron-LM has two
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minilm.costs.forward_pass import FLOAT32
from minilm.costs.mesh import Mesh

# When a transfer happens: in each micro-step's forward or backward pass, or in the step's last backward pass.
FORWARD, BACKWARD, LAST = "forward", "backward", "last backward"


@dataclass(frozen=True)
class Links:
    """Bytes a second, one direction: to the cards of a server, and between servers."""

    server: float
    network: float | None


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A rank sends ``nbytes`` over a group of ranks: in each micro-step, or once a step, ``when`` it is LAST.

    ``hidden``: beside the computation of that pass, as far as it lasts.
    """

    operation: str
    nbytes: int
    when: str
    over_network: bool
    hidden: bool = True

    def seconds(self, links: Links) -> float:
        """At the peak of the links."""
        rate = links.network if self.over_network else links.server
        assert rate is not None
        return self.nbytes / rate


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step: computing; sending, which overlaps with it; and what of that it does not hide.

    ``traffic`` are the bytes that a rank sends.
    """

    computing: float
    sending: float
    exposed: float
    traffic: int

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.computing + self.exposed


def ring_all_gather(nbytes: float, ranks: int) -> int:
    """Bytes that each of ``ranks`` sends, of ``nbytes`` in all; a reduce-scatter's too."""
    return round((ranks - 1) / ranks * nbytes)


def ring_all_reduce(nbytes: float, ranks: int) -> int:
    """Bytes that each of ``ranks`` sends: a reduce-scatter's and an all-gather's."""
    return round(2 * (ranks - 1) / ranks * nbytes)


def transfers(
    mesh: Mesh,
    *,
    parameters: int,
    outside: int,
    layers: int,
    columns: int,
    activation_elements: int,
    width: int,
    checkpointing: bool,
) -> Iterator[Transfer]:
    """What one rank sends. ``parameters`` are those of its part, of which ``outside`` are in no block.

    ``columns``: matrices of a layer that are divided by columns. ``activation_elements`` are tokens of a
    micro-step times the model's width; ``width`` is in bytes.
    """
    if mesh.tensor > 1:
        of_inputs = columns * FLOAT32
        for when, size in (
            (FORWARD, 2 * width),
            (BACKWARD, of_inputs + 2 * width if checkpointing else of_inputs),
        ):
            yield Transfer(
                operation="all-reduce of activations",
                nbytes=ring_all_reduce(layers * activation_elements * size, mesh.tensor),
                when=when,
                over_network=mesh.leaves_server("tensor"),
                hidden=False,
            )
    if mesh.shards > 1:
        over_network = mesh.leaves_server("shards")
        of_blocks = width * (parameters - outside)
        for operation, when, size in (
            ("all-gather of weights", FORWARD, of_blocks + FLOAT32 * outside),
            ("all-gather of weights", BACKWARD, of_blocks),
            ("reduce-scatter of gradients", LAST, FLOAT32 * parameters),
        ):
            yield Transfer(
                operation=operation,
                nbytes=ring_all_gather(size, mesh.shards),
                when=when,
                over_network=over_network,
            )
    if mesh.replicas > 1:
        yield Transfer(
            operation="all-reduce of gradients",
            nbytes=ring_all_reduce(FLOAT32 * parameters / mesh.shards, mesh.replicas),
            when=LAST,
            over_network=mesh.leaves_server("replicas"),
        )


def step_time(
    step_transfers: Sequence[Transfer],
    links: Links,
    *,
    forward: float,
    checkpointing: bool,
    micro_steps: int,
) -> StepTime:
    """A step whose micro-steps compute ``forward`` seconds in a forward pass and twice that backward.

    Recomputing is one more forward pass, in the backward one.
    """
    computing = {FORWARD: forward, BACKWARD: (3 if checkpointing else 2) * forward}
    exposed = 0.0
    for when, seconds in computing.items():
        here = [transfer for transfer in step_transfers if transfer.when == when]
        overlapping = sum(x.seconds(links) for x in here if x.hidden)
        blocking = sum(x.seconds(links) for x in here if not x.hidden)
        last = (
            sum(x.seconds(links) for x in step_transfers if x.when == LAST)
            if when == BACKWARD
            else 0.0
        )
        exposed += micro_steps * blocking + (micro_steps - 1) * max(0.0, overlapping - seconds)
        exposed += max(0.0, overlapping + last - seconds)
    return StepTime(
        computing=micro_steps * sum(computing.values()),
        sending=sum(_times(x, micro_steps) * x.seconds(links) for x in step_transfers),
        exposed=exposed,
        traffic=sum(_times(x, micro_steps) * x.nbytes for x in step_transfers),
    )


def _times(transfer: Transfer, micro_steps: int) -> int:
    return 1 if transfer.when == LAST else micro_steps
