"""README.md of an exported model, with the metadata block that the Hub reads.

Fields: huggingface/hub-docs, `modelcard.md`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from minilm.errors import InputError
from minilm.inspection.inspector import inspect_config
from minilm.interop.model_source import ModelSource
from minilm.render.markdown import component_table
from minilm.runs import files as run_files
from minilm.units import TOKENS_OF_ANSWERS, TOKENS_OF_CONVERSATIONS, counted

NAME = "README.md"
UNKNOWN_LICENSE = "unknown"  # one of the Hub's


@dataclass(frozen=True)
class Provenance:
    """The license of the weights and the model that they come from, as the Hub names them; empty: unknown."""

    license: str = ""
    base_model: str = ""

    def __post_init__(self) -> None:
        for option in ("license", "base_model"):
            value = getattr(self, option)
            if value and not _NAME.fullmatch(value):
                name = f"--{option.replace('_', '-')}"
                raise InputError(name, repr(value), "a name of the Hub: letters, digits, . _ - /")

    def or_that_of(self, folder: Path) -> Provenance:
        """With what the card of ``folder`` says of them, where this says nothing."""
        path = folder / NAME
        text = ""
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as stream:
                text = stream.read(_MOST_CHARACTERS)
        block = text.removeprefix("---\n").partition("\n---")[0] if text.startswith("---\n") else ""
        fields = {
            key: value
            for key, _, value in (line.partition(": ") for line in block.splitlines())
            if _NAME.fullmatch(value) and value != UNKNOWN_LICENSE
        }
        return Provenance(
            self.license or fields.get("license", ""),
            self.base_model or fields.get("base_model", ""),
        )

    def lines(self) -> list[str]:
        """The fields of the metadata block."""
        base = [f"base_model: {self.base_model}"] if self.base_model else []
        return [f"license: {self.license or UNKNOWN_LICENSE}", *base]


_MOST_CHARACTERS = 100_000  # of a card, whose metadata block comes first
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,120}")


def card(
    source: ModelSource,
    name: str,
    class_name: str,
    provenance: Provenance = Provenance(),
    *,
    sparse_format: str = "",
) -> str:
    """The text of the card: data, parameters, figures, and how to load the folder.

    ``sparse_format`` is that of matrices whose zeros are left out, which transformers 5 does not read.
    """
    summary = run_files.read_summary(source.folder) if source.is_run else {}
    return "\n".join(
        [
            _metadata(class_name, provenance.or_that_of(source.folder)),
            f"# {name}",
            "",
            *_introduction(source, class_name),
            *_training(summary),
            "## Parameters",
            "",
            component_table(inspect_config(name, source.config)),
            "",
            "## Loading",
            "",
            *(_sparse_loading(name, sparse_format) if sparse_format else _loading(name)),
            "",
        ]
    )


def _loading(name: str) -> list[str]:
    return [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        'prompt = tokenizer("The", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))",
        "```",
    ]


def _sparse_loading(name: str, sparse_format: str) -> list[str]:
    return [
        f"The layers' matrices are in {sparse_format}, which compressed-tensors reads up to version 0.14. "
        "Later ones do not, and transformers 5 leaves these matrices at random values. As a dense model:",
        "",
        f"    minilm convert {name} --to minilm --out {name}-dense",
    ]


def _metadata(class_name: str, provenance: Provenance) -> str:
    return "\n".join(
        [
            "---",
            *provenance.lines(),
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags:",
            "- minilm",
            f"- {class_name}",
            "---",
            "",
        ]
    )


def _introduction(source: ModelSource, class_name: str) -> list[str]:
    config = source.config
    return [
        f"A decoder-only transformer of {counted(config.num_layers, 'layer')}, "
        f"{counted(config.num_heads, 'head')} and width "
        f"{config.d_model}, for {config.context_length} tokens of a vocabulary of {config.vocab_size:,}; "
        f"{class_name} in transformers. Written by minilm.",
        "",
    ]


def _training(summary: dict[str, Any]) -> list[str]:
    """Data and figures; nothing of a summary that minilm did not write."""
    try:
        return _sections(summary)
    except (KeyError, TypeError, ValueError):
        return []


def _without_folders(source: str) -> str:
    """The name of a data source; where it was on the machine that trained on it is nobody's concern."""
    if os.path.isabs(source.removeprefix("hf:")):
        return PurePath(source).name
    parts = [part if _ON_HUB.match(part) else _FOLDERS.sub("", part) for part in source.split(" ")]
    return " ".join(parts)


_ON_HUB = re.compile(r"hf:(?![/\\.~]|[A-Za-z]:[/\\])")
_FOLDERS = re.compile(r"[^=]*[/\\](?=.)")


def _sections(summary: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    data = summary.get("data")
    if isinstance(data, dict):
        unit, of_answers = "tokens", ""
        if data.get("kind") == "conversations":
            unit = TOKENS_OF_CONVERSATIONS
            of_answers = (
                f"; {data['train_answer_tokens']:,} and {data['val_answer_tokens']:,} "
                f"{TOKENS_OF_ANSWERS}"
            )
        lines += [
            "## Data",
            "",
            f"{_without_folders(data['source'])}: {data['bytes']:,} bytes (SHA-256 `{data['sha256']}`), "
            f"{data['train_tokens']:,} {unit} for training and {data['val_tokens']:,} for validation"
            f"{of_answers}.",
            "",
        ]
    if summary.get("best_val_loss") is not None:  # a run may end before its first evaluation
        rows = {
            "steps": f"{summary['steps']:,}",
            "tokens seen": f"{summary['tokens']:,}",
            "validation loss, nats a token": _val_loss(summary),
            "validation, bits a byte": f"{summary['best_val_bits_per_byte']:.4f}",
            "stopped by": f"{summary['stopped_because']}",
        }
        lines += ["## Training", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in rows.items()]
        lines.append("")
    return lines


def _val_loss(summary: dict[str, Any]) -> str:
    """With the dtype that it was computed in, which older runs do not say."""
    dtype = f" ({summary['val_dtype']})" if "val_dtype" in summary else ""
    return f"{summary['best_val_loss']:.4f}{dtype}"
