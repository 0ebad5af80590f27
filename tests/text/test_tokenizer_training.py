"""Building a tokenizer: determinism, refusals."""

import os
import signal
import subprocess
import sys
import time

import pytest

from minilm.errors import TokenizerError
from minilm.text.tokenizer_training import interruptibly
from tests.text.conftest import build

DETERMINISM = """
import sys, hashlib
from minilm.text.tokenizer_training import build_tokenizer
text = "".join(f"{i * 7919 % 1000} word{i % 37} naïve{i % 11}\\n" for i in range(3000))
for kind in ("byte", "char", "bpe"):
    tokenizer = build_tokenizer(kind, lambda: iter([text]), 600 if kind == "bpe" else None)
    print(kind, tokenizer.vocab_size, hashlib.sha256(tokenizer.to_json().encode()).hexdigest())
"""


def test_two_processes_build_the_same_bytes():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DETERMINISM],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "2"))
    }
    assert len(outputs) == 1
    assert "bpe 600 " in outputs.pop()


@pytest.mark.parametrize(
    ("kind", "vocab_size", "message"),
    [
        ("word", None, "--tokenizer: 'word', expected one of byte, char, bpe"),
        ("bpe", 256, "--vocab-size: 256, expected at least 257"),
        ("byte", 300, "--vocab-size: 300 with --tokenizer byte"),
        ("char", 300, "--vocab-size: 300 with --tokenizer char"),
    ],
)
def test_impossible_requests(kind, vocab_size, message):
    with pytest.raises(TokenizerError) as caught:
        build(kind, vocab_size=vocab_size)
    assert message in str(caught.value)


def test_char_of_nothing():
    with pytest.raises(TokenizerError, match="an empty text"):
        build("char", "")


def test_a_signal_need_not_wait_for_a_compiled_call() -> None:
    def alarm(*_: object) -> None:
        raise KeyboardInterrupt

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptibly(lambda: time.sleep(20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10


def test_what_fails_in_a_thread_fails_here() -> None:
    def fails() -> None:
        raise TokenizerError("text", "nothing", "something")

    with pytest.raises(TokenizerError, match="text: nothing, expected something"):
        interruptibly(fails)
