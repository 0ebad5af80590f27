"""The calculator computes in the browser what Python computes, whatever the letters are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.costs.flops import flops_per_token
from minilm.costs.memory import kv_cache_bytes, training_state, weight_bytes
from minilm.ledger.layout import Layout
from minilm.render.calculator import Calculator, calculator, calculator_of
from minilm.render.html import page
from tests.render.browser import NAMES, Browser, find_chromium

SETTINGS = 1000
FIELDS = {
    "V": "vocab_size",
    "L": "num_layers",
    "d": "d_model",
    "f": "d_feed_forward",
    "h": "num_heads",
    "g": "num_kv_heads",
    "T": "context_length",
}
# Learned positions make T a letter of the count, a window one that FLOPs do not follow for ever.
CONFIG = ModelConfig(
    position="learned",
    feed_forward="swiglu",
    sliding_window=900,
    num_kv_heads=2,
    norm="rmsnorm",
    tied_embeddings=True,
)


def settings(draw: random.Random) -> dict[str, Any]:
    """Letters that obey the rules: h divides d into even parts, g divides h."""
    width = 2 * draw.randint(1, 8000)
    heads = draw.choice([n for n in range(1, 129) if width % (2 * n) == 0])
    return {
        "V": draw.randint(1, 500_000),
        "L": draw.randint(1, 128),
        "d": width,
        "f": draw.randint(1, 30_000),
        "h": heads,
        "g": draw.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "T": draw.choice([draw.randint(1, 2000), draw.randint(1, 2**20)]),
        "B": draw.randint(1, 1000),
        "cards": draw.randint(1, 1000),
        "bits": draw.choice(["float32", "float16", "bfloat16", "int8", "int4"]),
        "cache_bits": draw.choice(["float32", "float16", "bfloat16", "int8"]),
    }


def expected(config: ModelConfig, chosen: Mapping[str, Any]) -> dict[str, int]:
    """What minilm says of the model with these letters, declared anew."""
    layout = minilm_layout(config)
    context, batch, cards = config.context_length, chosen["B"], chosen["cards"]
    flops = flops_per_token(layout, context=context)
    step = flops["training_per_token"] * batch * context
    weights = weight_bytes(layout.count())[chosen["bits"]]
    values = {
        **flops,
        "weights": weights,
        "weights_a_card": -(-weight_bits(layout, chosen["bits"]) // (8 * cards)),
        "kv_cache": kv_cache_bytes(layout, context=context, batch=batch)[chosen["cache_bits"]],
        "step": step,
        "step_a_card": -(-step // cards),
    }
    if chosen["bits"] in ("float32", "float16", "bfloat16"):
        dtype = chosen["bits"].replace("float16", "bfloat16").replace("bb", "b")
        state = training_state(layout, f"adamw_{dtype}")["total"]
        values |= {f"training_{dtype}": state, f"training_{dtype}_a_card": -(-state // cards)}
    counts = dict.fromkeys(layout.components(), 0)
    for tensor in layout.tensors:
        counts[tensor.component] += layout.value(tensor)
    return {"total": layout.count()} | values | {f"part {n}": c for n, c in counts.items()}


def weight_bits(layout: Layout, dtype: str) -> int:
    return weight_bytes(8 * layout.count())[dtype]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(NAMES)}")
    chromium = Browser(binary, tmp_path_factory.mktemp("profile"))
    chromium.view(1200, 900)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(minilm.inspect(minilm_folder(path.parent))), encoding="utf-8")
    chromium.open(path)
    assert chromium.problems == []
    yield chromium
    chromium.close()


def minilm_folder(folder: Path) -> Path:
    from minilm.config import to_dict

    config = {"family": "minilm", "model": to_dict(CONFIG)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "config.json"


# Fills in each setting, tells the page of it once, and reads what is shown.
DRIVE = """
(all => {
  const text = (node) => node.textContent.replaceAll(",", "");
  const data = JSON.parse(document.getElementById("data").textContent).calculator;
  const costs = [...document.querySelectorAll("#calculator [data-cost]")];
  const parts = [...document.querySelectorAll("#calculator [data-part]")];
  return all.map(chosen => {
    for (const [name, value] of Object.entries(chosen)) {
      document.getElementById(name.endsWith("bits") ? name : `number-${name}`).value = value;
    }
    document.getElementById("number-V").dispatchEvent(new Event("change"));
    const shown = { total: text(document.getElementById("calculated")) };
    costs.forEach((row, i) => {
      if (!row.hidden && text(row.cells[2])) shown[data.costs[i].key] = text(row.cells[2]);
    });
    parts.forEach((row, i) => { shown[`part ${data.parts[i].name}`] = text(row.cells[1]); });
    return shown;
  });
})(%s)
"""


def test_a_thousand_random_settings_give_the_numbers_of_python(browser: Browser) -> None:
    draw = random.Random(16)
    chosen = [settings(draw) for _ in range(SETTINGS)]
    shown = browser.run(DRIVE % json.dumps(chosen))
    assert browser.problems == []
    largest = 0
    for letters, values in zip(chosen, shown, strict=True):
        fields = {FIELDS[name]: value for name, value in letters.items() if name in FIELDS}
        model = CONFIG.__dict__ | fields | {"head_dim": None, "rotary_dim": None}
        config = ModelConfig(**model)
        assert {name: int(value) for name, value in values.items()} == expected(config, letters)
        largest = max(largest, *map(int, values.values()))
    assert largest > 2**53  # where a double would no longer be exact


def test_a_rule_is_kept_and_said(browser: Browser) -> None:
    browser.run("document.getElementById('reset').click()")
    assert browser.run("document.getElementById('calculator').hidden") is False
    number = "document.getElementById('number-{0}')"
    enter = f"(n => {{{{ n.value = {{1}}; n.dispatchEvent(new Event('change')); }}}})({number})"
    browser.run(enter.format("h", 7))
    assert browser.run("document.getElementById('number-h').value") == "4"
    said = browser.run("document.getElementById('rules').textContent")
    assert said == "h is 4, not 7: it divides d = 128 into even parts."
    browser.run(enter.format("h", 1))
    assert browser.run("document.getElementById('number-g').value") == "1"
    assert (
        browser.run("document.querySelector('#calculator output[data-letter=k]').textContent")
        == "128"
    )
    for letter, entered, value, text in (
        ("d", "''", "128", "d stays 128: it is a whole number from 1 to 32,768."),
        ("d", "-3", "128", "d stays 128: it is a whole number from 1 to 32,768."),
        ("d", "0", "128", "d stays 128: it is a whole number from 1 to 32,768."),
        ("L", "5.4", "5", "L is 5, not 5.4: it is a whole number here."),
        ("L", "99999", "128", "L is 128, not 99,999: it is at most 128 here."),
        ("L", "6", "6", ""),
    ):
        browser.run(enter.format(letter, entered))
        assert browser.run(f"document.getElementById('number-{letter}').value") == value
        assert browser.run("document.getElementById('rules').textContent") == text


def test_the_keyboard_moves_a_slider_and_the_drawing_follows(browser: Browser) -> None:
    browser.run("document.getElementById('reset').click()")
    drawn = "document.querySelector('#calculator .diagram').textContent"
    before, total = browser.run(drawn), browser.run("calculated.textContent")
    browser.run("document.getElementById('slider-d').focus()")
    browser.press("ArrowRight", 39)
    assert browser.run("document.getElementById('number-d').value") == "144"
    assert browser.run("calculated.textContent") != total
    assert "144 × 144" in browser.run(drawn)
    assert browser.run(drawn) != before


def evaluated(terms: list[list[Any]], values: Mapping[str, int]) -> int:
    total = 0
    for coefficient, *factors in terms:
        product = int(coefficient)
        for letter, power in zip(factors[::2], factors[1::2], strict=True):
            product *= values[letter] ** power
        total += product
    return total


def values_of(made: Calculator, letters: Mapping[str, int]) -> dict[str, int]:
    """Every letter, those that follow from others computed."""
    values: dict[str, int] = {}
    for letter in made.data()["letters"]:
        name = letter["name"]
        values[name] = letters.get(name, letter["value"])
        if "derived" in letter:
            above, below = (evaluated(part, values) for part in letter["derived"])
            assert above % below == 0
            values[name] = above // below
    return values


LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize("heads", [4, 2], ids=["all heads", "grouped"])
def test_other_architectures_follow_their_letters(heads: int) -> None:
    def declared(**fields: int) -> Layout:
        layout = layout_of(
            LLAMA | {"num_key_value_heads": heads, "intermediate_size": 100} | fields
        )
        assert layout is not None
        return layout

    made = calculator(declared())
    assert made is not None
    draw = random.Random(heads)
    for _ in range(50):
        h = draw.choice([4, 8, 16])
        grouped = h if heads == 4 else draw.choice([1, 2, h])
        letters = {
            "V": draw.randint(1, 999),
            "L": draw.randint(1, 99),
            "d": 64 * draw.randint(1, 9),
        }
        values = values_of(made, letters | {"h": h, "g": grouped, "f": draw.randint(1, 999)})
        layout = declared(
            vocab_size=values["V"],
            num_hidden_layers=values["L"],
            hidden_size=values["d"],
            num_attention_heads=values["h"],
            num_key_value_heads=values["g"],
            intermediate_size=values["f"],
        )
        total = sum(evaluated(part["count"], values) for part in made.data()["parts"])
        assert total == layout.count()


def test_what_cannot_vary_is_fixed_and_says_why() -> None:
    report = minilm.inspect("nano")
    made = calculator_of(report)
    assert made is not None
    assert {letter.name for letter in made.letters if letter.stops} == set("VLdfhgTB") | {"cards"}
    from torch import nn

    assert calculator_of(minilm.inspect(nn.Linear(4, 2))) is None
    gemma = layout_of({"model_type": "gemma3_text", "num_hidden_layers": 12})
    assert gemma is not None
    of_kinds = calculator(gemma)
    assert of_kinds is not None
    layers = next(letter for letter in of_kinds.letters if letter.name == "L")
    assert "number stays" in layers.why_fixed
    assert layers.stops == ()


def test_a_window_is_said_beside_what_it_bounds() -> None:
    windowed = calculator(minilm_layout(CONFIG))
    assert windowed is not None
    assert any("at most 900 tokens" in note for note in windowed.notes)
    whole = calculator(minilm_layout(ModelConfig()))
    assert whole is not None
    assert whole.notes == ()


def test_a_page_with_letters_that_stay_shows_the_model_as_it_is(
    browser: Browser, tmp_path: Path
) -> None:
    """The last of this file: it opens another page."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gemma3_text", "num_hidden_layers": 12}', encoding="utf-8")
    report = minilm.inspect(config)
    path = tmp_path / "report.html"
    path.write_text(page(report), encoding="utf-8")
    browser.open(path)
    assert browser.problems == []
    assert browser.run("document.getElementById('slider-L')") is None
    assert browser.run("document.getElementById('slider-d').disabled") is False
    shown = browser.run("document.getElementById('calculated').textContent")
    assert shown == f"{report.parameters.total:,}"
