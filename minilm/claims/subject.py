"""The model that claims are tested on: its weights, and blocks of text that it was not trained on.

Shapes: n blocks of t tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minilm.checkpoint import load
from minilm.claims.intervals import Bootstrap, blocks_needed
from minilm.claims.protocol import FEWEST_BLOCKS, WIDEST_HALF, Interval
from minilm.claims.trials import Blocks, Floats, Trials, replaced
from minilm.data.batches import IGNORED
from minilm.data.dataset import Dataset
from minilm.data.token_store import Tokens
from minilm.errors import InputError
from minilm.model.transformer import Transformer
from minilm.runs import files as run_files
from minilm.runs.files import RunRecord
from minilm.text.tokenizers import Tokenizer
from minilm.training.evaluation_text import evaluation_text, no_text
from minilm.transforms.activations import linear_layers
from minilm.transforms.lora import LoRALinear
from minilm.transforms.prune import global_masks, scores
from minilm.transforms.quantize import QuantizedLinear

MOST_BLOCKS = 60  # of a test: twice the fewest
LONGEST_BLOCK = 256  # tokens; of a longer context, its first
LEAST_LABELS = 0.05  # of a block's tokens, whose losses are its mean
HELD_BACK = (
    0.5  # of a text that is given: it is tested on, the rest is where facts and trainings are from
)
PILOT_SPARSITY = 0.4
UNIGRAM_TOKENS = 4_000_000  # of training text, for the baseline


@dataclass
class Subject:
    """A model, the blocks that it is tested on, others for a pilot, and text for facts.

    ``text`` is where facts are looked for, and what small models are trained on: none of it is in the blocks.
    ``unigram`` are the losses, (n,), of the token frequencies alone on the blocks. ``run`` and ``record`` say
    where the model is from.
    """

    model: Transformer
    blocks: Blocks
    pilot: Blocks
    text: Tokens
    unigram: Floats
    seed: int = 0
    run: Path | None = None
    record: RunRecord | None = None
    checkpoint: Path | None = None
    data: dict[str, object] = field(default_factory=dict)
    trials: Trials = field(init=False)

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        self.trials = Trials(self.model, self.blocks)  # now: of the model as it is

    def blocks_sha256(self) -> str:
        """Of the tokens of the test's and the pilot's blocks."""
        blocks = (self.blocks.tokens.numpy(), self.pilot.tokens.numpy())
        return hashlib.sha256(b"".join(each.tobytes() for each in blocks)).hexdigest()

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Resamples of the blocks of the test."""
        return Bootstrap(len(self.blocks), self.seed)

    def random(self, purpose: int) -> np.random.Generator:
        """Numbers for one purpose, whatever was drawn for others."""
        return np.random.default_rng([self.seed, purpose])

    @cached_property
    def advantage(self) -> Interval:
        """How many nats a token the model is better than its token frequencies."""
        return self.bootstrap.mean(self.unigram - self.trials.base)


def open_subject(
    run: Path,
    checkpoint: Path,
    data: str | None,
    seed: int,
    cache: Path | None = None,
    *,
    needs_text: bool = True,
) -> Subject:
    """The model of ``run`` with blocks of its validation split, or of the end of the text ``data``.

    Raises InputError where there is no text, or too little of it; where none is given or needed, the model
    has no blocks then.
    """
    if not 0 <= seed < 2**63:
        raise InputError("--seed", f"{seed}", "a number from 0 to 2^63 - 1")
    model, tokenizer = load(run)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(checkpoint, f"{name} has values that are no numbers", "finite weights")
    _check_plain(model, checkpoint)
    try:
        return _with_text(model, tokenizer, run, checkpoint, data, seed, cache)
    except InputError as error:
        if needs_text or data is not None:
            raise
        reason = str(error)
    none = torch.zeros(0, model.config.context_length, dtype=torch.int64)
    blocks = Blocks(none, none)
    return Subject(
        model=model,
        blocks=blocks,
        pilot=blocks,
        text=np.zeros(0, np.uint16),
        unigram=np.zeros(0),
        seed=seed,
        run=run,
        record=run_files.read_record(run / run_files.CONFIG),
        checkpoint=checkpoint,
        data={"blocks": 0, "reason": reason},
    )


