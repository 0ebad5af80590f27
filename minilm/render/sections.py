"""A Report as titled tables of text: what the Markdown and the HTML report have in common.

A cell is plain text without control characters, not yet escaped for either format. A further section
is one more function in `sections`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.inspection.report import Convention, Parameters, Report
from minilm.render.terminal import plain
from minilm.units import format_bytes, format_count

# What the keys of `memory` count when it is not bytes.
_NOT_BYTES = {"context", "batch", "tokens", "sequences", "layers", "parameters", "rank"}
# Mappings that a report may have one day or has on request, each printed as it is nested.
_FURTHER = ("statistics", "difference", "fits", "reconciliation")


@dataclass(frozen=True)
class Column:
    """A table's column. ``kind``: text, number (to the right), code (a name or a formula)."""

    title: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows of text. ``shares`` in 0..1, one a row, are drawn as bars where there can be bars."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, formulas as (label, text), tables."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    code: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()


def sections(report: Report) -> list[Section]:
    """Everything in the report but its verdict and its list of tensors, in reading order."""
    found = [
        _components(report),
        _formula(report),
        _conventions(report),
        _tied(report),
        _quantization(report),
        _memory(report),
        _compute(report),
        *(_nested(name, getattr(report, name, None)) for name in _FURTHER),
        _hyperparameters(report),
    ]
    return [section for section in found if section is not None]


def verdict(report: Report) -> tuple[str, str]:
    """One of verified, mismatch, alone; and the sentence that says it."""
    heard = sum(count is not None for _, count in witnesses(report))
    if report.mismatches:
        count = len(report.mismatches)
        return "mismatch", f"Not verified: {count} mismatch{'es' if count > 1 else ''}"
    if heard > 1:
        return "verified", f"Verified, name by name, by {heard} independent witnesses"
    return "alone", "One witness: nothing to hold it against"


def witnesses(report: Report) -> tuple[tuple[str, int | None], ...]:
    """Each witness with its total, None where it was not heard."""
    heard = report.witnesses
    return ("formula", heard.formula), ("file", heard.file), ("module", heard.module)


def conventions(report: Report) -> tuple[Convention, ...]:
    """The report's conventions; those that follow from its counts where it names none."""
    return report.conventions or _usual_conventions(report.parameters)


def shape_text(shape: Sequence[int]) -> str:
    """(50257, 768) -> 50,257 × 768."""
    return " × ".join(f"{dimension:,}" for dimension in shape) or "scalar"


def _usual_conventions(p: Parameters) -> tuple[Convention, ...]:
    return (
        Convention("total", p.total, "every parameter once; a tied head is not counted again"),
        Convention("trainable", p.trainable, "those that an optimizer would change"),
        Convention("embedding", p.embedding, "the token and position tables"),
        Convention("non-embedding", p.non_embedding, "all but these tables; an untied head counts"),
        Convention("active", p.active, "what one token uses, embeddings included"),
        Convention("stored", p.stored_elements, "elements that are kept: copies, buffers and all"),
    )


def _components(report: Report) -> Section:
    with_formula = any(component.pretty for component in report.components)
    columns = [
        Column("component"),
        Column("parameters", "number"),
        Column("share", "number"),
        Column("weights", "number"),
        Column("biases", "number"),
    ]
    rows = []
    for c in report.components:
        row = [plain(c.name), f"{c.count:,}", f"{c.share:.2%}", f"{c.weights:,}", f"{c.biases:,}"]
        rows.append((*row, plain(c.pretty)) if with_formula else tuple(row))
    p = report.parameters
    total = ["total", f"{p.total:,}", "100.00%", f"{p.weights:,}", f"{p.biases:,}"]
    rows.append((*total, plain(report.formula.pretty) if report.formula else ""))
    if with_formula:
        columns.append(Column("formula", "code"))
    else:
        rows[-1] = tuple(total)
    shares = (*(component.share for component in report.components), 1.0 if p.total else 0.0)
    return Section(
        "components", "Components", tables=(Table(tuple(columns), tuple(rows), shares=shares),)
    )


def _formula(report: Report) -> Section | None:
    formula = report.formula
    if formula is None:
        return None
    code = [
        ("closed form", plain(formula.symbolic)),
        ("with numbers", plain(formula.substituted)),
        ("value", f"{report.witnesses.formula:,}" if report.witnesses.formula is not None else ""),
    ]
    text = []
    if formula.approximation is not None:
        rule = formula.approximation
        text.append(
            f"The textbook rule {plain(str(rule['text']))} gives {rule['value']:,}, "
            f"off by {rule['relative_error']:+.2%}."
        )
    rows = tuple((plain(name), f"{value:,}") for name, value in formula.symbols.items())
    table = Table((Column("symbol", "code"), Column("value", "number")), rows)
    return Section("formula", "Formula", tuple(text), tuple(code), (table,))


