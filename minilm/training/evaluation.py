"""An evaluation: the mean loss over the validation split, and a sample of text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from minilm.data.batches import Batch
from minilm.data.dataset import Dataset
from minilm.generation.generate import stream
from minilm.generation.sampling import Sampling
from minilm.model.transformer import Transformer, next_token_loss
from minilm.parallel.process_group import World, world
from minilm.progress import progress_bar
from minilm.text.tokenizers import Tokenizer
from minilm.training.runtime import Loss, Runtime
from minilm.training.signals import StopRequest

SAMPLE_TEMPERATURE = 0.7

# In one forward pass: tokens enough to fill the processor, and logits few enough to fit anywhere.
TOKENS_PER_BATCH = 8192
LOGITS_PER_BATCH = 2**22
BATCHES_BETWEEN_SIGNALS = 8  # after which several processes ask whether one came to any


@dataclass(frozen=True)
class Validation:
    """Nats a token, bits a byte of the text, which compares across tokenizers, and over how many tokens.

    Bits a byte: the bits of every target, end-of-text tokens included, over every byte of the split's
    text; of a part of the split, its mean loss stands for that of all tokens.
    """

    loss: float
    bits_per_byte: float
    tokens: int


@torch.no_grad()
def evaluate(
    model: Transformer,
    data: Dataset,
    context_length: int,
    runtime: Runtime,
    *,
    at_most: int = 0,
    stop: StopRequest | None = None,
    loss: Loss | None = None,
    bar: bool = False,
) -> Validation | None:
    """The mean over every target of the validation split, in consecutive rows, dropout off.

    ``at_most``: of so many tokens, evenly spread over the split; 0: of all. None where a signal came
    meanwhile: it is looked for after each batch. ``loss`` takes the place of `next_token_loss`; ``bar``: with
    one of its own in a terminal. Several processes share the batches; each gets the mean over all.
    """
    was_training = model.training
    model.eval()
    counts: list[int] = []
    tokens = min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // model.config.vocab_size)
    length = data.row_length(context_length)
    rows = max(1, tokens // length)
    # Read at the end, so that no batch waits for the one before it; one tensor, as small ones kept
    # between large ones that come and go hold on to the heap (2 GiB over an evaluation of nano).
    processes = world()
    batches = math.ceil(data.num_validation_rows(length, at_most) / (rows * processes.data_size))
    losses = torch.empty(batches, device=runtime.device)
    own: Iterable[tuple[Batch, int]] = _own(
        data.validation_batches(length, rows, at_most), processes
    )
    if bar:
        own = progress_bar(
            iterable=own, total=batches, unit=" batches", desc="evaluating", leave=False
        )
    for batch, labels in own:
        tensors = (torch.from_numpy(array).to(runtime.device) for array in batch.arrays)
        with runtime.autocast():
            losses[len(counts)] = (loss or next_token_loss)(model, *tensors)
        counts.append(labels)
        if stop is not None and stop.shared and len(counts) % BATCHES_BETWEEN_SIGNALS == 0:
            stop.signum = processes.maximum(stop.received or 0)[0] or None
        if stop is not None and stop.signum is not None:
            break
    model.train(was_training)
    if stop is not None and stop.signum is not None:
        return None
    summed = float(losses.cpu().double() @ torch.tensor(counts, dtype=torch.float64))
    sums = torch.tensor([summed, sum(counts)], dtype=torch.float64)
    total, count = (processes.sum(sums) / processes.tensor).tolist()
    bits = total / count * data.val_labels / math.log(2)
    return Validation(total / count, bits / max(1, data.val_bytes), int(count))


def _own(batches: Iterable[Batch], processes: World) -> Iterator[tuple[Batch, int]]:
    """This process's batches, and how many labels of each count.

    Where they do not come out even, one comes twice and counts once: processes that share the model's tensors
    pass through it together.
    """
    total = 0
    for total, batch in enumerate(batches, start=1):
        if (total - 1) % processes.data_size == processes.data_rank:
            yield batch, batch.labels
    if 0 < total % processes.data_size <= processes.data_rank:
        yield batch, 0


@contextlib.contextmanager
def rounded(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The parameters as they are after being stored in ``dtype``, within the block."""
    if dtype == torch.float32:
        yield
        return
    parameters = list(model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(parameter.to(dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, before, strict=True):
                parameter.copy_(values)


def sample(
    model: Transformer,
    tokenizer: Tokenizer,
    max_new_tokens: int,
    *,
    stop: StopRequest | None = None,
) -> str:
    """Text of the model as it is now, dropout off: of the same weights the same text.

    Raises Interrupted where a signal came meanwhile: it is looked for after each token.
    """
    sampling, parts = Sampling(temperature=SAMPLE_TEMPERATURE), []
    prompt = tokenizer.encode_prompt("")
    for part in stream(model, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling):
        parts.append(part)
        if stop is not None:
            stop.raise_if_set()
    return "".join(parts)
