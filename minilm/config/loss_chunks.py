"""How many logits the loss holds at once: what the model does and what the ledger of memory counts."""

# In float32 beside logits that are kept: as many as stay in a core's cache.
CACHED_LOGITS = 2**17
# More of them are not kept at all: the head and the loss are computed for so many at a time.
LOGITS_PER_CHUNK = 2**22
# Each chunk adds a gradient of the whole matrix to what is there: on a card that computes fast there are few.
LOGITS_PER_CHUNK_ON_CUDA = 2**28


def is_chunked(logits: int, device: str) -> bool:
    """Whether the loss of so many logits is computed in chunks of `rows_of_chunk`."""
    return logits > _of_chunk(device)


def rows_of_chunk(vocab_size: int, device: str) -> int:
    """How many tokens a chunk has."""
    return max(1, _of_chunk(device) // vocab_size)


def _of_chunk(device: str) -> int:
    return LOGITS_PER_CHUNK_ON_CUDA if device == "cuda" else LOGITS_PER_CHUNK


def rows_in_cache(vocab_size: int) -> int:
    """Of how many tokens the logits are in float32 at once, where those in the run's dtype are kept."""
    return max(1, CACHED_LOGITS // vocab_size)
