"""The conventions under which a model's parameters are counted somewhere, each with its name."""

from __future__ import annotations

from minilm.inspection.report import Convention, Parameters
from minilm.ledger.components import LM_HEAD, TOKEN_EMBEDDING
from minilm.ledger.layout import Layout


def conventions(
    parameters: Parameters,
    layout: Layout | None = None,
    *,
    tied_elements: int = 0,
    mtp_elements: int = 0,
    vocabulary: int | None = None,
) -> tuple[Convention, ...]:
    """Every way in which this model's parameters are counted somewhere, each with its name.

    ``tied_elements`` are those that a tie leaves out of the total; ``vocabulary`` is the number of
    tokens of the tokenizer, where that is known.
    """
    p = parameters
    entries = [
        Convention("total", p.total, "every parameter once; a tied head is not counted again"),
        Convention("trainable", p.trainable, "those that an optimizer would change"),
        Convention("embedding", p.embedding, "the token, position and n-gram tables"),
        Convention("non-embedding", p.non_embedding, "all but these tables; an untied head counts"),
    ]
    if layout is not None:
        entries += _declared_conventions(p, layout, vocabulary)
    if tied_elements:
        meaning = "the tied head counted again, as by tools that do not track shared tensors"
        entries.append(Convention("tied head twice", p.total + tied_elements, meaning))
    if mtp_elements:
        meaning = "with the modules for multi-token prediction"
        entries.append(Convention("with MTP", p.total + mtp_elements, meaning))
    if p.buffers:
        meaning = "with masks, running statistics, router corrections"
        entries.append(Convention("with buffers", p.total + p.buffers, meaning))
    meaning = "elements in the file, copies, buffers, packed integers and scales included"
    entries.append(Convention("stored", p.stored_elements, meaning))
    return tuple(entries)


def _declared_conventions(
    p: Parameters, layout: Layout, vocabulary: int | None
) -> list[Convention]:
    """The conventions that need to know which tensors are the head and the token table."""
    entries = []
    head = layout.count(components=(LM_HEAD,))
    token_table = layout.count(components=(TOKEN_EMBEDDING,))
    if head:
        meaning = "all but these tables and the head (N of Kaplan et al. 2020)"
        entries.append(Convention("non-embedding, no head", p.non_embedding - head, meaning))
    unshared = layout.unshared().count()
    if unshared != p.total:
        meaning = "shared layers counted as often as they run, as an export writes them"
        entries.append(Convention("layers unshared", unshared, meaning))
    if p.active != p.total:
        meaning = "what one token uses: its experts, and everything outside the experts"
        entries.append(Convention("active", p.active, meaning))
        meaning = "active, without the token table"
        entries.append(Convention("active, no token embedding", p.active - token_table, meaning))
    vocabulary_rows = layout.symbols.get("V", 0)
    padding = vocabulary_rows - (vocabulary or vocabulary_rows)
    if padding > 0:
        tables = 2 if head else 1
        meaning = f"without the {padding} rows that pad a vocabulary of {vocabulary} tokens"
        excess = padding * (token_table // vocabulary_rows) * tables
        entries.append(Convention("no padding rows", p.total - excess, meaning))
    return entries
