"""The HTML report: its text, and what it does in a real browser that can reach no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import minilm
from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from minilm.render.html import MAX_SAMPLES, page, script_json
from minilm.runs.history import RunHistory, read_history
from minilm.safe_text import one_line
from tests.render.browser import NAMES, Browser, find_chromium
from tests.render.reports import HOSTILE, hostile_report, large_report, layers_of

METRICS = [
    {"step": n, "seconds": 2.0 * n, "train_loss": 3.0 / n, "lr": 0.1}
    | ({"val_loss": 4.0 / n, "val_bits_per_byte": 2.0} if n % 5 == 0 else {})
    for n in range(1, 21)
]
HISTORY = RunHistory(METRICS)
OVERFITTED = [
    line | ({"val_loss": 4 - line["step"] % 10 / 5} if "val_loss" in line else {})
    for line in METRICS
]


def scripts(text: str) -> list[str]:
    """The content of every script element that runs."""
    return re.findall(r"<script>(.*?)</script>", text, re.DOTALL)


def test_only_the_script_of_the_page_may_run_and_nothing_may_be_fetched() -> None:
    text = page(hostile_report())
    policy = html.unescape(
        re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0]
    )
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts(text)
    ]
    assert len(hashes) == 1
    assert directives == {
        "default-src": "'none'",
        "script-src": " ".join(hashes),
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_text_is_escaped_wherever_it_stands() -> None:
    text = page(hostile_report())
    for script in scripts(text):
        text = text.replace(script, "")
    for name in HOSTILE:
        if one_line(name) != html.escape(one_line(name)):
            assert one_line(name) not in text, name
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\u2028\u2029\ud800-\udfff]", text)
    assert text.count("<script") == text.count("</script") == 2
    assert "<img" not in text
    links = re.findall(r'(?:href|src|action)="([^"]*)"', text)
    assert links
    assert all(link.startswith("#") for link in links)


def test_json_cannot_end_its_element() -> None:
    value = {"</script><!--": "\u2028&\u2029"}
    assert not set(script_json(value)) & set("<>&\u2028\u2029")
    assert json.loads(script_json(value)) == value


def test_the_same_report_gives_the_same_page() -> None:
    report = minilm.inspect("nano")
    assert page(report) == page(report)


def test_a_module_has_a_page_without_a_formula() -> None:
    text = page(minilm.inspect(nn.Linear(4, 2)))
    assert ">10</output>" in text
    assert 'id="formula"' not in text
    assert 'class="heat-map"' not in text


def test_a_long_table_is_cut_and_says_so() -> None:
    report = minilm.inspect("nano")
    text = page(replace(report, tied=tuple((f"a{n}", f"b{n}") for n in range(1000))))
    assert "a199<" in text
    assert "a200<" not in text
    assert "800 more rows are in the JSON report" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(NAMES)}")
    chromium = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


def show(browser: Browser, folder: Path, text: str, **view: Any) -> Browser:
    """Open a page, and require that it asked for nothing and complained of nothing."""
    browser.view(**({"width": 1200, "height": 900} | view))
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    browser.open(path)
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]
    return browser


@pytest.fixture(scope="module")
def gpt2(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """GPT-2 and some curves, loaded once: each test that looks at it uses controls of its own."""
    text = page(minilm.inspect("gpt2"), history=HISTORY)
    return show(browser, tmp_path_factory.mktemp("page"), text)


ROWS = "[...document.querySelectorAll('#tensor-table tbody tr')].map(r => r.cells[{}].textContent)"


def luminance(colour: str) -> float:
    red, green, blue = (int(n) / 255 for n in re.findall(r"\d+", colour)[:3])
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(browser: Browser, selector: str) -> float:
    ink = browser.run(f"getComputedStyle(document.querySelector({json.dumps(selector)})).color")
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_convention_switch_changes_the_headline(gpt2: Browser) -> None:
    headline = "document.getElementById('count').textContent"
    meaning = "document.getElementById('meaning').textContent"
    assert gpt2.run(headline) == "124,439,808"
    before = gpt2.run(meaning)
    gpt2.run("document.querySelector('[name=convention]').focus()")
    for _ in range(3):  # by keyboard: total, trainable, embedding, non-embedding
        gpt2.press("ArrowRight", 39)
    assert gpt2.run(headline) == "85,056,000"
    assert gpt2.run(meaning) != before


def test_the_tensor_table_is_sorted_and_searched_by_keyboard(gpt2: Browser) -> None:
    names, counts = ROWS.format(0), ROWS.format(3)
    header = "document.querySelector('th[data-key={}]')"
    gpt2.run(header.format("count") + ".querySelector('button').focus()")
    gpt2.press("Enter", 13, "\r")
    assert gpt2.run(header.format("count") + ".getAttribute('aria-sort')") == "descending"
    assert gpt2.run(counts)[:2] == ["38,597,376", "2,359,296"]
    gpt2.press("Enter", 13, "\r")
    assert gpt2.run(header.format("count") + ".getAttribute('aria-sort')") == "ascending"
    assert gpt2.run(counts)[0] == "768"
    gpt2.run(header.format("name") + ".querySelector('button').click()")
    assert gpt2.run("document.querySelectorAll('[aria-sort]').length") == 1
    gpt2.run("document.getElementById('search').focus()")
    gpt2.type("QUERY weight")
    # Layer 2 before layer 10.
    assert gpt2.run(names) == [f"blocks.{n}.attention.query.weight" for n in range(12)]
    assert gpt2.run("document.getElementById('matches').textContent") == (
        "12 of 196 tensors, 7,077,888 elements"
    )
    gpt2.type(" no such tensor")
    assert gpt2.run(names) == []
    assert gpt2.problems == []


SHOWN_LABELS = (
    "[...document.querySelectorAll('.treemap .box span')]"
    ".filter(e => getComputedStyle(e).display !== 'none')"
)


def test_a_label_of_the_treemap_stands_where_it_fits_as_a_whole(gpt2: Browser) -> None:
    boxes = "document.querySelectorAll('.treemap .box')"
    assert gpt2.run(f"{boxes}.length") == 11
    assert gpt2.run("document.querySelectorAll('.treemap i').length") == 194
    first = f"{boxes}[0].title"
    assert gpt2.run(first) == "token embedding: 38,597,376 parameters, 31.02%; 1 tensor"
    for width in (1200, 800, 400):
        gpt2.view(width, 900)
        labels = gpt2.run(f"{SHOWN_LABELS}.map(e => e.textContent)")
        assert bool(labels) == (width > 400)
        cut = gpt2.run(
            f"{SHOWN_LABELS}.filter(e => e.getBoundingClientRect().right >"
            " e.parentElement.getBoundingClientRect().right).length"
        )
        assert cut == 0, width
    gpt2.view(1200, 900)


def test_curves_go_against_steps_or_seconds(gpt2: Browser) -> None:
    shown = (
        "[...document.querySelectorAll('.plot')].filter(e => e.offsetParent)"
        ".map(e => e.querySelector('b').textContent + ' ' + e.querySelector('.axis').textContent)"
    )
    titles = ("loss", "bits per byte", "learning rate")
    assert gpt2.run(shown) == [f"{title} steps" for title in titles]
    gpt2.run("document.querySelector('[name=axis][value=seconds]').click()")
    assert gpt2.run(shown) == [f"{title} seconds" for title in titles]
    gpt2.run("document.querySelector('[name=axis][value=steps]').click()")


def test_the_values_under_the_pointer_are_told(gpt2: Browser) -> None:
    move = (
        "(fraction => {{ const area = document.querySelector('.plot-area');"
        " const box = area.getBoundingClientRect(); area.dispatchEvent(new PointerEvent("
        "'pointermove', {{ clientX: box.left + fraction * box.width, clientY: box.top + 5 }}));"
        " return document.querySelector('.plot output').textContent; }})({})"
    )
    assert gpt2.run(move.format(0.5)) == "steps 10: training 0.3, validation 0.4"
    assert gpt2.run(move.format(0.56)) == "steps 11: training 0.27273, validation 0.4 (steps 10)"
    assert gpt2.run("document.querySelector('.plot .cursor').style.left") == "55%"
    gpt2.run("document.querySelector('.plot-area').dispatchEvent(new PointerEvent('pointerleave'))")
    assert gpt2.run("document.querySelector('.plot output').textContent") == ""


def test_a_run_comes_first_and_its_curves_before_any_table_of_tensors(gpt2: Browser) -> None:
    keys = gpt2.run("[...document.querySelectorAll('main > section[id]')].map(e => e.id)")
    assert keys[:3] == ["training", "components", "layers"]
    assert keys[-1] == "tensors"


def test_light_dark_and_print_are_legible(gpt2: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    gpt2.view(1200, 900, "dark")
    dark = gpt2.run(paper)
    assert luminance(dark) < 0.05
    for scheme in ("dark", "light"):
        gpt2.view(1200, 900, scheme)
        for selector in ("h1", "#meaning", "figcaption", "nav a", "thead th", ".architecture"):
            assert contrast(gpt2, selector) >= 4.5, (scheme, selector)
    light = gpt2.run(paper)
    assert luminance(light) > 0.9
    toggle = "document.getElementById('theme').click()"
    gpt2.run(f"{toggle}, {toggle}")
    assert gpt2.run(paper) == dark
    gpt2.view(1200, 900, "dark", media="print")
    assert gpt2.run(paper) == "rgb(255, 255, 255)"
    gpt2.run(toggle)
    assert gpt2.run("document.getElementById('theme').textContent") == "Theme: system"
    gpt2.view(1200, 900)


def test_the_first_key_reaches_a_visible_skip_link(gpt2: Browser) -> None:
    first = "document.querySelector('a, button, input, [tabindex]')"
    assert gpt2.run(f"{first}.className") == "skip"
    gpt2.run(f"{first}.focus()")
    assert gpt2.run(f"{first}.getBoundingClientRect().left") >= 0
    gpt2.press("Enter", 13, "\r")
    assert gpt2.run("document.activeElement.id") == "main"


@pytest.fixture(scope="module")
def run_page(tiny_run: Path) -> str:
    """The page that a run leaves, with statistics and curves."""
    inspection = inspect_with_sources(str(tiny_run))
    report = extras.with_statistics(inspection, None)
    return page(report, history=read_history(tiny_run))


@pytest.mark.parametrize("width", [360, 400, 641, 700, 800, 900, 950, 1000, 1100])
@pytest.mark.parametrize("target", ["run", "llama-3-70b"])
def test_no_digit_is_cut(
    browser: Browser, tmp_path: Path, run_page: str, target: str, width: int
) -> None:
    text = run_page if target == "run" else page(minilm.inspect(target))
    show(browser, tmp_path, text, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    hidden = browser.run(
        "[...document.querySelectorAll('td, .plot .x, .plot .y span, output, h1')].filter(e => {"
        " const box = e.getBoundingClientRect(), around = e.closest('.scroll');"
        " const right = around ? around.getBoundingClientRect().right : innerWidth;"
        " return box.width && (box.right > right + 1 || box.left < 0); }).map(e => e.textContent)"
    )
    assert hidden == []


def test_a_page_is_small(run_page: str) -> None:
    for text in (run_page, page(minilm.inspect("llama-3-70b")), page(large_report())):
        assert len(text.encode()) < 1_500_000


def test_a_run_is_drawn(browser: Browser, tmp_path: Path, tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    show(browser, tmp_path, page(report, history=read_history(tiny_run)))
    assert browser.run("document.querySelectorAll('.treemap .box').length") > 5
    # All layers are alike.
    assert browser.run("document.querySelectorAll('.heat-map').length") == 0
    assert browser.run("document.querySelectorAll('.plot path:not(.markers)').length") > 5
    assert browser.run("document.querySelector('.verdict').classList.contains('verified')")
    assert browser.run("document.getElementById('count').textContent") == (
        f"{report.parameters.total:,}"
    )


def test_layers_that_differ_have_a_heat_map(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, page(layers_of(*[8] * 11, 16, 0)))
    shades = "[...document.querySelectorAll('.heat-map td')].map(e => e.style.getPropertyValue('--shade'))"
    assert browser.run(shades) == ["0.75", "0.00", "1.00", "0.00", "", "0.00"]
    title = "document.querySelector('.heat-map td').title"
    assert browser.run(title) == "mlp.up: 32 elements: 4 × 8, float32"


def test_the_point_of_overfitting_is_marked_on_both_axes(browser: Browser, tmp_path: Path) -> None:
    turned = next(line for line in OVERFITTED if line["step"] == 5)
    history = RunHistory(
        OVERFITTED, findings=["Overfitting since step 5."], overfitting_from=turned
    )
    show(browser, tmp_path, page(minilm.inspect("nano"), history=history))
    assert "Overfitting since step 5." in browser.run(
        "document.getElementById('training').textContent"
    )
    marks = "[...document.querySelectorAll('.plot.{} .mark')].map(e => e.style.left)"
    for axis in ("steps", "seconds"):
        assert browser.run(marks.format(axis)) == ["25%"] * 3
    assert browser.run("document.getElementById('turned').textContent").startswith("The dotted")


def test_where_validation_only_fell_nothing_is_marked(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, page(minilm.inspect("nano"), history=HISTORY))
    assert browser.run("document.querySelectorAll('.mark, #turned').length") == 0


def test_samples_are_shown_through_time_as_text(browser: Browser, tmp_path: Path) -> None:
    samples = [{"step": n, "text": f"<b>{n}</b>\n\x1b[31m{HOSTILE[0]}"} for n in range(0, 1000, 10)]
    text = page(minilm.inspect("nano"), history=RunHistory(METRICS, samples))
    show(browser, tmp_path, text)
    shown = "[...document.querySelectorAll('.samples li')].map(e => e.textContent)"
    rows = browser.run(shown)
    assert len(rows) == MAX_SAMPLES
    assert rows[0].startswith("step 0<b>0</b>\n")
    assert rows[-1].startswith("step 990<b>990</b>\n")
    assert not any("\x1b" in row for row in rows)
    assert browser.run("document.querySelectorAll('.samples b').length") == 0


def test_45_000_tensors_are_shown_a_window_at_a_time(browser: Browser, tmp_path: Path) -> None:
    report = large_report()
    text = page(report)
    show(browser, tmp_path, text)
    names = ROWS.format(0)
    assert browser.run(names) == [row.name for row in report.tensors[:100]]
    browser.run("document.getElementById('next').click()")
    assert browser.run(names) == [row.name for row in report.tensors[100:200]]
    browser.run("document.getElementById('search').focus()")
    browser.type("layers.57.mlp.experts.255")
    assert browser.run(names) == [row.name for row in report.tensors[-3:]]
    assert browser.run("document.querySelectorAll('.treemap *').length") < 1000


def test_hostile_text_is_shown_and_nothing_of_it_runs(browser: Browser, tmp_path: Path) -> None:
    report = hostile_report()
    show(browser, tmp_path, page(report, history=HISTORY))
    names, components = browser.run(ROWS.format(0)), browser.run(ROWS.format(4))
    assert names == [one_line(row.name) for row in report.tensors]
    assert components == [one_line(name) for name in HOSTILE]
    assert browser.run("document.querySelector('h1').textContent") == one_line(HOSTILE[0])
    shown = browser.run("[...document.querySelectorAll('.verdict li')].map(e => e.textContent)")
    assert shown == [one_line(name) for name in HOSTILE]
    # The page's own <b> are the titles of its curves.
    assert (
        browser.run(
            "document.querySelectorAll('main img, main a:not(.word), main b:not(figcaption > b)').length"
        )
        == 0
    )
    matrices = browser.run(
        "[...document.querySelectorAll('.heat-map thead span')].map(e => e.textContent)"
    )
    assert "{{7*7}}{% raw %}" in matrices
    assert "&lt;b&gt;%{x}" in matrices
    assert "hit" not in browser.run("document.title").replace(one_line(HOSTILE[0]), "")
    assert browser.problems == []
