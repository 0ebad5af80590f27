"""README.md of an exported model, with the metadata block that the Hub reads.

Fields: huggingface/hub-docs, `modelcard.md`.
"""

from __future__ import annotations

from typing import Any

from minilm.inspection.inspector import inspect
from minilm.interop.model_source import ModelSource
from minilm.render.markdown import component_table
from minilm.runs import files as run_files


def card(source: ModelSource, name: str, class_name: str) -> str:
    """The text of the card: data, parameters, figures, and how to load the folder."""
    summary = run_files.read_summary(source.folder) if source.is_run else {}
    return "\n".join(
        [
            _metadata(class_name),
            f"# {name}",
            "",
            *_introduction(source, class_name),
            *_training(summary),
            "## Parameters",
            "",
            component_table(inspect(str(source.folder))),
            "",
            "## Loading",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            'prompt = tokenizer("The", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))",
            "```",
            "",
        ]
    )


def _metadata(class_name: str) -> str:
    return "\n".join(
        [
            "---",
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
        f"A decoder-only transformer of {config.num_layers} layers, {config.num_heads} heads and width "
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


def _sections(summary: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    data = summary.get("data")
    if isinstance(data, dict):
        lines += [
            "## Data",
            "",
            f"{data['source']}: {data['bytes']:,} bytes (SHA-256 `{data['sha256']}`), "
            f"{data['train_tokens']:,} tokens of training and {data['val_tokens']:,} of validation.",
            "",
        ]
    if "best_val_loss" in summary:
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
