"""What training says at its start about exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from minilm.config import ModelConfig
from minilm.errors import TokenizerError
from minilm.interop.convert import convert
from minilm.interop.exports import describe_exports
from minilm.text.byte_vocabulary import BYTE_VOCABULARY
from minilm.text.tokenizer_file import load_tokenizer
from minilm.text.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from minilm.training.train import train
from tests.conftest import TINY_MODEL, TINY_SETTINGS, make_text
from tests.interop.shapes import GATED, NO_BIASES, TINY, make_run

QWEN2 = GATED | NO_BIASES | {"qkv_bias": True}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (TINY, "exports to transformers (GPTNeoXForCausalLM) and llama.cpp"),
        (QWEN2, "exports to transformers (LlamaForCausalLM) and llama.cpp"),
        (
            TINY | {"rope_scaling": "llama3"},
            "exports to transformers (GPTNeoXForCausalLM), not to llama.cpp: model.rope_scaling: "
            "llama3, expected none or linear, for llama.cpp's gptneox",
        ),
        (TINY | {"ngram": 3}, "no export to transformers or llama.cpp: model.ngram: 3, which no"),
        (
            QWEN2 | {"sliding_window": 4},
            "no export to transformers or llama.cpp: tokenizer.json: a byte tokenizer, expected",
        ),
    ],
)
def test_one_line_for_each_shape(fields: dict[str, Any], line: str) -> None:
    text = describe_exports(ModelConfig(**fields), ByteTokenizer())
    assert text.startswith(line)
    assert "\n" not in text


def test_a_tokenizer_that_llama_cpp_has_not() -> None:
    tokenizer: Tokenizer = CharTokenizer(["a", "b"])
    text = describe_exports(ModelConfig(**TINY), tokenizer)
    assert "(GPTNeoXForCausalLM), not to llama.cpp: tokenizer.json: a char tokenizer" in text


def unigram() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0))


def spelled_bytes() -> tokenizers.Tokenizer:
    """Bytes with a merge, before which the text is split as no pre-tokenizer of llama.cpp does."""
    vocabulary = {token: number for number, token in enumerate([*BYTE_VOCABULARY, "ab"])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return backend


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (unigram(), "tokenizer.json: a library tokenizer, expected bytes or BPE"),
        (spelled_bytes(), "tokenizer.json: pre_tokenizer: ByteLevel, expected that of GPT-2"),
    ],
)
def test_a_tokenizer_of_the_library_that_llama_cpp_has_not(
    tmp_path: Path, backend: tokenizers.Tokenizer, reason: str
) -> None:
    fields = TINY | {"vocab_size": 300}
    source = make_run(tmp_path / "run", fields)
    backend.save(str(source / "tokenizer.json"))
    tokenizer = load_tokenizer(source / "tokenizer.json")
    text = describe_exports(ModelConfig(**fields), tokenizer)
    assert text.startswith(
        f"exports to transformers (GPTNeoXForCausalLM), not to llama.cpp: {reason}"
    )
    pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
    with pytest.raises(TokenizerError, match=reason.removeprefix("tokenizer.json")):
        convert(source, "gguf", tmp_path / "model.gguf")


def test_training_says_it_at_its_start(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.txt").write_text(make_text(600))
    caplog.set_level("INFO", logger="minilm")
    train(
        data=str(tmp_path / "text.txt"),
        run_dir=tmp_path / "run",
        tokenizer="byte",
        model=TINY_MODEL,
        settings=TINY_SETTINGS | {"device": "cpu"},
        cache=cache,
    )
    said = [record.getMessage() for record in caplog.records]
    line = "exports to transformers (GPTNeoXForCausalLM) and llama.cpp"
    assert said.count(line) == 1
    assert said.index(line) < next(i for i, text in enumerate(said) if text.startswith("step "))
