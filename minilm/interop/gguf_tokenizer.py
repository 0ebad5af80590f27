"""A tokenizer in a GGUF file: tokens and their types, merges or scores, special tokens, chat template.

Keys: gguf's `SpecialVocab` and ggml-org/llama.cpp `convert_hf_to_gguf.py`. llama.cpp knows
pre-tokenizers by name, `src/llama-vocab.cpp`, where a tokenizer.json has the expression itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.errors import FormatError, TokenizerError
from minilm.formats.json_file import read_object
from minilm.interop.chat_end import with_chat_end
from minilm.runs.files import CONFIG, TOKENIZER_CONFIG
from minilm.text.chat_template import stored_templates
from minilm.text.tokenizers import BPETokenizer, ByteTokenizer, LibraryTokenizer, Tokenizer

if TYPE_CHECKING:
    import gguf

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_NUMBERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_AFTER_NUMBERS}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_AFTER_NUMBERS}"
# (expression, whether a word that is a token is taken whole) -> llama.cpp's name.
_SPLITS = {(_LLAMA3, True): "llama-bpe", (_LLAMA3, False): "dbrx", (_QWEN2, False): "qwen2"}
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
SPACE = "\u2581"  # SentencePiece's
# The list may not be empty: zero bytes, which no text has, would become a token that is none.
NO_MERGES = ["\u0100 \u0100"]


def _byte_level_step(*, use_regex: bool) -> dict[str, Any]:
    options = {"add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **options}


def _sequence(first: dict[str, Any], *, use_regex: bool) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [first, _byte_level_step(use_regex=use_regex)]}


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}}
    return _sequence(split | {"behavior": "Isolated", "invert": False}, use_regex=False)


# llama.cpp's name -> what tokenizer.json has, and whether a word that is a token is taken whole: the
# inverse of `pre_tokenizer_name`.
PRE_TOKENIZERS: dict[str, tuple[dict[str, Any], bool]] = {
    "gpt-2": (_byte_level_step(use_regex=True), False),
    "smollm": (_sequence({"type": "Digits", "individual_digits": True}, use_regex=True), False),
    **{name: (_split(expression), whole) for (expression, whole), name in _SPLITS.items()},
}


@dataclass(frozen=True)
class _Vocabulary:
    """How llama.cpp is to split and join a text; merges for its gpt2, the rest for its llama."""

    model: str
    pre_tokenizer: str
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    adds_space: bool = False


def add_tokenizer(
    writer: gguf.GGUFWriter, folder: Path, tokenizer: Tokenizer, vocab_size: int
) -> None:
    """Write what llama.cpp needs to encode and decode as ``tokenizer`` does, and to chat.

    Raises TokenizerError for one that it does not have, FormatError for a broken file beside it.
    """
    content = json.loads(tokenizer.to_shared_json())
    vocabulary = _vocabulary(tokenizer, content, vocab_size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_add_space_prefix(vocabulary.adds_space)
        writer.add_token_scores(vocabulary.scores)
    tokens, types = _tokens(content, vocab_size)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special_tokens(writer, folder, tokenizer, vocab_size)


def check_supported(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raises TokenizerError for one that llama.cpp does not have."""
    _vocabulary(tokenizer, json.loads(tokenizer.to_shared_json()), vocab_size)
    _prefix(tokenizer)


def _vocabulary(tokenizer: Tokenizer, content: Mapping[str, Any], vocab_size: int) -> _Vocabulary:
    """Raises TokenizerError for a tokenizer that llama.cpp does not have."""
    if isinstance(tokenizer, (ByteTokenizer, BPETokenizer)):
        return _byte_level(content, "gpt-2")
    if _is_byte_level(content):
        # Without merges, nothing depends on how a text is split.
        return _byte_level(content, pre_tokenizer_name(content) if _merges(content) else "gpt-2")
    if _is_sentencepiece(content):
        return _Vocabulary(
            "llama", "default", adds_space=_adds_space(content), scores=_scores(content, vocab_size)
        )
    raise _unsupported(tokenizer)


def _unsupported(tokenizer: Tokenizer) -> TokenizerError:
    return TokenizerError(
        "tokenizer.json",
        f"a {tokenizer.kind} tokenizer",
        "bytes or BPE, of bytes or as SentencePiece has it, which llama.cpp supports",
    )


