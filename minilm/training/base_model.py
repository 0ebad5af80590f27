"""What fine-tuning takes over from its base beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from minilm import formats
from minilm.checkpoint import FLOATING
from minilm.formats.text_file import read_text
from minilm.runs import files as run_files


def companions(folder: Path) -> Mapping[str, bytes]:
    """The files that go with the tokenizer, by name."""
    paths = (folder / name for name in run_files.COMPANIONS)
    return {path.name: read_text(path).encode() for path in paths if path.is_file()}


class WeightDtypes:
    """In which dtypes the float weights of a run are stored.

    By kind, the tensors of all layers together: a transform may number layers anew, or add a head to a
    table. float32 where the tensors of a kind differ, and for what is stored in few bits.
    """

    def __init__(self, folder: Path) -> None:
        by_kind: dict[str, set[str]] = {}
        for tensor in formats.read(folder / run_files.WEIGHTS).tensors:
            by_kind.setdefault(_kind(tensor.name), set()).add(tensor.dtype)
        self._by_kind = {
            kind: dtypes.pop() if len(dtypes) == 1 else _WIDEST
            for kind, dtypes in by_kind.items()
            if dtypes <= set(FLOATING)
        }

    def of(self, name: str) -> str:
        """That of the parameter ``name``; of a head that is not stored, its table's."""
        if name == "lm_head.weight" and name not in self._by_kind:
            name = "embedding.token.weight"
        return self._by_kind.get(_kind(name), _WIDEST)

    def described(self, names: Iterable[str]) -> str:
        """Those of the parameters ``names``: bfloat16 and float32."""
        return " and ".join(sorted({self.of(name) for name in names}))

    @property
    def all(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(sorted(set(self._by_kind.values())))

    @property
    def common(self) -> str:
        """The dtype of all; float32 where there are several, or what is in few bits."""
        return self.all[0] if len(self.all) == 1 else _WIDEST


_WIDEST = "float32"


def _kind(name: str) -> str:
    return re.sub(r"^blocks\.\d+\.", "", name)
