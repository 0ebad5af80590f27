"""T5, mT5, UMT5, LongT5, Switch Transformers, Pop2Piano: encoder, cross-attention, relative positions.

Heads may be narrower than the model; the feed-forward is gated from version 1.1 on. Positions are a bias
of the first layer, in UMT5 of each. Switch Transformers has experts in some layers, one for a token;
Pop2Piano hears, and knows composers. The encoder runs once a text. Names, shapes and defaults:
huggingface/transformers `models/TYPE`; a head of its own where config.json says that it is not tied, as in
the files of version 1.1, whatever version 5 of transformers makes of that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from reprlib import repr as shortened

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import E, L, V, d, f, h, k, linear, lm_head, norm
from minilm.architectures.config_fields import (
    Config,
    choice,
    flag,
    is_version_4,
    layers,
    optional_flag,
    size,
    whole_number,
)
from minilm.architectures.moe import group_of, read_experts
from minilm.architectures.task_heads import (
    C,
    class_name_of,
    head,
    is_body,
    number_of_classes,
    undeclared_class,
)
from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

Y = symbol("Y")


@dataclass(frozen=True)
class _Variant:
    """``sizes`` are vocabulary, layers, width, heads and feed-forward width."""

    sizes: tuple[int, int, int, int, int]
    feed_forward: str = "relu"
    biases: Polynomial = ONE  # layers with a table of relative positions of their own


_VARIANTS = {
    "longt5": _Variant((32128, 6, 512, 8, 2048)),
    "mt5": _Variant((250112, 8, 512, 6, 1024), "gated-gelu"),
    "pop2piano": _Variant((2400, 6, 512, 8, 2048), "gated-gelu"),
    "switch_transformers": _Variant((32128, 12, 768, 12, 2048)),
    "t5": _Variant((32128, 6, 512, 8, 2048)),
    "umt5": _Variant((250112, 8, 512, 6, 1024), "gated-gelu", L),
}


_CLASSIFIED = ("mt5", "t5", "umt5")


def layout(config: Config) -> Layout:
    """The tensors of a class of these types for a config.json."""
    family = config["model_type"]
    variant = _VARIANTS[family]
    vocabulary, depth, width, heads, inner = variant.sizes
    named = layers(config, "num_layers", depth)
    # transformers' defaults are of the field before it takes its second name.
    num_layers = layers(config, "num_hidden_layers", named)
    if family != "switch_transformers" and config.get("num_decoder_layers") is None:
        num_decoder = named
    else:
        num_decoder = layers(config, "num_decoder_layers", 12)
    symbols = {
        "V": size(config, "vocab_size", vocabulary),
        "L": num_decoder,
        "Y": num_layers,
        "d": size(config, "d_model", width),
        "h": size(config, "num_heads", heads),
        "k": size(config, "d_kv", 64),
        "f": size(config, "d_ff", inner),
    }
    queries = d if symbols["h"] * symbols["k"] == symbols["d"] else h * k
    sparse: dict[str, tuple[list[int], list[int]]] = {
        "encoder": _sparse(config, "encoder", num_layers, named),
        "decoder": _sparse(config, "decoder", num_decoder, num_decoder),
    }
    if family == "switch_transformers":
        fields = {**config, "num_experts_per_tok": 1, "moe_intermediate_size": symbols["f"]}
        count = sum(len(experts) for _, experts in sparse.values())
        read = read_experts(fields, layers=max(1, count), defaults=(8, 1, symbols["f"]))
        symbols |= {"E": read["E"], "e": 1}
    kind = _encoder_attention(config) if family == "longt5" else "SelfAttention"
    encoder = as_encoder(
        [
            *_stack("encoder", kind, config, variant, queries, sparse["encoder"], Y),
            *(_global(config, kind) if kind.startswith("Transient") else ()),
            *norm("encoder.final_layer_norm", components.ENCODER, repeat=ONE),
        ]
    )
    decoder = (
        *_stack("decoder", "SelfAttention", config, variant, queries, sparse["decoder"], L),
        *norm("decoder.final_layer_norm", components.FINAL_NORM, repeat=ONE),
    )
    tied = flag(config, "tie_word_embeddings", True)
    if family == "pop2piano" and not is_version_4(config):
        tied = False
    table = Tensor("shared.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP)
    stacks = tuple((f"{n}.embed_tokens.weight", table.name) for n in ("encoder", "decoder"))
    own = AttentionSpec(L, 2 * queries, queries, queries)
    result = Layout(
        family,
        (table, *_composers(config), *encoder, *decoder, *lm_head("lm_head", tied=tied)),
        symbols,
        ties=(*stacks, *((("lm_head.weight", table.name),) if tied else ())),
        attention=(own, own),  # to the text so far, and to the encoder's
    )
    result = _with_class(result, config, encoder, table)
    return result if tied or family != "switch_transformers" else _with_own_tables(result)


def _with_own_tables(result: Layout) -> Layout:
    """Each stack with its own: Switch Transformers ties all tables or none."""
    table, *others = result.tensors
    own = (replace(table, name=name) for name, _ in result.ties)
    return replace(result, tensors=(table, *own, *others), ties=())


def _with_class(result: Layout, config: Config, encoder: Tensors, table: Tensor) -> Layout:
    name = class_name_of(config)
    if not name or name.endswith("ForConditionalGeneration"):
        return result
    if name.endswith("EncoderModel"):
        return replace(result, tensors=(table, *encoder), ties=result.ties[:1], attention=())
    bare = tuple(t for t in result.tensors if t.component != components.LM_HEAD)
    body = replace(result, tensors=bare, ties=result.ties[:2])
    if is_body(name):
        return body
    found = _classified(body, name, (table, *encoder))
    if found is None or result.family not in _CLASSIFIED:
        raise undeclared_class(config)
    return replace(found, symbols={**result.symbols, "C": number_of_classes(config)})


def _classified(body: Layout, name: str, encoder: Tensors) -> Layout | None:
    """The body, or the encoder alone, with a classifier; None for another class."""
    if name.endswith("ForQuestionAnswering"):
        heads = head("qa_outputs", C, role=Role.MULTIPLIED)
        return replace(body, tensors=(*body.tensors, *heads))
    if name.endswith("ForTokenClassification"):
        body = replace(body, tensors=encoder, ties=body.ties[:1], attention=())
        heads = head("classifier", C)
    elif name.endswith("ForSequenceClassification"):
        heads = (*head("classification_head.dense", d), *head("classification_head.out_proj", C))
    else:
        return None
    inside = (replace(t, name=f"transformer.{t.name}") for t in body.tensors)
    ties = tuple((f"transformer.{a}", f"transformer.{b}") for a, b in body.ties)
    return replace(body, tensors=(*inside, *heads), ties=ties)


def _composers(config: Config) -> Tensors:
    """Pop2Piano's table of whom to arrange like."""
    if config["model_type"] != "pop2piano":
        return ()
    rows = as_polynomial(size(config, "composer_vocab_size", 21))
    name = "mel_conditioner.embedding.weight"
    return (Tensor(name, (rows, d), components.TOKEN_TYPE_EMBEDDING, Role.ONCE),)


def _encoder_attention(config: Config) -> str:
    kinds = {"local": "LocalSelfAttention", "transient-global": "TransientGlobalSelfAttention"}
    return kinds[choice(config, "encoder_attention_type", "local", kinds)]


def _global(config: Config, kind: str) -> Tensors:
    buckets = as_polynomial(size(config, "relative_attention_num_buckets", 32))
    name = f"encoder.block.0.layer.0.{kind}.global_relative_attention_bias.weight"
    gain = f"encoder.block.{{i}}.layer.0.{kind}.global_input_layer_norm"
    part = components.ENCODER
    return (Tensor(name, (buckets, h), part, Role.ONCE), *norm(gain, part, repeat=Y))


def _sparse(config: Config, stack: str, number: int, named: int) -> tuple[list[int], list[int]]:
    """The dense layers of a stack, and those with experts: every few, from the second on.

    How many of a few depends on ``named``, the layers by the first name of their field.
    """
    if config["model_type"] != "switch_transformers":
        return list(range(number)), []
    several = whole_number(config, f"num_sparse_{stack}_layers", 3)
    computed = named // several if several else named
    step = whole_number(config, f"{stack}_sparse_step", computed)
    experts = [i for i in range(number) if step == 1 or (step > 0 and i % step == 1)]
    return sorted(set(range(number)) - set(experts)), experts


def _stack(
    stack: str,
    kind: str,
    config: Config,
    variant: _Variant,
    queries: Polynomial,
    split: tuple[list[int], list[int]],
    repeat: Polynomial,
) -> Tensors:
    buckets = as_polynomial(size(config, "relative_attention_num_buckets", 32))
    block = f"{stack}.block.{{i}}.layer"
    first = f"{stack}.block.{'{i}' if variant.biases == L else 0}.layer.0.{kind}"
    table = Tensor(
        f"{first}.relative_attention_bias.weight",
        (buckets, h),
        components.POSITION_EMBEDDING,
        Role.LOOKED_UP,
        repeat if variant.biases == L else ONE,
    )
    last = 2 if stack == "decoder" else 1
    cross: Tensors = ()
    if stack == "decoder":
        maps = _attention(f"{block}.1.EncDecAttention", queries, repeat)
        cross = (
            *(
                replace(
                    t,
                    component=components.CROSS_ATTENTION,
                    role=Role.ONCE if t.name.endswith(("k.weight", "v.weight")) else t.role,
                )
                for t in maps
            ),
            *norm(f"{block}.1.layer_norm", components.CROSS_ATTENTION, repeat=repeat),
        )
    return (
        *_attention(f"{block}.0.{kind}", queries, repeat),
        table,
        *norm(f"{block}.0.layer_norm", components.ATTENTION_NORM, repeat=repeat),
        *cross,
        *_feed_forward(f"{block}.{last}", config, variant, split, repeat),
        *norm(f"{block}.{last}.layer_norm", components.FEED_FORWARD_NORM, repeat=repeat),
    )


def _attention(prefix: str, queries: Polynomial, repeat: Polynomial) -> Tensors:
    return (
        *linear(f"{prefix}.q", queries, d, components.ATTENTION_QUERY, repeat=repeat),
        *linear(f"{prefix}.k", queries, d, components.ATTENTION_KEY, repeat=repeat),
        *linear(f"{prefix}.v", queries, d, components.ATTENTION_VALUE, repeat=repeat),
        *linear(f"{prefix}.o", d, queries, components.ATTENTION_OUTPUT, repeat=repeat),
    )


def _feed_forward(
    prefix: str,
    config: Config,
    variant: _Variant,
    split: tuple[list[int], list[int]],
    repeat: Polynomial,
) -> Tensors:
    dense, experts = split
    is_switch = config["model_type"] == "switch_transformers"
    kind = config.get("feed_forward_proj", variant.feed_forward)
    if not isinstance(kind, str):
        raise ConfigError("config.json: feed_forward_proj", shortened(kind), "an activation")
    gated = optional_flag(config, "is_gated_act", kind.startswith("gated-")) and not is_switch
    own = f"{prefix}.mlp" if is_switch else f"{prefix}.DenseReluDense"
    up, down = components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN
    tensors: list[Tensor] = []
    if dense:
        group = group_of(dense, len(dense) + len(experts))
        assert group is not None
        whole = group.layers is None
        times, at = (repeat if whole else group.repeat), group.layers
        if gated:
            gate = components.FEED_FORWARD_GATE
            tensors += linear(f"{own}.wi_0", f, d, gate, repeat=times, layers=at)
        name = "wi_1" if gated else "wi"
        tensors += linear(f"{own}.{name}", f, d, up, repeat=times, layers=at)
        tensors += linear(f"{own}.wo", d, f, down, repeat=times, layers=at)
    if experts:
        many = as_polynomial(len(experts))
        router = linear(
            f"{own}.router.classifier",
            E,
            d,
            components.ROUTER,
            bias=flag(config, "router_bias", False),
            repeat=many,
            layers=experts,
        )
        each = f"{own}.experts.expert_{{e}}"
        for name, rows, columns, part in (
            ("wi", f, d, components.EXPERTS_UP),
            ("wo", d, f, components.EXPERTS_DOWN),
        ):
            (weight,) = linear(f"{each}.{name}", rows, columns, part, repeat=many, layers=experts)
            tensors.append(replace(weight, experts=E, routed=True))
        tensors += router
    return tuple(tensors)
