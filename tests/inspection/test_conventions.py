"""The ways of counting that a report lists, and the number of tokens that padding follows from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minilm
from minilm.inspection.vocabulary import vocabulary_size
from tests.inspection.test_inspector import write_gpt2, write_llama


def conventions(folder: Path) -> dict[str, int]:
    return {convention.name: convention.count for convention in minilm.inspect(folder).conventions}


def write_tokenizer(folder: Path, tokens: int) -> None:
    vocabulary = {str(number): number for number in range(tokens - 1)}
    added = [{"id": tokens - 1, "content": "<|end|>"}]
    value = {"model": {"vocab": vocabulary}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(value))


def test_rows_beyond_the_tokenizer_are_padding(tmp_path: Path) -> None:
    tied, untied = tmp_path / "tied", tmp_path / "untied"
    tied.mkdir()
    total = write_gpt2(tied)
    write_tokenizer(tied, 9)
    assert conventions(tied)["no padding rows"] == total - 2 * 8
    assert conventions(tied)["tied head twice"] == total + 11 * 8
    total = sum(tensor.numel() for tensor in write_llama(untied).values())
    write_tokenizer(untied, 9)
    assert conventions(untied)["no padding rows"] == total - 2 * (2 * 8)
    assert conventions(untied)["non-embedding, no head"] == total - 2 * (11 * 8)


def test_a_full_vocabulary_has_no_padding(tmp_path: Path) -> None:
    write_gpt2(tmp_path)
    assert "no padding rows" not in conventions(tmp_path)
    write_tokenizer(tmp_path, 11)
    assert "no padding rows" not in conventions(tmp_path)


@pytest.mark.parametrize(
    "tokenizer", ["{", "[]", "{}", '{"model": 3}', '{"model": {"vocab": {"a": "b"}}}']
)
def test_a_tokenizer_without_tokens_has_an_unknown_size(tokenizer: str, tmp_path: Path) -> None:
    assert vocabulary_size(tmp_path, None) is None
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    assert vocabulary_size(tmp_path, None) is None
