"""A number as people write it: 124439808, 7,217,189,760, 117M, 8.03B, 1.24e8, 548 MB, 474.7 MiB.

How many digits were written says how far it is rounded: 117M stands for 116.5 to 117.5 million.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minilm.errors import InputError

_COUNTS = {
    "k": 10**3,
    "thousand": 10**3,
    "m": 10**6,
    "mn": 10**6,
    "million": 10**6,
    "b": 10**9,
    "bn": 10**9,
    "g": 10**9,
    "billion": 10**9,
    "t": 10**12,
    "trillion": 10**12,
}
_SIZES = {
    "bytes": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_WRITTEN = re.compile(
    r"(?P<whole>[0-9]{1,3}(?:([,_ ])[0-9]{3})(?:\2[0-9]{3})*|[0-9]+)(?:\.(?P<decimals>[0-9]+))?"
    r"(?:[eE]\+?(?P<exponent>[0-9]{1,2}))? ?(?P<unit>(?!param)[A-Za-z]*)(?: ?(?:parameters|params))?"
)

LONGEST_TEXT = 80
LARGEST = 10**18


@dataclass(frozen=True)
class Number:
    """``value`` as it was written in ``text``, in units or bytes.

    ``rounding`` is one unit of its last digit, 1 for a number that is written out; ``scale`` is what
    its suffix stands for; ``is_bytes`` says that the suffix was one of a size.
    """

    text: str
    value: int
    rounding: int
    scale: int = 1
    is_bytes: bool = False

    @property
    def is_rounded(self) -> bool:
        """Whether digits were left out."""
        return self.rounding > 1

    def times(self, numerator: int, denominator: int) -> Number:
        """The same text with its unit read as ``numerator / denominator`` of what it stands for."""
        return Number(
            self.text,
            self.value * numerator // denominator,
            max(1, self.rounding * numerator // denominator),
            self.scale * numerator // denominator,
            self.is_bytes,
        )


def parse_number(text: str) -> Number:
    """Read ``text``. Raises InputError, in one line, for what is not a positive number in range."""
    stripped = text.strip()
    match = _WRITTEN.fullmatch(stripped) if len(stripped) <= LONGEST_TEXT else None
    if match is None:
        raise _not_a_number(text)
    unit = match["unit"].lower()
    scale = _COUNTS.get(unit) or _SIZES.get(unit) or (1 if not unit else 0)
    if not scale:
        raise _not_a_number(text)
    decimals = match["decimals"] or ""
    digits = int(re.sub(r"[,_ ]", "", match["whole"]) + decimals)
    # 8.03e9 and 8.03B: the last of the written digits is worth `power` tenths of the unit.
    power = int(match["exponent"] or 0) - len(decimals)
    value, rounding = digits * scale, scale
    if power >= 0:
        value, rounding = value * 10**power, rounding * 10**power
    else:
        if scale == 1:
            raise _not_a_number(text)  # half a parameter
        tenths: int = 10**-power
        value, rounding = (value + tenths // 2) // tenths, max(1, scale // tenths)
    if not 0 < value <= LARGEST:
        raise _not_a_number(text)
    return Number(stripped, value, rounding, scale, unit in _SIZES)


def _not_a_number(text: str) -> InputError:
    shown = text if len(text) <= LONGEST_TEXT else f"{text[:20]}... ({len(text)} characters)"
    return InputError(
        "--reconcile",
        repr(shown),
        f"a positive number up to {LARGEST:.0e}",
        "write it as 124439808, 7,217,189,760, 117M, 8.03B, 1.24e8 or 548 MB",
    )
