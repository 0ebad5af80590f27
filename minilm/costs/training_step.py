"""Peak bytes of live tensors in one of minilm's training steps, moment by moment.

Weights and the optimizer's state are there throughout. The forward pass adds what autograd saves
(activations.py); the backward pass frees that layer by layer, from the head on, while gradients come; the
optimizer works on all gradients. The largest of these moments is the peak:

    loss        all that is saved, with the gradient of the logits, these, and a part of them in float32;
                on CUDA all that is saved, and two gradients of the logits' size in float32; in chunks a chunk
    head        the gradient of the logits, that of the head's matrix; in chunks those of its input and matrix
    block       what is saved up to it, the gradients of the blocks behind it, and its own temporaries;
                with activation checkpointing, all that the block saves again
    embedding   all gradients
    optimizer   all gradients; of Muon also their momenta's mix and the matrices of Newton-Schulz

What a kernel allocates for itself, and does not return, is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from minilm.config import ModelConfig, loss_chunks
from minilm.costs.activations import Activations, activations
from minilm.costs.forward_pass import FLOAT32
from minilm.costs.memory import hidden_matrices
from minilm.costs.trained import Trained
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.layout import Layout, NamedTensor, Tensor

INT64 = 8
# Of the inputs of a packed matrix, how many share a float32 scale; 0: all of a row.
SCALE_GROUPS = {"int8": 0, "int4": 32, "nf4": 64}
# Bytes a weight while a packed matrix is made float32: codes and two float32 copies; int8 has codes already.
DEQUANTIZED = {"": 0, "int8": 8, "int4": 9, "nf4": 9}


@dataclass(frozen=True)
class StepMemory:
    """Bytes: ``weights`` and ``optimizer`` throughout; the others at the ``moment`` of the peak.

    ``temporary`` is what is saved for the backward pass, and the intermediate results of that moment.
    """

    weights: int
    optimizer: int
    gradients: int
    temporary: int
    moment: str

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.weights + self.optimizer + self.gradients + self.temporary


@dataclass(frozen=True)
class Moment:
    """Bytes that are live at a moment, beside weights and the optimizer's state.

    ``gradients`` are those of all layers behind, ``temporary`` all the rest.
    """

    name: str
    gradients: int
    temporary: int

    @property
    def live(self) -> int:
        """Both."""
        return self.gradients + self.temporary


@dataclass(frozen=True)
class TrainingStep:
    """A step of training the model of ``config``, which ``layout`` declares, on a batch of any size.

    ``optimizer`` is adamw or muon. ``dtype`` other than float32 is autocast; Muon then orthogonalises in it.
    ``gathered``: fully_shard gathers the matrices of the blocks in ``dtype``.
    """

    config: ModelConfig
    layout: Layout
    _: KW_ONLY
    optimizer: str = "adamw"
    dtype: str = "float32"
    checkpointing: bool = False
    device: str = "cpu"
    trained: Trained = field(default_factory=Trained)
    gathered: bool = False

    def memory(self, batch: int, context: int) -> StepMemory:
        """The peak of a step on ``batch`` x ``context`` tokens, when the optimizer's state is there."""
        peak = max(self.moments(batch, context), key=lambda moment: moment.live)
        return StepMemory(
            weights=self.weights,
            optimizer=self.optimizer_bytes,
            gradients=peak.gradients,
            temporary=peak.temporary,
            moment=peak.name,
        )

    def moments(self, batch: int, context: int) -> list[Moment]:
        """What is live at each moment of a step on ``batch`` x ``context`` tokens, with ids and targets."""
        saved = self.saved(batch, context)
        ids = 2 * INT64 * saved.tokens
        return [replace(each, temporary=each.temporary + ids) for each in _moments(self, saved)]

    def saved(self, batch: int, context: int) -> Activations:
        """What the forward pass saves."""
        return activations(
            self.config,
            batch=batch,
            context=context,
            dtype=self.dtype,
            device=self.device,
            trained=self.trained,
            gathered=self.gathered,
        )

    @cached_property
    def changed(self) -> Layout:
        """The layout with what is frozen marked, and with adapters."""
        return self.trained.of(self.layout)

    @cached_property
    def weights(self) -> int:
        """Bytes of the model and its adapters."""
        adapters = FLOAT32 * self.changed.trainable() if self.trained.lora else 0
        return loaded_bytes(self.layout, self.trained.packing) + adapters

    @property
    def width(self) -> int:
        """Bytes of an element of a matrix product's inputs and output."""
        return BITS[self.dtype] // 8

    @property
    def matrix_width(self) -> int:
        """Bytes of an element of a gradient of a matrix of the blocks."""
        return self.width if self.gathered else FLOAT32

    @property
    def cast_width(self) -> int:
        """Bytes of an element of another gradient's first form: under autocast it is made in 16 bits."""
        return 0 if self.dtype == "float32" else self.width

    def trained_tensors(self) -> list[NamedTensor]:
        tensors = self.changed.tensors
        return list(self.changed.named_tensors([each for each in tensors if not each.frozen]))

    @cached_property
    def muon_shapes(self) -> dict[tuple[int, ...], int]:
        """How many matrices of each shape Muon updates."""
        shapes: dict[tuple[int, ...], int] = {}
        if self.optimizer == "muon":
            matrices = [each for each in hidden_matrices(self.changed) if not each.frozen]
            for tensor in self.changed.named_tensors(matrices):
                shapes[tensor.shape] = shapes.get(tensor.shape, 0) + 1
        return shapes

    @cached_property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        in_muon = hidden_matrices(self.changed) if self.optimizer == "muon" else []
        return optimizer_state(self.trained_tensors(), in_muon)

    def product(self, component: str, hidden: int) -> int:
        """Bytes of the gradients that a product of the feed-forward has: of ``hidden`` bytes, of the matrix.

        A packed matrix is made float32 for it. An adapter gives a gradient of the input too, and both are
        added to a third when what was saved of the input and of the matrix is freed.
        """
        matrix = self.config.d_feed_forward * self.config.d_model
        if self.trained.packing:
            most = max(DEQUANTIZED[self.trained.packing] * matrix, self.width * matrix + hidden)
            return max(most, 2 * hidden) if self.trained.adapted(component) else most
        if self.trained.adapted(component):
            freed = hidden + (self.width * matrix if self.dtype != "float32" else 0)
            return max(hidden, 3 * hidden - freed)
        gradient = 0 if self.trained.lora else self.gradients(component) // self.config.num_layers
        cast = 0 if self.gathered else self.cast_width
        return hidden + gradient // FLOAT32 * (self.matrix_width + cast)

    def gradients(self, *names: str) -> int:
        """Bytes of the gradients of what is trained of components ``names``, in all layers."""
        return FLOAT32 * sum(
            self.changed.value(tensor)
            for tensor in self.changed.tensors
            if not tensor.frozen and tensor.component.removeprefix("LoRA of ") in names
        )


