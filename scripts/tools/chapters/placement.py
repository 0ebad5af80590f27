"""Where parameters are in a transformer: its matrices with their shares."""

from __future__ import annotations

import minilm
from minilm.architectures.minilm import layout as declared
from minilm.ledger import components
from minilm.ledger.layout import Layout
from minilm.render.cells import number_columns
from minilm.render.document import Code, Column, Paragraph, Section
from scripts.tools.chapters.tables import table


def section(layout: Layout) -> Section:
    total = layout.count()
    rows = []
    for name, tensors in layout.components().items():
        count = sum(layout.value(tensor) for tensor in tensors)
        rows.append(
            (name, f"{count:,}", f"{count / total:.2%}", layout.component_formula(name).pretty)
        )
    feed_forward = share(layout, "feed-forward")
    big = declared(minilm.preset("llama-3-8b"))
    return Section(
        "where",
        "Where parameters live in a transformer",
        (
            Paragraph(
                f"The drawing is minilm's preset nano, {total:,} parameters: every matrix "
                "with its shape (outputs × "
                "inputs) and its share of all. Text comes in on top as tokens; each gets its "
                "row of the "
                "embedding, d numbers. Every block adds to these numbers what it computes: "
                "attention "
                "collects from the tokens before, the feed-forward works on each token "
                "alone. The LM head turns "
                "the last numbers into a score for every token of the vocabulary."
            ),
            table(
                (*number_columns("component", "parameters", "share"), Column("formula", "code")),
                rows,
            ),
            Code("all together", layout.formula().pretty),
            Paragraph(
                f"The feed-forward has {feed_forward:.0%} here, and "
                f"{share(big, 'feed-forward'):.0%} of Llama 3 "
                f"8B; the embedding and the LM head have {share(layout, 'table'):.0%} here and "
                f"{share(big, 'table'):.0%} there. Matrices in a block have d on at least one "
                "side and a "
                "width that models usually widen with d on the other: if d doubles, and f with it, "
                "they are four times as large. If L doubles, what is in "
                "blocks doubles, and the embedding and the head stay."
            ),
            Paragraph(
                "The context T is no size of any matrix here: positions are computed (RoPE). "
                "In a model with "
                "learned positions, GPT-2 for instance, a table of T rows is added: "
                f"{position_count():,} of its {declared(minilm.preset('gpt2')).count():,} "
                "parameters. A head that is "
                "tied is the embedding, used a second time: it is stored and counted once."
            ),
        ),
    )


def share(layout: Layout, what: str) -> float:
    names = {
        "feed-forward": [
            n for n in layout.components() if n.startswith("feed-forward") and "norm" not in n
        ],
        "table": [components.TOKEN_EMBEDDING, components.LM_HEAD],
    }[what]
    return layout.count(components=tuple(names)) / layout.count()


def position_count() -> int:
    return declared(minilm.preset("gpt2")).count(components=(components.POSITION_EMBEDDING,))
