"""Batches on their way to the device."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.config import TrainConfig
from minilm.data.batches import even_fractions, training_batch
from minilm.data.dataset import Dataset
from minilm.data.shards import prepare
from minilm.errors import ConfigError
from minilm.text.corpora import open_corpus
from minilm.training.batch_loader import BatchLoader

CPU = torch.device("cpu")


def dataset(kind: str, text_file: Path, cache: Path) -> Dataset:
    return prepare(
        open_corpus(str(text_file), cleaning=(), cache=cache),
        tokenizer=kind,
        vocab_size=300 if kind == "bpe" else None,
        val_fraction=0.1,
        cache=cache,
        context_length=16,
    )


def batch(
    loader: BatchLoader, step: int, micro_step: int, *, rows: int, length: int
) -> tuple[Tensor, ...]:
    return loader.tensors(loader.arrays(step, micro_step, rows, length))


def test_a_batch_is_that_of_its_seed_and_step(text_file: Path, cache: Path) -> None:
    data = dataset("byte", text_file, cache)
    inputs, targets = batch(BatchLoader(data, TrainConfig(seed=3), CPU), 7, 1, rows=4, length=16)
    expected = training_batch(
        data.train, context_length=16, batch_size=4, seed=3, step=7, micro_step=1
    )
    assert torch.equal(inputs, torch.from_numpy(expected[0]))
    assert torch.equal(targets, torch.from_numpy(expected[1]))


def test_even_windows_go_on_from_one_micro_step_to_the_next(text_file: Path, cache: Path) -> None:
    data = dataset("byte", text_file, cache)
    config = TrainConfig(seed=3, windows="even", gradient_accumulation=2)
    inputs, _ = batch(BatchLoader(data, config, CPU), 7, 1, rows=4, length=16)
    places = len(data.train) - 16
    starts = (even_fractions(3, passes=15, rows=4, length=16) * places).astype(int)
    expected = np.stack([data.train[start : start + 16] for start in starts])
    assert np.array_equal(inputs.numpy(), expected)


def test_subword_augmentation_splits_tokens_and_keeps_the_text(
    text_file: Path, cache: Path
) -> None:
    data = dataset("bpe", text_file, cache)
    loaders = [BatchLoader(data, TrainConfig(bpe_dropout=p), CPU) for p in (0.0, 0.5)]
    (plain, _), (split, _) = (batch(loader, 0, 0, rows=4, length=16) for loader in loaders)
    decode = data.tokenizer.decode
    for before, after in zip(plain.numpy(), split.numpy(), strict=True):
        assert decode(before).startswith(decode(after))
        assert not np.array_equal(before, after)


def test_only_bpe_has_merges_to_undo(text_file: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"bpe_dropout: 0\.1 with a byte tokenizer"):
        BatchLoader(dataset("byte", text_file, cache), TrainConfig(bpe_dropout=0.1), CPU)


def test_on_cuda_batches_are_pinned_and_nothing_waits(
    text_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *where, **how: sent.append((where, how)) or self
    )
    cuda = torch.device("cuda")
    batch(
        BatchLoader(dataset("byte", text_file, cache), TrainConfig(), cuda), 0, 0, rows=2, length=8
    )
    assert sent == [((cuda,), {"non_blocking": True})] * 2
