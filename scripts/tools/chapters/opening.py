"""What a parameter is, in a few sentences."""

from __future__ import annotations

from minilm.render.document import Paragraph, Section


def section() -> Section:
    """Without a number."""
    return Section(
        "what",
        "What a parameter is",
        (
            Paragraph(
                "A language model is a program with many numbers in it. The program is short, and "
                "people wrote it; the numbers are many, and training set them. These numbers are "
                "the parameters. What a model can do is in their values together: hardly ever "
                "does a single one hold a fact. What a model costs follows from how many they are."
            ),
            Paragraph(
                "The model reads text in tokens: each is about a word or a part of one, and all "
                "that it knows are its vocabulary. From the tokens so far it computes how "
                "probable each token of the vocabulary is as the next one. That is all it does; "
                "to write, one of the probable ones is appended, again and again."
            ),
        ),
    )
