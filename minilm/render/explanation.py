"""explain(target) -> Explanation: what the parameters of a reader's own model are, in plain sentences.

The sentences say what a Report has in its tables; the words are those of `glossary.py`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.config.presets import PRESETS
from minilm.errors import InputError
from minilm.inspection.inspector import context_notes, inspect
from minilm.inspection.report import Report
from minilm.ledger.components import LM_HEAD, NGRAM_EMBEDDING, POSITION_EMBEDDING, TOKEN_EMBEDDING
from minilm.ledger.symbols import letter_meaning
from minilm.render.cells import bar_lengths, format_shape, number_columns
from minilm.render.component_groups import component_group, fold_components
from minilm.render.document import Block, Code, Column, Listing, Paragraph, Section, Table
from minilm.render.markdown import section_lines as markdown_lines
from minilm.render.markdown import text as markdown_text
from minilm.runs import files as run_files
from minilm.safe_text import one_line
from minilm.units import counted, format_bytes, format_count

if TYPE_CHECKING:
    from torch import nn

SCHEMA = "minilm.explanation/1"
WIDTH = 80
MOST_COMPONENTS, MOST_TENSORS = 12, 5
MOST_LOSS = 100.0  # nats; beyond it a perplexity says nothing


@dataclass(frozen=True, repr=False)
class Explanation:
    """What is said of one target. ``print(explanation)`` has it in lines of 80 columns."""

    report: Report
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        """The target by its name."""
        return one_line(self.report.target)

    def __str__(self) -> str:
        from minilm.render.terminal import section_lines

        lines = (line.plain.rstrip() for line in section_lines(self.sections, WIDTH))
        return "\n".join([self.title, *lines])

    def to_html(self) -> str:
        """A page that needs no network, with the calculator and the glossary."""
        from minilm.render.calculator import calculator_of
        from minilm.render.html import lesson_page

        return lesson_page(
            self.title, self.sections, (), calculator_of(self.report), self.report.architecture
        )

    def to_markdown(self) -> str:
        """The sections as Markdown."""
        lines = [f"# {markdown_text(self.title)}"]
        for section in self.sections:
            lines += ["", *markdown_lines(section)]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: each section with its sentences and tables."""
        report = self.report
        return {
            "schema": SCHEMA,
            "target": report.target,
            "architecture": report.architecture,
            "verified": report.verified,
            "parameters": report.parameters.total,
            "letters": {
                letter: {"value": value, "meaning": letter_meaning(letter, report.architecture)}
                for letter, value in _symbols(report).items()
            },
            "sections": [_section_json(section) for section in self.sections],
        }


def explain(
    target: str | os.PathLike[str] | nn.Module,
    *,
    context: int | None = None,
    batch: int = 1,
    state_dict: str | None = None,
) -> Explanation:
    """Explain the parameters of ``target``: what `inspect` takes.

    ``context`` (tokens) and ``batch`` size the KV cache and the FLOPs. Raises InputError for what cannot be
    read.
    """
    report = inspect(target, live=False, context=context, batch=batch, state_dict=state_dict)
    sections = (
        _count(report),
        _letters(report),
        _shares(report),
        _largest(report),
        _storage(report),
        _costs(report, context),
        _training(report),
        _further(),
    )
    return Explanation(report, tuple(section for section in sections if section is not None))


def _count(report: Report) -> Section:
    p = report.parameters
    sentences = [
        f"{one_line(report.target)} has {counted(p.total, 'parameter')} "
        f"({format_count(p.total)}). A parameter is "
        "a number that training sets; the program around them is the same for every model of "
        "its kind "
        f"({one_line(report.architecture)})."
    ]
    if p.total:
        sentences.append(
            f"{p.weights:,} of them are weights, which are multiplied with an input; {p.biases:,} "
            f"({p.biases / p.total:.2%}) are biases, which are added."
        )
    if p.trainable != p.total:
        sentences.append(f"{p.trainable:,} are trained; the others are frozen.")
    if p.active != p.total:
        sentences.append(
            f"One token uses {p.active:,} of them ({p.active / p.total:.1%}): the experts "
            "that it is not sent to "
            "take memory and no work."
        )
    if report.tied:
        sentences.append(
            "The LM head is tied: it is the embedding, used twice, and counted once."
            if any("head" in name for name, _ in report.tied)
            else "Some tensors are used under two names, and counted once."
        )
    if report.sharing is not None:
        sentences.append(
            f"{report.sharing.layers} layers run {report.sharing.distinct_layers} blocks: "
            "what layers "
            f"share counts once. Unshared it would be {report.sharing.unshared:,}."
        )
    sentences.append(f"How sure is the count? {one_line(report.verdict.text)}.")
    return _section("count", "How many parameters", *map(Paragraph, sentences))