def _tokens(content: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """The text and the type of every row of the model's vocabulary."""
    import gguf

    model, types = content["model"], gguf.TokenType
    tokens: dict[int, tuple[str, int]] = {}
    for text, number in model["vocab"].items():
        is_byte = model.get("byte_fallback") and BYTE_TOKEN.fullmatch(text)
        kind = types.BYTE if is_byte else types.NORMAL
        tokens[number] = text, types.UNKNOWN if text == model.get("unk_token") else kind
    for added in content.get("added_tokens", []):
        kind = types.CONTROL if added["special"] else types.USER_DEFINED
        if added["content"] == model.get("unk_token"):
            kind = types.UNKNOWN
        tokens[added["id"]] = added["content"], kind
    texts = {text for text, _ in tokens.values()}
    for number in range(vocab_size):
        if number not in tokens:
            text = f"[PAD{number}]"
            while text in texts:  # llama.cpp has each text once
                text += "_"
            tokens[number] = text, types.UNUSED
    return [tokens[i][0] for i in range(vocab_size)], [tokens[i][1] for i in range(vocab_size)]


def _byte_level(content: Mapping[str, Any], pre_tokenizer: str) -> _Vocabulary:
    normalizers = [step["type"] for step in _steps(content.get("normalizer"), "normalizers")]
    if normalizers not in ([], ["NFC"]):  # llama.cpp takes a text as it is, which mostly is in NFC
        raise TokenizerError(
            "tokenizer.json: normalizer",
            " and ".join(normalizers),
            "none or NFC, beside which llama.cpp splits bytes",
        )
    # A space in a merge would be read as the one between its parts; in byte-level names there is none.
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in _merges(content)]
    return _Vocabulary("gpt2", pre_tokenizer, merges or NO_MERGES)


def _merges(content: Mapping[str, Any]) -> list[Any]:
    merges: list[Any] = content["model"]["merges"]
    return merges


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    decoder = content.get("decoder") or {}
    return content["model"]["type"] == "BPE" and decoder.get("type") == "ByteLevel"


def pre_tokenizer_name(content: Mapping[str, Any]) -> str:
    """llama.cpp's name of the pre-tokenizer. Raises TokenizerError where it has none."""
    steps = _steps(content.get("pre_tokenizer"), "pretokenizers")
    whole_words = bool(content["model"].get("ignore_merges"))
    match [(step["type"], step) for step in steps]:
        case [("ByteLevel", last)] if _is_plain(last, use_regex=True) and not whole_words:
            return "gpt-2"
        case [("Digits", digits), ("ByteLevel", last)] if (
            digits["individual_digits"] and _is_plain(last, use_regex=True) and not whole_words
        ):
            return "smollm"
        case [("Split", split), ("ByteLevel", last)] if (
            _is_plain(last, use_regex=False)
            and split["behavior"] == "Isolated"
            and not split["invert"]
            and (split["pattern"].get("Regex"), whole_words) in _SPLITS
        ):
            return _SPLITS[split["pattern"]["Regex"], whole_words]
    raise TokenizerError(
        "tokenizer.json: pre_tokenizer",
        " and ".join(step["type"] for step in steps) or "none",
        "that of GPT-2, SmolLM, Llama 3 or Qwen, which llama.cpp is told by name",
    )


