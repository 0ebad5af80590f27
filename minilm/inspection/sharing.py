"""What a report says of layers that share their blocks."""

from __future__ import annotations

from minilm.config import ModelConfig
from minilm.inspection.report import Sharing
from minilm.ledger.layout import Layout

NAMES = "blocks"  # what minilm's own files call them


def sharing_of(config: ModelConfig | None, layout: Layout | None) -> Sharing | None:
    """Which layers each block runs as; None for a model in which every layer has its own."""
    if config is None or layout is None or config.num_blocks == config.num_layers:
        return None
    order = config.block_order
    return Sharing(
        layers=config.num_layers,
        distinct_layers=config.num_blocks,
        rule=config.sharing,
        unshared=layout.unshared().count(),
        blocks={
            f"{NAMES}.{number}": tuple(i for i, block in enumerate(order) if block == number)
            for number in range(config.num_blocks)
        },
    )


def sharing_note(sharing: Sharing | None) -> tuple[str, ...]:
    """The line that a report has of it."""
    if sharing is None:
        return ()
    blocks = f"{sharing.distinct_layers} block" + ("s" if sharing.distinct_layers > 1 else "")
    return (
        f"{blocks} shared by {sharing.layers} layers ({sharing.rule}): stored once; "
        f"{sharing.unshared:,} parameters if unshared",
    )
