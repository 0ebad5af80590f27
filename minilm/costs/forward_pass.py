"""A forward pass of minilm's own model: what decides which tensors it saves for the backward pass.

Widths are polynomials over the letters of the ledger, in the form in which they are printed.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from minilm.config import ModelConfig, loss_chunks
from minilm.costs.trained import Trained
from minilm.dtypes import BITS
from minilm.ledger import components
from minilm.ledger.symbols import ONE, ZERO, Polynomial, symbol

S, d, f, h, g, k = (symbol(letter) for letter in "Sdfhgk")

FLOAT32 = (
    4  # bytes of an element of norms and the loss, and of the residual stream, under autocast too
)
# On a CPU, minilm.model.attention uses two matrix products up to these contexts.
EXPLICIT_UP_TO = {"float32": 128, "bfloat16": 512, "float16": 512}
_BEFORE_SCORES = (
    components.CONVOLUTION,
    components.ATTENTION_NORM,
    components.ATTENTION_QUERY,
    components.ATTENTION_KEY,
    components.ATTENTION_QK_NORM,
)
_IN_A_BLOCK = (
    *_BEFORE_SCORES,
    components.ATTENTION_VALUE,
    components.ATTENTION_OUTPUT,
    components.FEED_FORWARD_NORM,
    components.FEED_FORWARD_GATE,
    components.FEED_FORWARD_UP,
    components.FEED_FORWARD_DOWN,
)


@dataclass(frozen=True)
class ForwardPass:
    """What decides which tensors are saved."""

    config: ModelConfig
    batch: int
    context: int
    dtype: str
    device: str
    trained: Trained
    _: KW_ONLY
    gathered: bool = False
    explicit_up_to: int | None = None

    def trains(self, component: str) -> bool:
        """Whether parameters of ``component`` are trained themselves."""
        has = {
            components.CONVOLUTION: self.config.convolution > 0,
            components.ATTENTION_QK_NORM: self.config.qk_norm,
            components.FEED_FORWARD_GATE: self.config.gated,
        }
        if not has.get(component, True):
            return False
        if component == components.LM_HEAD and self.config.tied_embeddings:
            component = components.TOKEN_EMBEDDING
        return self.trained.lora is None and component not in self.trained.frozen

    def reads(self, component: str) -> bool:
        """Whether the gradient of a matrix, or of its adapter, needs the input."""
        return self.trains(component) or self.trained.adapted(component)

    @property
    def embedding_trained(self) -> bool:
        """Whether what enters the first block has a gradient."""
        config, names = self.config, [components.TOKEN_EMBEDDING]
        names += [components.POSITION_EMBEDDING] if config.position == "learned" else []
        names += [components.NGRAM_EMBEDDING] if config.ngram > 1 else []
        return any(self.trains(name) for name in names)

    @property
    def block_trained(self) -> bool:
        """Whether what leaves the first block has a gradient, whatever enters it."""
        return any(self.reads(name) for name in _IN_A_BLOCK)

    @property
    def rotation_needed(self) -> bool:
        """Whether queries or keys of any block have a gradient."""
        later = self.config.num_layers > 1 and self.block_trained
        return later or self.embedding_trained or any(map(self.reads, _BEFORE_SCORES))

    @property
    def loss_in_chunks(self) -> bool:
        """Whether no logits are kept: `chunked_loss`, of a head that is no more than its matrix."""
        logits = self.batch * self.context * self.config.vocab_size
        is_adapted = self.trained.adapted(components.LM_HEAD)
        overflows = self.dtype == "float16" and self.trains(components.LM_HEAD)
        return not (is_adapted or overflows) and loss_chunks.is_chunked(logits, self.device)

    @property
    def width(self) -> int:
        """Bytes of an element of a matrix product's inputs and output."""
        return BITS[self.dtype] // 8

    @property
    def autocast(self) -> bool:
        return self.dtype != "float32"

    @property
    def attention(self) -> str:
        """explicit: two products around a softmax; at once: these as one operation, `attention_at_once`.

        math: torch's equivalent; fused: one kernel.
        """
        if self.device != "cpu":
            return "fused"
        longest = self.explicit_up_to
        longest = EXPLICIT_UP_TO[self.dtype] if longest is None else longest
        if self.config.dropout or self.context <= longest:
            return "explicit" if self._attends_in_steps else "at once"
        # The CPU's fused kernel rejects RoPE's memory layout for heads of width 2.
        is_pair = self.config.head_dim == 2 and self.queries_by_head and not self.config.qk_norm
        return "math" if is_pair else "fused"

    @property
    def _attends_in_steps(self) -> bool:
        projections = (
            components.ATTENTION_QUERY,
            components.ATTENTION_KEY,
            components.ATTENTION_VALUE,
        )
        return bool(
            self.config.dropout
            or self.config.qk_norm
            or self.trained.packing
            or not all(self.trains(component) for component in projections)
        )

    @property
    def joins_projections(self) -> bool:
        """Whether query, key and value come of one product, for which their matrices are joined."""
        return self.attention == "at once" and self.autocast

    def casts(self, component: str, layers: Polynomial) -> Polynomial:
        """How many 16-bit copies of a matrix of ``component`` the blocks of ``layers`` save.

        Autocast casts a trained matrix once in a pass, however often it is used, and a frozen one each
        time. What a packed one is multiplied by is not saved.
        """
        is_head = component == components.LM_HEAD
        in_few_bits = self.gathered or self.trained.packing
        if not self.autocast or (in_few_bits and not is_head):
            return ZERO
        return layers if is_head or not self.trains(component) else self._cast_once(layers)

    def adapter_casts(self, component: str, layers: Polynomial) -> Polynomial:
        """As `casts`, of the two matrices of an adapter."""
        if not self.autocast or self.gathered:
            return ZERO
        return layers if component == components.LM_HEAD else self._cast_once(layers)

    def _cast_once(self, layers: Polynomial) -> Polynomial:
        if self.config.num_blocks == self.config.num_layers:
            return layers
        return ZERO if layers == ONE else S

    @property
    def queries_by_head(self) -> bool:
        """Whether a norm or RoPE stores the queries head by head; the kernel's output is then too."""
        config = self.config
        return config.num_heads > 1 and (config.position == "rope" or config.qk_norm)

    def score_tensors(self, *, scores_flow: bool, values_flow: bool) -> int:
        """Saved tensors of the scores' size: the softmax, with dropout the mask, for the scores' gradient.

        And what the values are multiplied by, for theirs: the softmax, or with dropout another one.
        """
        dropout = bool(self.config.dropout)
        return scores_flow * (1 + dropout) + (values_flow and (dropout or not scores_flow))

    @property
    def query_width(self) -> Polynomial:
        config = self.config
        return d if config.num_heads * config.head_dim == config.d_model else h * k

    @property
    def key_width(self) -> Polynomial:
        return self.query_width if self.config.num_kv_heads == self.config.num_heads else g * k

    @property
    def hidden_width(self) -> Polynomial:
        return 4 * d if self.config.d_feed_forward == 4 * self.config.d_model else f

    @property
    def norms_in_float32(self) -> bool:
        """Whether autocast runs every norm in float32: on CUDA it does, on a CPU it does not."""
        return self.device != "cpu"

    @property
    def qk_norm_input(self) -> int:
        """Bytes of an element of the query and key norms' inputs."""
        return FLOAT32 if self.norms_in_float32 else self.width

    @property
    def rotation_is_cast(self) -> bool:
        """Whether RoPE is applied to 16-bit queries and keys with a table that is kept in 16 bits."""
        in_float32 = self.config.qk_norm and self.norms_in_float32
        return self.autocast and not (in_float32 or self.attention == "at once")

    def dropout_mask(self, elements: Polynomial, width: int) -> Polynomial:
        """Bytes of the mask for ``elements`` of ``width`` bytes; on CUDA it is boolean."""
        return elements * (width if self.device == "cpu" else 1)

    def repeated_width(self, *, copied: bool) -> Polynomial:
        """Width of keys or values repeated for every query head; a single one may be a view."""
        if self.config.num_kv_heads == self.config.num_heads:
            return self.key_width
        return g * k if self.config.num_kv_heads == 1 and not copied else self.query_width
