"""Reports for the tests of what is rendered: complete, hostile, and large."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import minilm
from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from minilm.inspection.report import Component, Convention, Report, TensorRow

# Each would do something if it were read as HTML, a template, an escape sequence or Markdown.
HOSTILE = (
    "<script>document.title='hit'</script>",
    "</script><img src=x onerror=\"document.title='hit'\">",
    "<b>bold</b><a href='javascript:document.title=1'>link</a>",
    "{{7*7}}{% raw %}",
    "javascript:alert(1)",
    "a\nb\r\n| c | `d` |",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "https://example.org/a?b=1&c=2#d",
    "\u2028line\u2029<!--",
    "\ud800lone",
    "&lt;b&gt;%{x}",
)


def complete_report(run: Path, other: Path) -> Report:
    """The report of a run with everything that can be asked for; ``other`` is compared with it."""
    inspection = inspect_with_sources(str(run))
    fits = extras.with_fits(inspection, "24GB", context=None, batch=1).fits
    reconciliation = extras.with_reconciliation(inspection, "14.8K").reconciliation
    difference = extras.with_difference(
        inspection, inspect_with_sources(str(other)), None
    ).difference
    statistics = extras.with_statistics(inspection, None).statistics
    return replace(
        inspection.report,
        fits=fits,
        reconciliation=reconciliation,
        statistics=statistics,
        difference=difference,
        mismatches=("file: a is missing", "file: 1 parameter, the formula says 2 (-1)"),
        notes=("a note",),
        tied=(("lm_head.weight", "embedding.token.weight"),),
    )


def hostile_report() -> Report:
    """Hostile text wherever a file can put it."""
    report = minilm.inspect("nano")
    rows = tuple(
        TensorRow(f"layers.{i % 3}.{name}", (4, 5), name, 20, name)
        for i, name in enumerate(HOSTILE)
    )
    total = sum(row.count for row in rows)
    components = tuple(
        Component(name, 20, 20 / total, "", name, 20, 0) for name in (row.component for row in rows)
    )
    return replace(
        report,
        target=HOSTILE[0],
        architecture=HOSTILE[1],
        mismatches=HOSTILE,
        notes=HOSTILE,
        tied=tuple((name, name) for name in HOSTILE),
        hyperparameters={name: {name: name} for name in HOSTILE},
        conventions=tuple(Convention(name, 7, name) for name in HOSTILE),
        parameters=replace(report.parameters, total=total),
        components=components,
        tensors=rows,
    )


@functools.cache
def large_report(layers: int = 58, experts: int = 256) -> Report:
    """About 45,000 tensors, as a mixture of experts has them."""
    rows = tuple(
        TensorRow(
            f"model.layers.{i}.mlp.experts.{j}.{m}_proj.weight", (64, 128), "bfloat16", 8192, m
        )
        for i in range(layers)
        for j in range(experts)
        for m in ("gate", "up", "down")
    )
    third = len(rows) // 3 * 8192
    components = tuple(Component(m, third, 1 / 3, "", "", third, 0) for m in ("gate", "up", "down"))
    report = replace(minilm.inspect("nano"), formula=None)
    parameters = replace(report.parameters, total=3 * third)
    return replace(report, parameters=parameters, components=components, tensors=rows)


def layers_of(*widths: int) -> Report:
    """A model whose layers have matrices of these widths, and an embedding."""
    rows = [TensorRow("embedding.weight", (7, 5), "float32", 35, "embedding")]
    rows += [
        TensorRow(f"h.{i}.mlp.up.weight", (4, width), "float32", 4 * width, "up")
        for i, width in enumerate(widths)
        if width
    ]
    rows += [TensorRow(f"h.{i}.norm.weight", (4,), "float32", 4, "n") for i in range(len(widths))]
    return replace(minilm.inspect("nano"), tensors=tuple(rows))
