"""Peak bytes of live tensors of one rank, for each `Mesh`: the moments of training_step.py, shared out.

What is counted, in the largest of those moments:

    weights      float32; of a sharded model the rank's rows, as fully_shard divides dimension 0 (rounded up)
    optimizer    its state, of the rank's rows
    gradients    ddp: all of them throughout, in the buckets of the all-reduce (gradient_as_bucket_view);
                 sharded: the rank's rows of the layers behind
    gathered     sharded: what is outside the blocks in float32 throughout, and in the dtype of the products
                 two units of blocks (one computes, the next is on its way; one alone is twice there at first)
    reduced      sharded: the whole gradients outside the blocks from the head on, those of the unit that goes
                 backward, and those of the unit behind in float32 while they are reduced
    activations  all that is saved for the backward pass, and a moment's intermediate results. Autocast saves
                 16-bit copies of the matrices; a sharded model gathers those of the blocks in 16 bits instead

A tensor-parallel rank computes a model with its part of the heads and of the feed-forward (`part_of`). Of an
architecture that minilm does not run, activations are those of activation_estimate.py, beside all gradients.
What a process needs besides its tensors is `memory_need.overhead_bytes`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
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
    gradients of earlier micro-steps are there throughout.
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

    @cached_property
    def unit_blocks(self) -> int:
        """How many blocks are gathered together."""
        is_shared = self.num_blocks < self.layout.symbols.get("L", 0)
        most = 1 if is_shared else UNIT_BYTES // (FLOAT32 * self.block_elements)
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
            gathered=self.mesh.shards > 1,
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
        if self.dtype != "float32" and self.mesh.shards == 1:
            copies = self.width * sum(map(self.layout.value, hidden_matrices(self.layout)))
        return [Moment(BACKWARD, FLOAT32 * self.layout.count(), saved + loss + copies)]

    def _at(self, moment: Moment) -> RankMemory:
        if self.mesh.shards > 1:
            return self._sharded_at(moment)
        gradients, in_flight = moment.gradients, 0
        if self.mesh.world > 1 or self.accumulating:
            gradients = FLOAT32 * self.layout.count()
            # The gradient that is being made is added to the one that is there.
            in_flight = self._table_gradient if moment.name in ("head", "embedding") else 0
        return self._memory(moment, gradients, activations=moment.temporary + in_flight)

    def _sharded_at(self, moment: Moment) -> RankMemory:
        behind = 0
        if moment.name in ("block", BACKWARD):
            behind = FLOAT32 * self._outside_gradients
        whole = moment.gradients - behind if moment.name != "head" else 0
        gradients = FLOAT32 * self.rank_elements
        if not self.accumulating:
            gradients = -(-whole * self.rank_elements // self.layout.count())
        outside, block, unit = self.outside_elements, self.block_elements, self.unit_blocks
        # Blocks behind in the unit that goes backward, and the unit behind, which is being reduced.
        behind = whole // (FLOAT32 * block)
        last = self.num_blocks - (self.num_blocks - 1) // unit * unit
        in_unit = behind if behind < last else (behind - last) % unit
        gathering = min(2 * unit, self.num_blocks) if behind else 2 * unit
        of_blocks = block * (in_unit * self.width + (unit * FLOAT32 if behind >= last else 0))
        of_outside = FLOAT32 * self._outside_gradients
        # The unit that is reduced last: its gradients, in a row too, and where there is one their sum.
        copies = 2 + (1 / self.mesh.shards if self.accumulating else 0)
        last_reduced = of_outside + int(copies * FLOAT32 * unit * block)
        gathered, reduced = {
            "loss": (FLOAT32 * outside, 0),
            "head": (FLOAT32 * outside, of_outside),
            "embedding": (FLOAT32 * outside, max(2 * FLOAT32 * outside, last_reduced)),
            "optimizer": (0, 0),
        }.get(
            moment.name,
            (FLOAT32 * outside + self.width * gathering * block, of_outside + of_blocks),
        )
        return self._memory(
            moment, gradients, activations=moment.temporary, gathered=gathered, reduced=reduced
        )

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
    def _table_gradient(self) -> int:
        """Bytes of the gradient of the token table."""
        return FLOAT32 * self.layout.count(components=(components.TOKEN_EMBEDDING,))

    @cached_property
    def _outside_gradients(self) -> int:
        """Elements of the gradients outside the blocks that are there while blocks go backward."""
        head = (components.TOKEN_EMBEDDING,) if self.layout.ties else (components.LM_HEAD,)
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