def _with_text(
    model: Transformer,
    tokenizer: Tokenizer,
    run: Path,
    checkpoint: Path,
    data: str | None,
    seed: int,
    cache: Path | None,
) -> Subject:
    text = evaluation_text(run, tokenizer, data, val_fraction=HELD_BACK, cache=cache)
    if text is None:
        raise no_text(run, checkpoint)
    dataset, config = text.dataset, model.config
    length = min(config.context_length, LONGEST_BLOCK)
    blocks, pilot = sample_blocks(dataset, length)
    needed = blocks_needed(pilot_deviation(model, pilot), WIDEST_HALF)
    blocks = evenly(blocks, max(FEWEST_BLOCKS, needed))
    frequencies = np.bincount(
        np.asarray(dataset.train[:UNIGRAM_TOKENS]).astype(np.int64), minlength=config.vocab_size
    )
    return Subject(
        model=model,
        blocks=blocks,
        pilot=pilot,
        text=dataset.train,
        unigram=unigram_losses(blocks, frequencies),
        seed=seed,
        run=run,
        record=run_files.read_record(run / run_files.CONFIG),
        checkpoint=checkpoint,
        data={
            "source": text.name,
            "sha256": dataset.sha256,
            "blocks": len(blocks),
            "block_tokens": length,
            "pilot_blocks": len(pilot),
            "blocks_needed": needed,
        },
    )


def _check_plain(model: Transformer, checkpoint: Path) -> None:
    """Raise InputError where the matrices are not plain numbers that can be changed one at a time."""
    kinds = {type(module) for module in model.modules()}
    if QuantizedLinear in kinds:
        raise InputError(
            checkpoint, "a quantized run", "matrices of floats", "test the run that it was made of"
        )
    if LoRALinear in kinds:
        raise InputError(
            checkpoint,
            "an adapter on a base",
            "one model",
            "`minilm finetune RUN --merge --out DIR` makes one of them",
        )


def sample_blocks(dataset: Dataset, length: int) -> tuple[Blocks, Blocks]:
    """Blocks of ``length`` tokens to test on, and as many others for a pilot, evenly spread in turn.

    Raises InputError where the text has not so many.
    """
    length = dataset.row_length(length)
    rows = [
        tuple(torch.from_numpy(array[0]) for array in batch.arrays)
        for batch in dataset.validation_batches(length, 1, 2 * MOST_BLOCKS * length)
        if (batch.arrays[1] != IGNORED).mean() >= LEAST_LABELS
    ]
    if len(rows) < 2 * FEWEST_BLOCKS:
        raise InputError(
            dataset.source,
            f"{len(rows)} whole blocks of {length} tokens to evaluate on",
            f"{2 * FEWEST_BLOCKS}: {FEWEST_BLOCKS} for a test, as many for its pilot",
            "give a longer text as --data",
        )
    test, pilot = (
        Blocks(*(torch.stack(arrays) for arrays in zip(*part, strict=True)))
        for part in (rows[::2], rows[1::2])
    )
    return test, pilot


def pilot_deviation(model: Transformer, pilot: Blocks) -> float:
    """How much the effect of a moderate change, the smallest weights at zero, deviates by block."""
    trials = Trials(model, evenly(pilot, FEWEST_BLOCKS))
    matrices = linear_layers(model)
    masks = global_masks(scores(matrices, None), PILOT_SPARSITY)
    without = {
        f"{name}.weight": matrices[name].weight.masked_fill(mask, 0) for name, mask in masks.items()
    }
    with replaced(model, without), torch.no_grad():
        return float(trials.effect().std(ddof=1))


def evenly(blocks: Blocks, count: int) -> Blocks:
    """So many of them, evenly spread; all where there are fewer."""
    n = len(blocks)
    rows = torch.arange(min(count, n)) * n // min(count, n)
    positions = None if blocks.positions is None else blocks.positions[rows]
    return Blocks(blocks.tokens[rows], blocks.targets[rows], positions)


def unigram_losses(blocks: Blocks, frequencies: NDArray[np.int64]) -> Floats:
    """(n,) nats a token of each block by token frequencies (V,), to each of which one is added."""
    losses = -np.log((frequencies + 1) / (frequencies.sum() + len(frequencies)))
    return np.array(
        [losses[row[row != IGNORED]].mean() for row in blocks.targets.numpy()], dtype=np.float64
    )
