"""Datasets of the Hugging Face Hub, streamed over the network once and kept as JSON Lines.

    hf:NAME[:CONFIG][,split=SPLIT][,rows=N]      NAME may be a local folder

The library `datasets` (an extra) reads them. Later runs, and every pass of a run, read the copy. Of a local
folder, which may have changed, a new copy is made each time.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minilm.errors import CorpusError, InputError, MissingExtraError
from minilm.files import atomic_writer
from minilm.progress import progress_bar
from minilm.text.conversations import MESSAGES, PAIR
from minilm.text.records import NULL, choose_field, is_conversation, text_fields, text_of
from minilm.units import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset, its first ``rows`` rows, 0 for all; ``source`` is the user's text."""

    source: str
    name: str
    configuration: str | None = None
    split: str = "train"
    rows: int = 0

    def copy_path(self, cache: Path, text_field: str | None) -> Path:
        """Where its rows are kept."""
        identity = [self.name, self.configuration, self.split, self.rows, text_field]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return cache / "datasets" / f"{digest[:16]}.jsonl"

    def fetch(self, path: Path, text_field: str | None) -> None:
        """Write the text of each row, or its conversation, to ``path``, which appears when all are there.

        Raises CorpusError where the dataset cannot be read, InputError where ``path`` cannot be written.
        """
        logger.info(f"note: {self.source} is read once and kept as {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_writer(path) as stream:
                for line in self._stream(text_field):
                    stream.write(line.encode() + b"\n")
        except OSError as error:
            raise InputError(
                path,
                f"cannot be written ({error.strerror or error})",
                "a writable folder with free space",
                "set MINILM_CACHE to one, or read fewer rows: hf:NAME,rows=N",
            ) from None

    def _stream(self, text_field: str | None) -> Iterator[str]:
        """Each row as JSON: its text, unless that is null, or the fields of its conversation."""
        number, nulls, field, of_conversations = 0, 0, "", False
        try:
            datasets = importlib.import_module("datasets")
            rows = datasets.load_dataset(
                self.name, self.configuration, split=self.split, streaming=True
            )
            limited = itertools.islice(rows, self.rows or None)
            bar = progress_bar(iterable=limited, unit=" rows", desc=self.name)
            for number, row in enumerate(bar):
                where = f"{self.source} row {number}"
                if number == 0:
                    of_conversations = text_field is None and is_conversation(row)
                    if not of_conversations:
                        field = choose_field(list(row), text_fields(row), text_field, where)
                if of_conversations:
                    record = {name: row[name] for name in (*MESSAGES, *PAIR) if name in row}
                else:
                    record = {"text": text_of(row, field, where)}
                    if record["text"] is None:
                        nulls += 1
                        continue
                yield json.dumps(record)
            if nulls:
                logger.info(f"note: {self.source}: {NULL} ({counted(nulls, 'row')})")
        except InputError:
            raise
        # The library and its network code raise exceptions without a common base class.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CorpusError(
                f"{self.source} row {number}" if number else self.source,
                f"{type(error).__name__} ({reason})",
                f"a dataset with a split {self.split} that can be read",
                "check its name, configuration and split (hf:NAME:CONFIG,split=SPLIT) and the network",
            ) from error


def parse_source(source: str) -> HubDataset:
    """Read hf:NAME[:CONFIG][,split=SPLIT][,rows=N].

    Raises CorpusError for another form, MissingExtraError without the library.
    """
    name, *options = source.removeprefix("hf:").split(",")
    values = dict(option.partition("=")[::2] for option in options)
    if not name or values.keys() - {"split", "rows"} or not all(values.values()):
        raise CorpusError(
            source,
            f"the options {', '.join(options)}" if name else "no dataset name",
            "hf:NAME or hf:NAME:CONFIG, then ,split=SPLIT and ,rows=N as wanted",
        )
    rows = values.get("rows", "0")
    if "rows" in values and not (rows.isdecimal() and len(rows) < 19 and int(rows) > 0):
        raise CorpusError(source, f"rows={rows}", "a number of rows, 1 or more")
    configuration = ""
    if not os.path.exists(name):
        name, _, configuration = name.partition(":")
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("datasets", "datasets", source)
    return HubDataset(source, name, configuration or None, values.get("split", "train"), int(rows))
