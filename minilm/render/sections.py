"""A Report as sections of tables: what the Markdown and the HTML report have in common.

A further section is one more function in `sections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.inspection.report import Convention, Parameters, Report
from minilm.render import requested
from minilm.render.tables import Column, Section, Table, columns, number, relative, size, way, words
from minilm.safe_text import one_line
from minilm.units import format_count


def sections(report: Report) -> list[Section]:
    """Everything in the report but its verdict and its list of tensors, in reading order."""
    found = [
        _components(report),
        _formula(report),
        _conventions(report),
        requested.reconciliation(report.reconciliation),
        _tied(report),
        _quantization(report),
        _memory(report),
        requested.fits(report.fits),
        _compute(report),
        requested.statistics(report.statistics),
        requested.difference(report.difference),
        _hyperparameters(report),
    ]
    return [section for section in found if section is not None]


def verdict(report: Report) -> tuple[str, str]:
    """One of verified, mismatch, alone; and the sentence that says it."""
    heard = sum(count is not None for _, count in witnesses(report))
    if report.mismatches:
        count = len(report.mismatches)
        return "mismatch", f"Not verified: {count:,} mismatch{'es' if count > 1 else ''}"
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


def _usual_conventions(p: Parameters) -> tuple[Convention, ...]:
    return (
        Convention("total", p.total, "every parameter once; a tied head is not counted again"),
        Convention("trainable", p.trainable, "those that an optimizer would change"),
        Convention("embedding", p.embedding, "the token, position and n-gram tables"),
        Convention("non-embedding", p.non_embedding, "all but these tables; an untied head counts"),
        Convention("active", p.active, "what one token uses, embeddings included"),
        Convention("stored", p.stored_elements, "elements that are kept: copies, buffers and all"),
    )


def _components(report: Report) -> Section:
    p = report.parameters
    rows = [
        (one_line(c.name), f"{c.count:,}", f"{c.share:.2%}", f"{c.weights:,}", f"{c.biases:,}")
        for c in report.components
    ]
    rows.append(("total", f"{p.total:,}", "100.00%", f"{p.weights:,}", f"{p.biases:,}"))
    bars = (*relative([component.share for component in report.components]), 0.0)
    titles = columns("component", "parameters", "share", "weights", "biases")
    if report.formula is None:
        table = Table(titles, tuple(rows), bars=bars)
    else:
        formulas = (*(component.pretty for component in report.components), report.formula.pretty)
        with_formulas = tuple(
            (*row, one_line(formula)) for row, formula in zip(rows, formulas, strict=True)
        )
        table = Table((*titles, Column("formula", "code")), with_formulas, bars=bars)
    return Section("components", "Components", tables=(table,))


def _formula(report: Report) -> Section | None:
    formula = report.formula
    if formula is None:
        return None
    value = "" if report.witnesses.formula is None else f" = {report.witnesses.formula:,}"
    symbols = ", ".join(f"{name} = {value}" for name, value in formula.symbols.items())
    code = (
        ("closed form", one_line(formula.pretty)),
        ("with numbers", one_line(formula.substituted) + value),
        ("where", one_line(symbols)),
        ("for programs", one_line(formula.symbolic)),
    )
    text = []
    if formula.approximation is not None:
        rule = formula.approximation
        text.append(
            f"The textbook rule {one_line(str(rule.get('pretty', rule['text'])))} gives "
            f"{rule['value']:,}, off by {rule['relative_error']:+.2%}."
        )
    return Section("formula", "Formula", tuple(text), code)


def _conventions(report: Report) -> Section:
    total = report.parameters.total
    rows = tuple(
        (
            one_line(convention.name),
            f"{convention.count:,}",
            f"{convention.count / total:.2%}" if total else "",
            one_line(convention.meaning),
        )
        for convention in conventions(report)
    )
    titles = (*columns("convention", "count", "of the total"), Column("what it counts"))
    return Section("conventions", "Ways of counting", tables=(Table(titles, rows),))


def _tied(report: Report) -> Section | None:
    if not report.tied:
        return None
    rows = tuple((one_line(name), one_line(shared)) for name, shared in report.tied)
    table = Table((Column("name", "code"), Column("is the tensor", "code")), rows)
    return Section("tied", "Tied tensors", tables=(table,))


def _quantization(report: Report) -> Section | None:
    stored = report.quantization
    if stored is None:
        return None
    rows = (
        ("method", one_line(stored.method)),
        ("quantized parameters", f"{stored.parameters:,}"),
        ("stored elements", f"{stored.stored_elements:,}"),
        ("elements of scales, zero points, codebooks", f"{stored.scale_elements:,}"),
        ("bytes of values", f"{stored.value_bytes:,}"),
        ("bytes of scales", f"{stored.scale_bytes:,}"),
        ("effective bits a weight", f"{stored.bits_per_weight:.3f}"),
    )
    table = Table(columns("as stored", "value"), rows)
    return Section("quantization", "Quantization", tables=(table,))


def _memory(report: Report) -> Section:
    memory = report.memory
    tables = [_sizes("weights, by precision", memory["weights"], with_bars=True)]
    state = {key: value for key, value in memory["training"].items() if key != "variants"}
    tables.append(_sizes("training state, float32 with AdamW", state))
    if memory["training"].get("variants"):
        tables.append(_training(memory["training"]["variants"]))
    cache, activations = memory["kv_cache"], memory["activations"]
    if cache is not None:
        sizes = {key: value for key, value in cache.items() if key not in ("context", "batch")}
        tables.append(_sizes(f"KV cache of {_tokens(cache)}", sizes))
    code = []
    if activations is not None:
        tables.append(_activations(activations))
        if activations.get("components"):
            tables.append(_sizes("activations, by component", activations["components"]))
        if activations.get("formula"):
            code.append(("activations in bytes", one_line(activations["formula"])))
    return Section("memory", "Memory", code=tuple(code), tables=tuple(tables))


def _sizes(title: str, sizes: Mapping[str, int | None], *, with_bars: bool = False) -> Table:
    rows = tuple((words(k), size(v), f"{v:,}") for k, v in sizes.items() if v is not None)
    bars = relative([v for v in sizes.values() if v is not None]) if with_bars else ()
    return Table(columns(title, "size", "bytes"), rows, bars=bars)


def _activations(kept: Mapping[str, Any]) -> Table:
    title = f"activations of {_tokens(kept)}, {one_line(kept['dtype'])} ({one_line(kept['basis'])})"
    sizes = {"all kept": kept["saved"], "a checkpoint a block": kept["checkpointed"]}
    measured = kept.get("measured")
    if measured is None:
        return _sizes(title, sizes)
    sizes |= {f"measured, {key}": measured.get(key) for key in ("saved", "allocated", "peak")}
    table = _sizes(title, sizes)
    error = ("error of the prediction", f"{measured['relative_error']:+.3%}", "")
    return Table(table.columns, (*table.rows, error))


def _training(variants: Mapping[str, Mapping[str, int]]) -> Table:
    keys = ("weights", "master", "adapters", "gradients", "optimizer", "total")
    rows = []
    for key, sizes in variants.items():
        rows.append((way(key), *(size(sizes.get(part) or None) for part in keys)))
    return Table(columns("ways to train", *keys), tuple(rows))


def _tokens(sizes: Mapping[str, int]) -> str:
    return f"{sizes['batch']:,} × {sizes['context']:,} tokens"


def _compute(report: Report) -> Section | None:
    if not report.flops:
        return None
    rows = tuple(
        (words(key), format_count(value), number(value)) for key, value in report.flops.items()
    )
    text = "Floating-point operations; a multiplication and an addition are two."
    table = Table(columns("FLOPs", "about", "exactly"), rows)
    return Section("compute", "Compute", (text,), tables=(table,))


def _hyperparameters(report: Report) -> Section | None:
    tables = tuple(
        Table(
            (Column(one_line(str(name))), Column("value", "code")),
            tuple((one_line(str(key)), one_line(str(value))) for key, value in fields.items()),
        )
        for name, fields in report.hyperparameters.items()
        if fields
    )
    return Section("hyperparameters", "Hyperparameters", tables=tables) if tables else None
