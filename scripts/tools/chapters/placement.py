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
    """Of nano, with larger models beside it."""
    total = layout.count()
    rows = []
    for name, tensors in layout.components().items():
        count = sum(layout.value(tensor) for tensor in tensors)
        rows.append(
            (name, f"{count:,}", f"{count / total:.2%}", layout.component_formula(name).pretty)
        )
    feed_forward = share(layout, "feed-forward")
    big = declared(minilm.preset("llama-3-8b"))
    gpt2 = declared(minilm.preset("gpt2"))
    positions = gpt2.count(components=(components.POSITION_EMBEDDING,))
    return Section(
        "where",
        "Where parameters live in a transformer",
        (
            Paragraph(
                "A transformer is the kind of program that language models are. The drawing is "
                f"nano, a preset of minilm with {total:,} parameters: every matrix with its shape "
                "(outputs × inputs), what its biases add, and its share of all. Text comes in on "
                "top as tokens; each gets its row of the embedding, d numbers. A block adds to these "
                "numbers what it computes: attention collects from the tokens before, the "
                "feed-forward works on each token alone. Norms keep the numbers in one range: "
                "each of the d numbers is multiplied with a gain, and in nano a bias is added, so that a "
                "norm has 2d parameters. The LM head turns the last numbers into a score for every "
                "token of the vocabulary."
            ),
            Paragraph(
                "The count follows from a few sizes, which have letters: V tokens in the vocabulary, "
                "L layers (a layer is one repetition of the block), the model width d, the "
                "feed-forward width f, h heads in which attention works side by side, and T tokens "
                f"of context. In nano V = {layout.symbols['V']:,}, L = {layout.symbols['L']}, "
                f"d = {layout.symbols['d']} and f = 4d, so that everything follows from V, L and d. "
                "Of each component there are so many in all layers together, biases included "
                "(12Ld² is 12 times L times d times d):"
            ),
            table(
                (*number_columns("component", "parameters", "share"), Column("formula", "code")),
                rows,
            ),
            Code("all together", layout.formula().pretty),
            Paragraph(
                f"The feed-forward has {feed_forward:.1%} of nano's parameters, and "
                f"{share(big, 'feed-forward'):.0%} of those of Llama 3 8B, a model of "
                f"{big.count() / 1e9:.0f} billion; the embedding and the LM head have "
                f"{share(layout, 'table'):.0%} here and {share(big, 'table'):.0%} there. In most large "
                "models the feed-forward is the largest part; in a small one with a large vocabulary "
                "the embedding and the LM head may be."
            ),
            Paragraph(
                "Matrices in a block have d on one side; the other is f, or d, or with fewer "
                "key/value heads a part of d. If d doubles, and f and the heads with it, they are "
                "four times as large. If L doubles, what is in blocks doubles, and the embedding and "
                "the LM head "
                "stay."
            ),
            Paragraph(
                "The context T is no size of any matrix here: positions are computed (RoPE), and "
                "a longer context needs no more parameters. In a model with learned positions, "
                f"GPT-2 for instance, there is a table of T rows: {positions:,} of its "
                f"{gpt2.count():,} parameters. An LM head that is tied is the embedding, used a "
                "second time: it is stored and counted once."
            ),
        ),
    )


def share(layout: Layout, what: str) -> float:
    """Of the feed-forward, or of the tables of the vocabulary, in all parameters."""
    names = {
        "feed-forward": [
            n for n in layout.components() if n.startswith("feed-forward") and "norm" not in n
        ],
        "table": [components.TOKEN_EMBEDDING, components.LM_HEAD],
    }[what]
    return layout.count(components=tuple(names)) / layout.count()