def _conventions(report: Report) -> Section:
    total = report.parameters.total
    rows = tuple(
        (
            plain(convention.name),
            f"{convention.count:,}",
            f"{convention.count / total:.2%}" if total else "",
            plain(convention.meaning),
        )
        for convention in conventions(report)
    )
    columns = (
        Column("convention"),
        Column("count", "number"),
        Column("of the total", "number"),
        Column("what it counts"),
    )
    return Section("conventions", "Ways of counting", tables=(Table(columns, rows),))


def _tied(report: Report) -> Section | None:
    if not report.tied:
        return None
    rows = tuple((plain(name), plain(shared)) for name, shared in report.tied)
    table = Table((Column("name", "code"), Column("is the tensor", "code")), rows)
    return Section("tied", "Tied tensors", tables=(table,))


def _quantization(report: Report) -> Section | None:
    quantization = report.quantization
    if quantization is None:
        return None
    rows = (
        ("method", plain(quantization.method)),
        ("quantized parameters", f"{quantization.parameters:,}"),
        ("stored elements", f"{quantization.stored_elements:,}"),
        ("scales, zero points, codebooks", f"{quantization.scale_elements:,}"),
        ("bytes of values", _bytes(quantization.value_bytes)),
        ("bytes of scales", _bytes(quantization.scale_bytes)),
        ("effective bits a weight", f"{quantization.bits_per_weight:.3f}"),
    )
    table = Table((Column("quantity"), Column("value", "number")), rows)
    return Section("quantization", "Quantization", tables=(table,))


def _memory(report: Report) -> Section:
    tables = []
    for name, part in report.memory.items():
        if not isinstance(part, Mapping) or not part:
            continue
        leaves = [(key, value) for key, value in _leaves(part) if value is not None]
        columns = (Column(_MEMORY_TITLES.get(name, _words(name))), Column("size", "number"))
        if name == "weights":
            tables.append(_weights(leaves, columns))
        else:
            rows = tuple((_words(key), _size(key, value)) for key, value in leaves)
            tables.append(Table(columns, rows))
    return Section("memory", "Memory", tables=tuple(tables))


_MEMORY_TITLES = {
    "weights": "weights, by precision",
    "training": "training state, float32 with AdamW",
    "kv_cache": "KV cache",
    "activations": "activations",
}


def _weights(leaves: Sequence[tuple[str, Any]], columns: tuple[Column, ...]) -> Table:
    rows = tuple((_words(key), _size(key, value)) for key, value in leaves)
    sizes = [float(value) if _is_number(value) else 0.0 for _, value in leaves]
    largest = max(sizes, default=0.0) or 1.0
    return Table(columns, rows, shares=tuple(size / largest for size in sizes))


def _compute(report: Report) -> Section | None:
    if not report.flops:
        return None
    rows = tuple(
        (_words(key), format_count(value), f"{value:,}")
        for key, value in report.flops.items()
    )
    columns = (Column("a token costs"), Column("about", "number"), Column("exactly", "number"))
    return Section("compute", "Compute", tables=(Table(columns, rows),))


def _hyperparameters(report: Report) -> Section | None:
    tables = [
        Table(
            (Column(plain(str(name))), Column("value", "code")),
            tuple((plain(str(key)), plain(str(value))) for key, value in fields.items()),
        )
        for name, fields in report.hyperparameters.items()
        if fields
    ]
    if not tables:
        return None
    return Section("hyperparameters", "Hyperparameters", tables=tuple(tables))


def _nested(name: str, value: Any) -> Section | None:
    """Any JSON-like value: its leaves in one table, and one table for each list of objects."""
    if not isinstance(value, Mapping) or not value:
        return None
    single = {k: v for k, v in value.items() if not _is_list_of_objects(v)}
    leaves = tuple((_words(key), _value(leaf)) for key, leaf in _leaves(single))
    tables = [Table((Column(_words(name)), Column("value", "number")), leaves)] if leaves else []
    tables += [_objects(k, v) for k, v in value.items() if _is_list_of_objects(v)]
    return Section(name, _words(name).capitalize(), tables=tuple(tables))


def _objects(name: str, objects: Sequence[Mapping[str, Any]]) -> Table:
    flat = [dict(_leaves(each)) for each in objects]
    keys = list(dict.fromkeys(key for each in flat for key in each))

    def kind(key: str) -> str:
        values = [each[key] for each in flat if each.get(key) is not None]
        return "number" if values and all(map(_is_number, values)) else "text"

    rows = tuple(tuple(_value(each.get(key)) for key in keys) for each in flat)
    columns = tuple(Column(_words(key), kind(key)) for key in keys)
    return Table(columns, rows, caption=_words(name))


def _is_list_of_objects(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _leaves(value: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, f"{prefix}{key}, ")
        else:
            yield f"{prefix}{key}", part


def _words(key: Any) -> str:
    return plain(str(key)).replace("_", " ")


def _size(key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if key.rpartition(", ")[2] in _NOT_BYTES else _bytes(value)
    return _value(value)


def _bytes(count: int) -> str:
    return f"{format_bytes(count)} ({count:,})"


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(each) for each in value)
    return plain(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
