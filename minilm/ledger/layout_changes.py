"""What is done to a model from outside, as a change of its Layout: symbolic, so that it is counted again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minilm.errors import ConfigError
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ONE, Polynomial, symbol

r = symbol("r")  # rank of an adapter

# The matrices that can have an adapter, by the names of minilm's modules.
ADAPTER_TARGETS = {
    "query": components.ATTENTION_QUERY,
    "key": components.ATTENTION_KEY,
    "value": components.ATTENTION_VALUE,
    "output": components.ATTENTION_OUTPUT,
    "gate": components.FEED_FORWARD_GATE,
    "up": components.FEED_FORWARD_UP,
    "down": components.FEED_FORWARD_DOWN,
    "lm_head": components.LM_HEAD,
}
_WORDS = {component: word for word, component in ADAPTER_TARGETS.items()}
# What a matrix (outputs, inputs) gets: A (r, inputs) and B (outputs, r), stored under these names.
FACTORS = ("lora_A.weight", "lora_B.weight")
# And with DoRA, (outputs,).
MAGNITUDE = "lora_magnitude_vector"


def own_names(dora: bool) -> tuple[str, ...]:
    """What a matrix has of an adapter."""
    return (*FACTORS, MAGNITUDE) if dora else FACTORS


def with_adapters(
    layout: Layout, targets: Sequence[str], rank: int, *, dora: bool = False, number: int = 1
) -> Layout:
    """``layout`` frozen, with LoRA (Hu et al. 2021, arXiv:2106.09685) on every matrix of ``targets``.

    A matrix (outputs, inputs) gets r(outputs + inputs) parameters, with ``dora`` (Liu et al. 2024,
    arXiv:2402.09353) another for each output. ``number`` is that of the adapter where ``layout`` has others.
    Raises ConfigError for a target that the model does not have and for a rank above the narrower side of a
    matrix.
    """
    tensors: list[Tensor] = []
    adapted = set()
    layout = replace(layout, symbols={"r": rank, **layout.symbols})
    # Of a second adapter with another rank that is a number in the formula.
    width = r if layout.symbols["r"] == rank else rank * ONE
    names = [numbered(name, number) for name in own_names(dora)]
    for tensor in layout.tensors:
        tensors.append(replace(tensor, frozen=True))
        word = _WORDS.get(tensor.component)
        if word in targets and tensor.role is Role.MULTIPLIED:
            adapted.add(word)
            shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
            tensors += _factors(layout, tensor, shape, width, names)
    for tied, table in layout.ties:
        if "lm_head" in targets and tied.endswith(".weight"):
            adapted.add("lm_head")
            shape = next(tensor.shape for tensor in layout.tensors if tensor.name == table)
            head = Tensor(tied, shape, components.LM_HEAD, Role.MULTIPLIED)
            tensors += _factors(layout, head, shape, width, names)
    for word in targets:
        if word not in adapted:
            available = [w for w in ADAPTER_TARGETS if _has(layout, w)]
            raise ConfigError(
                "targets", repr(word), f"any of {', '.join(available)}, which this model has"
            )
    return replace(layout, tensors=tuple(tensors))


def with_own_copy(layout: Layout, copy: str, table: str) -> Layout:
    """``layout`` without the tie of ``copy`` to ``table``: a parameter, and a head where its name says so."""
    tied = next(tensor for tensor in layout.tensors if tensor.name == table)
    own = replace(tied, name=copy)
    if not any(part in copy for part in ("embed", "shared", "wte")):
        own = replace(own, component=components.LM_HEAD)
        if own.role is Role.LOOKED_UP:
            own = replace(own, role=Role.MULTIPLIED)
    ties = tuple(pair for pair in layout.ties if pair != (copy, table))
    return replace(layout, tensors=(*layout.tensors, own), ties=ties)


def _factors(
    layout: Layout,
    tensor: Tensor,
    shape: tuple[Polynomial, ...],
    width: Polynomial,
    names: Sequence[str],
) -> list[Tensor]:
    outputs, inputs = shape
    check_rank(width.value(layout.symbols), layout, tensor.name, shape)
    sides: list[tuple[Polynomial, ...]] = [(width, inputs), (outputs, width), (outputs,)]
    return [
        replace(
            tensor,
            name=f"{tensor.name.removesuffix('weight')}{name}",
            shape=own,
            component=f"LoRA of {tensor.component}",
            role=tensor.role if len(own) == 2 else Role.SCALED,
            transposed=False,
        )
        for name, own in zip(names, sides, strict=False)
    ]


def check_rank(rank: int, layout: Layout, name: str, shape: Sequence[Polynomial]) -> None:
    """Raises ConfigError for a rank of an adapter above the narrower side of the matrix ``name``."""
    narrower = min(side.value(layout.symbols) for side in shape)
    if not 1 <= rank <= narrower:
        module = name.removesuffix(".weight")
        raise ConfigError(
            "lora_rank", str(rank), f"from 1 to {narrower}, the narrower side of {module}"
        )


def numbered(name: str, number: int) -> str:
    """A name of `FACTORS` or `MAGNITUDE` in the adapter of this number, from 1: lora_A.2.weight."""
    if number == 1:
        return name
    first, _, rest = name.partition(".")
    return f"{first}.{number}.{rest}".rstrip(".")


def _has(layout: Layout, word: str) -> bool:
    if word == "lm_head" and layout.ties:
        return True
    component = ADAPTER_TARGETS[word]
    return any(t.component == component and t.role is Role.MULTIPLIED for t in layout.tensors)


# What can be frozen, by a word for each: whole parts, and the matrices that can have an adapter.
_ATTENTION = tuple(ADAPTER_TARGETS[word] for word in ("query", "key", "value", "output"))
_FEED_FORWARD = tuple(ADAPTER_TARGETS[word] for word in ("gate", "up", "down"))
FREEZABLE = {
    "embedding": components.EMBEDDINGS,
    "attention": (*_ATTENTION, components.ATTENTION_QK_NORM),
    "feed_forward": _FEED_FORWARD,
    "norm": (
        components.ATTENTION_NORM,
        components.ATTENTION_QK_NORM,
        components.FEED_FORWARD_NORM,
        components.FINAL_NORM,
    ),
    "convolution": (components.CONVOLUTION,),
    **{word: (component,) for word, component in ADAPTER_TARGETS.items()},
}


def with_frozen(layout: Layout, words: Sequence[str]) -> Layout:
    """``layout`` with the components of ``words``, of `FREEZABLE`, frozen.

    Raises ConfigError for a word that the model has nothing of, and where nothing is left to train.
    """
    frozen: set[str] = set()
    for word in words:
        own = set(FREEZABLE.get(word, ())) & layout.components().keys()
        if not own:
            available = [w for w, each in FREEZABLE.items() if {*each} & layout.components().keys()]
            got = "'lm_head', which is the embedding" if word == "lm_head" else repr(word)
            raise ConfigError("freeze", got, f"any of {', '.join(available)}")
        frozen |= own
    tensors = tuple(
        replace(tensor, frozen=True) if tensor.component in frozen else tensor
        for tensor in layout.tensors
    )
    if all(tensor.frozen for tensor in tensors):
        raise ConfigError("freeze", ", ".join(words), "a part that is left to train")
    return replace(layout, tensors=tensors)
