"""What layouts are put together from: linear maps, norms, attention and its windows, feed-forward.

The letters are those of docs/architecture.md; a block names its tensors below the prefix it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any, NamedTuple

from minilm.architectures.config_fields import head_width, optional_size, size, whole_number
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

V, T, L, d, f, h, g, k = (symbol(letter) for letter in "VTLdfhgk")
E, e, D, M, m, s = (
    symbol(letter) for letter in "EeDMms"
)  # experts; dense and expert layers; widths

# (name, name of the tensor it shares) of a tied head, as Layout.ties has it.
TIED_HEAD = (("lm_head.weight", "model.embed_tokens.weight"),)


def linear(
    name: str,
    outputs: Polynomial,
    inputs: Polynomial,
    component: str,
    *,
    bias: bool = False,
    repeat: Polynomial = L,
    layers: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """``name.weight`` (outputs, inputs) as torch's Linear stores it, and ``name.bias`` (outputs,)."""
    weight = Tensor(f"{name}.weight", (outputs, inputs), component, Role.MULTIPLIED, repeat, layers)
    if not bias:
        return (weight,)
    return (weight, Tensor(f"{name}.bias", (outputs,), component, Role.ADDED, repeat, layers))


def norm(
    name: str,
    component: str,
    *,
    width: Polynomial = d,
    bias: bool = False,
    repeat: Polynomial = L,
    layers: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """``name.weight`` (width,) of a LayerNorm or RMSNorm, and ``name.bias`` (width,)."""
    weight = Tensor(f"{name}.weight", (width,), component, Role.SCALED, repeat, layers)
    if not bias:
        return (weight,)
    return (weight, Tensor(f"{name}.bias", (width,), component, Role.ADDED, repeat, layers))


def embedding(name: str) -> Tensor:
    """The token table, ``name.weight`` (V, d)."""
    return Tensor(f"{name}.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP)


def lm_head(name: str, *, tied: bool, bias: bool = False) -> tuple[Tensor, ...]:
    """``name.weight`` (V, d), not stored when tied, and ``name.bias`` (V,), which is never tied."""
    parts = linear(name, V, d, components.LM_HEAD, bias=bias, repeat=ONE)
    return parts[1:] if tied else parts


class Heads(NamedTuple):
    """Attention heads of a config: their numbers, and the widths of all queries and all keys."""

    symbols: Mapping[str, int]
    queries: Polynomial
    keys: Polynomial

    def attention(self, *, layers: Polynomial = L, window: int = 0) -> AttentionSpec:
        """What such attention costs: keys and values are cached once a key/value head."""
        return AttentionSpec(layers, 2 * self.keys, self.queries, self.queries, window)


def read_heads(
    config: Mapping[str, Any],
    *,
    width: str = "hidden_size",
    heads: str = "num_attention_heads",
    kv_heads: str | None = "num_key_value_heads",
    head_dim: str | None = "head_dim",
    defaults: tuple[int, int, int | None, int | None],
    rounds: bool = False,
) -> Heads:
    """Read d, h, g, k under the field names of a family.

    ``defaults`` are those of the architecture for width, heads, kv heads (None: as many as heads) and
    head width (None: width / heads, rounded down where the architecture ``rounds``). Usual shapes
    collapse so that the closed form is the one that people know: h*k is d, and g*k is d without
    grouped heads.
    """
    d_model = size(config, width, defaults[0])
    num_heads = size(config, heads, defaults[1])
    kv_value = optional_size(config, kv_heads, defaults[2]) if kv_heads else None
    num_kv_heads = kv_value or num_heads
    head_value = optional_size(config, head_dim, defaults[3]) if head_dim else defaults[3]
    k_value = head_value or max(1, d_model // num_heads)
    if head_value is None and not rounds:
        head_width(d_model, num_heads, width)
    if num_heads % num_kv_heads:
        raise ConfigError(
            f"config.json: {kv_heads}", f"{num_kv_heads}", f"a divisor of {num_heads}"
        )
    queries = d if num_heads * k_value == d_model else h * k
    keys = queries if num_kv_heads == num_heads else g * k
    symbols = {"d": d_model, "h": num_heads, "g": num_kv_heads, "k": k_value}
    return Heads(symbols, queries, keys)


def equal_heads(
    config: Mapping[str, Any],
    defaults: tuple[int, int, int | None, int | None],
    *,
    width: str = "hidden_size",
    heads: str = "num_attention_heads",
) -> Heads:
    """`read_heads` of attention without groups, whose heads are together as wide as the model."""
    return read_heads(
        config, width=width, heads=heads, kv_heads=None, head_dim=None, defaults=defaults
    )


def separate_attention(
    prefix: str,
    heads: Heads,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    output: str = "o_proj",
    repeat: Polynomial = L,
    layers: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """``prefix.{q,k,v}_proj`` and ``prefix.o_proj`` (or as ``output`` is called)."""
    query, key = heads.queries, heads.keys

    def matrix(
        name: str, outputs: Polynomial, inputs: Polynomial, component: str, bias: bool
    ) -> tuple[Tensor, ...]:
        full = f"{prefix}.{name}"
        return linear(full, outputs, inputs, component, bias=bias, repeat=repeat, layers=layers)

    return (
        *matrix("q_proj", query, d, components.ATTENTION_QUERY, qkv_bias),
        *matrix("k_proj", key, d, components.ATTENTION_KEY, qkv_bias),
        *matrix("v_proj", key, d, components.ATTENTION_VALUE, qkv_bias),
        *matrix(output, d, query, components.ATTENTION_OUTPUT, output_bias),
    )


def fused_attention(
    fused: str, output: str, heads: Heads, *, bias: bool = False
) -> tuple[Tensor, ...]:
    """One matrix for queries, keys and values, and that of the output, under their full names."""
    width = heads.queries + 2 * heads.keys
    return (
        *linear(fused, width, d, components.ATTENTION_QUERY_KEY_VALUE, bias=bias),
        *linear(output, d, heads.queries, components.ATTENTION_OUTPUT, bias=bias),
    )


def gated_feed_forward(
    prefix: str,
    *,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    width: Polynomial = f,
    bias: bool = False,
    repeat: Polynomial = L,
    layers: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """Gate, up and down as SwiGLU and GeGLU have them, under ``names`` in that order."""
    gate, up, down = (f"{prefix}.{name}" for name in names)

    def matrix(
        name: str, outputs: Polynomial, inputs: Polynomial, component: str
    ) -> tuple[Tensor, ...]:
        return linear(name, outputs, inputs, component, bias=bias, repeat=repeat, layers=layers)

    return (
        *matrix(gate, width, d, components.FEED_FORWARD_GATE),
        *matrix(up, width, d, components.FEED_FORWARD_UP),
        *matrix(down, d, width, components.FEED_FORWARD_DOWN),
    )


def feed_forward_width(inner: int, d_model: int) -> Polynomial:
    """4d where the width is that, so that the closed form is the one that people know; else f."""
    return 4 * d if inner == 4 * d_model else f


def feed_forward(
    up: str, down: str, width: Polynomial = f, *, bias: bool = False
) -> tuple[Tensor, ...]:
    """The two matrices of a feed-forward without a gate, under their full names."""
    return (
        *linear(up, width, d, components.FEED_FORWARD_UP, bias=bias),
        *linear(down, d, width, components.FEED_FORWARD_DOWN, bias=bias),
    )


_SLIDES = ("sliding_attention", "full_attention")


def window_size(config: Mapping[str, Any], default: int) -> int:
    """How many tokens a sliding layer sees; 0, also written null, for all."""
    if config.get("sliding_window", default) is None:
        return 0
    return whole_number(config, "sliding_window", default)


def sliding_layers(
    config: Mapping[str, Any], num_layers: int, otherwise: Callable[[int], bool]
) -> int:
    """How many layers slide, as `layer_types` says, or ``otherwise`` of a layer's number."""
    kinds = layer_kinds(
        config, "layer_types", num_layers, _SLIDES, lambda i: _SLIDES[not otherwise(i)]
    )
    return kinds.count(_SLIDES[0])


def layer_kinds(
    config: Mapping[str, Any],
    name: str,
    num_layers: int,
    names: Sequence[str],
    otherwise: Callable[[int], str],
) -> list[str]:
    """Each layer's kind, one of ``names``: what the field lists, or ``otherwise`` of its number."""
    listed = config.get(name)
    if listed is None:
        return [otherwise(i) for i in range(num_layers)]
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise ConfigError(f"config.json: {name}", shortened(listed), f"{num_layers} names")
    for kind in listed:
        if not isinstance(kind, str) or kind not in names:
            raise ConfigError(f"config.json: {name}", shortened(kind), f"one of {', '.join(names)}")
    return listed


def attention_kinds(
    heads: Heads, num_layers: int, sliding: int, window: int
) -> tuple[AttentionSpec, ...]:
    """What the attention costs when ``sliding`` of the layers see ``window`` tokens, the rest all."""
    if not window or not sliding:
        return (heads.attention(),)
    if sliding == num_layers:
        return (heads.attention(window=window),)
    return (
        heads.attention(layers=as_polynomial(sliding), window=window),
        heads.attention(layers=as_polynomial(num_layers - sliding)),
    )
