"""Sections of costs: every figure is there, and 80 columns are enough."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from torch import nn

import minilm
from minilm.architectures.minilm import layout
from minilm.config.presets import PRESETS
from minilm.costs.fits import Fit, fits
from minilm.costs.memory import training_bytes
from minilm.inspection.activation_check import ActivationMeasurement
from minilm.inspection.report import Report
from minilm.render.cells import training_method_label
from minilm.render.document import Code
from minilm.render.sections import build_document
from minilm.units import format_bytes
from tests.render.drawings import printed, printed_rows

NAMES = ("gpt2", "llama-3-70b")


def with_fits(name: str, budget: int, *, context: int | None = None) -> Report:
    config = PRESETS[name].model_config()
    return replace(minilm.inspect(name), fits=fits(layout(config), budget, context=context))


def fits_of(report: Report) -> tuple[Fit, ...]:
    assert report.fits is not None
    return report.fits


def test_where_nothing_is_a_tokens_none_are_told(tmp_path: Path) -> None:
    """The glossary of the page, which explains words of all models, has them still."""
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "swin"}', encoding="utf-8")
    report = minilm.inspect(path)
    assert "d=96 width of the first stage" in printed(report)
    assert report.to_dict()["memory"]["kv_cache"] is report.to_dict()["flops"] is None
    page = report.to_html().partition('<section id="glossary"')[0]
    for text in (printed(report), printed(report, full=True), report.to_markdown(), page):
        assert "training state" in text
        assert "KV cache" not in text
        assert "2,048 tokens" not in text
    assert report.layout is not None
    assert fits(report.layout, 2**40) == ()


@pytest.mark.parametrize("name", NAMES)
def test_training_and_cache(name: str) -> None:
    report = minilm.inspect(name, context=8192, batch=2)
    text = printed(report, full=True)
    each = layout(PRESETS[name].model_config())
    variants = training_bytes(each.count(), layout=each)["variants"]
    _, *rows = printed_rows(text, "method")
    assert [row[-1] for row in rows] == [format_bytes(v["total"]) for v in variants.values()]
    assert rows[1][0] == "Muon, float32"
    assert "KV cache of 2 × 8,192 tokens" in text
    assert format_bytes(report.memory["kv_cache"]["int8"]) in text
    assert f"{report.memory['kv_cache']['int8']:,}" in text


def test_each_letter_of_the_activations_is_explained_below_them() -> None:
    document = build_document(minilm.inspect("nano-fast", context=64, batch=3))
    blocks = next(s.blocks for s in document.sections if s.key == "memory")
    formula, where = blocks[-2:]
    assert isinstance(formula, Code)
    assert isinstance(where, Code)
    assert (formula.label, where.label) == ("activations in bytes", "where")
    explained = dict(part.split("=", 1) for part in where.text.split("  "))
    assert explained.keys() == set(re.findall("[A-Za-z]", formula.text))
    assert explained["B"] == "3 batch size"
    assert explained["T"] == "64 context"
    assert explained["c"] == "2 convolution taps"


@pytest.mark.parametrize("name", NAMES)
def test_fits(name: str) -> None:
    report = with_fits(name, 24 * 10**9, context=1024)
    text = printed(report)
    assert "22.4 GiB of memory, 1 × 1,024 tokens" in text
    assert max(map(len, text.splitlines())) <= 80
    _, *rows = printed_rows(text, "use")
    for fit, row in zip(fits_of(report), rows, strict=True):
        assert format_bytes(fit.required) in row
        assert ("yes" if fit.fits else "no") == row[-3]
        if fit.use != "inference":
            assert row[1] == ("yes" if fit.checkpointing else "no")
        assert row[-1] == (f"{fit.max_batch:,}" if fit.max_batch else "none")
        assert row[-2] == (f"{fit.max_context:,}" if fit.max_context else "none")
    assert "takes beside its weights is not known" in printed(replace(report, fits=()))


def test_what_fits_states_its_assumptions() -> None:
    text = " ".join(printed(with_fits("gpt2", 80 * 10**9)).split())
    for statement in (
        "Cards sold as 80 GB have more or less: A100-80GB 79.1 GiB, H100 79.1 GiB",
        "a margin for the framework: 5% more for fragmentation and 512.0 MiB for the CUDA context",
        "LoRA has rank 16",
        "The KV cache of these tokens is 36.0 MiB in bfloat16, 18.0 MiB in fp8, 19.1 MiB in q8_0, "
        "10.1 MiB in q4_0; here as the arithmetic",
    ):
        assert statement in text
    assert "Of several cards" not in text
    report = minilm.inspect("gpt2")
    model = layout(PRESETS["gpt2"].model_config())
    two = replace(report, fits=fits(model, 10**9, cards=2, cache_dtype="q4_0"))
    text = " ".join(printed(two).split())
    assert "2 cards with 953.7 MiB of memory each" in text
    assert "Of several cards each needs what is listed" in text
    assert "here q4_0" in text


def test_flops_say_at_which_context() -> None:
    text = " ".join(printed(minilm.inspect("gpt2", context=512), full=True).split())
    assert "They are for the last of 512 tokens." in text


def test_where_the_search_ended_there_may_be_more() -> None:
    report = with_fits("gpt2", 10**18)
    (row,) = (r for r in printed_rows(printed(report), "use") if r[0] == "inference, bfloat16")
    assert row[-2:] == ["1,024", ">= 1,048,576"]


def test_figures_are_whole_in_any_width() -> None:
    report = with_fits("llama-3-70b", 24 * 10**9, context=1024)
    text = printed(report, 20, full=True)
    assert "…" not in text
    assert all(format_bytes(fit.required) in text for fit in fits_of(report))
    variants = report.memory["training"]["variants"].values()
    assert all(format_bytes(sizes["total"]) in text for sizes in variants)
    assert "Muon" in text


def test_activations_beside_their_measurement() -> None:
    report = minilm.inspect("nano", batch=2, context=64)
    activations = report.memory["activations"]
    assert "(exact)" in printed(report)
    text = printed(report, full=True)
    assert "activations of 2 × 64 tokens, float32 (exact)" in text
    assert f"{activations['checkpointed']:,}" in text
    measured = ActivationMeasurement(
        "cuda", "float32", 2, 64, predicted=1010, saved=1000, allocated=1024, peak=4096
    )
    values = {**asdict(measured), "relative_error": measured.relative_error}
    memory = {**report.memory, "activations": activations | {"measured": values}}
    text = printed(replace(report, memory=memory), full=True)
    for part in ("1,000", "1,024", "4,096"):
        assert part in text
    assert ["error of the prediction", "+1.000%"] in [
        line.split("  ")[:1] + line.split()[-1:] for line in text.splitlines() if "error" in line
    ]


def test_the_overview_of_a_stored_file_has_what_the_file_takes(tiny_run: Path) -> None:
    report = minilm.inspect(tiny_run)
    titles, weights, *_ = printed_rows(printed(report), "memory, 1 × 16 tokens")
    assert titles[1:] == ["stored", "float32", "bfloat16", "int8", "int4"]
    assert weights[1] == format_bytes(report.memory["weights"]["stored"])


def test_adam_and_checkpointing_are_called_so() -> None:
    text = printed(minilm.inspect("gpt2"), full=True)
    assert "(weights, gradients, two Adam moments)" in text
    assert "with activation checkpointing" in text


def test_training_methods_are_named() -> None:
    keys = ("adamw_float32", "muon_bfloat16", "lora_nf4", "other_x")
    assert [training_method_label(key) for key in keys] == [
        "AdamW, float32",
        "Muon, bfloat16 + master",
        "LoRA on nf4",
        "other, x",
    ]


def test_a_module_without_a_layout_has_what_is_known() -> None:
    sections = {each.key: each for each in build_document(minilm.inspect(nn.Linear(4, 2))).sections}
    overview = sections["memory"].tables()[0]
    assert [row[0] for row in overview.rows] == ["weights", "training state (AdamW)"]