def optimizer_state(
    trained: Iterable[NamedTensor], in_muon: Sequence[Tensor], *, shards: int = 1
) -> int:
    """Bytes of AdamW's two moments and its count of steps; of one momentum of what is ``in_muon``.

    Of ``shards`` ranks, the first: `rows_of_rank`.
    """
    of_muon = {id(tensor) for tensor in in_muon}
    elements = 0
    for tensor in trained:
        own = rows_of_rank(tensor, shards)
        elements += own if id(tensor.declared) in of_muon else 2 * own + 1
    return FLOAT32 * elements


def rows_of_rank(tensor: NamedTensor, shards: int) -> int:
    """Elements of the first of ``shards`` ranks, among which fully_shard divides the rows, rounded up."""
    rows = tensor.shape[0]
    return -(-rows // shards) * (tensor.count // rows)


def loaded_bytes(layout: Layout, packing: str = "") -> int:
    """Bytes of a model as minilm holds it: float32, matrices packed with float32 scales."""
    if not packing:
        return FLOAT32 * layout.count()
    packed = hidden_matrices(layout)
    others = layout.count() - sum(layout.value(each) for each in packed)
    return packed_bytes(layout, packed, packing) + FLOAT32 * others


def packed_bytes(layout: Layout, matrices: Sequence[Tensor], packing: str) -> int:
    """Bytes of codes and float32 scales of some matrices of a layout."""
    total, group = 0, SCALE_GROUPS[packing]
    for tensor in layout.named_tensors(matrices):
        rows, columns = tensor.shape
        scales = rows * (columns // group if group else 1)
        total += rows * columns * BITS["int8" if packing == "int8" else "int4"] // 8
        total += FLOAT32 * scales
    return total


_ATTENTION = (
    components.ATTENTION_QUERY,
    components.ATTENTION_KEY,
    components.ATTENTION_VALUE,
    components.ATTENTION_QK_NORM,
    components.ATTENTION_OUTPUT,
    components.ATTENTION_NORM,
    components.CONVOLUTION,
)
_FEED_FORWARD = (
    components.FEED_FORWARD_NORM,
    components.FEED_FORWARD_GATE,
    components.FEED_FORWARD_UP,
    components.FEED_FORWARD_DOWN,
)


def _moments(step: TrainingStep, saved: Activations) -> Iterator[Moment]:
    config, tokens = step.config, saved.tokens
    all_saved = saved.between_blocks() if step.checkpointing else saved.total()
    stream = FLOAT32 * tokens * config.d_model
    head = step.gradients(components.LM_HEAD)
    norm = step.gradients(components.FINAL_NORM)
    tied_head = 0
    if config.tied_embeddings and not step.trained.lora:
        table = FLOAT32 * config.vocab_size * config.d_model
        head = tied_head = table if step.gradients(components.TOKEN_EMBEDDING) else 0
    yield Moment("loss", 0, all_saved + _loss_temporaries(step, saved, head))
    if saved.loss_in_chunks:  # both gradients are there, and are scaled
        of_head = stream
    else:  # the gradient of the logits takes the place of what was saved of them
        before = step.width if step.device == "cpu" else FLOAT32
        of_logits = step.width * tokens * (config.vocab_size + config.d_model)
        casts = head // FLOAT32 * step.cast_width
        of_head = of_logits + casts - before * tokens * config.vocab_size
    yield Moment("head", head, all_saved + of_head)
    yield from _block_moments(step, saved, head + norm, stream)
    gradients = FLOAT32 * step.changed.trainable()
    # A tied table's two gradients are added to a third.
    yield Moment("embedding", gradients + 2 * tied_head, stream)
    yield Moment("optimizer", gradients, _muon_bytes(step))


def _loss_temporaries(step: TrainingStep, saved: Activations, head: int) -> int:
    """What is live while the loss is computed, beside all that is saved. ``head``: bytes of its gradient."""
    config, tokens, width = step.config, saved.tokens, step.width
    logits = tokens * config.vocab_size
    copies = 1 if width == FLOAT32 else 2  # of logits in float32
    if saved.loss_in_chunks:
        rows = loss_chunks.rows_of_chunk(config.vocab_size, step.device)
        of_chunk = min(tokens, rows) * config.vocab_size
        cast = step.cast_width * config.vocab_size * config.d_model
        product = width * head // FLOAT32
        return cast + width * of_chunk + max(copies * FLOAT32 * of_chunk, product)
    if step.device != "cpu":
        return 2 * FLOAT32 * logits
    rows = min(tokens, loss_chunks.rows_in_cache(config.vocab_size))
    of_loss = width * logits + copies * FLOAT32 * rows * config.vocab_size
    # The head's logits, its adapter's and their sum are there before the gradient that is saved of them.
    is_adapted = step.trained.adapted(components.LM_HEAD)
    return max(of_loss, 2 * width * logits) if is_adapted else of_loss


def _block_moments(
    step: TrainingStep, saved: Activations, outside: int, stream: int
) -> Iterator[Moment]:
    """The blocks backward, the last first; ``outside`` are the gradients of head and final norm."""
    layers = step.config.num_layers
    sizes = saved.block_sizes()
    up_to = list(accumulate(sizes))
    of_block = (step.gradients(*_ATTENTION) + step.gradients(*_FEED_FORWARD)) // layers
    temporary = max(_block_temporaries(step, saved))
    before = saved.outside(but=(components.FINAL_NORM, components.LM_HEAD))
    for number in reversed(range(layers)):
        if step.checkpointing:
            live = before + (number + 1) * stream + sizes[number] - stream
        else:
            live = before + up_to[number]
        gradients = outside + (layers - 1 - number) * of_block
        yield Moment("block", gradients, live + temporary)


def _block_temporaries(step: TrainingStep, saved: Activations) -> Iterator[int]:
    """What is live at moments of a block's backward pass, its gradients included, beside all that it saves.

    Less what has been freed by then. The gradient of the residual stream is there throughout.
    """
    config, tokens, width = step.config, saved.tokens, step.width
    hidden = width * tokens * config.d_feed_forward
    stream = FLOAT32 * tokens * config.d_model
    normed = width * tokens * config.d_model  # the gradient of a norm's output
    cast = 0 if step.width == FLOAT32 else normed  # of the stream
    down, up, gate = (
        step.product(component, hidden)
        for component in (
            components.FEED_FORWARD_DOWN,
            components.FEED_FORWARD_UP,
            components.FEED_FORWARD_GATE,
        )
    )
    of_down, of_all, of_output = (
        step.gradients(*names) // config.num_layers // FLOAT32 * step.matrix_width
        for names in (
            (components.FEED_FORWARD_DOWN,),
            _FEED_FORWARD,
            (components.ATTENTION_OUTPUT,),
        )
    )
    freed_down = saved.block_bytes((components.FEED_FORWARD_DOWN,))
    freed = saved.block_bytes(_FEED_FORWARD)
    # Nothing that is saved is read for the gradient through a packed matrix: a checkpointed block is computed
    # again after it.
    late = (
        step.checkpointing
        and bool(step.trained.packing)
        and not step.trained.adapted(components.FEED_FORWARD_DOWN)
    )
    yield stream + cast + down - (saved.block() - stream if late else 0)
    if late:  # up to the activation's input; attention's output and the norm's are there too
        biased = 2 * hidden if config.feed_forward_bias else 0
        yield stream + 2 * normed + max(up, biased)
    activation = (3 if config.gated else 2) * hidden
    yield stream + of_down - freed_down + activation
    yield stream + of_down - freed_down + max(up, gate if config.gated else 0) - hidden + normed
    heads = width * tokens * config.num_heads * config.head_dim
    if saved.attention == "fused":  # the gradients of its output, of queries, keys and values
        attention = 4 * heads
    else:  # of scores, twice; that of the values takes the place of the values
        attention = 2 * width * saved.symbols["B"] * config.num_heads * saved.symbols["T"] ** 2
    if (
        saved.attention == "at once"
    ):  # all stays until its end: the gradient of its output, and that by head
        attention += 2 * heads + width * tokens * config.num_kv_heads * config.head_dim
    output_input = saved.block_bytes((components.ATTENTION_OUTPUT,))
    yield stream + of_all + of_output - freed - output_input + attention


def _muon_bytes(step: TrainingStep) -> int:
    """What `Muon.step` allocates: all updates and results, and the matrices of one batch's iteration."""
    shapes = step.muon_shapes
    width = step.width if step.dtype == "bfloat16" else FLOAT32
    groups: dict[tuple[int, ...], list[int]] = {}
    for shape, number in shapes.items():
        groups.setdefault(tuple(sorted(shape)), []).append(number)
    most = results = 0
    for (rows, columns), numbers in groups.items():
        matrices = sum(numbers)
        elements, grams = matrices * rows * columns, matrices * rows * rows
        joined = elements if len(numbers) > 1 else 0
        most = max(most, results + width * (joined + 2 * (elements + grams)))
        results += width * elements
    return results + most
