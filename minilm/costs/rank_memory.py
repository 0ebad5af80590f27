"""Peak bytes of live tensors of one rank, for each `Mesh`: the moments of training_step.py, shared out.

What is counted, in the largest of those moments:

    weights      float32; of a sharded model the rank's rows, as fully_shard divides dimension 0 (rounded up)
    optimizer    its state, of the rank's rows
    gradients    ddp: all of them throughout, in the buckets of the all-reduce (gradient_as_bucket_view);
                 sharded: the rank's rows of the layers behind
    gathered     sharded: what is outside the blocks throughout, and two blocks (one computes, the next is on
                 its way), in the dtype of the products
    reduced      sharded: the whole gradients outside the blocks from the head on, and those of the block
                 behind in float32 while they are reduced
    activations  all that is saved for the backward pass, and a moment's intermediate results. Autocast saves
                 16-bit copies of the matrices; a sharded model gathers them in 16 bits instead, in which the
                 residual stream then is too

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
        outside, block, width = self.outside_elements, self.block_elements, self.width
        blocks = min(2, self.num_blocks) * block
        # The block behind, which is being reduced; the last one has none.
        reducing = FLOAT32 * block if whole else 0
        gathered, reduced = {
            "loss": (outside, 0),
            "head": (outside, width * self._outside_gradients),
            "embedding": (outside, (width + FLOAT32) * outside),
            "optimizer": (0, 0),
        }.get(
            moment.name,
            (outside + blocks, width * self._outside_gradients + reducing),
        )
        return self._memory(
            moment,
            gradients,
            activations=moment.temporary,
            gathered=width * gathered,
            reduced=reduced,
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
