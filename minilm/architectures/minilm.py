"""minilm's own family, with every option of ModelConfig.

Written from the names in docs/architecture.md and not from the module: `minilm.model` is the other
witness.
"""

from __future__ import annotations

from minilm.config import ModelConfig
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

V, T, L, d, f, h, g, k, R, c = (symbol(letter) for letter in "VTLdfhgkRc")


def layout(config: ModelConfig) -> Layout:
    """The tensors of `minilm.Transformer(config)`."""
    symbols = {
        "V": config.vocab_size,
        "T": config.context_length,
        "L": config.num_layers,
        "d": config.d_model,
        "f": config.d_feed_forward,
        "h": config.num_heads,
        "g": config.num_kv_heads,
        "k": config.head_dim,
    }
    if config.ngram > 1:
        symbols["R"] = config.ngram_rows
    if config.convolution:
        symbols["c"] = config.convolution
    # Usual shapes collapse, so that the closed form is the one that people know: h*k is d, f is 4d.
    queries = d if config.num_heads * config.head_dim == config.d_model else h * k
    keys = queries if config.num_kv_heads == config.num_heads else g * k
    hidden = 4 * d if config.d_feed_forward == 4 * config.d_model else f

    tensors: list[Tensor] = []

    def matrix(
        name: str, rows: Polynomial, columns: Polynomial, component: str, bias: bool
    ) -> None:
        shape = (rows, columns)
        tensors.append(Tensor(f"{name}.weight", shape, component, Role.MULTIPLIED, L))
        if bias:
            tensors.append(Tensor(f"{name}.bias", (rows,), component, Role.ADDED, L))

    def norm(name: str, width: Polynomial, component: str, repeat: Polynomial = L) -> None:
        tensors.append(Tensor(f"{name}.weight", (width,), component, Role.SCALED, repeat))
        if config.norm_bias:
            tensors.append(Tensor(f"{name}.bias", (width,), component, Role.ADDED, repeat))

    tensors.append(
        Tensor("embedding.token.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP)
    )
    if config.position == "learned":
        tensors.append(
            Tensor(
                "embedding.position.weight", (T, d), components.POSITION_EMBEDDING, Role.LOOKED_UP
            )
        )

    if config.ngram > 1:
        shape = ((config.ngram - 1) * R, d)
        name = "embedding.ngram.weight"
        tensors.append(Tensor(name, shape, components.NGRAM_EMBEDDING, Role.LOOKED_UP))

    if config.convolution:
        name = "blocks.{i}.convolution.weight"
        tensors.append(Tensor(name, (c, d), components.CONVOLUTION, Role.SCALED, L))
    attention = "blocks.{i}.attention"
    norm("blocks.{i}.attention_norm", d, components.ATTENTION_NORM)
    matrix(f"{attention}.query", queries, d, components.ATTENTION_QUERY, config.qkv_bias)
    matrix(f"{attention}.key", keys, d, components.ATTENTION_KEY, config.qkv_bias)
    matrix(f"{attention}.value", keys, d, components.ATTENTION_VALUE, config.qkv_bias)
    if config.qk_norm:
        norm(f"{attention}.query_norm", k, components.ATTENTION_QK_NORM)
        norm(f"{attention}.key_norm", k, components.ATTENTION_QK_NORM)
    matrix(
        f"{attention}.output", d, queries, components.ATTENTION_OUTPUT, config.attention_output_bias
    )

    feed_forward = "blocks.{i}.feed_forward"
    norm("blocks.{i}.feed_forward_norm", d, components.FEED_FORWARD_NORM)
    if config.gated:
        matrix(
            f"{feed_forward}.gate",
            hidden,
            d,
            components.FEED_FORWARD_GATE,
            config.feed_forward_bias,
        )
    matrix(f"{feed_forward}.up", hidden, d, components.FEED_FORWARD_UP, config.feed_forward_bias)
    matrix(
        f"{feed_forward}.down", d, hidden, components.FEED_FORWARD_DOWN, config.feed_forward_bias
    )

    norm("final_norm", d, components.FINAL_NORM, repeat=ONE)
    if not config.tied_embeddings:
        tensors.append(Tensor("lm_head.weight", (V, d), components.LM_HEAD, Role.MULTIPLIED))

    return Layout(
        "minilm",
        tuple(tensors),
        symbols,
        ties=(("lm_head.weight", "embedding.token.weight"),) if config.tied_embeddings else (),
        attention=(AttentionSpec(L, 2 * g * k, h * k, h * k, config.sliding_window),),
        context_length=config.context_length,
    )
