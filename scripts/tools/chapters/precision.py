"""Bits of a parameter, and what becomes of 1/3 in them."""

from __future__ import annotations

import torch

from minilm.dtypes import BITS, storage_bytes
from minilm.render.cells import number_columns
from minilm.render.document import Paragraph, Section
from scripts.tools.chapters.tables import table


def section() -> Section:
    """Rounded by torch, and by a scale."""
    third = torch.tensor(1 / 3)
    seventy = 70 * 10**9
    rows = []
    for dtype in ("float32", "bfloat16", "float16"):
        stored = third.to(getattr(torch, dtype)).item()
        rows.append(
            (
                dtype,
                str(BITS[dtype]),
                f"{stored:.8f}",
                f"{storage_bytes(seventy, dtype) / 1e9:,.0f} GB",
            )
        )
    for dtype, levels in (("int8", 127), ("int4", 7)):
        scale = 1 / levels  # of a group whose largest value is 1
        stored = round(third.item() / scale) * scale
        rows.append(
            (
                dtype,
                str(BITS[dtype]),
                f"{stored:.8f}",
                f"{storage_bytes(seventy, dtype) / 1e9:,.0f} GB",
            )
        )
    return Section(
        "precision",
        "Precision",
        (
            Paragraph(
                "A parameter takes as many bytes as its dtype has bits, divided by 8: 4 bytes in "
                "float32, 2 in bfloat16 and float16, 1 in int8, half a byte in int4. So the bytes "
                "of a model are its number of parameters times that. Fewer bits tell fewer numbers "
                "apart. Here is what becomes of 1/3 (int8 and int4 are whole numbers up to 127 "
                "and 7, which a scale is multiplied with, here 1/127 and 1/7), and the weights of "
                "a model of 70 billion parameters, in GB of 10 to the 9 bytes, without scales:"
            ),
            table(number_columns("dtype", "bits", "1/3 as stored", "70 billion parameters"), rows),
        ),
    )
