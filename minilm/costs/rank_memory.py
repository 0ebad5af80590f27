"""Peak bytes of live tensors of one rank, for each `Mesh`: the moments of training_step.py, shared out.

What is counted, in the largest of those moments:

    weights      float32; of a sharded model the rank's rows, as fully_shard divides dimension 0 (rounded up)
    optimizer    its state, of the rank's rows
    gradients    ddp: all of them throughout, in the buckets of the all-reduce (gradient_as_bucket_view);
                 sharded: the rank's rows of the layers behind
    accumulated  between micro-steps nothing is synchronised: whole float32 gradients are there throughout; of
                 ddp beside the buckets, of a sharded model whatever the number of ranks. The last micro-step
                 moves them to the buckets, or reduces them, unit after unit
    gathered     sharded: what is outside the blocks in float32 throughout, and in the dtype of the products
                 two units of blocks (one computes, the next is on its way; one alone is twice there at first)
    reduced      sharded: the whole gradients outside the blocks from the head on, those of the unit that goes
                 backward, and those of the unit behind in float32 while they are reduced; twice, since they
                 are copied into a row, and gloo copies that
    activations  all that is saved for the backward pass, and a moment's intermediate results. Autocast saves
                 16-bit copies of the matrices; a sharded model gathers those of the blocks in 16 bits instead

A tensor-parallel rank computes a model with its part of the heads and of the feed-forward (`part_of`);
fully_shard has it even where no other rank shares that part, and then copies instead of gathering. Of an
architecture that minilm does not run, activations are those of activation_estimate.py, beside all gradients.
What a process needs besides its tensors is `memory_need.overhead_bytes`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property

from minilm.config import ModelConfig
from minilm.costs.activation_estimate import estimate
from minilm.costs.forward_pass import FLOAT32
from minilm.costs.memory import hidden_matrices
from minilm.costs.mesh import Mesh
from minilm.costs.training_step import Moment, TrainingStep, optimizer_state, rows_of_rank
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.ledger.symbols import ONE


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes of one rank at the ``moment`` of its peak; the module's docstring says what each part is."""

    weights: int
    optimizer: int
    gradients: int
    gathered: int
    reduced: int
    activations: int
    moment: str

    @property
    def total(self) -> int:
        """All of it."""
        states = self.weights + self.optimizer + self.gradients
        return states + self.gathered + self.reduced + self.activations


