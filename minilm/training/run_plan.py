"""What a run will do, said before its first step: how much it computes, how often it sees its text."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from minilm.interop.exports import describe_exports
from minilm.training.run_spec import RunSpec
from minilm.training.text_size import step_tokens

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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
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
    tokens, text = (
        step_tokens(config, model.config, dataset),
        f"{dataset.train_tokens:,} training tokens",
    )
    epochs = config.max_steps * tokens / dataset.train_places
    yield f"{config.max_steps:,} steps of {tokens:,} tokens: " + (
        f"the {text} {epochs:,.1f} times" if epochs > 1 else f"{epochs:.0%} of the {text}"
    )
    if dataset.description:
        length, of_answers = dataset.row_length(model.config.context_length), dataset.description
        yield (
            f"{of_answers['conversations']:,} conversations in rows of {length:,} tokens, "
            f"{dataset.train_tokens / max(1, dataset.train_places):.0%} full; the loss is on the answers, "
            f"{of_answers['train_answer_tokens']:,} tokens of training and "
            f"{of_answers['val_answer_tokens']:,} of validation"
        )
    every = "each step" if config.eval_every == 1 else f"every {config.eval_every:,} steps"
    whole = f"{dataset.val_tokens:,} validation tokens"
    if 0 < config.eval_tokens < dataset.val_places:
        whole = f"{config.eval_tokens:,} of {whole}, over all at the end"
    yield f"an evaluation after {every}, over {whole}"
    against_overfitting = []
    if model.config.dropout:
        against_overfitting.append(f"dropout {model.config.dropout:g}")
    if config.early_stopping:
        against_overfitting.append(
            f"early stopping after {config.early_stopping} evaluations without a better loss"
        )
    if against_overfitting:
        yield "; ".join(against_overfitting)
