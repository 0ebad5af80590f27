"""Text from a trained model: one token at a time, greedy or sampled.

Temperature divides the logits; top-k keeps the k likeliest tokens (Fan et al. 2018,
arXiv:1805.04833); top-p keeps the fewest whose probabilities reach p (Holtzman et al. 2019,
arXiv:1904.09751).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from minilm.checkpoint import Loaded
from minilm.errors import ConfigError, InputError


@torch.no_grad()
def generate_tokens(
    loaded: Loaded,
    prompt: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """New token ids after ``prompt``, until ``max_new_tokens`` or the end-of-text token.

    ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep every token. Past the context
    length the model sees the last `context_length` tokens. Raises ConfigError for a value out of range.
    """
    _check(max_new_tokens, temperature, top_k, top_p, seed)
    model, tokenizer = loaded
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    # Without a prompt the text begins where a document does; some tokenizers have no such token.
    start = tokenizer.end_of_text if tokenizer.end_of_text is not None else 0
    tokens = list(prompt) or [start]
    for _ in range(max_new_tokens):
        window = torch.tensor([tokens[-model.config.context_length :]], device=device)
        logits = model(window)[0, -1, : tokenizer.vocab_size].double().cpu()
        if not logits.isfinite().all():
            raise InputError("weights", "an output that is not finite", "the weights of a good run")
        token = choose(logits, temperature, top_k, top_p, generator)
        if token == tokenizer.end_of_text:
            return
        tokens.append(token)
        yield token


def generate(
    loaded: Loaded,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """The text that follows ``prompt``; options as for `generate_tokens`."""
    tokens = generate_tokens(
        loaded,
        [int(token) for token in loaded.tokenizer.encode(prompt)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    return loaded.tokenizer.decode(list(tokens))


def choose(
    logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> int:
    """One token id from logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    # The likeliest becomes 0 first, so that no temperature, however small, overflows it.
    logits = (logits - logits.max()) / temperature
    if 0 < top_k < logits.numel():
        kept = logits.topk(top_k)
        logits = torch.full_like(logits, float("-inf")).scatter(0, kept.indices, kept.values)
    if top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        # A token stays while those likelier than it do not yet reach p; the first always stays.
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p
        logits[order[dropped]] = float("-inf")
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))


def _check(max_new_tokens: int, temperature: float, top_k: int, top_p: float, seed: int) -> None:
    if max_new_tokens < 0:
        raise ConfigError("max_new_tokens", f"{max_new_tokens}", "at least 0")
    if not 0 <= temperature < float("inf"):
        raise ConfigError("temperature", f"{temperature}", "at least 0 and finite; 0 is greedy")
    if not 0 <= seed < 2**63:
        raise ConfigError("seed", f"{seed}", "at least 0 and below 2^63")
    if top_k < 0:
        raise ConfigError("top_k", f"{top_k}", "at least 0; 0 keeps every token")
    if not 0 < top_p <= 1:
        raise ConfigError("top_p", f"{top_p}", "above 0 and at most 1")
