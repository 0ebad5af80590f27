"""The tokenizer of a GGUF file as the files of a Hugging Face folder: the inverse of `gguf_tokenizer`.

What a file leaves open is as in ggml-org/llama.cpp, `src/llama-vocab.cpp`: the defaults, and which names
of pre-tokenizers are of one expression. Which merges SentencePiece makes is as in huggingface/transformers
`convert_slow_tokenizer.py`: every one that gives a token, the best score first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minilm import files
from minilm.config import ModelConfig
from minilm.errors import FormatError, TokenizerError
from minilm.formats.huggingface import GENERATION_CONFIG
from minilm.formats.json_file import MAX_JSON_BYTES
from minilm.interop.gguf_tokenizer import BYTE_TOKEN, NO_MERGES, PRE_TOKENIZERS, SPACE
from minilm.runs import files as run_files
from minilm.safe_text import short_repr
from minilm.text.tokenizer_file import load_tokenizer

_PREFIX = "tokenizer.ggml."
_NOUNS = {str: "text", int: "whole number", float: "float", bool: "truth value", list: "list"}
_TEMPLATE, _DEFAULT = "tokenizer.chat_template", "default"  # behind a dot: the name of another one
# gguf's TokenType.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
# Other names of the same expression.
_ALIASES = {
    "gpt-2": ("phi-2", "mpt", "olmo", "exaone4", "trillion", "gigachat"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3"),
    "dbrx": ("smaug-bpe",),
    "qwen2": ("deepseek-r1-qwen", "megrez", "stablelm2"),
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}
_NFC = ("qwen2", "deepseek-r1-qwen")  # the published tokenizers of these names begin with it
_BEGINS_BY_DEFAULT = "llama-bpe"
# Of the squares of the lengths of all tokens, which the text of all merges is bounded by; a vocabulary of
# 262,144 pieces as long as Gemma's has a fifth.
_LONGEST_MERGES = 10**8
_SPECIAL = {
    "bos": "bos",
    "eos": "eos",
    "eot": "eot",
    "eom": "eom",
    "pad": "padding",
    "unk": "unknown",
}


def write_tokenizer(
    path: Path, metadata: Mapping[str, Any], folder: Path, config: ModelConfig
) -> None:
    """Write tokenizer.json, generation_config.json, tokenizer_config.json and the chat template.

    Raises TokenizerError for a tokenizer that has no counterpart, FormatError for a broken one.
    """
    keys = _Keys(path, metadata)
    kind = keys.value("model", str)
    vocabulary = _read_vocabulary(keys, config.vocab_size)
    if kind == "gpt2":
        content = _byte_level(vocabulary)
    elif kind == "llama":
        content = _sentencepiece(vocabulary)
    else:
        raise TokenizerError(path, f"{_PREFIX}model {short_repr(kind)}", "gpt2 or llama")
    special = _special_tokens(vocabulary)
    files.write_json(folder / run_files.TOKENIZER, content)
    files.write_json(folder / GENERATION_CONFIG, _generation_config(special))
    settings = _tokenizer_config(vocabulary, special, config.context_length)
    templates = _chat_templates(path, metadata)
    if templates.keys() == {_DEFAULT}:
        files.write_bytes(folder / run_files.CHAT_TEMPLATE, templates[_DEFAULT].encode())
    elif templates:
        settings["chat_template"] = [
            {"name": name, "template": text} for name, text in templates.items()
        ]
    files.write_json(folder / run_files.TOKENIZER_CONFIG, settings)
    try:
        load_tokenizer(folder / run_files.TOKENIZER, config.vocab_size)
    except (FormatError, TokenizerError) as error:
        raise TokenizerError(f"{path}: tokenizer", error.got, error.expected) from None


class _Keys(NamedTuple):
    """The metadata of ``path``; what is asked for are keys behind `tokenizer.ggml.`."""

    path: Path
    metadata: Mapping[str, Any]

    def value(self, key: str, kind: type, default: Any = None) -> Any:
        """Raises FormatError for a value of another type, or none without a default."""
        name = _PREFIX + key
        value = self.metadata.get(name, default)
        if type(value) is not kind:
            got = f"no {name}" if value is None else f"{name} {short_repr(value)}"
            raise FormatError(self.path, got, f"a {_NOUNS[kind]}")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """A list of one type. Raises FormatError for another one."""
        values: list[Any] = self.value(key, list)
        if any(type(value) is not kind for value in values):
            got = f"{_PREFIX}{key} {short_repr(values)}"
            raise FormatError(self.path, got, f"a list of {_NOUNS[kind]}s")
        return values


class _Vocabulary(NamedTuple):
    """The text and the type of every token, and the numbers of those in use."""

    keys: _Keys
    tokens: list[str]
    types: list[int]
    numbers: dict[str, int]

    @property
    def path(self) -> Path:
        return self.keys.path

    def added(self) -> list[dict[str, Any]]:
        """The tokens that a text is searched for before it is split."""
        options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return [
            {"id": number, "content": text, **options, "special": kind != _USER_DEFINED}
            for number, (text, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]


def _read_vocabulary(keys: _Keys, vocab_size: int) -> _Vocabulary:
    """Raises FormatError where the tokens are not those of the model."""
    tokens, types = keys.items("tokens", str), keys.items("token_type", int)
    for name, count in (("tokens", len(tokens)), ("token_type", len(types))):
        if count != vocab_size:
            raise FormatError(
                keys.path, f"{count} {_PREFIX}{name}", f"{vocab_size}, as the model has"
            )
    used = [
        (text, i)
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != _UNUSED
    ]
    numbers = dict(used)
    if len(numbers) < len(used):
        twice = next(text for text, number in used if numbers[text] != number)
        raise FormatError(keys.path, f"the token {short_repr(twice)} twice", "each token once")
    return _Vocabulary(keys, tokens, types, numbers)


def _byte_level(vocabulary: _Vocabulary) -> dict[str, Any]:
    pre = vocabulary.keys.value("pre", str)
    if pre not in _NAMES:
        known = ", ".join(_NAMES)
        raise TokenizerError(vocabulary.path, f"{_PREFIX}pre {short_repr(pre)}", f"one of {known}")
    pre_tokenizer, takes_whole_words = PRE_TOKENIZERS[_NAMES[pre]]
    merges = vocabulary.keys.items("merges", str)
    # Its place holder where there are none.
    listed = [] if merges == NO_MERGES else [_parts(vocabulary, merge) for merge in merges]
    begins = vocabulary.keys.value("add_bos_token", bool, _NAMES[pre] == _BEGINS_BY_DEFAULT)
    return {
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "NFC"} if pre in _NFC else None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _post_processor(vocabulary, begins=begins),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "ignore_merges": takes_whole_words,
            "vocab": vocabulary.numbers,
            "merges": listed,
        },
    }


def _parts(vocabulary: _Vocabulary, merge: str) -> tuple[str, str]:
    """The two tokens of a merge. Raises FormatError where one of them, or what it gives, is none."""
    left, _, right = merge[1:].partition(" ")
    left = merge[:1] + left
    if not {left, right, left + right} <= vocabulary.numbers.keys():
        raise FormatError(
            vocabulary.path, f"the merge {short_repr(merge)}", "two tokens that give a third"
        )
    return left, right


def _sentencepiece(vocabulary: _Vocabulary) -> dict[str, Any]:
    numbers, types = vocabulary.numbers, vocabulary.types
    absent = [name for i in range(256) if (name := f"<0x{i:02X}>") not in numbers]
    if absent:
        raise TokenizerError(vocabulary.path, f"no token {absent[0]}", "one for every byte")
    unknown = [vocabulary.tokens[i] for i, kind in enumerate(types) if kind == _UNKNOWN]
    adds_space = vocabulary.keys.value("add_space_prefix", bool, True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}
        if adds_space
        else replace,
        "pre_tokenizer": None,
        "post_processor": _post_processor(
            vocabulary, begins=vocabulary.keys.value("add_bos_token", bool, True)
        ),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([strip] if adds_space else []),
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": unknown[0] if unknown else None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": numbers,
            "merges": _merges(vocabulary),
        },
    }


def _merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """Every pair of tokens that gives one, in the order of the scores.

    Raises TokenizerError where two tokens have one score: then the place in a text decides, which
    a list of merges has not.
    """
    numbers = vocabulary.numbers
    scores = vocabulary.keys.items("scores", float)
    if len(scores) != len(vocabulary.tokens) or not all(map(math.isfinite, scores)):
        got = f"{len(scores)} {_PREFIX}scores"
        raise FormatError(vocabulary.path, got, "a finite one for each token")
    longest = max(map(len, numbers))
    if sum(len(token) ** 2 for token in numbers) > _LONGEST_MERGES:
        raise TokenizerError(
            vocabulary.path, f"tokens of up to {longest} characters", "shorter ones"
        )
    pairs: dict[int, list[tuple[str, str]]] = {}
    for token, number in numbers.items():
        if vocabulary.types[number] != _NORMAL or BYTE_TOKEN.fullmatch(token):
            continue
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        parts = [(a, b) for a, b in splits if a in numbers and b in numbers]
        if parts:
            pairs[number] = sorted(parts, key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
    ordered = sorted(pairs, key=lambda number: -scores[number])
    for first, second in itertools.pairwise(ordered):
        if scores[first] == scores[second]:
            texts = " and ".join(short_repr(vocabulary.tokens[i]) for i in (first, second))
            raise TokenizerError(vocabulary.path, f"one score of {texts}", "a score for each token")
    return [pair for number in ordered for pair in pairs[number]]


def _special_tokens(vocabulary: _Vocabulary) -> dict[str, int]:
    """Which tokens begin, end and pad a text. Raises FormatError for numbers of none."""
    special = {}
    for name, key in _SPECIAL.items():
        number = vocabulary.keys.value(f"{key}_token_id", int, -1)
        if number == -1:
            continue
        if not 0 <= number < len(vocabulary.tokens) or vocabulary.types[number] == _UNUSED:
            raise FormatError(vocabulary.path, f"{_PREFIX}{key}_token_id {number}", "a token's")
        special[name] = number
    return special


def _post_processor(vocabulary: _Vocabulary, *, begins: bool) -> dict[str, Any] | None:
    """What stands around a text: None where nothing does."""
    ends = vocabulary.keys.value("add_eos_token", bool, False)
    special = _special_tokens(vocabulary)
    template: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {}
    for name, is_added, place in (("bos", begins, 0), ("eos", ends, 2)):
        if not is_added:
            continue
        if name not in special:
            raise FormatError(
                vocabulary.path, f"no {_PREFIX}{name}_token_id", "one to add to texts"
            )
        text = vocabulary.tokens[special[name]]
        template.insert(place, {"SpecialToken": {"id": text, "type_id": 0}})
        tokens[text] = {"id": text, "ids": [special[name]], "tokens": [text]}
    if not tokens:
        return None
    second = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [*template, second],
        "special_tokens": tokens,
    }


def _chat_templates(path: Path, metadata: Mapping[str, Any]) -> dict[str, str]:
    """By their names. Raises FormatError for what is no text, or too much of it."""
    names = {_TEMPLATE: _DEFAULT}
    names |= {key: key[len(_TEMPLATE) + 1 :] for key in metadata if key.startswith(f"{_TEMPLATE}.")}
    templates = {name: metadata[key] for key, name in names.items() if key in metadata}
    for name, text in templates.items():
        if not isinstance(text, str) or len(text) > MAX_JSON_BYTES // 8:
            got = f"{_TEMPLATE} {short_repr(name)} that is no text, or over {MAX_JSON_BYTES // 8}"
            raise FormatError(path, got, "a chat template")
    return templates


def _generation_config(special: Mapping[str, int]) -> dict[str, Any]:
    """Every token that ends a text, the first one first."""
    ends = list(dict.fromkeys(special[name] for name in ("eos", "eot", "eom") if name in special))
    ids: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
    return ids | {f"{name}_token_id": special[name] for name in ("bos", "pad") if name in special}


def _tokenizer_config(
    vocabulary: _Vocabulary, special: Mapping[str, int], context_length: int
) -> dict[str, Any]:
    names = {name: vocabulary.tokens[number] for name, number in special.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        **{f"{name}_token": names[name] for name in ("bos", "eos", "pad", "unk") if name in names},
    }
