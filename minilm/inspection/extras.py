"""What a report adds on request: --fits, --reconcile, --stats, --diff. Each is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from reprlib import repr as shortened

from minilm.errors import InputError
from minilm.formats.header import Header
from minilm.inspection.inspector import Inspection
from minilm.inspection.report import Report
from minilm.units import format_bytes

# A second of work at most, where everything else is read at a gigabyte a second.
STABLE_RANK_BYTES = 2**26

Progress = Callable[[int, int, str], None]


def with_fits(inspection: Inspection, size: str, *, context: int | None, batch: int) -> Report:
    """The report with what fits in ``size``, such as 24GB or 80GiB."""
    from minilm.costs.fits import fits
    from minilm.units import parse_bytes

    budget = parse_bytes(size, "--fits")
    if inspection.layout is None:
        raise InputError(
            inspection.report.target, "an architecture that no family declares", "a known one"
        )
    found = fits(inspection.layout, budget, context=context, batch=batch)
    return replace(inspection.report, fits=found)


def with_reconciliation(inspection: Inspection, number: str) -> Report:
    """The report with an explanation of ``number``, such as 163037184, 117M or 8.03B."""
    from minilm.inspection.reconciliation.numbers import parse_number
    from minilm.inspection.reconciliation.reconcile import reconcile

    answer = reconcile(inspection.report, inspection.layout, parse_number(number))
    return replace(inspection.report, reconciliation=answer)


def with_statistics(
    inspection: Inspection, progress: Progress | None, *, stable_rank: bool = False
) -> Report:
    """The report with statistics of all values, streamed from the file.

    The stable rank takes dozens of passes over a matrix: of large files it is left out unless
    ``stable_rank`` asks for it, and a note says so.
    """
    from minilm.values.packed import not_decoded
    from minilm.values.stable_rank import is_too_large
    from minilm.values.statistics import statistics

    header, report = _weights(inspection, "--stats"), inspection.report
    stable_rank = stable_rank or header.data_bytes <= STABLE_RANK_BYTES
    if not stable_rank:
        note = f"stable ranks are left out above {format_bytes(STABLE_RANK_BYTES)}: --stable-rank"
        report = _noted(report, note)
    elif any(len(tensor.shape) == 2 and is_too_large(tensor) for tensor in header.tensors):
        report = _noted(report, "matrices too large for it both ways have no stable rank")
    found = statistics(
        header.tensors,
        left_out=not_decoded(inspection.storage),
        stable_rank=stable_rank,
        progress=progress,
    )
    return replace(report, statistics=found)


def with_difference(inspection: Inspection, other: Inspection, progress: Progress | None) -> Report:
    """The report with what ``other`` has that this target has not, and how the common values differ."""
    from minilm.values.difference import difference
    from minilm.values.packed import not_decoded

    found = difference(
        _weights(inspection, "--diff"),
        _weights(other, "--diff"),
        ties_a=inspection.report.tied,
        ties_b=other.report.tied,
        left_out=not_decoded(inspection.storage) | not_decoded(other.storage),
        progress=progress,
    )
    report = inspection.report
    if found.nothing_in_common:
        note = f"--diff: no tensor has the same name in both: here {shortened(found.removed[0])}, "
        report = _noted(report, f"{note}there {shortened(found.added[0])}")
    return replace(report, difference=found)


def _noted(report: Report, note: str) -> Report:
    return replace(report, notes=(*report.notes, note))


def _weights(inspection: Inspection, option: str) -> Header:
    if inspection.header is None:
        raise InputError(
            inspection.report.target,
            f"no weights for {option}",
            "a run folder, a model folder or a weights file",
        )
    return inspection.header
