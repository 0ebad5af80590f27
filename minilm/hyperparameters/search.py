"""search(): the hyperparameters and the shape under a budget that learn a text best."""

from __future__ import annotations

import dataclasses
import functools
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.config import ModelConfig
from minilm.config.presets import find_preset
from minilm.config.validation import with_current_names
from minilm.data.cache import default_cache
from minilm.errors import ConfigError
from minilm.hyperparameters.budget import Budget
from minilm.hyperparameters.energy import energy_factor
from minilm.hyperparameters.result import SearchResult, describe, result_of
from minilm.hyperparameters.space import Infeasible, Space
from minilm.hyperparameters.study import (
    Claimed,
    Sampler,
    Study,
    check_installed,
    open_study,
)
from minilm.hyperparameters.trial import TextOptions, train_trial
from minilm.training.data_source import DataSource
from minilm.training.messages import messages_shown
from minilm.training.setup import text_of_run
from minilm.training.signals import Stopped, StopRequest, stop_request
from minilm.training.text_size import fit_to_text, step_tokens
from minilm.units import counted

# Fields of TrainConfig that follow from the trials' length.
OF_TRIALS = ("max_steps", "max_seconds", "eval_every", "early_stopping", "target_val_loss")

logger = logging.getLogger(__name__)


def search(
    data: str | Path = "stdlib",
    *,
    study: str | Path,
    params: int | None = None,
    bytes: int | None = None,
    flops: int | None = None,
    joules: float | None = None,
    trials: int = 20,
    tokens: int | None = None,
    sampler: Sampler = "tpe",
    preset: str = "nano",
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    text_field: str | None = None,
    model: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> SearchResult:
    """Search learning rates, batch size, depth and width under a budget, around those of ``preset``.

    The budget is of ``params``, of ``bytes`` (float32 weights and the KV cache of one context), of forward
    ``flops`` a token, of ``joules`` a token of training, or of several of them. It is computed from the
    ledger before a model is made: none that costs more is trained. The first trial is the preset, as far as
    the budget allows; every other computes as many FLOPs as that one does on ``tokens``, by default those of
    the preset's own run. ``model`` and ``settings`` are fixed fields of the configurations, which leave the
    search; ``settings`` has the seed, of trials and of the search.

    ``study`` is a database file: a search that was stopped goes on, until ``trials`` are finished, and
    several processes that are given the same one share it. Raises InputError for that of another search.
    Needs the extra 'search'.
    """
    check_installed()
    path, given = Path(study), dict(model or {})
    fixed = with_current_names(settings or {}, "settings")
    for name in OF_TRIALS:
        if name in fixed:
            expected = "nothing: it follows from the tokens of a trial"
            raise ConfigError(name, f"{fixed[name]}", expected)
    for name, value in (("trials", trials), ("tokens", 1 if tokens is None else tokens)):
        if value < 1:
            raise ConfigError(name, f"{value}", "1 or more")
    budget = Budget(params, bytes, flops, joules)
    with messages_shown(), stop_request() as stop:
        source = DataSource(str(data), (), cache or default_cache(), text_field)
        options = TextOptions(preset, source, tokenizer, vocab_size)
        space = _space(options, given, fixed, budget, tokens)
        measure = functools.cache(lambda: energy_factor(options, space))
        if joules is None:
            space.check()
        elif not path.exists():
            _with_energy(space, measure())
        options.check(space)
        identity, details = _identity(options, space, sampler), _details(options, space)
        seed = space.preset.train_config(**fixed).seed
        with open_study(path, identity, sampler=sampler, seed=seed, details=details) as opened:
            if joules is not None:
                space = _with_energy(space, opened.measured("energy_factor", measure), noted=True)
            _announce(space, opened, trials)
            try:
                while claimed := opened.claim(trials, space.suggest, space.preset_parameters()):
                    _try(claimed, opened, options, space, stop)
            except KeyboardInterrupt as stopped:
                note = f"stopped: the same command goes on with {path}"
                raise Stopped(getattr(stopped, "signum", signal.SIGINT), note) from None
            return result_of(opened, options, space)


def _with_energy(space: Space, factor: float | None, *, noted: bool = False) -> Space:
    """``space`` with joules as measured, where they can be; checked, since a budget may be of them."""
    if factor is None and noted:
        logger.warning("note: no counter of energy can be read here: joules are estimates")
    space = dataclasses.replace(space, energy_factor=factor or 1.0)
    space.check()
    return space


def _space(
    options: TextOptions,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    budget: Budget,
    tokens: int | None,
) -> Space:
    """What is searched on a text, whose vocabulary is part of every model."""
    preset = find_preset(options.preset)
    train, base = preset.train_config(**settings), preset.model_config(**model)
    kind = options.tokenizer or preset.tokenizer
    size = base.vocab_size if kind == "bpe" and options.vocab_size is None else options.vocab_size
    dataset, base = text_of_run(
        options.source,
        options.source.open(),
        kind,
        vocab_size=size,
        config=train,
        model=base,
        given=model,
    )
    fields = {"vocab_size": dataset.tokenizer.vocab_size, "context_length": base.context_length}
    base = preset.model_config(**{**fields, **model})
    if tokens is None:
        fitted, _ = fit_to_text(train, base, overrides={*settings, *model}, dataset=dataset)
        tokens = fitted.max_steps * step_tokens(fitted, base, dataset)
    return Space(
        preset=preset,
        base=base,
        dataset=dataset,
        model=model,
        settings=settings,
        budget=budget,
        tokens=tokens,
    )


def _identity(options: TextOptions, space: Space, sampler: Sampler) -> dict[str, Any]:
    """What makes losses of trials comparable: the study of another one is refused."""
    limits = {name: f"{limit}" for name, limit in space.budget.limits().items()}
    return {
        "data": f"SHA-256 {space.dataset.sha256[:16]}",
        "encoding": space.dataset.key or f"{space.dataset.train_tokens}",
        "budget": ", ".join(f"{name} {limit}" for name, limit in limits.items()),
        "preset": options.preset,
        "model": f"{dict(sorted(space.model.items()))}",
        "settings": f"{dict(sorted(space.settings.items()))}",
        "tokens of a trial": space.tokens,
        "sampler": sampler,
    }


def _details(options: TextOptions, space: Space) -> dict[str, Any]:
    """What `_identity` has as hashes or as a whole, for a message."""
    dataset = space.dataset
    return {
        "data": f"{options.source.name}, {dataset.bytes:,} bytes",
        "encoding": f"{dataset.train_tokens:,} tokens of a vocabulary of "
        f"{dataset.tokenizer.vocab_size:,}",
        "model": {name: f"{value}" for name, value in space.model.items()},
        "settings": {name: f"{value}" for name, value in space.settings.items()},
    }


def _announce(space: Space, study: Study, trials: int) -> None:
    base: ModelConfig = space.base
    done = study.counts()["finished"]
    logger.info(
        f"{counted(trials, 'trial')} of {space.trial_flops:.3g} FLOPs, with at most {space.budget}"
        + (f"; {done} {'is' if done == 1 else 'are'} finished" if done else "")
    )
    logger.info(
        f"each model has a vocabulary of {base.vocab_size:,} and a context of {base.context_length:,} tokens"
    )


def _try(
    claimed: Claimed, study: Study, options: TextOptions, space: Space, stop: StopRequest
) -> None:
    """Train a claimed trial, record it, say it in one line."""
    candidate = space.candidate(claimed.parameters)
    if isinstance(candidate, Infeasible):
        study.prune(claimed, {"reason": candidate.reason})
        logger.info(f"trial {claimed.number}: not trained: {candidate.reason}")
        return

    def report(part: int, loss: float) -> bool:
        return study.report(claimed, part, loss)

    try:
        folder = study.run_folder(claimed.number)
        spec = options.run(candidate.model, candidate.settings, folder)
        result = train_trial(spec, stop, report)
    except KeyboardInterrupt:
        study.fail(claimed, again=True)
        raise
    except BaseException:
        study.fail(claimed, again=False)
        raise
    text = f"trial {claimed.number}: {describe(candidate)}"
    if result.signum is not None:
        study.fail(claimed, again=True)
        raise Stopped(result.signum, "")
    if result.loss is None:
        study.prune(claimed, result.facts() | {"reason": "the loss is not finite"})
        logger.info(f"{text}: the loss is not finite")
    elif result.is_pruned:
        study.prune(claimed, result.facts())
        share = result.tokens / max(1, candidate.tokens)
        logger.info(f"{text}: pruned after {share:.0%}, loss {result.loss:.4f}")
    else:
        is_best = study.complete(claimed, result.loss, result.facts())
        best = ", the best so far" if is_best else ""
        logger.info(f"{text}: loss {result.loss:.4f} in {result.seconds:.1f} s{best}")
