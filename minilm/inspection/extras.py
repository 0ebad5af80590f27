"""What a report adds on request: --fits, --reconcile, --stats, --diff. Each is imported on use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from reprlib import repr as shortened
from typing import TYPE_CHECKING

from minilm.errors import ConfigError, InputError
from minilm.formats.header import Header
from minilm.inspection.inspector import Inspection
from minilm.inspection.report import Report
from minilm.units import format_bytes

if TYPE_CHECKING:
    from minilm.costs.trained import Trained
    from minilm.values.statistics import Unread

# Above this size, stable ranks (dozens of passes over a matrix) would dominate the time of --stats.
MAX_STABLE_RANK_BYTES = 2**26

Progress = Callable[[int, int, str], None]


def with_fits(
    inspection: Inspection,
    size: str,
    *,
    context: int | None,
    batch: int,
    lora_rank: int | None = None,
    cache_dtype: str | None = None,
) -> Report:
    """The report with what fits in ``size``, such as 24GB, 80GiB, 2x48GB, H100, or RAM, this machine's."""
    from minilm.architectures.minilm import layout as minilm_layout
    from minilm.costs.fits import fits
    from minilm.costs.hardware import Cards, parse_cards, physical_memory
    from minilm.costs.memory import CACHE_DTYPES, LORA_RANK, SMALL_CACHE_DTYPES, check_lora_rank
    from minilm.costs.trained import Trained
    from minilm.inspection.trained_part import stored_format, trained_part

    in_memory = size.strip().upper() == "RAM"
    memory = physical_memory() if in_memory else None
    if in_memory and memory is None:
        raise InputError("--fits", "RAM, which this system does not tell", "a size such as 24GB")
    cards = Cards(1, memory) if memory is not None else parse_cards(size, "--fits")
    if inspection.layout is None:
        raise InputError(
            inspection.report.target, "an architecture without a formula", "one with a formula"
        )
    if lora_rank is not None and lora_rank < 1:
        raise InputError("--lora-rank", str(lora_rank), "at least 1")
    dtypes = (*CACHE_DTYPES, *SMALL_CACHE_DTYPES)
    if cache_dtype is not None and cache_dtype not in dtypes:
        raise InputError("--kv-cache", repr(cache_dtype[:40]), f"one of {', '.join(dtypes)}")
    config, trained = None, None
    if inspection.target is not None and inspection.target.config is not None:
        config, trained = inspection.target.config, trained_part(inspection.target)
        if trained.everything:  # what is packed is trained by adapters alone
            trained = Trained(packing=stored_format(inspection.target))
    layout = inspection.layout if config is None else minilm_layout(config)
    if lora_rank is not None:
        try:
            check_lora_rank(layout, lora_rank)
        except ConfigError as error:
            raise InputError("--lora-rank", error.got, error.expected) from None
    answer = fits(
        layout,
        cards.bytes_each,
        cards=cards.number,
        context=context,
        batch=batch,
        rank=lora_rank or LORA_RANK,
        cache_dtype=cache_dtype,
        stored=inspection.header.data_bytes if inspection.header else None,
        device="cpu" if in_memory else "cuda",
        config=config,
        trained=trained,
    )
    if lora_rank is not None and all(fit.lora_rank != lora_rank for fit in answer):
        raise InputError(
            "--lora-rank", f"{lora_rank} {_instead_of_lora(trained)}", "no rank", "leave it out"
        )
    return replace(inspection.report, fits=answer)


def _instead_of_lora(trained: Trained | None) -> str:
    """Why a report has no row of an adapter of any rank."""
    if trained is not None and trained.lora is not None:
        return f"with a run that is an adapter of rank {trained.lora.rank}"
    if trained is not None and not trained.everything:
        return "with a run that trains a part of its model"
    return "with an architecture whose activations have no estimate"


def with_reconciliation(inspection: Inspection, number: str) -> Report:
    """The report with an explanation of ``number``, such as 163037184, 117M or 8.03B."""
    from minilm.inspection.reconciliation.candidate_terms import copy_terms
    from minilm.inspection.reconciliation.numbers import parse_number
    from minilm.inspection.reconciliation.reconcile import reconcile
    from minilm.inspection.tied_copies import copied_heads

    parsed, report = parse_number(number), inspection.report
    copies = copy_terms(report, copied_heads(inspection.header) if inspection.header else ())
    return replace(report, reconciliation=reconcile(report, inspection.layout, parsed, copies))


def with_statistics(
    inspection: Inspection, progress: Progress | None, *, stable_rank: bool = False
) -> Report:
    """The report with statistics of all values, streamed from the file.

    Large files get no stable ranks unless ``stable_rank`` is set; a note says so.
    """
    from minilm.values.stable_rank import is_too_large
    from minilm.values.statistics import statistics

    report = inspection.report
    header, left_out = _decoded(inspection, "--stats")
    stable_rank = stable_rank or header.data_bytes <= MAX_STABLE_RANK_BYTES
    if not stable_rank:
        note = (
            f"stable ranks are left out above {format_bytes(MAX_STABLE_RANK_BYTES)}: --stable-rank"
        )
        report = _with_note(report, note)
    elif any(len(tensor.shape) == 2 and is_too_large(tensor) for tensor in header.tensors):
        report = _with_note(
            report, "matrices that are too large in both dimensions have no stable rank"
        )
    return replace(
        report,
        statistics=statistics(
            header.tensors,
            left_out=left_out,
            stable_rank=stable_rank,
            progress=progress,
        ),
    )


def with_difference(inspection: Inspection, other: Inspection, progress: Progress | None) -> Report:
    """The report with what is added and removed in ``other``, and how the common values differ."""
    from minilm.values.difference import difference

    (before, left_out), (after, left_out_after) = (
        _decoded(each, "--diff") for each in (inspection, other)
    )
    changes = difference(
        before,
        after,
        ties_a=inspection.report.tied,
        ties_b=other.report.tied,
        left_out=left_out | left_out_after,
        progress=progress,
    )
    report = inspection.report
    if changes.nothing_in_common:
        note = (
            f"--diff: no tensor has the same name in both: here {shortened(changes.removed[0])}, "
        )
        report = _with_note(report, f"{note}there {shortened(changes.added[0])}")
    return replace(report, difference=changes)


def _with_note(report: Report, note: str) -> Report:
    return replace(report, notes=(*report.notes, note))


def _decoded(inspection: Inspection, option: str) -> tuple[Header, dict[str, Unread]]:
    """The header with the matrices whose values can be decoded, and what is not read."""
    from minilm.values.packed import with_decoded

    header, target = _require_header(inspection, option), inspection.target
    assert target is not None
    return with_decoded(header, inspection.logical, target.quantization_config, target.stated_dtype)


def _require_header(inspection: Inspection, option: str) -> Header:
    if inspection.header is None:
        raise InputError(
            inspection.report.target,
            f"no weights for {option}",
            "a run folder, a model folder or a weights file",
        )
    return inspection.header
