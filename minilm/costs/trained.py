"""What of one of minilm's models is trained, for what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minilm.config.lora import LoraConfig
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import FREEZABLE, with_adapters, with_frozen


@dataclass(frozen=True)
class Trained:
    """Everything but ``freeze``, words of `FREEZABLE`; or ``lora`` on a frozen base.

    ``packing`` is the format of the base's matrices: int8, int4, nf4, or empty for float32.
    """

    freeze: Sequence[str] = ()
    lora: LoraConfig | None = None
    packing: str = ""

    @property
    def frozen(self) -> frozenset[str]:
        """The components that are frozen by name."""
        return frozenset(component for word in self.freeze for component in FREEZABLE[word])

    def of(self, layout: Layout) -> Layout:
        """``layout`` of the whole model, with what is frozen marked and adapters added."""
        if self.lora is not None:
            return with_adapters(layout, self.lora.targets, self.lora.rank)
        return with_frozen(layout, self.freeze) if self.freeze else layout
