"""The progress bar of a run: steps, time left, and the latest readings, within the terminal's width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minilm import progress

if TYPE_CHECKING:
    from tqdm import tqdm

_MARGIN = 3  # the time left may become longer before the next readings


def progress_bar(total: int, initial: int, **options: Any) -> tqdm[Any]:
    """A bar of steps, in a terminal or a notebook."""
    return progress.progress_bar(
        total=total,
        initial=initial,
        unit="step",
        dynamic_ncols=True,
        smoothing=0.05,  # an evaluation within a step hardly moves the time left
        bar_format="{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
        **options,
    )


def show_readings(bar: tqdm[Any], readings: Sequence[str]) -> None:
    """Show as many of the readings, the first ones, as stand in the line as a whole."""
    if bar.disable:
        return
    values = {**bar.format_dict, "postfix": ""}
    width = values["ncols"] or 80
    room = width - len(bar.format_meter(**values)) - len(", ") - _MARGIN
    text = ""
    for reading in readings:
        longer = f"{text} {reading}".strip()
        if len(longer) > room:
            break
        text = longer
    bar.set_postfix_str(text)
