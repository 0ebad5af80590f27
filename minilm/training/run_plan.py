"""What a run will do, said before its first step: how much it computes, how often it sees its text."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from minilm.data.conversations import Conversations
from minilm.interop.exports import describe_exports
from minilm.training.run_spec import RunSpec
from minilm.training.text_size import final_eval_tokens, step_tokens
from minilm.transforms.quantize import parameter_count
from minilm.units import TOKENS_OF_ANSWERS, TOKENS_OF_CONVERSATIONS, counted

logger = logging.getLogger(__name__)


def announce(spec: RunSpec) -> None:
    """Say where the run computes and why, what it will do, and to what its model exports."""
    for note in spec.runtime.notes:
        logger.warning(note)
    for line in _plan(spec):
        logger.info(line)
    logger.info(describe_exports(spec.model.config, spec.dataset.tokenizer))


def _plan(spec: RunSpec) -> Iterator[str]:
    """What will be computed, how often the text will be seen, and what follows from it."""
    model, config, dataset, runtime = spec.model, spec.config, spec.dataset, spec.runtime
    parameters, trained = parameter_count(model), parameter_count(model, trainable=True)
    share = f", {trained:,} of them trained ({trained / parameters:.1%})"
    yield (
        f"{parameters:,} parameters{share if trained < parameters else ''}, on "
        f"{runtime.device.type} in {runtime.dtype_name}"
        f"{', compiled' if runtime.compile else ''}"
    )
    if spec.saved is not None:
        what = (
            f" {spec.adapter.lora.description}, on {spec.adapter.base['path']},"
            if spec.adapter
            else ""
        )
        yield f"resuming{what} after step {spec.saved.progress.step:,}"
    is_text = not isinstance(dataset, Conversations)
    unit = "tokens" if is_text else TOKENS_OF_CONVERSATIONS
    tokens, text = (
        step_tokens(config, model.config, dataset),
        f"{dataset.train_tokens:,} training {unit}",
    )
    epochs = config.max_steps * tokens / dataset.train_places
    yield f"{counted(config.max_steps, 'step')} of {tokens:,} tokens: " + (
        f"the {text} {epochs:,.1f} times" if epochs > 1 else f"{epochs:.0%} of the {text}"
    )
    if isinstance(dataset, Conversations):
        rows = dataset.train_rows
        yield (
            f"{counted(dataset.documents, 'conversation')} in rows of {rows.length:,} tokens, "
            f"{dataset.train_tokens / dataset.train_places:.0%} full; the loss is on {rows.labels:,} "
            f"training {TOKENS_OF_ANSWERS} and {dataset.val_labels:,} validation {TOKENS_OF_ANSWERS}"
        )
    every = "each step" if config.eval_every == 1 else f"every {config.eval_every:,} steps"
    whole = f"{dataset.val_tokens:,} validation {unit}"
    if 0 < config.eval_tokens < dataset.val_places:
        last = final_eval_tokens(config.max_steps * tokens, dataset)
        whole = f"{config.eval_tokens:,} of {whole}"
        if not 0 < last <= config.eval_tokens:
            whole += f", over {f'{last:,}' if last else 'all'} at the end"
    elif not is_text:
        whole = f"{dataset.val_labels:,} validation {TOKENS_OF_ANSWERS}"
    yield f"an evaluation after {every}, over {whole}"
    against_overfitting = []
    if model.config.dropout:
        against_overfitting.append(f"dropout {model.config.dropout:g}")
    if config.early_stopping:
        against_overfitting.append(
            f"early stopping after {counted(config.early_stopping, 'evaluation')} without a better loss"
        )
    if against_overfitting:
        yield "; ".join(against_overfitting)
