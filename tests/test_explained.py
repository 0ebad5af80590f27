"""docs/parameters-explained is what running it gives, explains its words, and answers its questions."""

from __future__ import annotations

import html
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures.minilm import layout
from minilm.ledger.symbols import MEANINGS
from minilm.render.glossary import GLOSSARY, USUAL_LETTERS, anchor, forms, letters
from tests.conftest import ROOT
from tests.render.browser import NAMES, Browser, find_chromium

TOOL = ROOT / "scripts" / "tools" / "explained.py"
MOST_BYTES = 300_000
# What a reader of such a page does not know; each has its entry, whether or not the page has it today.
TECHNICAL = (
    *("nats", "bits a byte", "MFU", "KV cache", "RoPE", "nf4", "std", "float16", "PyTorch", "LoRA"),
    *("quantization", "pruned", "tied", "gradient", "learning rate", "SGD", "AdamW", "moments"),
    *(
        "token",
        "vocabulary",
        "context",
        "embedding",
        "attention",
        "feed-forward",
        "LM head",
        "norm",
    ),
    *(
        "layer",
        "block",
        "head",
        "query",
        "keys and values",
        "linear layer",
        "weight",
        "bias",
        "unit",
    ),
    *("matrix", "vector", "tensor", "shape", "rank", "adapter", "scale", "dtype", "int8", "int4"),
    *("float32", "bfloat16", "bit", "byte", "MiB", "GB", "FLOPs", "safetensors", "JSON", "GGUF"),
    *("standard deviation", "mean squared error", "root mean square", "natural logarithm", "loss"),
    *(
        "polynomial",
        "overfitting",
        "underfitting",
        "validation",
        "dropout",
        "frozen",
        "batch",
        "step",
    ),
    *("optimizer", "transformer", "language model", "preset", "learned positions", "score", "gain"),
    *("GPU", "activations", "training state", "hyperparameter", "parameter", "initialisation"),
)
# With capitals or digits within, and no words: variables and products of letters.
NO_TERMS = {"x1", "x4", "12Ld²", "4d"}


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def test_the_page_is_what_running_it_gives(tool: dict[str, Any]) -> None:
    content = tool["sections"]()
    pages = {
        "PAGE": tool["markdown"](content),
        "HTML": tool["html"](content),
        "DRAWING": f"{tool['drawing'](alone=True)}\n",
    }
    for name, text in pages.items():
        path: Path = tool[name]
        assert path.read_text(encoding="utf-8") == text, f"run: python scripts/tools/{TOOL.name}"
        assert len(text.encode()) < MOST_BYTES


def linked_texts(tool: dict[str, Any]) -> dict[str, str]:
    """What a reader sees of each page before the glossary, with links to it as ⟦anchor|text⟧.

    Without headings, code, and the drawing.
    """
    markdown = tool["PAGE"].read_text(encoding="utf-8").split("\n## Glossary")[0]
    markdown = (
        "## " + markdown.split("\n## ", 1)[1]
    )  # behind the introduction, whose links lead elsewhere
    markdown = re.sub(r"^#.*$|^ {4}.*$|`[^`]*`|!\[[^]]*\]", "", markdown, flags=re.M)
    markdown = re.sub(r"\[([^]]+)\]\(#((?:word|letter)-[^)]+)\)", r"⟦\2|\1⟧", markdown)
    page = tool["HTML"].read_text(encoding="utf-8")
    page = page[page.index("<main") : page.index('<section id="glossary"')]
    page = re.sub(r'<t[dh][^>]*class="code".*?</t[dh]>', "", page)
    page = re.sub(r"<svg.*?</svg>|<(h\d|code|select|figcaption)\b.*?</\1>", "", page, flags=re.S)
    page = re.sub(r'<a class="word" href="#([^"]+)">([^<]*)</a>', r"⟦\1|\2⟧", page)
    page = re.sub(r"<[^>]+>", " ", page)
    return {"PAGE": html.unescape(markdown), "HTML": html.unescape(page)}


def uses(word: str, text: str) -> list[re.Match[str]]:
    """Where a word of the glossary, or a letter, is in a text."""
    names = forms(word) if len(word) > 1 else [word]
    patterns = [
        f"[{name[0]}{name[0].upper()}]{re.escape(name[1:])}" if len(name) > 1 else name
        for name in sorted(names, key=len, reverse=True)
    ]
    return list(re.finditer(rf"(?<![\w-])(?:{'|'.join(patterns)})(?![\w-]|\.\w)", text))


def test_the_first_use_of_every_word_leads_to_its_entry_which_is_there_once(
    tool: dict[str, Any],
) -> None:
    longer = {
        word: [other for other in GLOSSARY if word in other and word != other] for word in GLOSSARY
    }
    for name, text in linked_texts(tool).items():
        page = tool[name].read_text(encoding="utf-8")
        links = re.findall(r"⟦([^|]+)\|", text)
        assert len(links) == len(set(links)) > 60
        for word in [*GLOSSARY, *letters(family="minilm")]:
            assert page.count(f'id="{anchor(word)}"') == 1
            own = re.sub(rf"⟦{re.escape(anchor(word))}\|([^⟧]+)⟧", r"⟪\1⟫", text)
            own = re.sub(r"⟦[^|]+\|[^⟧]+⟧", "", own)  # words of other entries
            for other in longer.get(word, ()):
                for use in reversed(uses(other, own)):
                    own = own[: use.start()] + own[use.end() :]
            if places := uses(word, own):
                assert own[places[0].start() - 1] == "⟪", f"{name}: {word}"


