"""What of one of minilm's models is trained, for what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minilm.config.lora import LoraConfig
from minilm.ledger.layout import Layout
from minilm.ledger.layout_changes import ADAPTER_TARGETS, with_adapters


@dataclass(frozen=True)
class Trained:
    """Everything but the components that are ``frozen``; or ``lora`` on a base that is frozen whole.

    ``packing`` is the format of the base's matrices: int8, int4, nf4, or empty for float32. A base that is
    packed has an adapter or is not trained.
    """

    frozen: frozenset[str] = frozenset()
    lora: LoraConfig | None = None
    packing: str = ""

    @property
    def everything(self) -> bool:
        """Whether nothing is frozen."""
        return self.lora is None and not self.frozen and not self.packing

    def adapted(self, component: str) -> bool:
        """Whether the matrices of ``component`` have adapters."""
        lora = self.lora
        return lora is not None and component in {ADAPTER_TARGETS[word] for word in lora.targets}

    def of(self, layout: Layout) -> Layout:
        """``layout`` of the whole model, with what is frozen marked and adapters added."""
        if self.lora is not None:
            return with_adapters(layout, self.lora.targets, self.lora.rank, dora=self.lora.dora)
        tensors = (replace(each, frozen=each.component in self.frozen) for each in layout.tensors)
        return replace(layout, tensors=tuple(tensors))
