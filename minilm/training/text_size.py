"""Settings that follow from the size of the text and of the run, unless they were set.

A text that is seen too often is memorized: the validation loss falls, and then rises. How often is too often
was measured for `nano` (docs/training.md, "A small text").

Evaluations take at most a tenth of the compute of training: a forward pass is a third of a training step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from minilm.config import ModelConfig, TrainConfig
from minilm.data.dataset import Dataset

# A token of a byte or character says less: it takes more passes until the text is memorized.
MOST_EPOCHS, MOST_EPOCHS_OF_CHARACTERS = 4, 8
FEWEST_STEPS = 20
FEWEST_EVALUATIONS, MOST_EVALUATIONS = 12, 100
EVALUATIONS_AN_EPOCH = 2
# Of the tokens of training: those that evaluations may take, and the fewest that make a loss worth reading.
EVALUATION_SHARE = 0.3
FEWEST_EVAL_TOKENS = 16_384
# Where a text is seen more than once: evaluations without a better loss after which a run stops.
PATIENCE = 5
DROPOUT, DROPOUT_FROM_EPOCHS = 0.1, 2


def step_tokens(config: TrainConfig, model: ModelConfig, dataset: Dataset | None = None) -> int:
    """Tokens of one optimizer step at its full size: of conversations, places for tokens."""
    length = model.context_length
    if dataset is not None:
        length = dataset.row_length(length)
    return config.batch_size * config.gradient_accumulation * length


def final_eval_tokens(trained_tokens: int, dataset: Dataset) -> int:
    """Validation tokens of the evaluation at the end of a run on so many tokens; 0: all.

    No more than were trained on, so that it takes a third of the compute of training at most.
    """
    some = max(trained_tokens, FEWEST_EVAL_TOKENS)
    return some if some < dataset.val_places else 0


def longest_context(context_length: int, train_tokens: int) -> int:
    """``context_length``, or the largest power of two of which a text of so many tokens has a window."""
    if train_tokens > context_length:
        return context_length
    return int(2 ** ((train_tokens - 1).bit_length() - 1))


def fit_to_text(
    config: TrainConfig,
    model: ModelConfig,
    *,
    overrides: Collection[str],
    dataset: Dataset,
) -> tuple[TrainConfig, float]:
    """``config`` with the steps and evaluations for a text of this size, and the dropout.

    Fields of either configuration that are in ``overrides`` stay as they are.
    """
    train_tokens, most_tokens = dataset.train_places, max(dataset.val_places, 1)
    tokens_per_step = step_tokens(config, model, dataset)
    fields: dict[str, Any] = {}
    if "max_steps" not in overrides:
        characters = dataset.train_bytes < 2 * dataset.train_tokens
        most_epochs = MOST_EPOCHS_OF_CHARACTERS if characters else MOST_EPOCHS
        most = max(FEWEST_STEPS, most_epochs * train_tokens // tokens_per_step)
        fields["max_steps"] = min(config.max_steps, most)
    steps = fields.get("max_steps", config.max_steps)
    epochs = steps * tokens_per_step / train_tokens
    budget = int(EVALUATION_SHARE * steps * tokens_per_step)
    if "eval_tokens" not in overrides:
        some = max(budget // FEWEST_EVALUATIONS, FEWEST_EVAL_TOKENS)
        fields["eval_tokens"] = some if some < most_tokens else 0
    eval_tokens = fields.get("eval_tokens", config.eval_tokens) or most_tokens
    if "eval_every" not in overrides:
        evaluations = max(FEWEST_EVALUATIONS, round(EVALUATIONS_AN_EPOCH * epochs))
        count = max(1, min(evaluations, MOST_EVALUATIONS, budget // eval_tokens))
        fields["eval_every"] = max(1, steps // count)
    if "early_stopping" not in overrides and epochs > 1:
        fields["early_stopping"] = PATIENCE
    dropout = model.dropout
    may_drop = "dropout" not in overrides and config.tensor_parallel == 1
    if may_drop and not dropout and epochs > DROPOUT_FROM_EPOCHS:
        dropout = DROPOUT
    return replace(config, **fields), dropout
