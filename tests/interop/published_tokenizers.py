"""Small tokenizers of the kinds that published models have, trained here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import (
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.conftest import make_text

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _SPACES
QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _SPACES
BEGIN, END, TURN, TOOL = (
    "<|begin|>",
    "<|end|>",
    "<|turn|>",
    "<tool>",
)  # the last is no special token
KINDS = ("gpt2", "smollm", "llama3", "llama3-no-words", "qwen2", "llama2", "gemma")
CHAT_TEMPLATE = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"


def published_tokenizer(kind: str) -> tokenizers.Tokenizer:
    """Of some 500 tokens, four of them added; one of them begins every prompt, but for Qwen's."""
    trained = _sentencepiece(kind) if kind in ("llama2", "gemma") else _byte_level(kind)
    trained.add_special_tokens([BEGIN, END, TURN])
    trained.add_tokens([tokenizers.AddedToken(TOOL, normalized=False)])
    if kind != "qwen2":
        trained.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, trained.token_to_id(BEGIN))]
        )
    return trained


def save_tokenizer(folder: Path, kind: str) -> None:
    """tokenizer.json and the files beside it, as transformers 5 writes them."""
    tokenizer = published_tokenizer(kind)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_settings(folder, tokenizer)


def save_settings(folder: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """The files beside tokenizer.json."""
    ids = {"bos_token_id": tokenizer.token_to_id(BEGIN), "eos_token_id": tokenizer.token_to_id(END)}
    (folder / "generation_config.json").write_text(json.dumps(ids))
    settings = {"bos_token": BEGIN, "eos_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _texts() -> Iterator[str]:
    yield make_text(3000)
    yield "don't we'll 1234567 x=12;\n\n  y = 'été' — 世界 🙂🙂\tend  \n" * 20


def _byte_level(kind: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    expression = QWEN2 if kind == "qwen2" else LLAMA3
    steps: dict[str, list[Any]] = {
        "gpt2": [plain],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), plain],
    }
    split = [pre_tokenizers.Split(Regex(expression), "isolated"), byte_level]
    chosen = steps.get(kind, split)
    backend.pre_tokenizer = chosen[0] if len(chosen) == 1 else pre_tokenizers.Sequence(chosen)
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(_texts(), trainer)
    return backend


def _sentencepiece(kind: str) -> tokenizers.Tokenizer:
    """A vocabulary in the order of its merges, and every merge that gives a token of it."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(vocab_size=480 - 259, show_progress=False)
    trained.train_from_iterator(_texts(), trainer)
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece, _ in learned]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [
        (piece[:i], piece[i:])
        for piece, _ in learned
        for i in range(1, len(piece))
        if piece[:i] in vocabulary and piece[i:] in vocabulary
    ]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    replace = normalizers.Replace(" ", "\u2581")
    if kind == "llama2":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
    else:
        backend.normalizer = replace
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend
