"""Encoder-decoders on decoders of other families: ProphetNet, Moonshine over sound, and Gemma in T5's shape.

The encoder runs once a text; a token of the decoder attends to what it left. Names, shapes and defaults:
huggingface/transformers `models/{prophetnet,moonshine,t5gemma}`.
"""

from __future__ import annotations

from dataclasses import replace

from minilm.architectures.bart import as_encoder
from minilm.architectures.building_blocks import (
    Heads,
    L,
    V,
    d,
    f,
    linear,
    lm_head,
    norm,
    read_heads,
    separate_attention,
)
from minilm.architectures.config_fields import Config, flag, layers, size, sub_config
from minilm.architectures.early_models import layout as early_layout
from minilm.architectures.gemma import layout as gemma_layout
from minilm.architectures.task_heads import (
    C,
    class_name_of,
    head,
    number_of_classes,
    undeclared_class,
    without_head,
)
from minilm.architectures.vision_tower import Part, in_numbers
from minilm.ledger import components
from minilm.ledger.layout import AttentionSpec, Layout, Role, Tensor, Tensors
from minilm.ledger.symbols import ONE, Polynomial, as_polynomial, symbol

Y, F, T = symbol("Y"), symbol("F"), symbol("T")
CLASSIFIED = ("ForSequenceClassification", "ForTokenClassification")


def layout(config: Config) -> Layout:
    """The tensors of these types' ForConditionalGeneration for a config.json."""
    name, family = class_name_of(config), config["model_type"]
    if (
        name.endswith(CLASSIFIED)
        and family == "t5gemma"
        and flag(config, "is_encoder_decoder", True)
    ):
        return with_score(_t5gemma(config), config)
    if name and not name.endswith("ForConditionalGeneration"):
        raise undeclared_class(config)
    return _LAYOUTS[family](config)


def with_score(whole: Layout, config: Config) -> Layout:
    """With a classifier, of a text or of its tokens, in the language model's head's place."""
    body, score = without_head(whole), head("score.out_proj", C, role=Role.MULTIPLIED)
    symbols = {**whole.symbols, "C": number_of_classes(config)}
    return replace(body, tensors=(*body.tensors, *score), symbols=symbols)


def asked_by_token(tensor: Tensor) -> Tensor:
    """Of cross-attention, queries and output are a token's; keys and values the encoder's."""
    own = ("q_proj.weight", "query_proj.weight", "o_proj.weight", "out_proj.weight")
    if tensor.component == components.CROSS_ATTENTION and tensor.name.endswith(own):
        return replace(tensor, role=Role.MULTIPLIED)
    return tensor


def _prophetnet(config: Config) -> Layout:
    decoder = early_layout(config)
    encoder, part = "prophetnet.encoder", components.ENCODER
    block = f"{encoder}.layers.{{i}}"
    names = ("key_proj", "value_proj", "query_proj", "out_proj")
    positions = Tensor(f"{encoder}.position_embeddings.weight", (T, d), part, Role.ONCE)
    own = Tensor(
        f"{encoder}.word_embeddings.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP
    )
    inner = f"{block}.feed_forward"
    tied = bool(decoder.ties)
    tensors = as_encoder(
        (
            positions,
            *norm(f"{encoder}.embeddings_layer_norm", part, bias=True, repeat=ONE),
            *(
                tensor
                for name in names
                for tensor in linear(f"{block}.self_attn.{name}", d, d, part, bias=True, repeat=Y)
            ),
            *norm(f"{block}.self_attn_layer_norm", part, bias=True, repeat=Y),
            *linear(f"{inner}.intermediate", F, d, part, bias=True, repeat=Y),
            *linear(f"{inner}.output", d, F, part, bias=True, repeat=Y),
            *norm(f"{block}.feed_forward_layer_norm", part, bias=True, repeat=Y),
        )
    )
    symbols = {
        **decoder.symbols,
        "Y": layers(config, "num_encoder_layers", 12),
        "F": size(config, "encoder_ffn_dim", 4096),
    }
    tie = (own.name, "prophetnet.word_embeddings.weight")
    asked = decoder.attention[0].scores  # of all residual streams
    return replace(
        decoder,
        tensors=(
            *map(asked_by_token, decoder.tensors),
            *(() if tied else (own,)),
            *tensors,
        ),
        symbols=symbols,
        ties=(*decoder.ties, tie) if tied else (),
        attention=(*decoder.attention, AttentionSpec(L, 2 * d, asked, asked)),
    )


def _moonshine(config: Config) -> Layout:
    heads = _moonshine_heads(config)
    body, tied = "model.decoder", flag(config, "tie_word_embeddings", True)
    table = Tensor(
        f"{body}.embed_tokens.weight", (V, d), components.TOKEN_EMBEDDING, Role.LOOKED_UP
    )
    return Layout(
        "moonshine",
        (
            table,
            *_moonshine_encoder(config, heads),
            *_moonshine_layer(config, f"{body}.layers.{{i}}", heads),
            *norm(f"{body}.norm", components.FINAL_NORM, repeat=ONE),
            *lm_head("proj_out", tied=tied),
        ),
        {
            "V": size(config, "vocab_size", 32768),
            "L": layers(config, "decoder_num_hidden_layers", 6),
            "Y": layers(config, "encoder_num_hidden_layers", 6),
            "f": size(config, "intermediate_size", 1152),
            **heads.symbols,
        },
        ties=(("proj_out.weight", table.name),) if tied else (),
        attention=(heads.attention(), heads.attention()),
        context_length=size(config, "max_position_embeddings", 512),
    )


def _moonshine_heads(config: Config) -> Heads:
    """Of the encoder, which transformers gives the decoder too, whatever its fields say."""
    return read_heads(
        config,
        heads="encoder_num_attention_heads",
        kv_heads="encoder_num_key_value_heads",
        head_dim=None,
        defaults=(288, 8, None, None),
    )


def _moonshine_encoder(config: Config, heads: Heads) -> Tensors:
    width, encoder, part = heads.symbols["d"], "model.encoder", components.ENCODER
    layer = f"{encoder}.layers.{{i}}"
    return as_encoder(
        [
            *_convolution(f"{encoder}.conv1", width, 1, 127)[:1],
            *_convolution(f"{encoder}.conv2", 2 * width, width, 7),
            *_convolution(f"{encoder}.conv3", width, 2 * width, 3),
            *norm(f"{encoder}.groupnorm", part, bias=True, repeat=ONE),
            *separate_attention(
                f"{layer}.self_attn",
                heads,
                qkv_bias=flag(config, "attention_bias", False),
                repeat=Y,
            ),
            *linear(f"{layer}.mlp.fc1", f, d, part, bias=True, repeat=Y),
            *linear(f"{layer}.mlp.fc2", d, f, part, bias=True, repeat=Y),
            *_moonshine_norms(layer, Y),
            *norm(f"{encoder}.layer_norm", part, repeat=ONE),
        ]
    )


def _moonshine_layer(config: Config, layer: str, heads: Heads) -> Tensors:
    """Of the decoder, whose feed-forward has a gate."""
    bias = flag(config, "attention_bias", False)
    up, down = components.FEED_FORWARD_GATE_UP, components.FEED_FORWARD_DOWN
    return (
        *separate_attention(f"{layer}.self_attn", heads, qkv_bias=bias),
        *cross_attention(f"{layer}.encoder_attn", heads, qkv_bias=bias),
        *linear(f"{layer}.mlp.fc1", 2 * f, d, up, bias=True),
        *linear(f"{layer}.mlp.fc2", d, f, down, bias=True),
        *_moonshine_norms(layer, L),
        *norm(f"{layer}.final_layernorm", components.FEED_FORWARD_NORM),
    )


def cross_attention(
    name: str,
    heads: Heads,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    output: str = "o_proj",
) -> Tensors:
    """Attention to what an encoder of the same width left."""
    once = {Role.MULTIPLIED: Role.ONCE}
    return tuple(
        asked_by_token(
            replace(t, component=components.CROSS_ATTENTION, role=once.get(t.role, t.role))
        )
        for t in separate_attention(
            name, heads, qkv_bias=qkv_bias, output_bias=output_bias, output=output
        )
    )


def _moonshine_norms(layer: str, times: Polynomial) -> Tensors:
    return (
        *norm(f"{layer}.input_layernorm", components.ATTENTION_NORM, repeat=times),
        *norm(f"{layer}.post_attention_layernorm", components.FEED_FORWARD_NORM, repeat=times),
    )


def _convolution(name: str, rows: int, columns: int, taps: int) -> Tensors:
    shape = tuple(map(as_polynomial, (rows, columns, taps)))
    weight = Tensor(f"{name}.weight", shape, components.ENCODER, Role.ONCE)
    return weight, Tensor(f"{name}.bias", shape[:1], components.ENCODER, Role.ADDED)


_RENAMED = {
    "model.layers.": "model.{}.layers.",
    "model.norm": "model.{}.norm",
    "model.embed_tokens": "model.{}.embed_tokens",
    ".input_layernorm": ".pre_self_attn_layernorm",
    ".post_attention_layernorm": ".post_self_attn_layernorm",
}


def _t5gemma(config: Config) -> Layout:
    tied = flag(config, "tie_word_embeddings", True)
    stacks = {}
    for stack in ("encoder", "decoder"):
        fields = {**sub_config(config, stack), "model_type": "gemma2", "tie_word_embeddings": tied}
        stacks[stack] = gemma_layout(fields)
    decoder, encoder = stacks["decoder"], stacks["encoder"]
    seen = encoder.symbols["d"]

    def moved(tensor: Tensor, stack: str) -> Tensor:
        name = tensor.name
        for old, new in _RENAMED.items():
            name = name.replace(old, new.format(stack))
        return replace(tensor, name=name.replace("lm_head", "lm_head.out_proj"))

    heads = read_heads(sub_config(config, "decoder"), defaults=(2304, 8, 4, 256))
    block = "model.decoder.layers.{i}"
    crossing = tuple(
        replace(
            tensor,
            shape=(tensor.shape[0], as_polynomial(seen))
            if tensor.name.endswith(("k_proj.weight", "v_proj.weight"))
            else tensor.shape,
            component=components.CROSS_ATTENTION,
            role=Role.ONCE,
        )
        for tensor in separate_attention(
            f"{block}.cross_attn",
            heads,
            qkv_bias=flag(sub_config(config, "decoder"), "attention_bias", False),
            output_bias=flag(sub_config(config, "decoder"), "attention_bias", False),
        )
    )
    gains = tuple(
        tensor
        for which in ("pre", "post")
        for tensor in norm(f"{block}.{which}_cross_attn_layernorm", components.CROSS_ATTENTION)
    )
    own = tuple(moved(t, "encoder") for t in _body(encoder))
    return replace(
        decoder,
        family="t5gemma",
        tensors=(
            *(moved(t, "decoder") for t in decoder.tensors),
            *map(asked_by_token, crossing),
            *gains,
            *as_encoder(in_numbers(Part(own, dict(encoder.symbols))).tensors),
        ),
        ties=(("lm_head.out_proj.weight", "model.decoder.embed_tokens.weight"),) if tied else (),
        attention=(*decoder.attention, heads.attention()),
    )


def _body(encoder: Layout) -> list[Tensor]:
    return [t for t in encoder.tensors if t.component != components.LM_HEAD]


_LAYOUTS = {"moonshine": _moonshine, "prophetnet": _prophetnet, "t5gemma": _t5gemma}
