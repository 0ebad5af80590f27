"""Batches: shifted targets, a pure function of (seed, step), every validation target once."""

import hashlib
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data.batches import (
    IGNORED,
    even_fractions,
    training_batch,
    undo_merges,
    validation_windows,
)
from tests.conftest import ROOT

TOKENS = np.arange(1000, dtype="<u2")  # a token is its own position


def batch(**changes):
    arguments = {"context_length": 8, "batch_size": 4, "seed": 1, "step": 5} | changes
    return training_batch(TOKENS, **arguments)


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_targets_are_the_inputs_one_later(dtype):
    inputs, targets = training_batch(
        TOKENS.astype(dtype), context_length=8, batch_size=64, seed=1, step=5
    )
    for array in (inputs, targets):
        assert type(array) is np.ndarray
        assert array.shape == (64, 8)
        assert array.dtype == np.int64
    assert np.array_equal(targets, inputs + 1), "consecutive tokens differ by one here"
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert len(set(inputs[:, 0].tolist())) > 50, "the windows are at random places"


def test_every_window_can_be_drawn_and_none_beyond():
    starts = set()
    for step in range(50):
        inputs, targets = training_batch(
            TOKENS[:12], context_length=8, batch_size=16, seed=0, step=step
        )
        starts |= set(inputs[:, 0].tolist())
        assert targets.max() <= 11
    assert starts == {0, 1, 2, 3}
    inputs, targets = training_batch(TOKENS[:9], context_length=8, batch_size=2, seed=0, step=0)
    assert inputs.tolist() == [list(range(8))] * 2
    assert targets.tolist() == [list(range(1, 9))] * 2


def test_so_much_of_a_text_is_not_drawn_as_the_documents_say():
    length, windows = 16, 10_000
    tokens = np.arange(length * windows, dtype="<u4")
    drawn = np.zeros(len(tokens), dtype=bool)
    shares = []
    for epoch in (1, 2, 3):  # of which each draws as many targets as there are tokens
        _, targets = training_batch(
            tokens, context_length=length, batch_size=windows, seed=1, step=epoch
        )
        drawn[targets.reshape(-1)] = True
        shares.append((~drawn).mean())
        assert abs(shares[-1] - math.exp(-epoch)) < 0.005
    for page, mentioned in (("training", 3), ("scaling", 1)):
        text = " ".join((ROOT / "docs" / f"{page}.md").read_text("utf-8").split())
        (sentence,) = re.findall(r"after as many tokens as the text has[^.]*", text)
        assert re.findall(r"\d+%", sentence) == [f"{share:.0%}" for share in shares[:mentioned]]


def test_even_windows_cover_a_text_before_they_come_to_it_again():
    length, rows = 16, 8
    tokens = np.arange(20_000, dtype="<u4")
    passes = len(tokens) // (length * rows)
    drawn = np.zeros(len(tokens), dtype=int)
    for epoch, most in enumerate((0.15, 0.001)):  # of random ones 0.37, then 0.14
        for number in range(epoch * passes, (epoch + 1) * passes):
            _, targets = training_batch(
                tokens,
                context_length=length,
                batch_size=rows,
                seed=1,
                step=number,
                fractions=even_fractions(1, number, rows, length),
            )
            np.add.at(drawn, targets.reshape(-1), 1)
        assert (drawn[length:-length] == 0).mean() < most
    assert drawn.max() <= 4


def test_even_windows_follow_from_seed_pass_and_length():
    fractions = even_fractions(1, 5, 4, 8)
    assert np.array_equal(fractions, even_fractions(1, 5, 4, 8))
    for other in (
        even_fractions(2, 5, 4, 8),
        even_fractions(1, 6, 4, 8),
        even_fractions(1, 5, 4, 9),
    ):
        assert not np.array_equal(fractions, other)
    # Every place is as likely, after any number of passes, and none is beyond.
    for passes in (0, 10**15):
        places = (even_fractions(1, passes, 300, 8) * 3).astype(int)
        assert set(np.bincount(places).tolist()) <= set(range(98, 103))


def test_a_batch_follows_from_seed_and_step_alone():
    assert np.array_equal(batch(), batch())
    for change in ({"seed": 2}, {"step": 6}, {"micro_step": 1}, {"seed": 5, "step": 1}):
        assert not np.array_equal(batch(), batch(**change)), change


