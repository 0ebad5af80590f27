"""A Report for the terminal: the verdict, the components with bars, the formula, memory, tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from minilm.dtypes import REPORTED
from minilm.inspection.report import Report
from minilm.quantization.logical_tensors import Quantization
from minilm.render.grid import GAP, grid, settle, stacked, width_of
from minilm.safe_text import one_line
from minilm.units import format_bytes, format_count

BAR_WIDTH = 16
# What a formula or a name needs beside the numbers for a place in their line.
ROOM = 16


def render(report: Report, *, width: int, tensors: bool = False) -> RenderableType:
    """The report for a terminal of ``width`` columns; every name in it is printed as plain text.

    Without room for all, bars and formulas give way to numbers, which may make a line too long.
    """
    parts: list[RenderableType] = [_heading(report), "", _components(report, width)]
    if report.formula is not None:
        parts += ["", _formula(report)]
    parts += ["", _totals(report), "", _memory(report, width)]
    if report.hyperparameters:
        parts += ["", _hyperparameters(report)]
    if tensors:
        parts += ["", _tensors(report, width)]
    for section in _further(report):
        parts += ["", section]
    return Group(*parts)


def _further(report: Report) -> Iterator[RenderableType]:
    """What was asked for beyond the report: each section's renderer is imported with it."""
    if report.fits is not None:
        from minilm.render import costs

        yield costs.training_table(report.memory["training"])
        yield costs.fits_table(report.fits)
    if report.statistics is not None:
        from minilm.render.statistics import statistics_table

        yield statistics_table(report.statistics)
    if report.difference is not None:
        from minilm.render.statistics import difference_table

        yield difference_table(report.difference)
    if report.reconciliation is not None:
        from minilm.render.reconcile import render as answer

        yield answer(report.reconciliation)


def print_report(report: Report, console: Console, *, tensors: bool = False) -> None:
    """Print `render`'s result; the terminal breaks a line that is too long, and nothing is cut."""
    console.print(render(report, width=console.width, tensors=tensors), crop=False)


def _heading(report: Report) -> RenderableType:
    count = f"{report.parameters.total:,} parameters"
    lines = [
        Text.assemble(
            (one_line(report.target), "bold"),
            f"  {one_line(report.architecture)}  ",
            (count, "bold"),
            f" ({format_count(report.parameters.total)})",
        )
    ]
    heard = [
        (name, value)
        for name, value in (
            ("formula", report.witnesses.formula),
            ("file", report.witnesses.file),
            ("module", report.witnesses.module),
        )
        if value is not None
    ]
    witnesses = " = ".join(f"{name} {value:,}" for name, value in heard)
    if report.mismatches:
        lines.append(Text(f"NOT VERIFIED: {len(report.mismatches)} mismatches", "bold red"))
        lines += [Text(f"  {one_line(line)}", "red") for line in report.mismatches]
    elif len(heard) > 1:
        by_name = report.witnesses.file is not None or report.architecture == "minilm"
        how = "verified, name by name" if by_name else "verified"
        lines.append(Text(f"{how}: {witnesses}", "green"))
    else:
        lines.append(Text(f"one witness, nothing to hold it against: {witnesses or 'file'}"))
    lines += [Text(one_line(note), "dim") for note in report.notes]
    return Group(*lines)


def _components(report: Report, width: int) -> RenderableType:
    titles = ("component", "parameters", "share")
    rows = [(one_line(c.name), f"{c.count:,}", f"{c.share:.2%}") for c in report.components]
    rows.append(("total", f"{report.parameters.total:,}", "100.00%"))
    room = width - sum(map(width_of, zip(titles, *rows, strict=True)))
    formulas = [component.pretty for component in report.components if component.formula]
    needed = min(width_of(formulas), ROOM)
    with_formula = bool(formulas) and needed <= room
    with_bars = room - needed * with_formula >= BAR_WIDTH

    table = grid(*zip(titles, ("left", "right", "right"), strict=True))
    largest = max((component.share for component in report.components), default=1.0) or 1.0
    for title, shown in (("", with_bars), ("formula", with_formula)):
        if shown:
            table.add_column(title, overflow="fold")
    for row, component in zip(rows, report.components, strict=False):
        cells: list[RenderableType] = [Text(cell) for cell in row]
        if with_bars:
            cells.append(Bar(largest, 0, component.share, width=BAR_WIDTH, color="cyan"))
        if with_formula:
            cells.append(component.pretty)
        table.add_row(*cells)
    table.add_row(*rows[-1], style="bold")
    return settle(table, first_folds=not with_formula)


def _formula(report: Report) -> RenderableType:
    formula = report.formula
    assert formula is not None
    lines = [
        Text(f"formula  {formula.pretty}"),
        Text(f"       = {formula.substituted}"),
        Text(f"       = {report.witnesses.formula:,}"),
        Text("where    " + "  ".join(f"{k}={v}" for k, v in formula.symbols.items()), "dim"),
    ]
    if formula.approximation is not None:
        rule = formula.approximation
        lines.append(
            Text(
                f"textbook {rule['pretty']} = {rule['value']:,}, off by {rule['relative_error']:+.2%}"
            )
        )
    return Group(*lines)