def is_qwen2(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is as transformers' Qwen2Tokenizer builds it."""
    try:
        name = pre_tokenizer_name(content)
    except TokenizerError:
        return False
    normalizer = content.get("normalizer") or {}
    return name == "qwen2" and normalizer.get("type") == "NFC" and _is_byte_level(content)


def _steps(section: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, in order."""
    if section is None:
        return []
    steps: list[dict[str, Any]] = section[name] if section["type"] == "Sequence" else [section]
    return steps


def _is_plain(byte_level: Mapping[str, Any], *, use_regex: bool) -> bool:
    return not byte_level["add_prefix_space"] and byte_level.get("use_regex", True) is use_regex


def _is_sentencepiece(content: Mapping[str, Any]) -> bool:
    return content["model"]["type"] == "BPE" and bool(content["model"].get("byte_fallback"))


def _adds_space(content: Mapping[str, Any]) -> bool:
    """Whether a text is encoded with a space in front. Raises TokenizerError for other changes to it."""
    adds_space = replaces = False
    steps = _steps(content["normalizer"], "normalizers")
    for step in steps + _steps(content["pre_tokenizer"], "pretokenizers"):
        match step:
            case {"type": "Prepend", "prepend": prepend} if prepend == SPACE:
                adds_space = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": space} if (
                space == SPACE
            ):
                replaces = True
            case {"type": "Split", "pattern": {"String": " "}} if replaces:
                pass  # there are no spaces left
            case {"type": "Metaspace", "replacement": space, "split": False} if space == SPACE:
                replaces = True
                adds_space = adds_space or step.get("prepend_scheme") != "never"
            case _:
                raise TokenizerError(
                    "tokenizer.json",
                    f"a step of type {step['type']}",
                    "spaces as SentencePiece has them, which llama.cpp supports",
                )
    return adds_space


def _scores(content: Mapping[str, Any], vocab_size: int) -> list[float]:
    """SentencePiece's, which order the merges: it merges whatever gives a token, the best score first.

    Raises TokenizerError where that is not what the listed merges do.
    """
    vocabulary = content["model"]["vocab"]
    ranks: dict[str, list[int]] = {}
    pairs = set()
    for rank, pair in enumerate(_merges(content)):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        pairs.add((left, right))
        ranks.setdefault(left + right, []).append(rank)
    special = {added["content"] for added in content.get("added_tokens", [])}
    for token in vocabulary:
        splits = {
            (token[:i], token[i:])
            for i in range(1, len(token))
            if token[:i] in vocabulary and token[i:] in vocabulary
        }
        if token not in special and not BYTE_TOKEN.fullmatch(token) and not splits <= pairs:
            raise _other_merges(token, "without the merge of two of its parts")
    for token, places in ranks.items():
        if places[-1] - places[0] + 1 != len(places):
            raise _other_merges(token, "with merges of several ranks")
    scores = [0.0] * vocab_size
    for token, places in ranks.items():
        scores[vocabulary[token]] = -float(places[0])
    return scores


def _other_merges(token: str, problem: str) -> TokenizerError:
    return TokenizerError(
        "tokenizer.json", f"{token!r} {problem}", "the merges of a SentencePiece model"
    )


def _add_special_tokens(
    writer: gguf.GGUFWriter, folder: Path, tokenizer: Tokenizer, vocab_size: int
) -> None:
    """What begins, ends and pads a text, as the files say and as ``tokenizer`` does; the chat template."""
    import gguf

    template = stored_templates(folder)
    for name in (TOKENIZER_CONFIG, CONFIG):  # gguf reads them without limits
        if (folder / name).is_file():
            read_object(folder / name)
    try:
        special = gguf.SpecialVocab(folder, n_vocab=vocab_size)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        got = f"what gguf rejects ({type(error).__name__}: {error})"
        raise FormatError(folder, got, "the tokenizer files of a Hugging Face model") from None
    ids = special.special_token_ids
    ends = [tokenizer.end_of_text, *sorted(tokenizer.other_ends)]
    saved = {"eos_token_id": [end for end in ends if end is not None]}
    others = with_chat_end(saved, folder, tokenizer)["eos_token_id"]
    if others:
        if ids.get("eos") not in others:
            ids["eos"] = others[0]
        # llama.cpp stops at these three, and at others that it knows by name.
        others = [end for end in others if end != ids["eos"]]
        ids |= dict(zip(("eot", "eom"), others, strict=False))
        if not isinstance(tokenizer, LibraryTokenizer):
            ids.setdefault("bos", ids["eos"])
            ids.setdefault("pad", ids["eos"])
    prefix = _prefix(tokenizer)
    if prefix:
        ids["bos"] = prefix[0]
    special.add_special_token = {"bos": bool(prefix)}
    special.chat_template = template
    special.add_to_gguf(writer, quiet=True)


def _prefix(tokenizer: Tokenizer) -> list[int]:
    """What a prompt begins with. Raises TokenizerError for more than llama.cpp's one token."""
    prompt, text = tokenizer.encode_prompt("a"), tokenizer.encode("a").tolist()
    prefix = prompt[: len(prompt) - len(text)]
    if len(prefix) > 1 or prompt != prefix + text:
        raise TokenizerError(
            "tokenizer.json: post_processor",
            f"{len(prompt) - len(text)} tokens beside a prompt",
            "at most one before it, which llama.cpp supports",
        )
    return prefix
