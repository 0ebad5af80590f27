"""Integers of a few bits packed in bytes or words, the first in the lowest bits."""

from __future__ import annotations

import numpy as np

from minilm.formats.tensor_io import Array


def unpack(words: Array, bits: int) -> Array:
    """(..., n) whole numbers -> (..., m) uint8: all integers of ``bits`` (1 to 8) in their bytes, in order.

    Where ``bits`` do not divide a word, integers go on from one word to the next: m is what n words hold.
    """
    stored = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return stored
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        within: Array = stored[..., None] >> shifts & np.uint8(2**bits - 1)
        return within.reshape(*stored.shape[:-1], -1)
    single = np.unpackbits(stored, axis=-1, bitorder="little")
    count = single.shape[-1] // bits
    fields = single[..., : count * bits].reshape(*stored.shape[:-1], count, bits)
    integers: Array = np.packbits(fields, axis=-1, bitorder="little")[..., 0]
    return integers


def unpack_words(words: Array, bits: int) -> Array:
    """(..., n) words of 32 bits -> (..., n * (32 // bits)) uint8: only whole integers in each word."""
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    unsigned = np.ascontiguousarray(words).view(np.uint32)
    fields: Array = (unsigned[..., None] >> shifts & np.uint32(2**bits - 1)).astype(np.uint8)
    return fields.reshape(*words.shape[:-1], -1)
