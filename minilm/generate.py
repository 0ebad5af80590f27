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
from minilm.errors import ConfigError


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
    _check(max_new_tokens, temperature, top_k, top_p)
    model, tokenizer = loaded
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    # Without a prompt the text begins where a document does; some tokenizers have no such token.
    start = tokenizer.end_of_text if tokenizer.end_of_text is not None else 0
    tokens = prompt or [start]
    for _ in range(max_new_tokens):
        window = torch.tensor([tokens[-model.config.context_length :]], device=device)
        logits = model(window)[0, -1, : tokenizer.vocab_size].float().cpu()
        token = choose(logits, temperature, top_k, top_p, generator)
        if token == tokenizer.end_of_text:
            return
        tokens = [*tokens, token]
        yield token


def generate(loaded: Loaded, prompt: str, *, max_new_tokens: int, **sampling: float) -> str:
    """The text that follows ``prompt``; ``sampling`` as for `generate_tokens`."""
    ids = [int(token) for token in loaded.tokenizer.encode(prompt)]
    tokens = generate_tokens(loaded, ids, max_new_tokens=max_new_tokens, **sampling)  # type: ignore[arg-type]
    return loaded.tokenizer.decode(list(tokens))


def choose(
    logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> int:
    """One token id from logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if 0 < top_k < logits.numel():
        logits[logits < logits.topk(top_k).values[-1]] = float("-inf")
    if top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(descending=True)
        # A token stays while those likelier than it do not yet reach p; the first always stays.
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p
        logits[order[dropped]] = float("-inf")
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))


def _check(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> None:
    if max_new_tokens < 0:
        raise ConfigError("max_new_tokens", f"{max_new_tokens}", "at least 0")
    if not 0 <= temperature < float("inf"):
        raise ConfigError("temperature", f"{temperature}", "at least 0 and finite; 0 is greedy")
    if top_k < 0:
        raise ConfigError("top_k", f"{top_k}", "at least 0; 0 keeps every token")
    if not 0 < top_p <= 1:
        raise ConfigError("top_p", f"{top_p}", "above 0 and at most 1")