def test_every_technical_word_of_the_page_has_an_entry(tool: dict[str, Any]) -> None:
    named = {form for word in GLOSSARY for form in forms(word)}
    assert set(TECHNICAL) <= named
    assert set(USUAL_LETTERS) <= MEANINGS.keys()
    assert all(explanation.endswith(".") for explanation in GLOSSARY.values())
    known = named | {piece for form in named for piece in re.split("[ -]", form)} | NO_TERMS
    for text in linked_texts(tool).values():
        plain = re.sub(r"⟦[^|]+\||⟧", "", text)
        # Abbreviations and names: a capital or a digit within a word.
        marked = set(re.findall(r"(?<![\w.-])\w*[a-z_]*(?:\w[A-Z]|[A-Za-z]\d)[\w²]*", plain))
        assert {word for word in marked if word not in known} == set()


def test_twenty_questions_are_answered_by_sentences_of_the_page(tool: dict[str, Any]) -> None:
    questions = tool["QUESTIONS"]
    assert len(questions) == 20
    for text in linked_texts(tool).values():
        lesson = re.split("Test yourself|Every letter of the formula is a slider", text)[0]
        plain = re.sub(r"\s+", " ", re.sub(r"⟦[^|]+\||⟧", "", lesson))
        code = re.sub(r"\s+", " ", html.unescape(tool["HTML"].read_text(encoding="utf-8")))
        for each in questions:
            assert each.question.endswith("?")
            for sentence in each.sentences:
                assert sentence in plain or f"<code>{sentence}</code>" in code, sentence
    page = tool["PAGE"].read_text(encoding="utf-8")
    asked, answered = page.index("## Test yourself"), page.index("## Answers")
    for each in questions:
        assert each.answer not in page[asked:answered]
        assert each.answer in html.unescape(page[answered:])


def test_a_browser_shows_it_with_its_calculator(tool: dict[str, Any], tmp_path: Path) -> None:
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(NAMES)}")
    browser = Browser(binary, tmp_path / "profile")
    try:
        browser.view(400, 900)
        browser.open(tool["HTML"])
        assert browser.problems == []
        assert browser.requests == [tool["HTML"].as_uri()]
        assert browser.run("document.documentElement.scrollWidth") == 400
        assert browser.run("document.getElementById('calculated').textContent") == "1,055,488"
        lesson = "document.querySelector('#where .diagram').textContent"
        before = browser.run(lesson)
        browser.run("document.getElementById('slider-L').focus()")
        browser.press("ArrowRight", 39)
        assert browser.run("document.getElementById('calculated').textContent") != "1,055,488"
        assert browser.run(lesson) == before  # the text beside it tells of that model
        check_that_letters_follow_until_they_are_moved(browser)
        browser.run("location.hash = 'word-KV-cache'")
        assert browser.run("document.getElementById('word-KV-cache').textContent").startswith("KV")
        assert browser.run("document.querySelector('#glossary details').open") is True
    finally:
        browser.close()


def check_that_letters_follow_until_they_are_moved(browser: Browser) -> None:
    config = minilm.preset("nano")

    def enter(name: str, value: int) -> None:
        browser.run(
            f"(n => {{ n.value = {value}; n.dispatchEvent(new Event('change')); }})"
            f"(document.getElementById('number-{name}'))"
        )

    def shown(name: str) -> int:
        return int(browser.run(f"document.getElementById('number-{name}').value"))

    browser.run("document.getElementById('reset').click()")
    assert config.num_kv_heads == config.num_heads
    enter("d", 192)
    enter("h", 6)
    assert (shown("f"), shown("g")) == (4 * 192, 6)
    wider = replace(config, d_model=192, d_feed_forward=768, num_heads=6, num_kv_heads=6)
    total = browser.run("document.getElementById('calculated').textContent")
    assert total == f"{layout(replace(wider, head_dim=32)).count():,}"
    drawn = browser.run("document.querySelector('#calculator .diagram').textContent")
    assert "768 × 192 + 768" in drawn  # with its biases, and 192 gains and biases of a norm
    assert "192 + 192" in drawn
    hint = "document.querySelector('[data-follows=f]').hidden"
    assert browser.run(hint) is False
    enter("f", 500)
    enter("g", 2)
    enter("d", 384)
    enter("h", 12)
    assert (shown("f"), shown("g")) == (500, 2)
    assert browser.run(hint) is True
    browser.run("document.getElementById('reset').click()")
    enter("d", 256)
    assert (shown("f"), shown("g")) == (1024, 4)
