"""Attention and weights as heat maps: what the page's script draws of a layer, a head and a matrix.

A map is a string of `LEVELS`, a letter a cell, so that a page with dozens of them stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minilm.inspection.weight_maps import WeightMap
from minilm.render.parameter_charts import format_short
from minilm.runs.attention_maps import LEVELS, AttentionMaps, letters
from minilm.safe_text import one_line

CLIPPED = 0.005  # share of the blocks that are drawn as the fullest colour
_VISIBLE = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣"}


@dataclass(frozen=True)
class HeatMaps:
    """Both kinds, either of which may be missing; ``note`` says why there is no attention."""

    attention: AttentionMaps | None
    weights: Sequence[WeightMap]
    note: str = ""

    def script_values(self) -> dict[str, Any]:
        """What the page's script draws from."""
        return {
            "levels": LEVELS,
            "attention": self.attention and _attention(self.attention),
            "weights": [_weights(each) for each in self.weights],
        }


def heat_maps(
    attention: AttentionMaps | None, weights: Sequence[WeightMap], *, of_run: bool
) -> HeatMaps | None:
    """What is there to draw; None where there is nothing. ``of_run``: minilm trained the model."""
    if attention is None and not weights:
        return None
    note = ""
    if attention is None and of_run:
        note = "There are no attention maps: a run has them from where its training ended."
    elif attention is None:
        note = "Attention maps are there for runs that minilm trained."
    return HeatMaps(attention, weights, note)


def _attention(maps: AttentionMaps) -> dict[str, Any]:
    tokens = [one_line("".join(_VISIBLE.get(c, c) for c in text)) for text in maps.tokens]
    return {"tokens": tokens, "layers": maps.layers, "maps": maps.maps}


def _weights(each: WeightMap) -> dict[str, Any]:
    finite = sorted(value for value in each.values if value is not None)
    top = finite[max(0, round((1 - CLIPPED) * len(finite)) - 1)] if finite else 0.0
    shares = ((value or 0.0) / top if top > 0 else 0.0 for value in each.values)
    return {
        "layer": one_line(each.layer),
        "matrix": one_line(each.matrix),
        "shape": each.shape,
        "rows": each.rows,
        "columns": each.columns,
        "cells": letters(shares),
        "top": top,
        "shown": format_short(top),
        "heads": each.heads,
        "across": each.across,
    }