@dataclass(frozen=True)
class RankStep:
    """A step of one rank of ``mesh``, for a batch of any size.

    ``layout`` declares what one of the tensor-parallel ranks holds (`part_of`), before it is sharded, and
    ``config`` is of the same model; None for an architecture that minilm does not run. ``accumulating``:
    gradients of earlier micro-steps are there.
    """

    mesh: Mesh
    layout: Layout
    config: ModelConfig | None
    _: KW_ONLY
    optimizer: str = "adamw"
    dtype: str = "bfloat16"
    checkpointing: bool = False
    accumulating: bool = False
    device: str = "cuda"

    def memory(self, batch: int, context: int) -> RankMemory:
        """The peak of a step on ``batch`` x ``context`` tokens of this rank's own."""
        moments = self._moments(batch, context)
        if self.is_sharded:
            moments = [Moment("gather", 0, 0), *moments]
        return max((self._at(moment) for moment in moments), key=lambda memory: memory.total)

    @property
    def width(self) -> int:
        """Bytes of an element of what is gathered."""
        return BITS[self.dtype] // 8

    @cached_property
    def rank_elements(self) -> int:
        """Parameters of this rank."""
        return sum(rows_of_rank(x, self.mesh.shards) for x in self.layout.named_tensors())

    @cached_property
    def outside_elements(self) -> int:
        """Parameters outside the blocks, which are gathered together."""
        return sum(self.layout.value(x) for x in self.layout.tensors if x.repeat == ONE)

    @cached_property
    def block_elements(self) -> int:
        """Parameters of one block, on average."""
        return -(-(self.layout.count() - self.outside_elements) // self.num_blocks)

    @property
    def is_sharded(self) -> bool:
        """Whether fully_shard has the model."""
        return self.mesh.shards > 1 or self.mesh.tensor > 1

    @cached_property
    def unit_blocks(self) -> int:
        """How many blocks are gathered together, by the size that all tensor-parallel ranks have of one."""
        is_shared = self.num_blocks < self.layout.symbols.get("L", 0)
        size = FLOAT32 * self.block_elements * self.mesh.tensor
        most = 1 if is_shared else UNIT_BYTES // size
        return min(max(1, most), self.num_blocks)

    @cached_property
    def num_blocks(self) -> int:
        """Distinct blocks."""
        symbols = self.layout.symbols
        layers = sum(kind.layers.value(symbols) for kind in self.layout.attention)
        return symbols.get("S", 0) or layers or symbols["L"]

    @cached_property
    def _states(self) -> tuple[int, int]:
        """Bytes of weights and of the optimizer's state."""
        in_muon = hidden_matrices(self.layout) if self.optimizer == "muon" else []
        tensors = self.layout.named_tensors()
        state = optimizer_state(tensors, in_muon, shards=self.mesh.shards)
        return FLOAT32 * self.rank_elements, state

    @cached_property
    def _step(self) -> TrainingStep:
        assert self.config is not None
        return TrainingStep(
            self.config,
            self.layout,
            optimizer=self.optimizer,
            dtype=self.dtype,
            checkpointing=self.checkpointing,
            device=self.device,
            gathered=self.is_sharded,
        )

    def _moments(self, batch: int, context: int) -> list[Moment]:
        if self.config is not None:
            return self._step.moments(batch, context)
        per_token = estimate(self.layout, dtype=self.dtype)
        if per_token is None:
            raise ValueError("activations of an architecture without attention are not estimated")
        tokens = batch * context
        saved = per_token.checkpointed(tokens) if self.checkpointing else per_token.total(tokens)
        loss = (self.width + FLOAT32) * self.layout.symbols.get("V", 0) * tokens
        copies = 0
        if self.dtype != "float32" and not self.is_sharded:
            copies = self.width * sum(map(self.layout.value, hidden_matrices(self.layout)))
        return [Moment(BACKWARD, FLOAT32 * self.layout.count(), saved + loss + copies)]

    def _at(self, moment: Moment) -> RankMemory:
        if moment.name == "optimizer" and self.optimizer == "muon" and self.mesh.world > 1:
            moment = replace(moment, temporary=self._muon_bytes(moment.temporary))
        if self.is_sharded:
            return self._sharded_at(moment)
        gradients, in_flight = moment.gradients, 0
        if self.mesh.world > 1 or self.accumulating:
            gradients = self._whole_gradients
            # The gradient that is being made is added to the one that is there; that of a tied table's head
            # waits for that of the embedding, and both are added to a third.
            tables = {"head": 1, "block": 0, "embedding": 1}
            if self._is_tied:
                tables = {"head": 1, "block": 1, "embedding": 3}
            in_flight = tables.get(moment.name, 0) * self._table_gradient
        if self.mesh.world > 1 and self.accumulating:
            gradients += {
                "loss": self._whole_gradients,
                "head": self._whole_gradients,
                "block": self._whole_gradients - moment.gradients + in_flight,
                BACKWARD: self._whole_gradients,
                "embedding": self._table_gradient,
            }.get(moment.name, 0)
        return self._memory(moment, gradients, activations=moment.temporary + in_flight)

    def _sharded_at(self, moment: Moment) -> RankMemory:
        outside = self._outside
        accumulated = self._whole_gradients if self.accumulating else 0
        if moment.name == "gather":  # the first unit is on its way too
            states = [
                (accumulated, 2 * outside + self.width * self.unit_blocks * self.block_elements, 0)
            ]
        elif moment.name in ("loss", "head"):
            states = [(accumulated, outside, moment.gradients)]
        elif moment.name == "embedding":
            states = list(self._at_embedding())
        elif moment.name == "optimizer":
            states = [(self._rows_of(self._whole_gradients), 0, 0)]
        else:
            states = [self._at_block(moment)]
        gradients, gathered, reduced = max(states, key=sum)
        return self._memory(
            moment, gradients, activations=moment.temporary, gathered=gathered, reduced=reduced
        )

    def _at_block(self, moment: Moment) -> tuple[int, int, int]:
        """Bytes of gradients, of what is gathered and of what is being reduced."""
        block, unit = self.block_elements, self.unit_blocks
        of_blocks = moment.gradients - FLOAT32 * self._outside_gradients
        # Blocks behind, and those of them in the unit that goes backward; the unit behind is being reduced.
        behind = of_blocks // (FLOAT32 * block)
        last = self.num_blocks - (self.num_blocks - 1) // unit * unit
        in_unit = behind if behind < last else (behind - last) % unit
        gathering = min(2 * unit, self.num_blocks) if behind else 2 * unit
        if self.is_copied:
            gathering = unit
        unreduced, finished = in_unit * self.width * block, of_blocks - in_unit * FLOAT32 * block
        if self.accumulating and moment.name == BACKWARD:
            finished = 0
        gradients = self._rows_of(finished)
        if self.accumulating:
            gradients += self._whole_gradients - finished
            reduced = (self._table_gradient if self._is_tied else 0) + (
                unreduced if self.width < FLOAT32 else 0
            )
        else:
            reduced = FLOAT32 * self._outside_gradients + unreduced
        reduced += self._unit_gradients if behind >= last else 0
        return gradients, self._outside + self.width * gathering * block, reduced

    def _at_embedding(self) -> Iterator[tuple[int, int, int]]:
        """As `_at_block`: the unit that is reduced last, the table's gradient, what is outside the blocks."""
        outside, unit, table = self._outside, self._unit_gradients, self._table_gradient
        before = outside if self.accumulating else FLOAT32 * self._outside_gradients
        if self._is_tied and self.accumulating:
            before += table
        of_blocks = self._rows_of(self._whole_gradients - outside)
        # In a row too; where there are other ranks, the rank's own are there already, and the last tensor's
        # whole ones still.
        own = 0 if self.is_copied else self._rows_of(outside)
        still = 0 if self.is_copied or self._is_tied else table
        yield of_blocks - (unit if self.is_copied else 0), outside, before + 2 * unit
        # A tied table's two gradients are added to a third.
        yield of_blocks, outside, before + (2 if self._is_tied else 1) * table + unit
        yield of_blocks + own, 0, 2 * outside + still

    def _muon_bytes(self, alone: int) -> int:
        """What `Muon.step` allocates where each rank computes some of the matrices; ``alone``: all of them.

        Of the rank that computes most: updates of its own rows, its matrices, and their iteration; or after
        it all results in a row for each rank that has a copy, and those of its own rows, received and copied.
        """
        width = self.width if self.dtype == "bfloat16" else FLOAT32
        sizes = [
            math.prod(shape) * self.mesh.tensor
            for shape, number in self._step.muon_shapes.items()
            for _ in range(number)
        ]
        world, everything = self.mesh.world, width * sum(sizes)
        bounds = [len(sizes) * rank // world for rank in range(world + 1)]
        computed = width * max(sum(sizes[start:stop]) for start, stop in itertools.pairwise(bounds))
        own = everything // (self.mesh.shards * self.mesh.tensor)
        iteration = (alone - own * self.mesh.shards) * self.mesh.tensor * computed // everything
        sent = (1 + self.mesh.replicas) * computed + 2 * own
        return own + computed + max(iteration, sent)

    @property
    def is_copied(self) -> bool:
        """Whether fully_shard has no other rank to gather from: it copies, without a buffer."""
        return self.mesh.shards == 1

    @cached_property
    def _outside(self) -> int:
        """Bytes outside the blocks."""
        return FLOAT32 * self.outside_elements

    def _rows_of(self, whole: int) -> int:
        """This rank's part of ``whole`` bytes."""
        return -(-whole * self.rank_elements // self.layout.count())

    def _memory(
        self,
        moment: Moment,
        gradients: int,
        *,
        activations: int,
        gathered: int = 0,
        reduced: int = 0,
    ) -> RankMemory:
        weights, optimizer = self._states
        return RankMemory(
            weights=weights,
            optimizer=optimizer,
            gradients=gradients,
            gathered=gathered,
            reduced=reduced,
            activations=activations,
            moment=moment.name,
        )

    @cached_property
    def _whole_gradients(self) -> int:
        """Bytes of all gradients of the model."""
        return FLOAT32 * self.layout.count()

    @cached_property
    def _unit_gradients(self) -> int:
        """Bytes of the gradients of the blocks that are gathered together, in float32."""
        return FLOAT32 * self.unit_blocks * self.block_elements

    @property
    def _is_tied(self) -> bool:
        return bool(self.layout.ties)

    @cached_property
    def _table_gradient(self) -> int:
        """Bytes of the gradient of the token table."""
        return FLOAT32 * self.layout.count(components=(components.TOKEN_EMBEDDING,))

    @cached_property
    def _outside_gradients(self) -> int:
        """Elements of the gradients outside the blocks that are there while blocks go backward."""
        head = (components.TOKEN_EMBEDDING,) if self._is_tied else (components.LM_HEAD,)
        return self.layout.count(components=(*head, components.FINAL_NORM))


UNIT_BYTES = 25 * 2**20  # of float32 are gathered together, as in DistributedDataParallel's buckets
BACKWARD = "backward"  # all at once: the one moment of an estimate


def rank_memory(
    mesh: Mesh,
    layout: Layout,
    config: ModelConfig | None,
    *,
    batch: int,
    context: int,
    optimizer: str = "adamw",
    dtype: str = "bfloat16",
    checkpointing: bool = False,
    accumulating: bool = False,
    device: str = "cuda",
) -> RankMemory:
    """The peak of one rank of ``mesh`` in a training step: `RankStep.memory`."""
    step = RankStep(
        mesh,
        layout,
        config,
        optimizer=optimizer,
        dtype=dtype,
        checkpointing=checkpointing,
        accumulating=accumulating,
        device=device,
    )
    return step.memory(batch, context)
