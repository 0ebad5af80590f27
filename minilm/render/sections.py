"""A Report as a Document: the one place where what is printed of a report is decided.

A further section is one more function in `build_document`; costs and values have files of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from minilm.config.applicable import applicable_settings, without_expert_fields
from minilm.inspection.report import FormulaReport, IndexTotal, Report
from minilm.render.cells import bar_lengths, format_letters, format_shape, number_columns
from minilm.render.component_groups import fold_components
from minilm.render.cost_sections import compute_section, memory_section
from minilm.render.document import (
    Block,
    Code,
    Column,
    Document,
    Listing,
    Paragraph,
    Section,
    Table,
)
from minilm.render.layer_tree import layer_table
from minilm.render.run_section import run_section
from minilm.runs import files as run_files
from minilm.safe_text import one_line
from minilm.units import format_count

if TYPE_CHECKING:
    from minilm.inspection.reconciliation.explanation import Reconciliation
    from minilm.runs.history import RunHistory

# Of a table, whatever a file holds. An undeclared model may have a component for every tensor.
MOST_ROWS = 200


def build_document(
    report: Report,
    *,
    history: RunHistory | None = None,
    layers: bool = True,
    tensors: bool = False,
) -> Document:
    """Everything in ``report``, and the ``history`` of a run.

    The list of ``tensors`` on request, since it can be long; the tree of ``layers`` takes a second
    where there are 50,000 tensors, and a short report does not show it.
    """
    sections = [
        _witnesses(report),
        _notes(report),
        run_section(history) if history is not None else None,
        *_requested(report),
        components_section(report),
        _layers(report) if layers else None,
        _formula(report),
        _conventions(report),
        _tied(report),
        _sharing(report),
        _quantization(report),
        memory_section(report),
        compute_section(report),
        _hyperparameters(report),
        _tensors(report) if tensors else None,
    ]
    return Document(
        target=one_line(report.target),
        architecture=one_line(report.architecture),
        total=f"{report.parameters.total:,}",
        about=format_count(report.parameters.total),
        status=report.verdict.status,
        verdict=one_line(report.verdict.text),
        brief_verdict=one_line(report.verdict.brief),
        sections=tuple(section for section in sections if section is not None),
    )


def components_section(report: Report, *, most_rows: int | None = None) -> Section:
    """The parameters by component, with their sum; in at most ``most_rows`` rows beside it."""
    components = fold_components(report.components, most_rows or MOST_ROWS)
    p = report.parameters
    rows = [_component_cells(c.name, c.count, c.share, c.weights, c.biases) for c in components]
    rows.append(_component_cells("total", p.total, 1.0, p.weights, p.biases))
    columns = (
        *number_columns("component", "parameters", "share"),
        Column("weights", "number", full_only=True),
        Column("biases", "number", full_only=True),
    )
    if report.formula is not None:
        formulas = (*(component.pretty for component in components), "")
        rows = [(*row, one_line(formula)) for row, formula in zip(rows, formulas, strict=True)]
        columns = (*columns, Column("formula", "code"))
    bars = (*bar_lengths([component.share for component in components]), 0.0)
    table = Table(columns, tuple(rows), bars=bars, total_last=True)
    text = Paragraph("Parameters are what training learns.", full_only=True)
    return Section("components", "Components", (text, table))


def _component_cells(
    name: str, count: int, share: float, weights: int, biases: int
) -> tuple[str, ...]:
    return one_line(name), f"{count:,}", f"{share:.2%}", f"{weights:,}", f"{biases:,}"


def _witnesses(report: Report) -> Section:
    comparisons = {
        comparison.witness: f"by {comparison.by} with the {comparison.reference}"
        for comparison in reversed(report.comparisons)
    }
    available = report.witnesses.available()
    rows = tuple(
        (
            name,
            f"{available[name]:,}" if name in available else "not available",
            comparisons.get(name, ""),
        )
        for name in ("formula", "file", "module")
    )
    columns = (*number_columns("witness", "parameters"), Column("compared"))
    blocks: list[Block] = [Table(columns, rows, full_only=True)]
    if report.index_totals:
        blocks.append(_index_totals(report.index_totals))
    if report.mismatches:
        lines = tuple(one_line(line) for line in report.mismatches)
        blocks.append(Listing("", lines, brief_lines=4))
    return Section("witnesses", "Witnesses", tuple(blocks))


def _index_totals(totals: Iterable[IndexTotal]) -> Table:
    rows = tuple(
        (
            total.name,
            "no whole number" if total.value is None else f"{total.value:,}",
            f"{total.counted:,}",
            total.agrees_with or "disagrees",
        )
        for total in totals
    )
    columns = (*number_columns("of the index", "value", "counted"), Column("agrees with"))
    return Table(columns, rows, full_only=True)


def _notes(report: Report) -> Section | None:
    lines = tuple(one_line(note) for note in report.notes)
    return Section("notes", "Notes", (Listing("", lines, brief_lines=4),)) if lines else None


def _requested(report: Report) -> Iterable[Section]:
    """What options asked for. Each file is imported when it is needed."""
    if report.reconciliation is not None:
        yield _reconciliation(report.reconciliation)
    if report.fits is not None:
        from minilm.render.cost_sections import fits_section

        yield fits_section(report.fits, report.memory["kv_cache"])
    if report.statistics is not None:
        from minilm.render.value_sections import statistics_section

        yield statistics_section(report.statistics)
    if report.difference is not None:
        from minilm.render.value_sections import difference_section

        yield difference_section(report.difference)


def _reconciliation(answer: Reconciliation) -> Section:
    number = one_line(answer.number.text)
    blocks: list[Block] = []
    if answer.explained and answer.exact:
        verdict = f"{number} is explained exactly:"
    elif answer.explained:
        verdict = f"{number} is explained within its rounding:"
    elif answer.explanations:
        verdict = f"{number} is possible, but so are most numbers of so few digits:"
    else:
        verdict = f"{number} is NOT explained; the nearest:"
    blocks.append(Paragraph(verdict))
    explanations = answer.explanations or answer.nearest
    if explanations:
        blocks.append(Listing("", tuple(one_line(each.text) for each in explanations)))
    if answer.explanations and not answer.exact:
        chance = f"By chance alone, {answer.chance:.1%} of such numbers would be explained."
        blocks.append(Paragraph(chance))
    return Section("reconciliation", "Reconciliation", tuple(blocks), requested=True)


def _layers(report: Report) -> Section | None:
    if not report.tensors:
        return None
    order = {component.name: number for number, component in enumerate(report.components)}
    rows = sorted(report.tensors, key=lambda row: order.get(row.component, len(order)))
    table, cut = layer_table(rows)
    text = "Modules by the names of their tensors; those that hold the same stand once."
    if report.flops and any(row.flops for row in rows):
        attention = format_count(report.flops["attention_per_token"])
        text += (
            " FLOPs are forward, of the products with weights; attention over the context adds "
            f"{attention} a token."
        )
    blocks: list[Block] = [Paragraph(text, full_only=True), table]
    if cut is not None:
        blocks.append(cut)
    return Section("layers", "Layers", tuple(blocks))


def _formula(report: Report) -> Section | None:
    formula = report.formula
    if formula is None:
        return None
    total = "" if report.witnesses.formula is None else f" = {report.witnesses.formula:,}"
    blocks: list[Block] = [
        Code("formula", one_line(formula.pretty)),
        Code("where", _letters(formula, report.architecture, in_formula=True)),
        *_other_letters(formula, report.architecture),
        Code("with numbers", one_line(formula.substituted) + total, full_only=True),
        Code("for programs", one_line(formula.symbolic), full_only=True),
    ]
    if formula.approximation is not None:
        rule = formula.approximation
        text = (
            f"{one_line(rule['pretty'])} = {rule['value']:,}, off by {rule['relative_error']:+.2%}"
        )
        blocks.append(Code("textbook rule", text, full_only=True))
    return Section("formula", "Formula", tuple(blocks))


def _letters(formula: FormulaReport, family: str, *, in_formula: bool) -> str:
    """The letters that are in the formula, or those that are not; S is explained by L."""
    explained = formula.pretty + ("L" if "S" in formula.symbols else "")
    symbols = {
        letter: value
        for letter, value in formula.symbols.items()
        if (letter in explained) == in_formula
    }
    return format_letters(symbols, family)


def _other_letters(formula: FormulaReport, family: str) -> list[Code]:
    letters = _letters(formula, family, in_formula=False)
    return [Code("other sizes", letters, full_only=True)] if letters else []


def _conventions(report: Report) -> Section:
    total = report.parameters.total
    rows = tuple(
        (
            one_line(convention.name),
            f"{convention.count:,}",
            format_count(convention.count),
            f"{convention.count / total:.2%}" if total else "",
            one_line(convention.meaning),
        )
        for convention in report.conventions
    )
    columns = (
        *number_columns("convention", "count", "about", "of the total"),
        Column("what it counts"),
    )
    table = Table(columns, rows, full_only=True)
    return Section("conventions", "Ways of counting", (table,))


def _tied(report: Report) -> Section | None:
    if not report.tied:
        return None
    rows = tuple((one_line(name), one_line(shared)) for name, shared in report.tied)
    table = Table((Column("name", "code"), Column("is the tensor", "code")), rows, full_only=True)
    return Section("tied", "Tied tensors", (table,))


def _sharing(report: Report) -> Section | None:
    if report.sharing is None:
        return None
    rows = tuple(
        (one_line(block), f"{len(layers):,}", ", ".join(map(str, layers)))
        for block, layers in itertools.islice(report.sharing.blocks.items(), MOST_ROWS)
    )
    columns = (Column("block", "code"), Column("layers", "number"), Column("runs as layer"))
    return Section("sharing", "Shared layers", (Table(columns, rows, full_only=True),))


def _quantization(report: Report) -> Section | None:
    stored = report.quantization
    if stored is None:
        return None
    is_sparse = stored.method.startswith("sparse")
    what, others = ("Zeros left out", "bitmasks") if is_sparse else ("Quantized", "scales")
    sentence = (
        f"{what} ({one_line(stored.method)}): {stored.parameters:,} parameters take "
        f"{stored.bits_per_weight:.3f} bits each, {others} included."
    )
    rows = (
        ("quantized parameters", f"{stored.parameters:,}"),
        ("stored elements", f"{stored.stored_elements:,}"),
        ("elements of scales, zero points, codebooks", f"{stored.scale_elements:,}"),
        ("bytes of values", f"{stored.value_bytes:,}"),
        ("bytes of scales", f"{stored.scale_bytes:,}"),
    )
    table = Table(number_columns("as stored", "value"), rows, full_only=True)
    return Section("quantization", "Quantization", (Paragraph(sentence), table))


def _hyperparameters(report: Report) -> Section | None:
    groups: Mapping[str, Mapping[str, Any]] = report.hyperparameters
    text = "Hyperparameters are set before training."
    if report.architecture == run_files.FAMILY:
        text += " One without an effect here is not listed."
        groups = applicable_settings(groups)
    elif report.formula is not None and "E" not in report.formula.symbols:
        groups = {name: without_expert_fields(fields) for name, fields in groups.items()}
    tables = tuple(_settings(name, fields) for name, fields in groups.items() if fields)
    if not tables:
        return None
    return Section("hyperparameters", "Hyperparameters", (Paragraph(text, full_only=True), *tables))


def _settings(name: str, fields: Mapping[str, Any]) -> Table:
    rows = [
        (one_line(str(key)), one_line(str(value)))
        for key, value in itertools.islice(fields.items(), MOST_ROWS)
    ]
    if len(fields) > MOST_ROWS:
        rows.append((f"and {len(fields) - MOST_ROWS:,} more", ""))
    return Table((Column(one_line(name)), Column("value", "code")), tuple(rows), full_only=True)


def _tensors(report: Report) -> Section:
    columns = (
        Column("name", "code"),
        Column("shape", "number"),
        Column("dtype"),
        Column("elements", "number"),
        Column("component", full_only=True),
    )
    rows = tuple(
        (
            one_line(row.name),
            format_shape(row.shape),
            one_line(row.dtype),
            f"{row.count:,}",
            one_line(row.component),
        )
        for row in report.tensors
    )
    return Section("tensors", "Tensors", (Table(columns, rows),))