def _totals(report: Report) -> RenderableType:
    parameters = report.parameters
    table = grid(("parameters (learned)", "left"), ("count", "right"), ("share", "right"))
    shown = {c.name: c.count for c in report.conventions}
    shown = {"weights": parameters.weights, "biases": parameters.biases} | shown
    if parameters.stored_elements == parameters.total:
        shown.pop("stored", None)
    shown.pop("total", None)
    for name, count in shown.items():
        share = count / parameters.total if parameters.total else 0.0
        table.add_row(name, f"{count:,}", f"{share:.2%}")
    for name, shared in report.tied:
        table.add_row(Text(f"{one_line(name)} is {one_line(shared)}"), "0", "tied")
    return settle(table)


def _memory(report: Report, width: int) -> RenderableType:
    table = _weights_memory(report.memory["weights"], width)
    training = report.memory["training"]["total"]
    lines: list[RenderableType] = [table]
    if report.quantization is not None:
        lines.append(Text(_quantization(report.quantization)))
    lines.append(
        Text(
            f"training state, float32 with AdamW: {format_bytes(training)} "
            "(weights, gradients, two means)"
        )
    )
    cache = report.memory["kv_cache"]
    if cache is not None:
        lines.append(
            Text(
                f"KV cache of {cache['batch']} x {cache['context']} tokens: "
                f"{format_bytes(cache['bfloat16'])} in bfloat16"
            )
        )
    activations = report.memory["activations"]
    if activations is not None:
        lines.append(Text(_activations(activations)))
    if report.flops is not None:
        lines.append(
            Text(
                f"FLOPs a token: {format_count(report.flops['forward_per_token'])} forward, "
                f"{format_count(report.flops['training_per_token'])} in training"
            )
        )
    return Group(*lines)


def _weights_memory(weights: Mapping[str, int], width: int) -> RenderableType:
    """One line, or where that is too long a line a dtype."""
    sizes = {dtype: format_bytes(weights[dtype]) for dtype in REPORTED}
    if sum(map(width_of, [("memory", "weights"), *sizes.items()])) - GAP <= width:
        table = grid(("memory", "left"), *((dtype, "right") for dtype in sizes))
        table.add_row("weights", *sizes.values())
    else:
        table = grid(("memory", "left"), ("weights", "right"))
        for dtype, size in sizes.items():
            table.add_row(dtype, size)
    return settle(table)


def _quantization(stored: Quantization) -> str:
    return (
        f"quantized ({one_line(stored.method)}): {stored.parameters:,} parameters in "
        f"{stored.stored_elements:,} stored elements and {stored.scale_elements:,} of scales, "
        f"{stored.bits_per_weight:.3f} bits a weight"
    )


def _activations(kept: Mapping[str, Any]) -> str:
    text = (
        f"activations of {kept['batch']} x {kept['context']} tokens in {kept['dtype']}: "
        f"{format_bytes(kept['saved'])} ({kept['basis']}), "
        f"{format_bytes(kept['checkpointed'])} with a checkpoint a block"
    )
    if "measured" in kept:
        measured = kept["measured"]
        text += f"; measured {format_bytes(measured['saved'])}, "
        text += f"error {measured['relative_error']:+.2%}"
    return text


def _hyperparameters(report: Report) -> RenderableType:
    parts: list[RenderableType] = [Text("hyperparameters (set before training)", "bold")]
    for name, fields in report.hyperparameters.items():
        text = "  ".join(f"{one_line(str(k))}={one_line(str(v))}" for k, v in fields.items())
        parts.append(Padding(Text.assemble((f"{one_line(name)}  ", "dim"), text), (0, 2)))
    return Group(*parts)


def _tensors(report: Report, width: int) -> RenderableType:
    rows = [
        (
            one_line(row.name),
            " x ".join(str(dimension) for dimension in row.shape) or "scalar",
            one_line(row.dtype),
            f"{row.count:,}",
        )
        for row in report.tensors
    ]
    titles = ("tensor", "shape", "dtype", "count")
    if width - sum(map(width_of, list(zip(titles, *rows, strict=True))[1:])) < ROOM:
        return Group(Text("  ".join(titles), "bold"), *stacked(rows))
    table = grid(*((title, "left") for title in titles[:3]), ("count", "right"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return settle(table)


def curve(values: Sequence[float], width: int = 40) -> str:
    """A loss curve in one line of block characters between its first and its last value."""
    size = max(1, -(-len(values) // width))
    means = [
        sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)
    ]
    low, high = min(means), max(means)
    blocks = "▁▂▃▄▅▆▇█"
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    line = "".join(blocks[round((mean - low) * scale)] for mean in means)
    return f"{values[0]:.3f} {line} {values[-1]:.3f}"
