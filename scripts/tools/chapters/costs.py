"""What a token costs: FLOPs and KV cache."""

from __future__ import annotations

import minilm
from minilm.render.document import Paragraph, Section
from minilm.units import format_bytes, format_count


def section() -> Section:
    report = minilm.inspect("llama-3-8b")
    assert report.flops is not None
    cache, flops = report.memory["kv_cache"], report.flops
    count = report.parameters.total
    return Section(
        "costs",
        "What a token costs",
        (
            Paragraph(
                f"To predict one token, Llama 3 8B ({format_count(count)} parameters) uses "
                "nearly all of its parameters once. "
                "A parameter of a matrix takes two operations, a multiplication and an addition: "
                f"{format_count(flops['forward_per_token'])} FLOPs a token at a context of "
                f"{cache['context']:,}, of which "
                f"{format_count(flops['attention_per_token'])} are attention over the "
                "context; three times as many in "
                "training. The work grows with every token, the parameters do not."
            ),
            Paragraph(
                "Keys and values of earlier tokens are kept: the KV cache. In bfloat16 it takes "
                f"{format_bytes(cache['bfloat16'])} for {cache['context']:,} tokens, beside the "
                f"{format_bytes(report.memory['weights']['bfloat16'])} of the weights."
            ),
        ),
    )
