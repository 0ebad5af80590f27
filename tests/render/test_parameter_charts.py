"""Parameters through time: what is drawn of parameters.jsonl, in bounded size, and what the slider shows."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minilm
from minilm.render.html import page
from minilm.render.parameter_charts import (
    MAX_COMPONENTS,
    MAX_MOMENTS,
    ParameterCharts,
    parameter_charts,
)
from minilm.runs.attention_maps import LEVELS
from minilm.runs.history import RunHistory
from minilm.runs.logs import HISTOGRAM_BINS, read_parameters
from tests.render.browser import NAMES, Browser, find_chromium


def line(step: int, values: np.ndarray[Any, Any], limit: float, layers: int = 2) -> dict[str, Any]:
    """Of one component, with ``layers`` norms of 3 and 4 in turn."""
    counts = np.histogram(values, HISTOGRAM_BINS, (-limit, limit))[0].tolist()
    fields: dict[str, Any] = {"limit": limit, "counts": counts, "outside": 0}
    fields["norm"] = [3.0 + number % 2 for number in range(layers)]
    if step:
        fields |= {"update": [0.1] * layers, "gradient": [2.0**-step] * layers}
    return {"step": step, "seconds": 1.0, "components": {"attention query": fields}}


def growing(moments: int = 5) -> list[dict[str, Any]]:
    """Values that are twice as large in each moment."""
    values = np.random.default_rng(0).normal(size=5000) / 100
    return [line(10 * n, values * 2**n, 2.0 ** (n - 4)) for n in range(moments)]


def charts_of(lines: list[dict[str, Any]]) -> ParameterCharts:
    charts = parameter_charts(lines)
    assert charts is not None
    return charts


def test_every_moment_is_drawn_on_one_axis() -> None:
    charts = charts_of(growing())
    (component,) = charts.components
    assert charts.steps == (0, 10, 20, 30, 40)
    widths = []
    for frame in component.frames:
        heights = [LEVELS.index(letter) for letter in frame]
        assert max(heights) == len(LEVELS) - 1
        assert component.zero is not None
        middle = component.zero / 100 * len(heights) - 0.5
        weights = np.array(heights) / sum(heights)
        widths.append(math.sqrt(np.sum(weights * (np.arange(len(heights)) - middle) ** 2)))
    # A bin is as wide as 0.8 deviations at the start, and what is in one is drawn in its middle.
    assert all(1.6 < b / a < 2.1 for a, b in itertools.pairwise(widths[1:]))
    norm, update, gradient = component.curves
    assert norm.values == ("5",) * 5
    assert update.values == ("–", *("0.1",) * 4)
    assert gradient.values[1] == f"{math.sqrt(2) * 2.0**-10:.3g}"
    assert len(norm.paths) == 2


@pytest.mark.parametrize(
    "change",
    [
        *({"limit": each} for each in (0, -1.0, math.nan, math.inf, True, "1", None)),
        *(
            {"counts": each}
            for each in (None, [1], [1.5] * 128, [-1] * 128, [0] * 128, ["1"] * 128)
        ),
    ],
    ids=str,
)
def test_a_component_that_is_not_in_numbers_is_left_out(change: dict[str, Any]) -> None:
    lines = growing()
    for each in lines:
        each["components"]["norm"] = copy.deepcopy(each["components"]["attention query"])
    lines[2]["components"]["norm"] |= change
    assert [each.name for each in charts_of(lines).components] == ["attention query"]


@pytest.mark.parametrize("norm", [None, 3, ["x"], [math.nan], [-1], [1e308] * 2, [[]], [0, 0]])
def test_any_norms_can_be_drawn(norm: Any) -> None:
    lines = growing()
    lines[3]["components"]["attention query"] |= {"norm": norm, "update": norm, "gradient": norm}
    assert page(minilm.inspect("nano"), history=RunHistory([{"step": 1}], parameters=lines))


def test_without_two_moments_nothing_is_drawn(tmp_path: Path) -> None:
    assert parameter_charts([]) is None
    assert parameter_charts(growing(1)) is None
    assert parameter_charts([growing(1)[0], growing(1)[0]]) is None
    assert parameter_charts([each | {"components": {}} for each in growing()]) is None
    report, metrics = minilm.inspect("nano"), [{"step": 1}]
    text = page(report, history=RunHistory(metrics))
    assert 'id="learning"' not in text
    path = tmp_path / "parameters.jsonl"
    path.write_text('{"step": 1, "components": []}\n{"step": 2}\n{"step": 3, "comp')
    assert read_parameters(path) == []


def test_a_long_run_of_a_deep_model_is_drawn_in_bounded_size() -> None:
    values, lines = np.random.default_rng(0).normal(size=5000), []
    for step in range(300):
        each = line(step * 1000, values, 4.0, layers=200)
        fields = each["components"].pop("attention query")
        each["components"] = {f"component {n}": fields for n in range(40)}
        lines.append(each)
    charts = charts_of(lines)
    assert len(charts.steps) == MAX_MOMENTS
    assert charts.steps[-1] == 299_000
    assert len(charts.components) == MAX_COMPONENTS
    assert charts.note
    report, metrics = minilm.inspect("nano"), [{"step": 1}]
    pages = [page(report, history=RunHistory(metrics, parameters=each)) for each in ([], lines)]
    assert len(pages[1]) - len(pages[0]) < 600_000
    assert len(json.dumps(charts.script_values())) < 150_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH")
    browser = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_the_slider_moves_the_picture(browser: Browser, tmp_path: Path) -> None:
    lines = growing()
    for each in lines:
        each["components"]["<b>&"] = each["components"]["attention query"]
    path = tmp_path / "page.html"
    history = RunHistory([{"step": 1}], parameters=lines)
    path.write_text(page(minilm.inspect("nano"), history=history), encoding="utf-8")
    for width, scheme in ((1100, "light"), (400, "dark")):
        browser.view(width, 900, scheme)
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth") == width
        shown = "document.querySelector('.learned .values').getAttribute('d')"
        step = "document.getElementById('moment-step').textContent"
        last = browser.run(shown)
        # What is there without the script is what the script draws.
        assert last == charts_of(lines).components[0].last
        assert browser.run(step) == "40"
        browser.run("document.getElementById('moment').focus()")
        browser.press("Home", 36)
        assert browser.run(step) == "0"
        assert browser.run("document.querySelectorAll('.learned output')[1].textContent") == "–"
        assert browser.run(shown) != last
        browser.press("ArrowRight", 39)
        assert browser.run(step) == "10"
        now = "document.querySelector('.learned .now').getAttribute('d')"
        assert browser.run(now) == "M25 0V40"
        browser.run("document.getElementById('play').click()")
        browser.run("new Promise(done => setTimeout(done, 1500))")
        assert browser.run(step) == "40"
        assert browser.run("document.getElementById('play').textContent") == "Play"
        assert browser.run("document.querySelectorAll('.learned b').length") == 0
        assert browser.problems == []
