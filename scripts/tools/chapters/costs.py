"""What a token costs: FLOPs and KV cache."""

from __future__ import annotations

import minilm
from minilm.render.document import Paragraph, Section
from minilm.units import format_bytes, format_count


def section() -> Section:
    """Of Llama 3 8B."""
    report = minilm.inspect("llama-3-8b")
    assert report.flops is not None
    cache, flops = report.memory["kv_cache"], report.flops
    count = report.parameters.total
    return Section(
        "costs",
        "What a token costs",
        (
            Paragraph(
                f"To predict one token, Llama 3 8B ({format_count(count)} parameters) uses nearly all "
                "of its parameters once: of the embedding only the row of the token, which is looked up. A "
                "parameter of a matrix takes two operations, a multiplication and an addition. Such "
                "operations are called FLOPs: "
                f"{format_count(flops['forward_per_token'])} (billions) a token at a context of "
                f"{cache['context']:,} tokens, of which {format_count(flops['attention_per_token'])} "
                "are attention over the context; three times as many in training. The work grows "
                "with every token, the parameters do not."
            ),
            Paragraph(
                "Keys and values, which attention computes of each token, are kept for the tokens "
                "that follow: the KV cache. It is memory beside the parameters, and grows with every "
                f"token of the context: in bfloat16 it takes {format_bytes(cache['bfloat16'])} for "
                f"{cache['context']:,} tokens, beside the "
                f"{format_bytes(report.memory['weights']['bfloat16'])} of the weights."
            ),
        ),
    )
