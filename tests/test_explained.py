"""docs/parameters-explained is what running it gives, and answers its questions."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from minilm.ledger.symbols import MEANINGS
from minilm.render.glossary import GLOSSARY, USUAL_LETTERS
from tests.conftest import ROOT
from tests.render.browser import NAMES, Browser, find_chromium

TOOL = ROOT / "scripts" / "tools" / "explained.py"
MOST_BYTES = 300_000
# What a reader must find on the page; each word has its entry.
WORDS = ("nats", "bits a byte", "MFU", "KV cache", "LoRA", "quantization", "tied", "gradient")


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def test_the_page_is_what_running_it_gives(tool: dict[str, Any]) -> None:
    content = tool["sections"]()
    made = {
        "PAGE": tool["markdown"](content),
        "HTML": tool["html"](content),
        "DRAWING": tool["drawing"](),
    }
    for name, text in made.items():
        path: Path = tool[name]
        assert path.read_text(encoding="utf-8") == text, f"run: python scripts/tools/{TOOL.name}"
        assert len(text.encode()) < MOST_BYTES


def test_twenty_questions_have_answers_and_every_word_an_entry(tool: dict[str, Any]) -> None:
    answers = tool["answers"]()
    assert len(answers) == 20
    text = tool["PAGE"].read_text(encoding="utf-8")
    for question, answer in answers:
        assert question.endswith("?")
        assert question in text
        assert answer
        assert "{" not in answer
    assert set(WORDS) <= GLOSSARY.keys()
    assert set(USUAL_LETTERS) <= MEANINGS.keys()
    for word, explanation in GLOSSARY.items():
        assert explanation.endswith("."), word


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
        browser.run("location.hash = 'word-KV-cache'")
        assert browser.run("document.getElementById('word-KV-cache').textContent").startswith("KV")
    finally:
        browser.close()
