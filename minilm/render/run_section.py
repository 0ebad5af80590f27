"""The section of a training run: what its curves say, and the facts of its summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from minilm.render.cells import format_size
from minilm.render.document import Column, Paragraph, Section, Table
from minilm.safe_text import one_line
from minilm.units import TOKENS_OF_ANSWERS, TOKENS_OF_CONVERSATIONS, format_seconds

if TYPE_CHECKING:
    from minilm.runs.history import RunHistory


def run_section(history: RunHistory) -> Section | None:
    """Findings, then the facts that are known; None where there is neither.

    A summary.json is a file like any other: what is missing or of another type is left out.
    """
    findings = tuple(Paragraph(one_line(text), full_only=True) for text in history.findings)
    facts = tuple(_facts(history.summary))
    if not facts:
        return Section("training", "Training run", findings) if history.metrics else None
    table = Table((Column("run"), Column("value")), facts, full_only=True)
    return Section("training", "Training run", (*findings, table))


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = summary.get("data")
    data = data if isinstance(data, Mapping) else {}
    yield from _fact("data", _text(data, "source"), _size(data, "bytes"))
    trained, of_split = _number(summary, "tokens"), _number(data, "train_tokens")
    epochs = f"{trained / of_split:,.3g} epochs" if trained and of_split else ""
    yield from _fact("tokens trained on", _whole(summary, "tokens"), epochs)
    is_text = data.get("kind") != "conversations"
    label = "tokens of the text" if is_text else TOKENS_OF_CONVERSATIONS
    for title, kind in ((label, ""), (TOKENS_OF_ANSWERS, "answer_")):
        train, validation = _whole(data, f"train_{kind}tokens"), _whole(data, f"val_{kind}tokens")
        yield from _fact(
            title, train and f"{train} training", validation and f"{validation} validation"
        )
    yield from _fact("steps", _whole(summary, "steps"), _stop(summary))
    seconds, rate = _number(summary, "seconds"), _number(summary, "tokens_per_second")
    yield from _fact(
        "time",
        "" if seconds is None else format_seconds(seconds),
        f"{rate:,.0f} tokens/s" if rate else "",
    )
    yield from _fact("device", _text(summary, "device"), _text(summary, "dtype"))
    loss, bits = _number(summary, "best_val_loss"), _number(summary, "best_val_bits_per_byte")
    val_dtype = _text(summary, "val_dtype") if loss is not None else ""
    yield from _fact(
        "best validation loss",
        "" if loss is None else f"{loss:.4f} nats a token",
        "" if bits is None else f"{bits:.3f} bits a byte",
        val_dtype and f"in {val_dtype}",
    )
    yield from _fact("seed", _whole(summary, "seed"))
    versions = (f"{name} {_text(summary, name)}" for name in ("minilm", "torch"))
    yield from _fact("versions", *(text for text in versions if not text.endswith(" ")))
    yield from _fact("finished", _date(summary))


def _fact(label: str, *parts: str) -> Iterator[tuple[str, str]]:
    known = ", ".join(part for part in parts if part)
    if known:
        yield label, known


def _stop(summary: Mapping[str, Any]) -> str:
    reason = _text(summary, "stopped_because")
    return reason and f"stopped by {reason}"


def _date(summary: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(_text(summary, "date"))
    except ValueError:
        return ""
    return one_line(f"{moment:%Y-%m-%d %H:%M %Z}".rstrip())


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return one_line(value) if isinstance(value, str) else ""


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if abs(value) < 1e18 else None


def _whole(values: Mapping[str, Any], key: str) -> str:
    value = _number(values, key)
    return "" if value is None else f"{value:,.0f}"


def _size(values: Mapping[str, Any], key: str) -> str:
    value = _number(values, key)
    return "" if value is None else format_size(int(value))
