"""What a parameter is, in a few sentences."""

from __future__ import annotations

from minilm.render.document import Paragraph, Section


def section() -> Section:
    return Section(
        "what",
        "What a parameter is",
        (
            Paragraph(
                "A language model is a program with many numbers in it. The program is "
                "short, and people wrote "
                "it; the numbers are many, and training set them. These numbers are the "
                "parameters. What a "
                "model can do is in their values together; what it costs follows from how "
                "many there are."
            ),
        ),
    )
