"""The maps of attention and weights in the page: what is chosen is drawn, in bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import minilm
from minilm.cli.inspect import main
from minilm.inspection.weight_maps import WeightMap
from minilm.render.heat_maps import heat_maps
from minilm.render.html import page
from minilm.runs.attention_maps import LEVELS, AttentionMaps
from minilm.runs.history import RunHistory
from tests.render.browser import NAMES, Browser, find_chromium

TOKENS = ("<b>", " a", "\n")
ATTENTION = AttentionMaps(9, TOKENS, (0, 3), (("_0_00_", "_0_0_0"), ("_0__00", "_0_0VV")))


def weights(layer: str, matrix: str, heads: int = 0, *, across: bool = False) -> WeightMap:
    """Four by four blocks of eight by eight values, larger from block to block."""
    values = tuple(float(number) for number in range(15))
    return WeightMap(layer, matrix, (8, 8), 4, 4, (*values, None), heads, across)


WEIGHTS = (
    weights("blocks.0", "attention.query", 2),
    weights("blocks.0", "attention.output", 2, across=True),
    weights("blocks.1", "up"),
    weights("", "embedding.token"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH")
    browser = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def choose(browser: Browser, name: str, value: str) -> None:
    where = f"document.getElementById('{name}')"
    browser.run(f"{where}.value = {json.dumps(value)}; {where}.dispatchEvent(new Event('input'))")


def alphas(browser: Browser, name: str) -> list[float]:
    """How much colour each cell of a canvas has, row by row."""
    return browser.run(
        f"(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        f".filter((_, n) => n % 4 === 3).map(a => a / 255))(document.getElementById('{name}'))"
    )


def test_the_chosen_layer_head_and_matrix_is_drawn(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    text = page(
        minilm.inspect("nano"),
        history=RunHistory([{"step": 1}], attention=ATTENTION),
        weights=WEIGHTS,
    )
    path.write_text(text, encoding="utf-8")
    for width, scheme in ((1100, "light"), (400, "dark")):
        browser.view(width, 900, scheme)
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth") == width
        shown = "[...document.querySelectorAll('#attention-tokens span')].map(e => e.textContent)"
        assert browser.run(shown) == ["<b>", "␣a", "↵"]
        choose(browser, "attention-layer", "1")
        choose(browser, "attention-head", "1")
        detail = "document.getElementById('attention-detail').textContent"
        assert browser.run(detail).endswith(", attends most to token 2, ␣a: 24.2%.")
        browser.run("document.getElementById('attention-token').focus()")
        browser.press("ArrowLeft", 37)
        assert "Token 2, ␣a, attends most to token 2, ␣a: 100%" in browser.run(detail)
        drawn = alphas(browser, "attention-map")
        assert drawn[0] == drawn[4] == 1
        assert drawn[1] == drawn[2] == drawn[6] == 0
        assert 0.4 < drawn[7] < 0.6

        expected = [
            LEVELS.index(c) / 63
            for c in heat_maps(None, WEIGHTS, of_run=True).script_values()["weights"][0]["cells"]
        ]  # type: ignore[union-attr]
        assert alphas(browser, "weights-map") == pytest.approx(expected, abs=0.02)
        assert expected[-1] == 0
        choose(browser, "weights-head", "1")
        assert alphas(browser, "weights-map") == pytest.approx(expected[8:], abs=0.02)
        choose(browser, "weights-matrix", "attention.output")
        right = [share for n, share in enumerate(expected) if n % 4 > 1]
        assert alphas(browser, "weights-map") == pytest.approx(right, abs=0.02)
        choose(browser, "weights-layer", "blocks.1")
        assert browser.run("document.getElementById('weights-head').parentElement.hidden")
        assert len(alphas(browser, "weights-map")) == 16
        assert "up, 8 × 8" in browser.run("document.getElementById('weights-detail').textContent")
        colour = "document.getElementById('weights-map').getContext('2d').fillStyle"
        before = browser.run(colour)
        browser.run(
            "document.getElementById('theme').click(), document.getElementById('theme').click()"
        )
        browser.run("new Promise(done => setTimeout(done, 50))")
        assert (browser.run(colour) != before) == (scheme == "light")
        browser.run("localStorage.clear()")
        assert browser.problems == []


def test_the_page_says_why_there_is_no_attention(tiny_run: Path, tmp_path: Path) -> None:
    assert heat_maps(None, (), of_run=True) is None
    notes = [heat_maps(None, WEIGHTS, of_run=of_run) for of_run in (True, False)]
    assert [each.note.split(":")[0] for each in notes if each] == [
        "There are no attention maps",
        "Attention maps are there for runs that minilm trained.",
    ]
    file = tmp_path / "page.html"
    for options, matrices in (([], 0), (["--stats"], 14)):
        arguments = [str(tiny_run), "--html", str(file), "--json", "/dev/null", "--no-live"]
        assert main([*arguments, *options]) == 0
        text = file.read_text(encoding="utf-8")
        assert 'id="attention-map"' in text
        assert text.count('"matrix":') == matrices
    assert 'id="weights-map"' in (tiny_run / "report.html").read_text(encoding="utf-8")


def test_many_maps_are_drawn_in_bounded_size() -> None:
    values = tuple(float(n) for n in range(48 * 48))
    maps = [WeightMap("a", f"m{n}", (999, 999), 48, 48, values) for n in range(64)]
    attention = AttentionMaps(1, ("x",) * 48, tuple(range(16)), (("0" * 1176,) * 10,) * 16)
    drawn = heat_maps(attention, maps, of_run=True)
    assert drawn is not None
    assert len(json.dumps(drawn.script_values())) < 400_000
