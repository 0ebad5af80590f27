"""Tables of costs: every figure is there, and 80 columns are enough."""

from __future__ import annotations

from dataclasses import asdict
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from minilm.architectures.minilm import layout
from minilm.config.presets import PRESETS
from minilm.costs.activations import activation_bytes
from minilm.costs.fits import fits
from minilm.costs.memory import kv_cache_bytes, training_bytes
from minilm.inspection.activation_check import ActivationMeasurement
from minilm.render.costs import activations_table, fits_table, kv_cache_table, training_table
from minilm.units import format_bytes

LAYOUTS = [layout(PRESETS[name].model_config()) for name in ("gpt2", "llama-3-70b")]


def printed(table: RenderableType) -> str:
    """The text in 80 columns, where no cell may have been cut."""
    output = StringIO()
    Console(file=output, width=80, highlight=False).print(table)
    text = output.getvalue()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    return text


@pytest.mark.parametrize("each", LAYOUTS, ids=lambda each: str(each.count()))
def test_training_and_cache(each) -> None:
    training = training_bytes(each.count(), layout=each)
    lines = printed(training_table(training)).splitlines()[1:]
    for sizes, line in zip(training["variants"].values(), lines, strict=False):
        assert line.endswith(format_bytes(sizes["total"]))
    assert lines[1].startswith("Muon, float32")
    cache = {"context": 8192, "batch": 2, **kv_cache_bytes(each, context=8192, batch=2)}
    text = printed(kv_cache_table(cache))
    assert "2 x 8,192 tokens" in text
    assert format_bytes(cache["int8"]) in text


@pytest.mark.parametrize("each", LAYOUTS, ids=lambda each: str(each.count()))
def test_fits(each) -> None:
    found = fits(each, 24 * 10**9, context=1024)
    lines = printed(fits_table(found)).splitlines()
    assert lines[0].startswith("22.4 GiB of memory, 1 x 1,024 tokens")
    for fit, line in zip(found, lines[2:], strict=False):
        assert format_bytes(fit.required) in line
        assert (" yes " in line) == fit.fits
        assert (" * " in line) == fit.checkpointing
        assert line.split()[-1] == (f"{fit.max_batch:,}" if fit.max_batch else "-")
    assert printed(fits_table(())).startswith("no use")


def test_where_the_search_ended_there_may_be_more() -> None:
    (fit,) = (f for f in fits(LAYOUTS[0], 10**18) if f.precision == "bfloat16")
    line = printed(fits_table([fit])).splitlines()[2]
    assert line.split("yes")[1].split() == ["1,024", ">=", "1,048,576"]


def test_figures_are_whole_in_any_width() -> None:
    output = StringIO()
    each = LAYOUTS[1]
    found = fits(each, 24 * 10**9, context=1024)
    training = training_bytes(each.count(), layout=each)
    for table in (fits_table(found), training_table(training)):
        Console(file=output, width=20, highlight=False).print(table, crop=False)
    text = output.getvalue()
    assert "…" not in text
    assert all(format_bytes(fit.required) in text for fit in found)
    assert all(format_bytes(sizes["total"]) in text for sizes in training["variants"].values())
    assert "Muon" in text


def test_activations_beside_their_measurement() -> None:
    values = activation_bytes(PRESETS["nano"].model_config(), batch=2, context=64)
    text = printed(activations_table(values))
    assert "(exact)" in text
    assert f"{values['checkpointed']:,}" in text
    found = ActivationMeasurement(
        "cuda", "float32", 2, 64, predicted=1010, saved=1000, allocated=1024, peak=4096
    )
    measured = {**asdict(found), "relative_error": found.relative_error}
    text = printed(activations_table(values, measured))
    for part in ("1,000", "1,024", "4,096", "error of the prediction: +1.000%"):
        assert part in text
