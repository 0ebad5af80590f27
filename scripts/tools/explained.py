"""python scripts/tools/explained.py: write docs/parameters-explained.md, its page and its drawing.

Every number in them is computed when this runs, by doing what the text tells of (scripts/tools/chapters);
tests/test_explained.py makes the page again and compares. The glossary is minilm/render/glossary.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from markupsafe import Markup  # noqa: E402

import minilm  # noqa: E402
from minilm import files  # noqa: E402
from minilm.architectures.minilm import layout as declared  # noqa: E402
from minilm.render.block_diagram import diagram, parts_of  # noqa: E402
from minilm.render.calculator import calculator  # noqa: E402
from minilm.render.document import Section  # noqa: E402
from minilm.render.glossary import GLOSSARY, anchor, letters  # noqa: E402
from minilm.render.glossary_links import GlossaryLinks  # noqa: E402
from minilm.render.html import lesson_page  # noqa: E402
from minilm.render.markdown import section_lines, text  # noqa: E402
from scripts.tools.chapters import (  # noqa: E402
    changes,
    costs,
    fitting,
    hyperparameters,
    initialisation,
    opening,
    placement,
    precision,
    ten_parameters,
    training,
    weights_and_biases,
)
from scripts.tools.chapters.changes import OTHER_PAGE  # noqa: E402
from scripts.tools.chapters.questions import QUESTIONS  # noqa: E402

PAGE = ROOT / "docs" / "parameters-explained.md"
HTML = ROOT / "docs" / "parameters-explained.html"
DRAWING = ROOT / "docs" / "images" / "parameters-nano.svg"
TITLE = "Parameters, explained"


def sections() -> list[Section]:
    """The page, in order."""
    layout = declared(minilm.preset("nano"))
    return [
        opening.section(),
        ten_parameters.section(),
        placement.section(layout),
        weights_and_biases.section(),
        hyperparameters.section(),
        initialisation.section(),
        training.section(),
        precision.section(),
        fitting.section(),
        changes.section(layout),
        costs.section(),
    ]


def markdown(content: Sequence[Section]) -> str:
    """The page as Markdown."""
    meanings = letters(family="minilm")
    links = GlossaryLinks(meanings)
    lines = [
        f"# {TITLE}",
        "",
        "For readers without background. Every number is computed when this page is made "
        "(`scripts/tools/explained.py`). "
        "[parameters-explained.html](parameters-explained.html) is the same page with a "
        "calculator: open the file in a browser, it needs no network. `minilm explain "
        "TARGET` says the same of your own model, and three [notebooks](../examples) let you do "
        "it by hand. Where a word of the [glossary](#glossary) is used first, it leads there.",
    ]
    for section in content:
        own = section_lines(section, phrase=links.markdown)
        if section.key == "where":
            own[1:1] = ["", f"![the preset nano as a diagram](images/{DRAWING.name})"]
        link = f"[{OTHER_PAGE}]({OTHER_PAGE})"
        lines += ["", *(line.replace(OTHER_PAGE, link) for line in own)]
    lines += [
        "",
        "## Test yourself",
        "",
        "The [answers](#answers) are at the end of the page.",
        "",
        *(f"{number}. {links.markdown(q.question)}" for number, q in enumerate(QUESTIONS, 1)),
        "",
        "## Glossary",
        "",
        *(_entry(letter, meaning) for letter, meaning in meanings.items()),
        *(_entry(word, meaning) for word, meaning in GLOSSARY.items()),
        "",
        "## Answers",
        "",
        *(f"{number}. {text(q.answer)}" for number, q in enumerate(QUESTIONS, 1)),
    ]
    return "\n".join(lines) + "\n"


def _entry(word: str, meaning: str) -> str:
    return f'- <a id="{anchor(word)}"></a>**{word}**: {text(meaning)}'


def drawing(*, alone: bool) -> Markup:
    """The block diagram, as a file of its own or for the page."""
    layout = declared(minilm.preset("nano"))
    return diagram(parts_of(layout), layout.symbols, alone=alone)


def html(content: Sequence[Section]) -> str:
    """The page with the calculator, which starts with nano."""
    calculated = calculator(declared(minilm.preset("nano"), free=True))
    assert calculated is not None
    answers = [(question.question, question.answer) for question in QUESTIONS]
    return lesson_page(
        TITLE, content, answers, calculated, family="minilm", drawing=drawing(alone=False)
    )


def write() -> None:
    """Write all three."""
    content = sections()
    pages = {PAGE: markdown(content), HTML: html(content), DRAWING: f"{drawing(alone=True)}\n"}
    for path, page in pages.items():
        files.write_bytes(path, page.encode())


if __name__ == "__main__":
    write()
