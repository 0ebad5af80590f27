"""build_tokenizer: a tokenizer made for a text: its bytes, its characters, or byte-level BPE trained on it.

BPE is trained by the tokenizers library.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minilm.errors import TokenizerError
from minilm.text.byte_vocabulary import BYTE_VOCABULARY
from minilm.text.chunking import split_into_chunks
from minilm.text.separators import END_OF_TEXT
from minilm.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    code_points,
)
from minilm.text.tokenizers_library import enable_parallelism

TOKENIZER_KINDS = ("byte", "char", "bpe")
DEFAULT_BPE_VOCAB_SIZE = 4096
# BPE counts every distinct word in memory; this much text has the frequent ones.
BPE_CHARACTERS = 2**28

logger = logging.getLogger(__name__)


def build_tokenizer(
    kind: str,
    texts: Callable[[], Iterator[str]],
    vocab_size: int | None = None,
    *,
    separated: bool = False,
    characters: int = 0,
) -> Tokenizer:
    """Build a tokenizer of ``kind`` from the text that each call of ``texts`` streams.

    ``vocab_size`` is for bpe only, where None means DEFAULT_BPE_VOCAB_SIZE; a small text may give fewer
    tokens. With ``separated`` a char tokenizer has an end-of-text token, which the other kinds always
    have. Of a text of more than BPE_CHARACTERS, as ``characters`` says, bpe is trained on chunks spread
    evenly over it. The same text always gives the same tokenizer, however it is divided.
    Raises TokenizerError for an unknown kind or an invalid vocabulary size.
    """
    if kind not in TOKENIZER_KINDS:
        raise TokenizerError("--tokenizer", repr(kind), "one of " + ", ".join(TOKENIZER_KINDS))
    if kind == "bpe":
        every = max(1, -(-characters // BPE_CHARACTERS))
        if every > 1:
            logger.info(
                f"note: BPE is trained on one in {every} of {characters:,} characters, spread evenly"
            )
        size = DEFAULT_BPE_VOCAB_SIZE if vocab_size is None else vocab_size
        return _train_bpe(texts(), size, every)
    if vocab_size is not None:
        raise TokenizerError(
            "--vocab-size",
            f"{vocab_size} with --tokenizer {kind}",
            "a size with --tokenizer bpe only",
            "leave it out: the other kinds have a fixed one",
        )
    return ByteTokenizer() if kind == "byte" else CharTokenizer(_characters(texts()), separated)


SIGNAL_SECONDS = 0.2  # on Windows, where waiting for a thread delays them


def _train_bpe(texts: Iterable[str], vocab_size: int, every: int) -> BPETokenizer:
    """Trained on one chunk of ``every`` so many."""
    smallest = len(BYTE_VOCABULARY) + 1
    if vocab_size < smallest:
        raise TokenizerError(
            "--vocab-size", str(vocab_size), f"at least {smallest}: every byte and {END_OF_TEXT}"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair that occurs once is not worth a token
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    enable_parallelism()
    chunks = itertools.islice(
        split_into_chunks(texts, BPETokenizer.CHUNK_CHARACTERS), 0, None, every
    )
    interruptibly(lambda: backend.train_from_iterator(chunks, trainer))
    return BPETokenizer(backend)


def interruptibly(work: Callable[[], None]) -> None:
    """Call it in a thread: Python handles signals between its own calls, and a compiled one may take minutes.

    What a signal interrupts so goes on to its end, or to that of the process.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(SIGNAL_SECONDS)
    for error in errors:
        raise error


def _characters(texts: Iterable[str]) -> list[str]:
    occurs = np.zeros(sys.maxunicode + 1, dtype=bool)
    for text in texts:
        occurs[code_points(text)] = True
    characters = [chr(point) for point in np.flatnonzero(occurs)]
    if not characters:
        raise TokenizerError("--tokenizer char", "an empty text", "a text with characters")
    return characters
