"""To what a model can be exported, in one line."""

from __future__ import annotations

from minilm.config import ModelConfig
from minilm.errors import InputError
from minilm.interop.gguf import find_supported
from minilm.interop.gguf_tokenizer import check_supported
from minilm.interop.huggingface import find_kept
from minilm.text.tokenizers import Tokenizer


def describe_exports(config: ModelConfig, tokenizer: Tokenizer) -> str:
    """Which class of transformers it becomes and whether llama.cpp runs it, or the first thing in the way."""
    try:
        class_name = find_kept(config, tokenizer).class_name
    except InputError as error:
        return f"no export to transformers or llama.cpp: {error}"
    try:
        find_supported(config)
        check_supported(tokenizer, config.vocab_size)
    except InputError as error:
        return f"exports to transformers ({class_name}), not to llama.cpp: {error}"
    return f"exports to transformers ({class_name}) and llama.cpp"
