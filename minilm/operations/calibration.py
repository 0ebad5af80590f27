"""The text on which rounding is calibrated: windows of it, none of which is in the evaluated text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minilm.data.batches import window_starts
from minilm.data.corpus_stats import identify
from minilm.data.shards import prepare
from minilm.data.token_store import Tokens
from minilm.errors import InputError
from minilm.text.corpora import open_corpus
from minilm.text.tokenizers import Tokenizer
from minilm.training.evaluation_text import ALL, EvaluationText

logger = logging.getLogger(__name__)

CALIBRATION_TOKENS = 32_768
# On fewer, rounding fits the accidents of the text (docs/parameters.md).
FEW_TOKENS = 2048
_PROBE = 32  # tokens in the middle of a window, by which it is looked for in the evaluated text


def calibration_windows(
    source: str,
    tokenizer: Tokenizer,
    context_length: int,
    text: EvaluationText | None,
    *,
    text_field: str | None,
    cleaning: Sequence[str],
    cache: Path,
) -> tuple[Tensor, dict[str, Any]]:
    """Windows (n, t) of the text ``source``, and what they are, for the record of the run.

    It is cleaned by the steps ``cleaning``, those of the text that the model was trained on. Where it is the
    text whose validation split is evaluated, they are from the training part. Raises InputError where no
    window is left.
    """
    corpus = open_corpus(source, cleaning=cleaning, cache=cache, text_field=text_field)
    sha256, part = identify(corpus).sha256, "all"
    if text is not None and text.dataset.sha256 == sha256:
        tokens, part = text.dataset.train, "the training part"
        if len(tokens) < 2:
            raise InputError("--calibrate", "the text that is evaluated", "another text")
    else:
        tokens = prepare(
            corpus,
            tokenizer=tokenizer,
            vocab_size=None,
            val_fraction=ALL,
            cache=cache,
            context_length=1,
        ).val
    t = context_length
    if len(tokens) <= t:
        got = f"a text of {len(tokens):,} tokens"
        raise InputError("--calibrate", got, f"more than the context of the model, {t:,}")
    starts = window_starts(len(tokens), context_length=t, at_most=CALIBRATION_TOKENS)
    windows = [np.asarray(tokens[start : start + t]) for start in starts.tolist()]
    windows = [each for each in windows if len(each) == t]
    if text is not None:
        windows = [each for each in windows if not _occurs(each, text.dataset.val)]
    if not windows:
        raise InputError("--calibrate", "a text that is in the evaluated one", "another text")
    ids = torch.from_numpy(np.stack(windows).astype(np.int64))
    if ids.numel() < FEW_TOKENS:
        logger.warning(
            f"note: calibrated on {ids.numel():,} tokens only; on fewer than {FEW_TOKENS:,} rounding fits "
            "the accidents of the text"
        )
    what = {"source": source, "sha256": sha256, "part": part, "tokens": ids.numel()}
    return ids, what


def _occurs(window: Tokens, tokens: Tokens) -> bool:
    """Whether the middle of ``window`` is somewhere in ``tokens``."""
    middle = max(0, (len(window) - _PROBE) // 2)
    probe = np.asarray(window[middle : middle + _PROBE]).astype(tokens.dtype).tobytes()
    content, position = np.asarray(tokens).tobytes(), -1
    while (position := content.find(probe, position + 1)) >= 0:
        if position % tokens.dtype.itemsize == 0:
            return True
    return False