def _symbols(report: Report) -> Mapping[str, int]:
    return report.formula.symbols if report.formula is not None else {}


def _letters(report: Report) -> Section | None:
    formula = report.formula
    if formula is None:
        return None
    rows = tuple(
        (letter, f"{value:,}", letter_meaning(letter, report.architecture))
        for letter, value in formula.symbols.items()
    )
    columns = (Column("letter"), Column("here", "number"), Column("stands for"))
    return _section(
        "letters",
        "Where the number comes from",
        Paragraph(
            "It follows from a few sizes, the hyperparameters, which people chose before training:"
        ),
        Table(columns, rows),
        Code("formula", one_line(formula.pretty)),
        Code("here", one_line(formula.substituted)),
    )


def _shares(report: Report) -> Section | None:
    total = report.parameters.total
    if not total:
        return None
    groups = Counter[str]()
    for component in report.components:
        groups[component_group(component.name)] += component.count
    (largest, count), *_ = groups.most_common(1)
    sentences = [f"The largest part is {largest}, with {count / total:.1%}."]
    counts = {component.name: component.count for component in report.components}
    tables = counts.get(TOKEN_EMBEDDING, 0) + counts.get(LM_HEAD, 0)
    if tables:
        present = " and ".join(name for name in (TOKEN_EMBEDDING, LM_HEAD) if name in counts)
        sentences.append(
            f"{tables / total:.1%} are in tables with a row for each token of the vocabulary "
            f"({present}), whose size does not depend on the number of layers."
        )
    if ngrams := counts.get(NGRAM_EMBEDDING, 0):
        sentences.append(
            f"{ngrams / total:.1%} are in tables of n-grams: of each length a token has the row that it "
            "and the tokens before it are hashed to, beside its own."
        )
    if positions := counts.get(POSITION_EMBEDDING, 0):
        sentences.append(
            f"{positions / total:.1%} are in a table with a row for each place in the context."
        )
    components = fold_components(report.components, MOST_COMPONENTS)
    rows = tuple((one_line(c.name), f"{c.count:,}", f"{c.share:.2%}") for c in components)
    bars = bar_lengths([component.share for component in components])
    table = Table(number_columns("component", "parameters", "share"), rows, bars=bars)
    return _section("shares", "Where they are", Paragraph(" ".join(sentences)), table)


def _largest(report: Report) -> Section | None:
    rows = sorted(report.tensors, key=lambda row: -row.count)[:MOST_TENSORS]
    if not rows:
        return None
    total = report.parameters.total or 1
    columns = (
        Column("tensor", "code"),
        Column("shape", "number"),
        Column("parameters", "number"),
        Column("of all", "number"),
    )
    cells = tuple(
        (
            one_line(row.name),
            format_shape(row.shape),
            f"{row.count:,}",
            f"{row.count / total:.2%}",
        )
        for row in rows
    )
    text = f"Parameters are kept in {counted(len(report.tensors), 'tensor')}. The largest:"
    return _section("largest", "The largest tensors", Paragraph(text), Table(columns, cells))


def _storage(report: Report) -> Section:
    weights = report.memory["weights"]
    sentences = []
    if weights["stored"] is not None:
        dtypes = Counter[str]()
        for row in report.tensors:
            dtypes[row.dtype] += row.count
        named = ", ".join(one_line(dtype) for dtype, _ in dtypes.most_common(4))
        sentences.append(
            f"The file holds {format_bytes(weights['stored'])} ({weights['stored']:,} bytes) "
            f"of {named}."
        )
        if report.quantization is not None:
            sentences.append(
                f"The quantized ones take {report.quantization.bits_per_weight:.2f} bits "
                "each, with their scales."
            )
    else:
        sentences.append("There are no weights beside this description: these are their sizes.")
    sentences.append(
        "A parameter takes 4 bytes in float32, 2 in bfloat16, 1 in int8, half a byte in int4 "
        "(without scales): "
        + ", ".join(
            f"{format_bytes(weights[dtype])} in {dtype}"
            for dtype in ("float32", "bfloat16", "int8", "int4")
        )
        + "."
    )
    return _section("storage", "How they are stored", *map(Paragraph, sentences))


def _costs(report: Report, context: int | None) -> Section:
    flops, cache, training = report.flops, report.memory["kv_cache"], report.memory["training"]
    sentences = []
    if flops is not None and cache is not None:
        sentences.append(
            f"To read or write one token takes {format_count(flops['forward_per_token'])} "
            "FLOPs (multiplications "
            f"and additions) with a context of {cache['context']:,} tokens, of which "
            f"{format_count(flops['attention_per_token'])} are attention over that context. "
            "In training it is "
            f"three times as many, {format_count(flops['training_per_token'])}."
        )
    if cache is not None and cache["bfloat16"]:
        sentences.append(
            "The KV cache, which keeps what earlier tokens gave, takes "
            f"{format_bytes(cache['bfloat16'])} in bfloat16 for {cache['context']:,} tokens of "
            f"{counted(cache['batch'], 'sequence')}. It grows with every token; the "
            "parameters do not."
        )
    sentences += [
        f"These are sizes alone: {note}." for note in context_notes(report.layout, context)
    ]
    sentences.append(_training_memory(training, _optimizer(report)))
    title = "What it costs" if cache is None else "What a token costs"
    return _section("costs", title, *map(Paragraph, sentences))


def _training_memory(training: Mapping[str, Any], optimizer: str) -> str:
    if optimizer == "muon" and "variants" in training:
        size = format_bytes(training["variants"]["muon_float32"]["total"])
        return (
            f"To train it takes {size} for weights, gradients and the optimizer's state in float32, "
            "and the activations besides. The optimizer is Muon, which keeps one momentum of each "
            "hidden matrix, and AdamW for the other parameters, with two moments of each."
        )
    return (
        f"To train it by AdamW takes {format_bytes(training['total'])} for weights, gradients and "
        "AdamW's two moments in float32, and the activations besides."
    )


def _optimizer(report: Report) -> str:
    """That of a run or a preset whose parameters are all trained; of any other model AdamW is told."""
    folder = Path(report.target)
    if (
        report.architecture != run_files.FAMILY
        or report.parameters.trainable != report.parameters.total
    ):
        return "adamw"
    if report.target in PRESETS and not folder.is_dir():
        return PRESETS[report.target].train_config().optimizer
    try:
        return run_files.read_record(folder / run_files.CONFIG).train.optimizer
    except (InputError, OSError):
        return "adamw"


def _training(report: Report) -> Section | None:
    if report.architecture != run_files.FAMILY or not Path(report.target).is_dir():
        return None
    summary = run_files.last_summary(Path(report.target))
    sentences = list(_learned(report, summary))
    return (
        _section("training", "What it learned from", *map(Paragraph, sentences))
        if sentences
        else None
    )


def _learned(report: Report, summary: Mapping[str, Any]) -> Iterator[str]:
    """What a summary.json says; a field that is not as minilm writes it is passed over."""
    tokens, steps, loss = (summary.get(key) for key in ("tokens", "steps", "best_val_loss"))
    if isinstance(tokens, int) and isinstance(steps, int) and report.parameters.total:
        yield (
            f"It was trained for {counted(steps, 'step')} on {tokens:,} tokens, "
            f"{tokens / report.parameters.total:.1f} a parameter."
        )
    vocabulary = _symbols(report).get("V")
    if isinstance(loss, float) and 0 <= loss < MOST_LOSS and vocabulary:
        yield (
            f"Its loss on text that it was not trained on is {loss:.3f} nats a token: it is as "
            f"undecided as among {math.exp(loss):,.1f} equally likely tokens. A model that knows "
            f"nothing has ln({vocabulary:,}) = {math.log(vocabulary):.3f}."
        )
        bits = summary.get("best_val_bits_per_byte")
        if isinstance(bits, float):
            yield f"That is {bits:.3f} bits for each byte of the text."


def _further() -> Section:
    return _section(
        "further",
        "Read on",
        Listing(
            "",
            (
                "docs/parameters-explained.md: every word, from the beginning",
                "minilm explain TARGET --html FILE: this with a calculator and a glossary",
                "minilm inspect TARGET --full: the tables",
            ),
        ),
    )


def _section(key: str, title: str, *blocks: Block) -> Section:
    return Section(key, title, blocks)


def _section_json(section: Section) -> dict[str, Any]:
    sentences = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    tables = [
        {"columns": [column.title for column in table.columns], "rows": table.rows}
        for table in section.tables()
    ]
    return {"key": section.key, "title": section.title, "sentences": sentences, "tables": tables}
