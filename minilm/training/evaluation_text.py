"""Which text a trained model is evaluated on: its own validation split, or one that is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minilm.data.cache import default_cache
from minilm.data.conversations import prepare_conversations
from minilm.data.corpus_stats import identify
from minilm.data.dataset import Dataset
from minilm.data.shards import prepare
from minilm.data.splits import Mode
from minilm.errors import InputError
from minilm.runs import files as run_files
from minilm.runs.files import RunRecord
from minilm.text.chat_template import PLAIN, find_template
from minilm.text.corpora import open_corpus
from minilm.text.corpus import Corpus
from minilm.text.tokenizers import Tokenizer

ALL = 1.0  # the fraction of a text that is evaluated where it is given, unless another is asked for


@dataclass(frozen=True)
class EvaluationText:
    """Tokens to evaluate, ``dataset.val``, and what they are in a few words; the answers alone of some."""

    dataset: Dataset
    name: str
    of_answers: bool = False


def evaluation_text(
    run: Path,
    tokenizer: Tokenizer,
    data: str | None = None,
    *,
    text_field: str | None = None,
    val_fraction: float = ALL,
    cache: Path | None = None,
) -> EvaluationText | None:
    """All of ``data`` or its end, else the run's own validation split; None where summary.json has none.

    The rest of the text is in ``dataset.train``.

    Raises InputError for a text that is not there, or is another than the run was trained on.
    """
    cache = cache or default_cache()
    if data is not None:
        corpus = open_corpus(data, cleaning=(), cache=cache, text_field=text_field)
        part = "all" if val_fraction == ALL else f"the last {val_fraction:.0%}"
        if corpus.has_conversations():
            return _conversations(run, corpus, tokenizer, val_fraction, "position", part)
        dataset = prepare(
            corpus,
            tokenizer=tokenizer,
            vocab_size=None,
            val_fraction=val_fraction,
            cache=cache,
            context_length=1,
        )
        record = run_files.read_record(run / run_files.CONFIG)
        return EvaluationText(_as_trained(dataset, record), f"{part} of {corpus.name}")
    of_run = run_files.last_summary(run).get("data")
    if not isinstance(of_run, dict) or not isinstance(of_run.get("source"), str):
        return None
    return _own_split(run, of_run, tokenizer, cache)


def no_text(run: Path, checkpoint: str | Path) -> InputError:
    """Why there is none, where `evaluation_text` gives None: a run that was killed has no summary yet."""
    if (run / run_files.RESUME).is_dir() and not run_files.last_summary(run):
        remedy = f"give --data, or end it: minilm train --resume --run-dir {checkpoint}"
        return InputError(checkpoint, "no summary.json, as it has not ended", "a text", remedy)
    return InputError(checkpoint, "no validation split of its own", "a text", "give --data")


def _own_split(
    run: Path, of_run: dict[str, Any], tokenizer: Tokenizer, cache: Path
) -> EvaluationText:
    record = run_files.read_record(run / run_files.CONFIG)
    read = record.began_with
    try:
        corpus = open_corpus(
            of_run["source"],
            cleaning=tuple(read.get("cleaning") or ()),
            cache=cache,
            text_field=read.get("text_field"),
            raw_text=bool(read.get("raw_text", False)),
            dedup=read.get("dedup"),
        )
        sha256 = identify(corpus).sha256
    except InputError as error:
        raise InputError(error.where, error.got, error.expected, "or give --data") from None
    if sha256 != of_run.get("sha256"):
        raise InputError(
            of_run["source"],
            f"data with SHA-256 {sha256[:12]}",
            f"that of the run, {str(of_run.get('sha256'))[:12]}",
            "the text has changed since: give --data",
        )
    part, fraction = "the validation split", record.train.val_fraction
    if read.get("chat_template"):
        return _conversations(run, corpus, tokenizer, fraction, record.train.split, part)
    dataset = prepare(
        corpus,
        tokenizer=tokenizer,
        vocab_size=None,
        val_fraction=fraction,
        split=record.train.split,
        cache=cache,
        context_length=1,
    )
    return EvaluationText(_as_trained(dataset, record), f"{part} of {corpus.name}")


def _as_trained(dataset: Dataset, record: RunRecord) -> Dataset:
    """Documents see one another where they did in training."""
    return replace(dataset, document_attention=record.train.document_attention)


def _conversations(
    run: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    val_fraction: float,
    split: Mode,
    part: str,
) -> EvaluationText:
    """The answers in ``part`` of conversations, as the run's chat template writes them, or a plain one."""
    template = find_template(run)
    dataset = prepare_conversations(
        corpus,
        tokenizer=tokenizer,
        template=template,
        val_fraction=val_fraction,
        split=split,
        context_length=run_files.read_config(run / run_files.CONFIG).context_length,
    )
    which = "plain template" if template.name == PLAIN.name else "chat template"
    return EvaluationText(dataset, f"{part} of {corpus.name} (its {which})", of_answers=True)
