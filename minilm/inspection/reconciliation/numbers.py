"""Parse a count or a size: 124439808, 7,217,189,760, 117M, 8.03B, 1.24e8, 548 MB, 474.7 MiB.

Its last digit gives its rounding: 117M is any number from 116.5 to 117.5 million.
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
_PATTERN = re.compile(
    r"(?P<whole>[0-9]{1,3}(?:([,_ ])[0-9]{3})(?:\2[0-9]{3})*|[0-9]+)(?:\.(?P<decimals>[0-9]+))?"
    r"(?:[eE]\+?(?P<exponent>[0-9]{1,2}))? ?(?P<unit>(?!param)[A-Za-z]*)(?: ?(?:parameters|params))?"
)

MAX_TEXT_LENGTH = 80
MAX_VALUE = 10**18


@dataclass(frozen=True)
class Number:
    """The ``value`` of ``text``, in parameters or in bytes.

    ``rounding`` is one unit of its last digit, 1 for a number with all its digits; ``scale`` is the
    factor of its suffix; ``is_bytes`` is true for a suffix of a size.
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
        """The same text with its unit scaled by ``numerator / denominator``."""
        return Number(
            text=self.text,
            value=self.value * numerator // denominator,
            rounding=max(1, self.rounding * numerator // denominator),
            scale=self.scale * numerator // denominator,
            is_bytes=self.is_bytes,
        )


def parse_number(text: str, where: str = "--reconcile") -> Number:
    """Parse ``text``. Raises InputError naming ``where`` for what is not a positive number up to 10^18."""
    stripped = text.strip()
    match = _PATTERN.fullmatch(stripped) if len(stripped) <= MAX_TEXT_LENGTH else None
    if match is None:
        raise _not_a_number(text, where)
    unit = match["unit"].lower()
    scale = _COUNTS.get(unit) or _SIZES.get(unit) or (1 if not unit else 0)
    if not scale:
        raise _not_a_number(text, where)
    decimals = match["decimals"] or ""
    digits = int(re.sub(r"[,_ ]", "", match["whole"]) + decimals)
    # 8.03e9 and 8.03B: the last digit is worth 10^power times the scale.
    power = int(match["exponent"] or 0) - len(decimals)
    value, rounding = digits * scale, scale
    if power >= 0:
        value, rounding = value * 10**power, rounding * 10**power
    else:
        if scale == 1:
            raise _not_a_number(text, where)  # a fraction of a parameter
        divisor: int = 10**-power
        value, rounding = (value + divisor // 2) // divisor, max(1, scale // divisor)
    if not 0 < value <= MAX_VALUE:
        raise _not_a_number(text, where)
    return Number(stripped, value, rounding, scale, unit in _SIZES)


def _not_a_number(text: str, where: str) -> InputError:
    excerpt = text if len(text) <= MAX_TEXT_LENGTH else f"{text[:20]}... ({len(text)} characters)"
    return InputError(
        where,
        repr(excerpt),
        f"a positive number up to {MAX_VALUE:.0e}",
        "write it as 124439808, 7,217,189,760, 117M, 8.03B, 1.24e8 or 548 MB",
    )
