"""The text of a run: where it is, how it is read, and its tokens, made or found where they are stored."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.config import TrainConfig
from minilm.data.conversations import prepare_conversations
from minilm.data.corpus_stats import identify
from minilm.data.dataset import Dataset, with_document_attention
from minilm.data.shards import find, prepare
from minilm.errors import CorpusError, InputError
from minilm.parallel.process_group import world
from minilm.text.chat_template import ChatTemplate
from minilm.text.corpora import MIXTURE, absolute_source, open_corpus
from minilm.text.corpus import Corpus
from minilm.text.deduplication import Mode
from minilm.text.tokenizers import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """A text, by name or path, how it is read and cleaned, and the folder where its tokens are kept.

    ``chat_template``: the template that writes conversations: a file, plain, or base for that of the base.
    """

    name: str
    cleaning: tuple[str, ...]
    cache: Path
    text_field: str | None = None
    raw_text: bool = False
    chat_template: str | None = None
    dedup: Mode | None = None

    def open(self) -> Corpus:
        """Raises InputError for a source that is not there. One process downloads for all."""
        with world().main_first():
            return open_corpus(
                self.name,
                cleaning=self.cleaning,
                cache=self.cache,
                text_field=self.text_field,
                raw_text=self.raw_text,
                dedup=self.dedup,
            )

    def absolute_name(self) -> str:
        """The source as --resume finds it from any folder: a path made absolute, a name as it is."""
        return absolute_source(self.name)

    def options(self) -> dict[str, Any]:
        """How the text is read, as the options of a run are recorded."""
        return {
            "cleaning": list(self.cleaning),
            "text_field": self.text_field,
            "raw_text": self.raw_text,
            **({"chat_template": self.chat_template} if self.chat_template else {}),
            **({"dedup": self.dedup} if self.dedup else {}),
        }

    def prepare(
        self,
        corpus: Corpus,
        tokenizer: str | Tokenizer,
        config: TrainConfig,
        *,
        vocab_size: int | None = None,
        context_length: int,
        template: ChatTemplate | None = None,
    ) -> Dataset:
        """The tokens of ``corpus``, which is this source, opened: out of the cache, or made and put there.

        With a ``template``, those of its conversations. One process makes them for all.
        """
        with world().main_first():
            return self._prepare(
                corpus,
                tokenizer,
                config,
                vocab_size,
                context_length=context_length,
                template=template,
            )

    def _prepare(
        self,
        corpus: Corpus,
        tokenizer: str | Tokenizer,
        config: TrainConfig,
        vocab_size: int | None,
        *,
        context_length: int,
        template: ChatTemplate | None,
    ) -> Dataset:
        if template is not None:
            assert isinstance(tokenizer, Tokenizer), "that of the base"
            if corpus.parts or corpus.dedup:
                problem = f"conversations {'in a mixture' if corpus.parts else 'with --dedup'}"
                raise CorpusError(corpus.source, problem, "a text, or one source of conversations")
            return prepare_conversations(
                corpus,
                tokenizer=tokenizer,
                template=template,
                val_fraction=config.val_fraction,
                split=config.split,
                context_length=context_length,
            )
        dataset = prepare(
            corpus,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            val_fraction=config.val_fraction,
            split=config.split,
            cache=self.cache,
            context_length=context_length,
        )
        return with_document_attention(dataset, config)

    def stored(
        self, tokenizer: Tokenizer, *, key: str, sha256: str, may_be_missing: bool
    ) -> Dataset | None:
        """The tokens stored under ``key`` when the run began; None where they have to be made again.

        ``sha256`` is that of the run's text. Raises InputError for another text, or where neither text
        nor tokens are there.
        """
        dataset = find(self.cache, key, tokenizer=tokenizer, sha256=sha256)
        try:
            corpus = self.open()
            with world().main_first():  # what is downloaded is, as soon as it is read
                current = identify(corpus).sha256
        except InputError as error:
            if not may_be_missing:
                raise
            if dataset is None:
                raise InputError(
                    error.where,
                    error.got,
                    f"the run's text, SHA-256 {sha256[:12]}",
                    "say with --data where it is now",
                ) from None
            logger.warning(f"note: {error.where}: {error.got}: its tokens are still in the cache")
            return dataset
        if current != sha256:
            changed = "the text has changed since"
            if self.name.startswith(MIXTURE):
                changed = "a text has changed since, or they have moved and are in another order"
            raise InputError(
                self.name,
                f"data with SHA-256 {current[:12]}",
                f"the run's own data, {sha256[:12]}",
                f"{changed}: start a new run",
            )
        return dataset
