"""The counts of a report: parameters under each convention, components, and the list of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minilm.inspection.comparison import Contents
from minilm.inspection.names import component_by_name, is_bias, is_embedding
from minilm.inspection.report import Component, Convention, Parameters, TensorRow
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role
from minilm.quantization.logical_tensors import LogicalTensor

BUFFER = "buffer"
TIED_COPY = "tied copy"


def declared_parameters(layout: Layout, *, stored_elements: int, buffers: int) -> Parameters:
    """What the formula says of a model; ``stored_elements`` and ``buffers`` are the file's."""
    total = layout.count()
    biases = layout.count(role=Role.ADDED)
    embedding = layout.count(components=components.EMBEDDINGS)
    return Parameters(
        total=total,
        trainable=total,
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=layout.count(active=True),
        stored_elements=stored_elements,
        buffers=buffers,
    )


def counted_parameters(
    rows: Iterable[TensorRow],
    *,
    stored_elements: int,
    buffers: int,
    embedding: int | None = None,
    trainable: int | None = None,
    active: int | None = None,
) -> Parameters:
    """What can be said of tensors that no formula declares, from their names."""
    rows = tuple(rows)
    total = sum(row.count for row in rows)
    biases = sum(row.count for row in rows if is_bias(row.name))
    if embedding is None:
        embedding = sum(row.count for row in rows if is_embedding(row.name, row.shape))
    return Parameters(
        total=total,
        trainable=total if trainable is None else trainable,
        weights=total - biases,
        biases=biases,
        embedding=embedding,
        non_embedding=total - embedding,
        active=total if active is None else active,
        stored_elements=stored_elements,
        buffers=buffers,
    )


def declared_components(layout: Layout) -> tuple[Component, ...]:
    """Each component with its share and its formula, in the order in which a token meets them."""
    total = layout.count()
    rows = []
    for name in layout.components():
        count = layout.count(components=(name,))
        biases = layout.count(components=(name,), role=Role.ADDED)
        formula = layout.component_formula(name)
        rows.append(
            Component(
                name,
                count,
                count / total,
                formula.symbolic,
                formula.pretty,
                count - biases,
                biases,
            )
        )
    return tuple(rows)


def grouped_components(rows: Iterable[TensorRow]) -> tuple[Component, ...]:
    """Tensors that no formula declares, grouped by what their names say."""
    groups: dict[str, list[TensorRow]] = {}
    for row in rows:
        groups.setdefault(row.component, []).append(row)
    total = sum(row.count for group in groups.values() for row in group)
    found = []
    for name, group in groups.items():
        count = sum(row.count for row in group)
        biases = sum(row.count for row in group if is_bias(row.name))
        share = count / total if total else 0.0
        found.append(Component(name, count, share, "", "", count - biases, biases))
    return tuple(found)


def declared_rows(layout: Layout, dtype: str) -> tuple[TensorRow, ...]:
    """Every parameter that the formula names, as if it were stored in ``dtype``."""
    return tuple(
        TensorRow(t.name, t.shape, dtype, t.count, t.component) for t in layout.named_tensors()
    )


def stored_rows(contents: Contents, layout: Layout | None) -> tuple[TensorRow, ...]:
    """Everything a file holds, by its own names: parameters first, then what else there is."""
    declared = {t.name: t.component for t in layout.named_tensors()} if layout else {}

    def rows(tensors: Mapping[str, LogicalTensor], component: str | None = None) -> list[TensorRow]:
        return [
            TensorRow(
                tensor.name,
                tensor.shape,
                tensor.dtype,
                tensor.count,
                component or declared.get(name) or component_by_name(tensor.name),
            )
            for name, tensor in tensors.items()
        ]

    return (
        *rows(contents.parameters),
        *rows(contents.mtp, components.MTP),
        *rows(contents.copies, TIED_COPY),
        *rows(contents.buffers, BUFFER),
    )


def conventions(
    parameters: Parameters,
    layout: Layout | None,
    *,
    tied_elements: int,
    mtp_elements: int,
    vocabulary: int | None,
) -> tuple[Convention, ...]:
    """Every way in which this model's parameters are counted somewhere, each with its name.

    ``tied_elements`` are those of the tensors that a tie leaves out; ``vocabulary`` is how many tokens
    the tokenizer has, where that is known.
    """
    p = parameters
    found = [
        Convention("total", p.total, "every parameter once; a tied head is not counted again"),
        Convention("trainable", p.trainable, "those that an optimizer would change"),
        Convention("embedding", p.embedding, "the token, position and n-gram tables"),
        Convention("non-embedding", p.non_embedding, "all but these tables; an untied head counts"),
    ]
    if layout is not None:
        head = layout.count(components=(components.LM_HEAD,))
        tokens = layout.count(components=(components.TOKEN_EMBEDDING,))
        if head:
            meaning = "all but these tables and the head (N of Kaplan et al. 2020)"
            found.append(Convention("non-embedding, no head", p.non_embedding - head, meaning))
        if p.active != p.total:
            found += [
                Convention("active", p.active, "what one token uses: its experts, and all else"),
                Convention(
                    "active, no token embedding", p.active - tokens, "the same but the token table"
                ),
            ]
        padding = layout.symbols.get("V", 0) - (vocabulary or layout.symbols.get("V", 0))
        if padding > 0:
            width = tokens // layout.symbols["V"]
            tables = 2 if head else 1
            meaning = f"without the {padding} rows that pad {vocabulary} tokens"
            found.append(Convention("no padding rows", p.total - padding * width * tables, meaning))
    if tied_elements:
        meaning = "the tied head again, as a walk over modules without a memory finds it"
        found.append(Convention("tied head twice", p.total + tied_elements, meaning))
    if mtp_elements:
        meaning = "the modules that predict further tokens too"
        found.append(Convention("with MTP", p.total + mtp_elements, meaning))
    if p.buffers:
        found.append(
            Convention("with buffers", p.total + p.buffers, "masks, statistics, corrections too")
        )
    meaning = "elements that the file holds: copies, buffers, packed integers, scales and all"
    found.append(Convention("stored", p.stored_elements, meaning))
    return tuple(found)