def test_batches_are_pinned():
    """A resumed run, perhaps on another machine or version, must draw the same windows."""
    digest = hashlib.sha256()
    for step in range(3):
        inputs, _ = batch(step=step)
        digest.update(np.ascontiguousarray(inputs).tobytes())
    assert digest.hexdigest() == (
        "f8b879ccc24d76c0ab967ee53f061f91a4de63f289d5d47e83bf78031b679b8b"
    )
    pinned = [0.8088084204373334, 0.42684240918722827, 0.04487639793712306]
    assert even_fractions(1, 5, 3, 8).tolist() == pinned


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(1, 12), st.integers(1, 5))
def test_every_target_comes_exactly_once(length, context_length, batch_size):
    tokens = TOKENS[100 : 100 + length]
    shape = (batch_size, context_length)
    seen_inputs, seen_targets = [], []
    for inputs, targets in validation_windows(
        tokens, context_length=context_length, batch_size=batch_size
    ):
        assert inputs.shape == targets.shape == shape
        assert inputs.dtype == targets.dtype == np.int64
        used = targets != IGNORED
        assert np.all(inputs[~used] == 0)
        assert used.any()
        seen_inputs += inputs[used].tolist()
        seen_targets += targets[used].tolist()
    assert seen_inputs == tokens[:-1].tolist()
    assert seen_targets == tokens[1:].tolist()


def test_windows_do_not_overlap_and_the_last_is_padded():
    batches = list(validation_windows(TOKENS[1:7], context_length=2, batch_size=2))
    assert [inputs.tolist() for inputs, _ in batches] == [[[1, 2], [3, 4]], [[5, 0], [0, 0]]]
    assert [targets.tolist() for _, targets in batches] == [
        [[2, 3], [4, 5]],
        [[6, IGNORED], [IGNORED, IGNORED]],
    ]


# Tokens 0 to 3 are letters; 4 is ab, 5 is cd, 6 is abcd, merged from 4 and 5.
LETTERS = ["a", "b", "c", "d", "ab", "cd", "abcd"]
MERGES = np.array([[-1, -1]] * 4 + [[0, 1], [2, 3], [4, 5]])


def spelled(row):
    return "".join(LETTERS[token] for token in row)


def test_an_undone_merge_is_its_two_parts():
    windows = np.array([[6, 0, 5, 4, 6], [1, 1, 1, 1, 1]])
    whole = undo_merges(windows, MERGES, 1.0, np.random.default_rng(0))
    assert [spelled(row) for row in whole] == ["abcda", "bbbbb"]
    same = undo_merges(windows, MERGES, 0.0, np.random.default_rng(0))
    assert np.array_equal(same, windows)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=7, max_size=7), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(0, 100),
)
def test_undoing_merges_keeps_the_text_and_the_shape(rows, share, seed):
    changed = undo_merges(np.array(rows), MERGES, share, np.random.default_rng(seed))
    assert changed.shape == (len(rows), 7)
    for before, after in zip(rows, changed, strict=True):
        assert spelled(before).startswith(spelled(after))


def test_each_merge_is_undone_with_its_probability():
    windows = np.full((2000, 4), 6)
    changed = undo_merges(windows, MERGES, 0.3, np.random.default_rng(1))
    assert np.mean(changed[:, 0] == 6) == pytest.approx(0.7, abs=0.03)
    # abcd undone, and of it ab too: a alone comes first.
    assert np.mean(changed[:, 0] == 0) == pytest.approx(0.09, abs=0.02)


def test_augmentation_is_a_function_of_seed_and_step_too():
    tokens = np.tile(np.array([6, 4, 5, 0], dtype="<u2"), 50)

    def drawn(share, **changes):
        arguments = {"context_length": 8, "batch_size": 4, "seed": 1, "step": 5} | changes
        return training_batch(tokens, merges=MERGES, undo_probability=share, **arguments)

    assert np.array_equal(drawn(0.5), drawn(0.5))
    assert not np.array_equal(drawn(0.5), drawn(0.5, step=6))
    inputs, targets = drawn(0.5)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    plain = training_batch(tokens, context_length=8, batch_size=4, seed=1, step=5)
    assert [spelled(row)[:8] for row in drawn(1.0)[0]] == [spelled(row)[:8] for row in plain[0]]


MEMORY = """
import resource, sys
import numpy as np
from minilm.data.batches import training_batch, validation_windows
np.random.default_rng([0])
tokens = np.memmap(sys.argv[1], dtype="<u2", mode="r")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for step in range(20):
    training_batch(tokens, context_length=64, batch_size=8, seed=0, step=step)
next(validation_windows(tokens, context_length=64, batch_size=8))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_file_is_not_read_as_a_whole(tmp_path):
    size = 400 * 2**20
    with (tmp_path / "train.bin").open("wb") as stream:
        os.truncate(stream.fileno(), size)  # sparse: takes no room
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "train.bin")]
    growth = int(subprocess.run(command, check=True, capture_output=True).stdout)
    unit = 1 if sys.platform == "darwin" else 1024
    assert growth * unit < 40 * 2**20
