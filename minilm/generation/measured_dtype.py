"""In which dtype a model generates faster on this CPU: measured on the model itself.

The processor decides, the size of the model, and how many texts there are: on a Zen 4, one text was fastest
in float16, and sixteen in bfloat16 (docs/performance.md).
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor

from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.tuning import choose
from minilm.generation.unmodified import ModifiedModelError, check_unmodified
from minilm.model.device import FEWEST_BFLOAT16_PARAMETERS
from minilm.model.transformer import Transformer

MOST_PARAMETERS = 200_000_000  # copies of more take seconds to make, and gigabytes
TOKENS = 4  # of a text, each of which is a pass
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fastest_dtype(model: Transformer, by_rule: torch.dtype, texts: int = 1) -> torch.dtype:
    """One of `DTYPES` for so many ``texts`` at once by ``model``, whose weights stay as they are.

    Where it is on no CPU, modified, small or large, it is not measured: ``by_rule``. So too where it
    overflows in float16.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    measurable = FEWEST_BFLOAT16_PARAMETERS <= parameters <= MOST_PARAMETERS
    if model.lm_head.weight.device.type != "cpu" or not measurable:
        return by_rule
    try:
        check_unmodified(model)
    except ModifiedModelError:
        return by_rule

    @functools.cache  # made in the first, slowest round, and only where it is measured
    def decoder(dtype: torch.dtype) -> FastDecoder:
        own = dtype == model.lm_head.weight.dtype
        return FastDecoder(model if own else copy.deepcopy(model).to(dtype), tune=True)

    dtypes = {
        str(dtype).removeprefix("torch."): dtype
        for dtype in sorted(DTYPES, key=lambda dtype: dtype != by_rule)
    }
    config = model.config
    question = (
        f"a token of {config.num_layers} layers of {config.d_model} ({config.num_kv_heads} heads of keys of "
        f"{config.head_dim}, {config.d_feed_forward} {config.feed_forward}), vocabulary {config.vocab_size}, "
        f"of {texts} texts: {', '.join(dtypes)}"
    )
    ways = [
        (name, lambda dtype=dtype: _last_logits(decoder(dtype), texts))
        for name, dtype in dtypes.items()
    ]
    chosen = dtypes[choose(question, ways)]
    if chosen == torch.float16 and not _last_logits(decoder(chosen), texts).isfinite().all():
        return by_rule
    return chosen


@torch.no_grad()
def _last_logits(decoder: FastDecoder, texts: int) -> Tensor:
    """(texts, V), after `TOKENS` tokens from nothing."""
    length = min(TOKENS, decoder.config.context_length)
    token = torch.zeros(texts, 1, dtype=torch.long)
    cache = decoder.new_cache(texts, length)
    for _ in range(length - 1):
        decoder(token, cache)
    return decoder(token, cache)
